"""Paired metrics against definitions written out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import correlate1d

from ccfexp.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    finite_mean,
    landmark_nme,
    psnr,
    spearman,
    ssim,
)
from tests.ccfexp.evaluation.faces import drawn_face

if TYPE_CHECKING:
    from ccfexp.evaluation.measures import Array


def pictures(seed: int, n: int = 3, size: int = 24) -> torch.Tensor:
    """Random pictures [n, 3, size, size] in [0, 1]."""
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_psnr_by_hand() -> None:
    """An error of 0.1 everywhere in a range of 1 is 20 dB, in a range of 2 it is 20 + 6.02 dB."""
    target = torch.full((2, 3, 16, 16), 0.5)
    image = target + torch.tensor([0.1, -0.01])[:, None, None, None]

    np.testing.assert_allclose([20, 40], psnr(image, target, data_range=1.0), atol=1e-4)
    np.testing.assert_allclose([26.0206, 46.0206], psnr(image, target, data_range=2.0), atol=1e-4)


def test_psnr_and_ssim_are_per_case() -> None:
    """A batch gives what its pictures give alone: no mean over the batch hides in the value."""
    image, target = pictures(0), pictures(1)

    for metric in (psnr, ssim):
        alone = [metric(image[i : i + 1], target[i : i + 1], data_range=1.0)[0] for i in range(3)]
        np.testing.assert_allclose(alone, metric(image, target, data_range=1.0), rtol=1e-9)


def test_ssim_against_the_definition() -> None:
    """Wang et al. 2004 written with scipy: Gaussian 11 x 11, sigma 1.5, K = .01, .03; mirrored borders."""
    image, target = pictures(2, n=1), pictures(3, n=1)
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    g /= g.sum()

    def blur(a: Array) -> Array:
        return np.asarray(correlate1d(correlate1d(a, g, axis=-1, mode="mirror"), g, axis=-2, mode="mirror"))

    x, y = image.double().numpy(), target.double().numpy()
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()

    np.testing.assert_allclose([expected], ssim(image, target, data_range=1.0), atol=1e-6)


def test_ssim_depends_on_the_stated_range_only() -> None:
    """The same pictures in 8-bit values with their range give the same similarity."""
    image, target = pictures(4), pictures(5)

    np.testing.assert_allclose(
        ssim(image, target, data_range=1.0), ssim(255 * image, 255 * target, data_range=255.0), rtol=1e-5
    )


def test_identical_pictures_are_the_ceiling() -> None:
    """The row of true targets: SSIM 1 and no finite PSNR."""
    image = pictures(6)

    np.testing.assert_allclose([1, 1, 1], ssim(image, image, data_range=1.0))
    assert np.isposinf(psnr(image, image, data_range=1.0)).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_unequal_pictures_and_impossible_range_are_refused(metric: type) -> None:
    """The error names both shapes, or the range."""
    with pytest.raises(ValueError, match=r"\[3, 3, 24, 24\] and \[2, 3, 24, 24\]"):
        metric(pictures(0), pictures(0, n=2), data_range=1.0)
    with pytest.raises(ValueError, match="data_range=0"):
        metric(pictures(0), pictures(1), data_range=0)


def test_nme_by_hand() -> None:
    """All points off by 4.2 mm where the outer eye corners are 84 mm apart: 5 %."""
    true = np.stack([drawn_face()] * 2)
    predicted = true + np.array([[4.2, 0.0], [0.0, 0.0]])[:, None]

    np.testing.assert_allclose([0.05, 0], landmark_nme(predicted, true), atol=1e-12)


def test_nme_is_normalised_by_the_true_face() -> None:
    """A prediction twice as large must not halve its own error."""
    true = drawn_face()
    error = landmark_nme(2 * true, true)

    np.testing.assert_allclose(np.linalg.norm(true, axis=-1).mean() / 84, error)
    assert error > landmark_nme(true, 2 * true)


def test_nme_without_an_eye_distance_is_nan_and_shapes_are_checked() -> None:
    """A face of one point has no size to compare with."""
    assert np.isnan(landmark_nme(drawn_face(), np.zeros((68, 2))))
    with pytest.raises(ValueError, match=r"68, 2"):
        landmark_nme(drawn_face(), drawn_face()[:-1])


def test_balanced_accuracy_does_not_reward_the_majority() -> None:
    """Everybody called left: 80 % accuracy, but a third of the three sides recognised."""
    true = np.array(["left"] * 8 + ["right", "none"])
    predicted = np.array(["left"] * 10)

    assert accuracy(predicted, true) == pytest.approx(0.8)
    assert balanced_accuracy(predicted, true) == pytest.approx(1 / 3)
    assert balanced_accuracy(true, true) == 1


def test_balanced_accuracy_counts_only_sides_that_occur() -> None:
    """A side predicted but never true is an error, not a class."""
    assert balanced_accuracy(np.array(["left", "none"]), np.array(["left", "left"])) == pytest.approx(0.5)
    assert np.isnan(balanced_accuracy(np.array([]), np.array([])))
    assert np.isnan(accuracy(np.array([]), np.array([])))


def test_spearman_sees_order_only_and_handles_ties() -> None:
    """A monotone distortion is perfect; ties get mean ranks."""
    grade = np.array([1.0, 2, 3, 4, 5, 6])

    assert spearman(np.exp(grade), grade) == pytest.approx(1)
    assert spearman(-grade, grade) == pytest.approx(-1)
    # Ranks 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5, variances 4.5 and 5.
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_spearman_agrees_with_scipy() -> None:
    """Many ties, as House-Brackmann grades have."""
    rng = np.random.default_rng(0)
    grade = rng.integers(1, 7, 200).astype(float)
    seen = np.round(grade + rng.normal(0, 1, 200))

    assert spearman(seen, grade) == pytest.approx(stats.spearmanr(seen, grade).statistic, abs=1e-12)


def test_spearman_is_undefined_for_constants_and_skips_missing_values() -> None:
    """No warning and no zero in place of an unknown."""
    assert np.isnan(spearman(np.ones(5), np.arange(5)))
    assert np.isnan(spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert spearman(np.array([1, 2, np.nan, 3]), np.array([1, 2, 0, 3])) == pytest.approx(1)


def test_finite_mean() -> None:
    """NaN marks a case without a value."""
    assert finite_mean(np.array([1.0, np.nan, 3.0])) == 2
    assert np.isnan(finite_mean(np.array([np.nan])))
    assert np.isposinf(finite_mean(np.array([1.0, np.inf])))
