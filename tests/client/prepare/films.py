"""Videos of phantoms making a movement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import numpy.typing as npt

from ccfexp.data.phantom.camera import Camera, Scene
from ccfexp.data.phantom.expression import Palsy
from ccfexp.data.phantom.render import Phantom
from ccfexp.detection.faces import Image, Points

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from av.video.stream import VideoStream

    from ccfexp.data.phantom.identity import Identity


@dataclass(frozen=True)
class Film:
    """Frames of one movement: intensity_T, image_HW3 of each, landmark_T682."""

    intensity_T: np.ndarray[tuple[int], np.dtype[np.float64]]
    images: list[Image]
    landmark_T682: Points


def ramp(frames: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Intensity of a movement that is begun, reaches its peak at two fifths, and ends: [frames]."""
    return np.interp(np.linspace(0, 1, frames), (0, 0.4, 1), (0, 1, 0))


def phantom_film(
    phantom: Phantom, seed: int, movement: str, palsy: Palsy | None = None, *, frames: int = 11, size: int = 64
) -> Film:
    """A phantom making a movement, from rest to its peak and back."""
    identity = phantom.identity(seed)
    shots = [phantom.render(identity, movement, float(i), palsy, size=size) for i in ramp(frames)]
    return Film(ramp(frames), [shot.image_HW3 for shot in shots], np.stack([shot.landmark_682 for shot in shots]))


def landmark_film(
    phantom: Phantom,
    identity: Identity,
    movement: str,
    palsy: Palsy,
    intensity_T: npt.ArrayLike,
    turning_T: npt.NDArray[np.float64] | None = None,
) -> Points:
    """Landmarks [T, 68, 2] of a movement before a camera that stands still, without drawing it.

    ``turning_T`` is how far the head turns aside, in radians, frame by frame.
    """
    scene = Scene.draw(identity.seed, 1)
    # Landmarks are linear in the mesh, and the mesh in the weights: 68 points are moved instead of all vertices.
    resting_683 = phantom.landmarks(identity, identity.base_V3)
    moved_U683 = {
        unit: phantom.landmarks(identity, phantom.head.unit_UV3[row]) for unit, row in phantom.head.unit_index.items()
    }
    point_T683 = []
    for intensity in np.asarray(intensity_T, float):
        weights = phantom.weights(identity, movement, float(intensity), palsy)
        point_T683.append(sum((w * moved_U683[unit] for unit, w in weights.items()), start=resting_683))
    still = Camera.frame(scene, point_T683[0], 112)
    seen = []
    for t, point_683 in enumerate(point_T683):
        turned = scene if turning_T is None else replace(scene, yaw=scene.yaw + turning_T[t])
        camera = replace(still, rotation_33=Camera.frame(turned, point_T683[0], 112).rotation_33)
        seen.append(camera.project(point_683)[:, :2])
    return np.stack(seen)


def write_video(
    path: Path,
    images: Sequence[Image],
    fps: int = 25,
    *,
    container: str = "mp4",
    codec: str = "h264",
    rotation: int | None = None,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    times: Sequence[int] | None = None,
) -> Path:
    """A video of uint8 RGB images [H, W, 3] with even sides.

    Args:
        path: where it is written; its ending does not matter.
        images: the frames.
        fps: frames a second.
        container: of PyAV.
        codec: of PyAV.
        rotation: that a player turns it by, in degrees against the clock, as telephones write it.
        mirrored: a player mirrors it after that.
        pixel_aspect: width of a pixel by its height.
        times: of the frames in units of 1/fps, where they are not even.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as out:
        stream = cast("VideoStream", out.add_stream(codec, rate=fps))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.options = {"crf": "8", "preset": "veryfast"} if codec == "h264" else {"qscale": "2"}
        if codec != "h264":
            stream.codec_context.bit_rate = 4_000_000
        if rotation is not None or mirrored:
            stream.set_display_rotation(rotation or 0, hflip=mirrored)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        stream.codec_context.time_base = Fraction(1, fps)
        for at, image_HW3 in zip(times or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HW3), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def numbered(frames: int, height: int = 48, width: int = 64) -> list[Image]:
    """Pictures that tell their own place: left half brighter with each frame, upper right corner red."""
    images = []
    for index in range(frames):
        image_HW3 = np.full((height, width, 3), 30, np.uint8)
        image_HW3[:, : width // 2] = 40 + index * 180 // max(frames - 1, 1)
        image_HW3[: height // 3, 2 * width // 3 :] = (220, 20, 20)
        images.append(image_HW3)
    return images


def place(image_HW3: Image, frames: int) -> int:
    """Which of the `numbered` pictures this is."""
    level = float(image_HW3[:, : image_HW3.shape[1] // 3].mean())
    return int(np.argmin(np.abs(np.array([40 + i * 180 // max(frames - 1, 1) for i in range(frames)]) - level)))
