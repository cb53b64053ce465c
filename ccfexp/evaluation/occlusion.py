"""What hides a face: a bar, a mask, a hand, a glove. Judged against this face's own skin and its own edges.

No model of what faces look like takes part, only two questions. Has a region the colour of this person's skin, the
shading left out? And are there edges where eyes and lips always have some? The first finds what is not of skin colour,
the second what is, as long as it covers an eye or the mouth. Not found are a hand of the person's own colour on a
cheek, and what is so bright that no hue is left of it.

Distances are shares of `w`, the distance between the outer eye corners. Left and right are the patient's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIGHT_EYE, LEFT_EYE, MOUTH = tuple(range(36, 42)), tuple(range(42, 48)), tuple(range(48, 60))
_OUTLINE = (*range(17), *range(26, 16, -1))  # jaw, then brows from the left to the right
_DARKNESS = 6.0  # added to 0..255 before a logarithm: the noise of dark pixels has no colour
_CLIPPED = 250
_ATYPICAL_CHROMA = 0.22  # distance from the skin's log R/G and log G/B; lips of phantoms lie just beyond
_ATYPICAL_LUMA = 0.6  # natural logarithm: 1.8 times as bright or as dark as the skin, for what has shape but no shading


@dataclass(frozen=True)
class Occlusion:
    """What is seen of a face.

    Attributes:
        eyes, nose, mouth, cheeks: share of the region's pixels whose colour is atypical of this face's own skin, in
            [0, 1]; NaN where the region lies outside the picture. Eyes and mouths are never all skin: their shares are
            for people to read, the edges decide. Of nose and cheeks only the hue counts, because they are shaded.
        eye_edges: the lesser of both eyes' mean gradient of the logarithm of brightness, per pixel.
        mouth_edges: the same of the lips.
        bar: one even colour from outer eye corner to outer eye corner.
        mask_chroma: how far the hue below the nose differs from the hue beside and above it.
    """

    eyes: float
    nose: float
    mouth: float
    cheeks: float
    eye_edges: float
    mouth_edges: float
    bar: bool
    mask_chroma: float


MAX_BAR_SPREAD = 0.045
"""Standard deviation of log brightness along a bar. 400 clean phantoms: at least 0.08; 200 bars: at most 0.03."""

MIN_BAR_LUMA, MIN_BAR_CHROMA = 0.4, 0.18
"""A bar differs from the skin below it by either: log brightness, or hue."""


def occlusion(image_HW3: NDArray[np.uint8], point_682: NDArray[Any]) -> Occlusion:
    """Judge an aligned crop [H, W, 3] with its landmarks [68, 2] in pixels of the crop."""
    point_682 = np.asarray(point_682, np.float64)
    region = _regions(point_682, image_HW3.shape[0])
    log_HW3 = np.log(gaussian_filter(image_HW3.astype(np.float64), (1, 1, 0)) + _DARKNESS)
    # Brightness, red against green, green against blue: light that is brighter or dimmer moves the first alone.
    tone_HW3 = np.stack(
        [log_HW3.mean(-1), log_HW3[..., 0] - log_HW3[..., 1], log_HW3[..., 1] - log_HW3[..., 2]], axis=-1
    )
    edge_HW = np.hypot(*np.gradient(tone_HW3[..., 0]))
    upper_3, lower_3 = _median(tone_HW3, region["upper"]), _median(tone_HW3, region["lower"])
    bar = _is_bar(tone_HW3[region["band"]], lower_3)
    skin_3 = lower_3 if bar else upper_3
    chroma_HW = np.hypot(*(tone_HW3 - skin_3)[..., 1:].transpose(2, 0, 1))
    unclipped_HW = image_HW3.max(-1) < _CLIPPED  # a clipped channel has changed the hue
    hue_HW = (chroma_HW > _ATYPICAL_CHROMA) & unclipped_HW
    atypical_HW = hue_HW | (np.abs(tone_HW3[..., 0] - skin_3[0]) > _ATYPICAL_LUMA)
    return Occlusion(
        eyes=_share(atypical_HW, region["eyes"]),
        nose=_share(hue_HW, region["nose"]),
        mouth=_share(atypical_HW, region["mouth"]),
        cheeks=_share(hue_HW, region["cheeks"]),
        eye_edges=min(_share(edge_HW, region["right_eye"]), _share(edge_HW, region["left_eye"])),
        mouth_edges=_share(edge_HW, region["mouth"]),
        bar=bar,
        # Under a bar there is no upper half left to compare with.
        mask_chroma=0.0 if bar else float(np.hypot(*(lower_3 - upper_3)[1:])),
    )


def face_mask(point_682: NDArray[Any], size: int) -> Mask:
    """The face from brows to chin as a mask [size, size]."""
    return _filled(np.asarray(point_682, np.float64)[list(_OUTLINE)], size)


def _is_bar(tone_N3: Array, skin_3: Array) -> bool:
    """Whether the band between the eye corners is one even colour that is not the skin's."""
    if not len(tone_N3) or np.isnan(skin_3).any():
        return False
    away_3 = np.abs(np.median(tone_N3, axis=0) - skin_3)
    differs = away_3[0] > MIN_BAR_LUMA or np.hypot(away_3[1], away_3[2]) > MIN_BAR_CHROMA
    return bool(differs and tone_N3[:, 0].std() < MAX_BAR_SPREAD)


def _regions(p: Array, size: int) -> dict[str, Mask]:
    """Masks [size, size] of the parts of a face."""
    along = p[45] - p[36]
    w = max(float(np.linalg.norm(along)), 1e-6)
    across, down = along / w, np.array([-along[1], along[0]]) / w
    right_eye, left_eye = (_filled(p[list(eye)], size, 0.06 * w) for eye in (RIGHT_EYE, LEFT_EYE))
    mouth = _filled(p[list(MOUTH)], size, 0.05 * w)
    brows = _filled(p[17:22], size, 0.05 * w) | _filled(p[22:27], size, 0.05 * w)
    nose = _filled(
        np.stack([p[27], p[31] - 0.03 * w * across, p[33] + 0.02 * w * down, p[35] + 0.03 * w * across]), size
    )
    outline = p[list(_OUTLINE)]
    # The rim belongs to hair, neck and wall as much as to the face.
    bare = _filled((outline - p[30]) * 0.9 + p[30], size) & ~(right_eye | left_eye | mouth | brows)
    y_HW, x_HW = np.mgrid[0:size, 0:size] + 0.5
    below_HW = (x_HW - p[30, 0]) * down[0] + (y_HW - p[30, 1]) * down[1]  # the tip of the nose
    ends = np.stack(
        [p[36] - 0.06 * w * down, p[45] - 0.06 * w * down, p[45] + 0.06 * w * down, p[36] + 0.06 * w * down]
    )
    return {
        "right_eye": right_eye,
        "left_eye": left_eye,
        "eyes": right_eye | left_eye,
        "mouth": mouth,
        "nose": nose,
        "band": _filled(ends, size),
        "upper": bare & (below_HW < -0.08 * w),
        "lower": bare & (below_HW >= 0),
        "cheeks": bare & ~nose & (below_HW > -0.15 * w),
    }


def _filled(polygon_N2: Array, size: int, grow: float = 0.0) -> Mask:
    """A polygon in pixel-edge coordinates, widened by ``grow`` pixels, as a mask."""
    picture = Image.new("1", (size, size))
    draw = ImageDraw.Draw(picture)
    # Pillow's coordinates are of pixel centres. It fails on points far beyond the picture.
    corner = [(float(x), float(y)) for x, y in np.clip(polygon_N2 - 0.5, -4 * size, 5 * size)]
    draw.polygon(corner, fill=1)
    if grow > 0:
        draw.line([*corner, corner[0]], fill=1, width=max(1, round(2 * grow)), joint="curve")
    return np.asarray(picture, dtype=bool)


def _median(tone_HW3: Array, mask_HW: Mask) -> Array:
    """Median [3]; NaN where nothing of the region is in the picture."""
    if not mask_HW.any():
        return np.full(3, np.nan)
    return np.asarray(np.median(tone_HW3[mask_HW], axis=0))


def _share(value_HW: NDArray[Any], mask_HW: Mask) -> float:
    """Mean over a region; NaN where nothing of it is in the picture."""
    return float(value_HW[mask_HW].mean()) if mask_HW.any() else float("nan")
