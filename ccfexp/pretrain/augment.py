"""Augmentation on tensors: what a camera or a crop may change without changing the label."""

import torch
from torch import Tensor
from torch.nn import functional


def jitter_colour(x_B3HW: Tensor, generator: torch.Generator, strength: float = 0.15) -> Tensor:
    """Random exposure, contrast, white balance and noise; images in [-1, 1]."""
    batch = x_B3HW.shape[0]

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    gain = 1 + strength * normal(1, 1, 1) + 0.4 * strength * normal(3, 1, 1)
    x = (x_B3HW + 1) * gain - 1 + 0.5 * strength * normal(1, 1, 1)
    noise = 0.03 * torch.rand(batch, 1, 1, 1, generator=generator)
    return (x + noise * normal(*x_B3HW.shape[1:])).clamp(-1, 1)


def jitter_crop(
    x_B3HW: Tensor, generator: torch.Generator, shift: float = 0.04, zoom: float = 0.05, turn: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Random similarity; returns the images and the affine [B,2,3] that maps output to input in [-1, 1] coordinates."""
    batch = x_B3HW.shape[0]
    angle = turn * torch.randn(batch, generator=generator)
    scale = 1 + zoom * torch.randn(batch, generator=generator)
    offset = 2 * shift * torch.randn(batch, 2, generator=generator)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, offset[:, 0]], 1), torch.stack([sin, cos, offset[:, 1]], 1)], 1)
    grid = functional.affine_grid(theta, list(x_B3HW.shape), align_corners=False)
    moved = functional.grid_sample(x_B3HW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved, theta


def move_landmarks(landmark_B682: Tensor, theta_B23: Tensor) -> Tensor:
    """Landmarks (fractions of the side) after ``jitter_crop``."""
    centred = landmark_B682 * 2 - 1
    linear, offset = theta_B23[:, :, :2], theta_B23[:, :, 2]
    moved: Tensor = torch.linalg.solve(linear, (centred - offset[:, None]).transpose(1, 2)).transpose(1, 2)
    return (moved + 1) / 2
