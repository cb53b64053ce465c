"""Photographs spoilt on purpose: what an examiner of quality has to notice."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]

MASKS = ((150, 200, 215), (225, 228, 230), (35, 36, 40), (120, 190, 170), (175, 205, 235))
GLOVES = ((90, 140, 200), (200, 200, 200), (110, 80, 170), (40, 40, 45), (60, 160, 150))
_FINE = 4  # the outline is drawn at four times the size and smoothed

Where = Literal["eye", "mouth", "cheek"]


def bar(image_HW3: Picture, point_682: Array, rng: np.random.Generator) -> Picture:
    """A black bar over both eyes."""
    right, left = point_682[36], point_682[45]
    middle, along = (right + left) / 2, left - right
    across = np.array([-along[1], along[0]])
    half, thick = 0.5 + rng.uniform(0.1, 0.3), rng.uniform(0.16, 0.3)
    corners = [middle + a * half * along + b * thick * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return _covered(image_HW3, np.array(corners), np.full(3, rng.uniform(0, 25)), rng)


def mask(image_HW3: Picture, point_682: Array, rng: np.random.Generator) -> Picture:
    """A surgical or cloth mask from the bridge of the nose to the chin, with folds and shade."""
    top = point_682[28] + (point_682[29] - point_682[28]) * rng.uniform()
    edge = [(point_682[2] + top) / 2 + (0, 1), top, (point_682[14] + top) / 2 + (0, 1)]
    outline = np.array([point_682[2], *edge, *point_682[14:2:-1]])
    y, x = np.mgrid[0:1:112j, 0:1:112j]
    shade = 1 + 0.08 * np.sin(2 * np.pi * y * rng.uniform(4, 9)) + 0.3 * rng.normal() * (x - 0.5)
    colour = np.array(MASKS[rng.integers(len(MASKS))]) * rng.uniform(0.6, 1.05)
    return _covered(image_HW3, outline, shade[..., None] * colour, rng)


def hand(
    image_HW3: Picture,
    point_682: Array,
    rng: np.random.Generator,
    where: Where,
    colour: tuple[int, int, int] | None = None,
) -> Picture:
    """An ellipse of the colour of a hand: the person's own skin in another light, or a glove."""
    right, left, mouth = point_682[36:42].mean(0), point_682[42:48].mean(0), point_682[48:68].mean(0)
    first = rng.uniform() < 0.5
    centre = {
        "eye": right if first else left,
        "mouth": mouth,
        "cheek": (point_682[4] + point_682[31]) / 2 if first else (point_682[12] + point_682[35]) / 2,
    }[where]
    w = np.linalg.norm(point_682[45] - point_682[36])
    centre = centre + rng.normal(0, 0.05 * w, 2)
    long, short, turn = rng.uniform(0.4, 0.6) * w, rng.uniform(0.25, 0.4) * w, rng.uniform(0, np.pi)
    t = np.linspace(0, 2 * np.pi, 60)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = centre + np.stack([long * np.cos(t), short * np.sin(t)], 1) @ turned.T
    y, x = np.mgrid[-0.5:0.5:112j, -0.5:0.5:112j]
    shade = rng.uniform(0.75, 1.25) * (1 + 0.25 * rng.normal() * x + 0.15 * rng.normal() * y)
    own = np.array(colour) if colour is not None else _own_skin(image_HW3, point_682)
    return _covered(image_HW3, outline, shade[..., None] * own * (1 + rng.normal(0, 0.04, 3)), rng)


def blurred(image_HW3: Picture, sigma: float, rng: np.random.Generator, noise: float = 2.0) -> Picture:
    """Out of focus by a Gaussian of ``sigma`` pixels, with the sensor's noise on top."""
    soft = gaussian_filter(image_HW3.astype(np.float64), (sigma, sigma, 0))
    return _picture(soft + rng.normal(0, noise, soft.shape))


def exposed(image_HW3: Picture, gain: float, rng: np.random.Generator) -> Picture:
    """``gain`` times the light, with the sensor's noise on top."""
    return _picture(image_HW3 * gain + rng.normal(0, 1.5, image_HW3.shape))


def _own_skin(image_HW3: Picture, point_682: Array) -> Array:
    """The median colour between the eyes and the mouth."""
    top, bottom = int(point_682[29, 1]), int(point_682[50, 1])
    left, right = int(point_682[36, 0]), int(point_682[45, 0])
    return np.asarray(np.median(image_HW3[top:bottom, left:right], axis=(0, 1)))


def _covered(image_HW3: Picture, outline_N2: Array, colour: Array, rng: np.random.Generator) -> Picture:
    """Paint a polygon with a soft edge."""
    height, width, _ = image_HW3.shape
    stencil = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(stencil).polygon([(float(x) * _FINE, float(y) * _FINE) for x, y in outline_N2], fill=255)
    soft = stencil.filter(ImageFilter.GaussianBlur(2)).resize((width, height), Image.Resampling.BOX)
    opaque = np.asarray(soft)[..., None] / 255
    noise = rng.normal(0, 1.5, image_HW3.shape)
    return _picture(image_HW3 * (1 - opaque) + (colour + noise) * opaque)


def _picture(colour_HW3: Array) -> Picture:
    return np.asarray(np.clip(colour_HW3, 0, 255), np.uint8)
