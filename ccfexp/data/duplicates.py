"""The same photograph twice, though it was stored again, made smaller, cut a little or brightened.

A pair within one patient is a plain duplicate. A pair across two patients is a leak between training and holdout: one
person under two numbers, or a misfiled photograph.

Two photographs of one person in one room are nearly the same picture. So a hash of the whole photograph only nominates,
and so does the correlation of the aligned faces; what decides is whether one face print becomes the other by changes
that a copy may have gone through (another exposure, a small shift, turn or enlargement), everywhere on the face.

Measured on phantoms of one site, all movements of a session in one pose, light and background: of 10,000 photographs of
1,250 people, 5 of 35,000 pairs of movements of one person are taken for copies (rest beside a weak pucker), none of two
people. Copies stored as JPEG of quality 40 to 90, resized to 40 to 160 %, cut by up to 6 % at each edge or
brightened by up to 30 %, with points found anew to 0.7 % of the eye distance, are found in at least 98 % of cases,
copies that went through all four in 95 %; a strongly clipped copy may also be paired with another movement of its
session (1 %). On one core 10,000 photographs take 2 to 3 s, if all of them are copies of a few 20 s. Phantoms are not
patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Prints = NDArray[np.float32]

PRINT_SIZE: Final = 32
"""Side of a face print in pixels."""

MAX_DISTANCE: Final = 0.08
"""Largest difference that a copy may have anywhere on the face, in standard deviations of the face's brightness."""

MIN_CORRELATION: Final = 0.97
"""Of face prints that are looked at closely: 99 % of copies, and 0.02 % of other people of a site."""

MAX_BITS: Final = 2
"""Differing bits of two hashes whose face prints are looked at closely, whatever their correlation."""

MAX_CANDIDATES: Final = 24
"""Earlier photographs that one is compared with, the likest first; without a bound, n copies would ask for n^2 / 2."""

_HASH_SIDE, _HASH_PICTURE = 8, 32
_CLIPPED = 250
_MARGIN = 2  # rows and columns at the rim of a print, which a shifted copy has not
_MIN_USABLE = 0.25  # share of a print that is not clipped
_PATCH = 4  # pixels of a print: about a third of the distance between the eyes
_ROWS, _PAIRS = 1000, 256  # worked on at a time, to bound memory


@dataclass(frozen=True)
class Pair:
    """Two photographs that are probably one; ``a < b`` are their places in the list, ``distance`` 0 for equal ones."""

    a: int
    b: int
    distance: float


def fingerprint(image_HW3: NDArray[np.uint8]) -> int:
    """Perceptual hash of a whole photograph [H, W, 3]: 64 bits.

    The signs of the lowest 8 x 8 frequencies of the cosine transform of a 32 x 32 grey picture, about their median
    (pHash: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions").
    """
    grey = Image.fromarray(image_HW3).convert("L").resize((_HASH_PICTURE, _HASH_PICTURE), Image.Resampling.LANCZOS)
    low_64 = dctn(np.asarray(grey, np.float64), norm="ortho")[:_HASH_SIDE, :_HASH_SIDE].ravel()
    bits_64 = low_64 > np.median(low_64[1:])  # the first is the mean brightness
    return int.from_bytes(np.packbits(bits_64).tobytes())


def face_print(crop_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An aligned face [H, W, 3] as 32 x 32 shades of green, the channel that JPEG keeps best and skin clips late."""
    green = Image.fromarray(np.ascontiguousarray(crop_HW3[..., 1]))
    return np.asarray(green.resize((PRINT_SIZE, PRINT_SIZE), Image.Resampling.BOX))


def near_duplicates(fingerprints_N: Sequence[int], print_N3232: NDArray[np.uint8]) -> list[Pair]:
    """All pairs that are probably the same photograph.

    Each photograph is compared with the `MAX_CANDIDATES` likest of those before it.

    Args:
        fingerprints_N: by `fingerprint`, of the photographs.
        print_N3232: by `face_print`, of their faces [N, 32, 32].

    Returns:
        Sorted by ``a``, then ``b``.

    Raises:
        ConfigError: not one print of the right size for each fingerprint.
    """
    if print_N3232.shape != (len(fingerprints_N), PRINT_SIZE, PRINT_SIZE):
        raise ConfigError(
            f"prints={list(print_N3232.shape)} must be [{len(fingerprints_N)}, {PRINT_SIZE}, {PRINT_SIZE}], one "
            "for each fingerprint; make them with face_print"
        )
    if len(fingerprints_N) == 0:
        return []
    hash_N = np.array(fingerprints_N, np.uint64)
    usable_N3232 = _usable(print_N3232)
    smooth_N3232 = gaussian_filter(print_N3232.astype(np.float32), (0, 1, 1))
    pairs = []
    pair_M2 = np.concatenate([np.zeros((0, 2), np.int64), *_candidates(hash_N, print_N3232)])
    for start in range(0, len(pair_M2), _PAIRS):
        a_M, b_M = pair_M2[start : start + _PAIRS].T
        usable_M = usable_N3232[a_M] & usable_N3232[b_M]
        distance_M = _distance(smooth_N3232[a_M], smooth_N3232[b_M], usable_M)
        # A clipped copy can be made of its original, not the other way round, and either may be the copy.
        near = distance_M <= MAX_DISTANCE
        a_M, b_M = a_M[near], b_M[near]
        back_M = _distance(smooth_N3232[b_M], smooth_N3232[a_M], usable_M[near])
        distance_M = np.maximum(distance_M[near], back_M)
        pairs += [
            Pair(int(a), int(b), float(distance))
            for a, b, distance in zip(a_M, b_M, distance_M, strict=True)
            if distance <= MAX_DISTANCE
        ]
    return sorted(pairs, key=lambda pair: (pair.a, pair.b))


def _usable(print_N3232: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of prints can be compared: not clipped, nor beside one that is, nor at the rim."""
    usable_N3232: NDArray[np.bool_] = ~maximum_filter(print_N3232 >= _CLIPPED, size=(1, 3, 3))
    usable_N3232[:, :_MARGIN] = usable_N3232[:, -_MARGIN:] = False
    usable_N3232[:, :, :_MARGIN] = usable_N3232[:, :, -_MARGIN:] = False
    return usable_N3232


def _candidates(hash_N: NDArray[np.uint64], print_N3232: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Pairs [M, 2] (earlier, later) that are worth a closer look."""
    flat_ND = print_N3232.reshape(len(print_N3232), -1).astype(np.float32)
    flat_ND -= flat_ND.mean(1, keepdims=True)
    flat_ND /= np.maximum(np.linalg.norm(flat_ND, axis=1, keepdims=True), 1e-6)
    for start in range(0, len(hash_N), _ROWS):
        stop = min(start + _ROWS, len(hash_N))
        likeness_RN = flat_ND[start:stop] @ flat_ND[:stop].T
        alike_RN = np.bitwise_count(hash_N[start:stop, None] ^ hash_N[None, :stop]) <= MAX_BITS
        alike_RN |= likeness_RN >= MIN_CORRELATION
        alike_RN &= np.arange(start, stop)[:, None] > np.arange(stop)[None]
        for row in np.nonzero(alike_RN.any(1))[0]:
            earlier = np.nonzero(alike_RN[row])[0]
            if len(earlier) > MAX_CANDIDATES:
                earlier = earlier[np.argsort(-likeness_RN[row, earlier], kind="stable")[:MAX_CANDIDATES]]
            yield np.stack([earlier, np.full_like(earlier, start + row)], 1)


def _distance(from_M3232: Prints, to_M3232: Prints, usable_M3232: NDArray[np.bool_]) -> Prints:
    """Greatest patchwise difference [M] left when one print is fitted to the other; inf where too little is usable.

    Least squares over brightness up to its cube (exposure, clipping) and, to first order, shift, scale and roll (Lucas
    and Kanade 1981). A movement changes one part of the face, so the worst patch tells it from a copy, not the mean.
    """
    dy_M3232, dx_M3232 = (np.asarray(np.gradient(from_M3232, axis=axis)) for axis in (1, 2))
    inner = np.s_[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    weight, dy, dx = usable_M3232[inner].astype(np.float32), dy_M3232[inner], dx_M3232[inner]
    source, target = _standard(from_M3232[inner], weight), _standard(to_M3232[inner], weight)
    at = np.linspace(-1, 1, source.shape[1], dtype=np.float32)
    y, x = at[:, None], at[None, :]
    columns = [np.ones_like(source), source, source**2, source**3, dx, dy, x * dx + y * dy, x * dy - y * dx]
    flat = (len(source), 1, source.shape[1] * source.shape[2])
    design_MKP = np.concatenate([column.reshape(flat) for column in columns], 1)
    weighted_MPK = (design_MKP * weight.reshape(flat)).transpose(0, 2, 1)
    gram_MKK = (design_MKP @ weighted_MPK).astype(np.float64)
    gram_MKK += 1e-3 * np.eye(len(columns))  # so that a print without any structure can be solved
    moment_M1K = (target.reshape(flat) @ weighted_MPK).astype(np.float64)
    fit_M1K = np.linalg.solve(gram_MKK, moment_M1K.transpose(0, 2, 1)).transpose(0, 2, 1).astype(np.float32)
    left = (target - (fit_M1K @ design_MKP).reshape(target.shape)) ** 2 * weight
    worst_M = np.sqrt(np.maximum(uniform_filter(left, (0, _PATCH, _PATCH)).max((1, 2)), 0))
    return np.where(usable_M3232.mean((1, 2)) >= _MIN_USABLE, worst_M, np.float32(np.inf))


def _standard(print_Mhw: Prints, weight_Mhw: Prints) -> Prints:
    """Prints with mean 0 and standard deviation 1 over their usable pixels."""
    total_M11 = np.maximum(weight_Mhw.sum((1, 2), keepdims=True), 1)
    centred_Mhw = print_Mhw - (print_Mhw * weight_Mhw).sum((1, 2), keepdims=True) / total_M11
    spread_M11 = np.sqrt((centred_Mhw**2 * weight_Mhw).sum((1, 2), keepdims=True) / total_M11)
    return np.asarray(centred_Mhw / np.maximum(spread_M11, 1e-3), np.float32)
