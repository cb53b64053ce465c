"""A hospital's photograph, decoded: upright sRGB pixels, and nothing else of the file.

What is doubtful but usable becomes a note; what is not usable is refused. Notes and reasons are fixed texts: nothing
of a file's name, metadata or pixels is in them, and the decoders' own warnings are silenced.
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from ccfexp.data.files import BadFileError
from ccfexp.data.quiet import native_silenced, silenced

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MIN_SIDE: Final = 32
_FORMATS: Final = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "BMP")  # BMP: frames of a public data set
_HEIF_BRANDS: Final = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
_TIFF: Final = (b"II", b"MM")  # the byte orders that such a file begins with
# A photograph whose brightest value is below this is black, or has its 12 bits at the low end of 16.
_DARKEST_WHITE: Final = 16

_EXIF_ORIENTATION, _EXIF_INTEROPERABILITY, _INTEROPERABILITY_INDEX = 0x0112, 0xA005, 1
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODE_OF_SPACE: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC.1:2010, 7.2.6
_HDR_TRANSFERS: Final = (16, 18)  # ITU-T H.273: PQ and HLG
_KNOWN_PRIMARIES: Final = (1, 2)  # ITU-T H.273: BT.709, which are those of sRGB, and unspecified

NOTE_SEVERAL: Final = "the file holds several pictures; its main one is used"
NOTE_TRANSPARENT: Final = "the photograph has transparent parts; they are laid on white"
NOTE_ORIENTATION: Final = "its orientation cannot be read; it is taken as upright"
NOTE_PROFILE: Final = "its colour profile cannot be used; its colours are taken as sRGB"
NOTE_CMYK: Final = "it is in printing colours (CMYK) without a usable profile; its colours are approximate"
NOTE_ADOBE: Final = "it is marked as Adobe RGB without a profile; its colours are taken as sRGB"
NOTE_WIDE: Final = "it has wide or high-dynamic-range colours without a profile; they are taken as sRGB"

_NOT_READABLE: Final = (
    "is not a photograph that can be read; save it as JPEG, PNG, TIFF, WebP, HEIC or AVIF, whole and undamaged"
)
_DAMAGED: Final = "is damaged or incomplete; copy it again from where it comes"


@dataclass(frozen=True)
class DecodedPhotograph:
    """Upright sRGB pixels ``image_HW3``, and ``notes`` on what was assumed."""

    image_HW3: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def decode_photograph(data: bytes, *, max_pixels: int) -> DecodedPhotograph:
    """Decode one photograph.

    Colours are brought to sRGB by the ICC profile, relative colorimetrically. Of 16 bits the upper 8 are kept, so full
    scale stays full scale. The EXIF orientation is applied; in HEIC it is the file's own turn that counts, as the
    format says. JPEG of several pictures (MPO) and HEIC name a main one; other files of several are refused.

    Args:
        data: the bytes of a JPEG, PNG, TIFF, WebP, HEIC/HEIF or AVIF file; no other format is tried.
        max_pixels: width times height that is decoded; compared with what the file declares, before any pixel is
            read. Pillow's own bound, about 179 million, stays in force.

    Raises:
        BadFileError: no photograph of these formats, damaged or incomplete, beyond ``max_pixels``, below 32 pixels,
            several pictures, a kind of pixels that no photograph has, or black.
    """
    notes: list[str] = []
    with silenced("PIL"), native_silenced() if data.startswith(_TIFF) else nullcontext():
        try:
            with _open(data) as image:
                _check_size(image, max_pixels)
                _check_frames(image, notes)
                image.load()
                turn = _turn(image, notes)
                picture = _srgb(image, notes)
            image_HW3 = np.array(picture if turn is None else picture.transpose(turn), dtype=np.uint8)
        except BadFileError:
            raise
        except UnidentifiedImageError:
            raise BadFileError(_NOT_READABLE) from None
        except Image.DecompressionBombError:
            raise _too_large(max_pixels) from None
        except Exception:  # noqa: BLE001  # Pillow, its libraries and libheif raise whatever a damaged file leads them to
            raise BadFileError(_DAMAGED) from None
    if image_HW3.max() < _DARKEST_WHITE:
        raise BadFileError("is black, or holds 12 bits a value at the low end of 16; save it with 8 bits a value")
    return DecodedPhotograph(image_HW3, tuple(notes))


def encode_png(image_HW3: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of RGB pixels alone: the same pixels give the same bytes, and there is no chunk of metadata.

    Raises:
        ValueError: not uint8 [H, W, 3].
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"Expected uint8 [H, W, 3], got {image_HW3.dtype} {list(image_HW3.shape)}.")
    file = io.BytesIO()
    Image.fromarray(image_HW3).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _open(data: bytes) -> ImageFile:
    """The file with its header read; no pixel yet."""
    if not _is_heif(data):
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise BadFileError("is HEIC, which needs the package pillow-heif; install the extra `photos`") from None
    # The class itself instead of its registration, which would change Pillow for the whole process.
    image: ImageFile = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    return image


def _is_heif(data: bytes) -> bool:
    """By the brands of the first box (ISO/IEC 14496-12, 4.3); AVIF, whose major brand may be the same, is Pillow's."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIF_BRANDS:
        return False
    return b"avif" not in data[16 : min(int.from_bytes(data[:4], "big"), 256)]


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(max_pixels)
    if min(width, height) < MIN_SIDE:
        raise BadFileError(f"is {width}x{height} pixels, at least {MIN_SIDE}x{MIN_SIDE} are needed")


def _too_large(max_pixels: int) -> BadFileError:
    return BadFileError(f"declares more pixels than limits.pixels={max_pixels}; save it smaller or raise the limit")


def _check_frames(image: ImageFile, notes: list[str]) -> None:
    """Which of several pictures the labels are about is only known where the format names a main one."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1:
        return
    if image.format not in ("MPO", "HEIF"):
        raise BadFileError("holds several pictures (an animation or pages); save the one that is meant as its own file")
    notes.append(NOTE_SEVERAL)


def _turn(image: ImageFile, notes: list[str]) -> Image.Transpose | None:
    """What brings the pixels upright; HEIC and TIFF files come upright out of their decoders."""
    if image.format == "HEIF":
        return None
    try:
        exif = image.getexif()
        orientation = exif.get(_EXIF_ORIENTATION, 1)
        interoperability = exif.get_ifd(_EXIF_INTEROPERABILITY).get(_INTEROPERABILITY_INDEX, "")
    except Exception:  # noqa: BLE001  # the parser of EXIF raises whatever rubbish leads it to, and the picture is good
        notes.append(NOTE_ORIENTATION)
        return None
    if interoperability == "R03" and not image.info.get("icc_profile"):  # DCF 2.0, option file
        notes.append(NOTE_ADOBE)
    if orientation not in (0, 1, *_UPRIGHT):  # 0 stands in files of cameras that do not know
        notes.append(NOTE_ORIENTATION)
    return _UPRIGHT.get(orientation)


def _srgb(image: ImageFile, notes: list[str]) -> Image.Image:
    """RGB without transparency, in sRGB."""
    colour, alpha = _split(image)
    picture = _by_profile(colour, image, notes)
    if alpha is not None and alpha.getextrema() != (255, 255):
        notes.append(NOTE_TRANSPARENT)
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=alpha)
        return white
    return picture


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB, CMYK or LAB, and the opacity if there is one."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), None
    if image.mode in ("I", "F", "HSV"):
        raise BadFileError(f"has pixels of mode={image.mode}, which no photograph has; save it with 8 bits a value")
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        transparent = image.convert("RGBA")
        return transparent.convert("L" if grey else "RGB"), transparent.getchannel("A")
    if image.mode in ("L", "1"):
        return image.convert("L"), None
    return (image if image.mode in ("CMYK", "LAB") else image.convert("RGB")), None


def _by_profile(colour: Image.Image, image: ImageFile, notes: list[str]) -> Image.Image:
    """The colours in sRGB; without a profile they are taken as that, as viewers do."""
    profile = image.info.get("icc_profile")
    if colour.mode == "LAB":
        return _convert(colour, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if _MODE_OF_SPACE.get(source.profile.xcolor_space.strip()) == colour.mode:
                return _convert(colour, source)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # as a profile of other colours: noted below
        notes.append(NOTE_PROFILE)
    elif _is_wide(image):
        notes.append(NOTE_WIDE)
    if colour.mode == "CMYK":
        notes.append(NOTE_CMYK)
    return colour.convert("RGB")


def _convert(colour: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        colour,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is None:
        raise ImageCms.PyCMSError("no picture")
    return converted


def _is_wide(image: Image.Image) -> bool:
    """Whether the colour code points of HEIC say other than sRGB."""
    code = image.info.get("nclx_profile")
    if not isinstance(code, dict):
        return False
    return code.get("transfer_characteristics") in _HDR_TRANSFERS or code.get("color_primaries") not in _KNOWN_PRIMARIES
