"""Phantom hospitals: who comes, what the room and the camera look like, which palsies are seen there.

Sites differ on purpose (skin and age, light, background, camera, grades, sides, movements): that is what makes the
federation non-IID, as hospitals are.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ccfexp._io import atomic_write_bytes
from ccfexp.data.manifest import write_manifest
from ccfexp.data.phantom.camera import Scene, SceneStyle
from ccfexp.data.phantom.expression import MOVEMENTS, Palsy, Side
from ccfexp.data.phantom.identity import Identity, Prior
from ccfexp.data.phantom.render import Phantom, Photograph
from ccfexp.data.rows import LandmarkSource, Movement, Role, Row, Split
from ccfexp.data.rows import Side as RowSide
from ccfexp.errors import ConfigError, did_you_mean

_STREAM = 31


@dataclass(frozen=True)
class PhantomSite:
    """One phantom hospital.

    Attributes:
        name: of the site, letters and digits.
        subjects: patients.
        first_identity: phantom seed of the first patient; people are numbered from there, so sites with ranges
            apart share nobody.
        sessions: photograph sessions per patient (another day: other light, pose and background).
        movements: which movements are asked for beside rest.
        grade_weights: relative frequency of House-Brackmann grades I to VI.
        left_share: share of left palsies among the palsied.
        synkinesis_share: share of palsied patients with synkinesis.
        holdout: patients marked as held out in the manifest.
        prior: skin and age of the people who come.
        style: light, background and camera of the room.
        jpeg_quality: photographs go through JPEG at this quality; 0 = not at all.
    """

    name: str
    subjects: int = 8
    first_identity: int = 1000
    sessions: int = 2
    movements: tuple[str, ...] = tuple(name for name in MOVEMENTS if name != "rest")
    grade_weights: tuple[float, ...] = (0.1, 0.18, 0.18, 0.18, 0.18, 0.18)
    left_share: float = 0.5
    synkinesis_share: float = 0.15
    holdout: int = 0
    prior: Prior = field(default_factory=Prior)
    style: SceneStyle = field(default_factory=SceneStyle)
    jpeg_quality: int = 0

    def __post_init__(self) -> None:
        if not self.name.isalnum():
            raise ConfigError(f"site name={self.name!r} must be letters and digits; rename the site")
        if self.subjects < 1 or self.sessions < 1:
            raise ConfigError(
                f"site subjects={self.subjects} and sessions={self.sessions} must be >= 1; give positive numbers"
            )
        if not 0 <= self.holdout < self.subjects:
            raise ConfigError(f"site holdout={self.holdout} must lie in [0, subjects={self.subjects}); hold fewer out")
        if self.first_identity < 0:
            raise ConfigError(f"site first_identity={self.first_identity} must be >= 0; count people from 0")
        if not 0 <= self.jpeg_quality <= 100:
            raise ConfigError(f"site jpeg_quality={self.jpeg_quality} must lie in [0, 100]; 0 = no JPEG")
        self._check_mix()

    def _check_mix(self) -> None:
        """Refuse movements, grades and shares that cannot be drawn from."""
        known = ", ".join(MOVEMENTS)
        for movement in self.movements:
            if movement not in MOVEMENTS:
                raise ConfigError(
                    f"site movement={movement!r} is not known.{did_you_mean(movement, MOVEMENTS)} Known: {known}"
                )
        if len(self.grade_weights) != 6 or min(self.grade_weights) < 0 or sum(self.grade_weights) <= 0:
            raise ConfigError(
                f"site grade_weights={self.grade_weights} must be six numbers >= 0, not all 0; "
                "one for each grade I to VI"
            )
        for name in ("left_share", "synkinesis_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"site {name}={getattr(self, name)} must lie in [0, 1]; it is a share")

    @property
    def images(self) -> int:
        """Photographs that the site has."""
        return self.subjects * self.sessions * (1 + len(self.movements))


@cache
def shared_phantom() -> Phantom:
    """One phantom per process: it holds constants only."""
    return Phantom()


def patient_palsy(site: PhantomSite, identity_seed: int) -> Palsy:
    """The palsy of a patient: drawn once, the same in every session."""
    rng = np.random.default_rng([_STREAM, identity_seed])
    weights = np.array(site.grade_weights) / sum(site.grade_weights)
    grade = int(rng.choice(6, p=weights)) + 1
    side: Side = "left" if rng.random() < site.left_share else "right"
    synkinesis = float(rng.uniform(0.2, 0.9)) if rng.random() < site.synkinesis_share else 0.0
    return Palsy.of_grade(grade, side, rng, synkinesis)


def write_site(
    site: PhantomSite,
    out: Path,
    image_size: int,
    *,
    loose: bool = False,
    on_subject: Callable[[int, int], None] | None = None,
) -> Path:
    """Render a site's photographs as a manifest data set and return the path of its manifest.csv.

    Args:
        site: which hospital.
        out: folder; images/, landmarks/ and manifest.csv are written into it. Repeating the call changes nothing.
        image_size: side in pixels.
        loose: photographs framed loosely and turned, for testing detection and alignment.
        on_subject: called with (patients done, patients).
    """
    rows: list[Row] = []
    for number in range(site.subjects):
        identity_seed = site.first_identity + number
        split = Split.HOLDOUT if number >= site.subjects - site.holdout else Split.TRAIN
        for session in range(site.sessions):
            for movement in ("rest", *site.movements):
                photo = photograph(site, identity_seed, session, movement, image_size, loose=loose)
                rows.append(_write_photo(site, out, photo, session, split))
        if on_subject is not None:
            on_subject(number + 1, site.subjects)
    path = out / "manifest.csv"
    write_manifest(path, rows)
    return path


def photograph(
    site: PhantomSite, identity_seed: int, session: int, movement: str, image_size: int, *, loose: bool = False
) -> Photograph:
    """One photograph of a patient of the site, before its camera's compression."""
    palsy = patient_palsy(site, identity_seed)
    return render_person(site, identity_seed, movement, palsy, session, image_size, loose=loose)


def render_person(
    site: PhantomSite,
    identity_seed: int,
    movement: str,
    palsy: Palsy,
    session: int,
    image_size: int,
    *,
    loose: bool = False,
) -> Photograph:
    """Somebody of the site's kind of people in its room, with a palsy of the caller's choice."""
    return shared_phantom().render(
        _person(identity_seed, site.prior),
        movement,
        1.0,
        palsy,
        session,
        image_size,
        scene=Scene.draw(identity_seed, session, site.style),
        crop="loose" if loose else "aligned",
    )


def picture_through(site: PhantomSite, image_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture [H,W,3] as it is read back from the site's image files."""
    if not site.jpeg_quality:
        return image_HW3
    with Image.open(io.BytesIO(_encoded(site, image_HW3))) as picture:
        return np.asarray(picture.convert("RGB"))


@lru_cache(maxsize=8)
def _person(identity_seed: int, prior: Prior) -> Identity:
    """The last few people stay in memory, because a patient's photographs are made one after another."""
    return shared_phantom().identity(identity_seed, prior)


def _encoded(site: PhantomSite, image_HW3: npt.NDArray[np.uint8]) -> bytes:
    """The bytes of an image file of the site."""
    buffer, picture = io.BytesIO(), Image.fromarray(image_HW3)
    if site.jpeg_quality:
        picture.save(buffer, "JPEG", quality=site.jpeg_quality)
    else:
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _write_photo(site: PhantomSite, out: Path, photo: Photograph, session: int, split: Split) -> Row:
    labels = photo.labels
    stem = f"{labels.identity:06d}_{session}_{labels.movement}"
    suffix = ".jpg" if site.jpeg_quality else ".png"
    image, landmarks = _encoded(site, photo.image_HW3), io.BytesIO()
    np.save(landmarks, photo.landmark_682, allow_pickle=False)
    atomic_write_bytes(out / "images" / (stem + suffix), image)
    atomic_write_bytes(out / "landmarks" / (stem + ".npy"), landmarks.getvalue())
    return Row(
        subject_id=f"P{labels.identity:06d}",
        session=str(session),
        movement=Movement(labels.movement),
        side=RowSide(labels.palsy.side),
        grade=labels.palsy.grade,
        role=Role.BOTH if labels.movement == "rest" else Role.EXPRESSION,
        split=split,
        path=f"images/{stem}{suffix}",
        sha256=hashlib.sha256(image).hexdigest(),
        landmarks=f"landmarks/{stem}.npy",
        landmark_source=LandmarkSource.PHANTOM,
        consent_train=True,
        consent_generate=True,
        landmarks_sha256=hashlib.sha256(landmarks.getvalue()).hexdigest(),
    )
