"""A folder of drawn pictures: what it is drawn from is written down before the first picture, and holds for all.

``settings.json`` and ``manifest.csv`` say how every picture was made and name people and expressions by running numbers
alone. Which file has which number stands in a third file, which stays at the hospital: its names may be identifiers.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from ccfexp._io import atomic_write_json, atomic_write_text, canonical_json
from ccfexp.errors import ConfigError
from ccfexp.sampling import SamplingConfig

SETTINGS: Final = "settings.json"
MANIFEST: Final = "manifest.csv"
SOURCES: Final = "do-not-share-sources.json"
_WARNING: Final = "Names of files may identify patients: this file stays at the hospital and is never shared."
_DIGITS: Final = 4


@dataclass(frozen=True, eq=False)
class Photograph:
    """An aligned face crop in [-1, 1] with the hash of its file; ``name`` is that of the file, and local."""

    name: str = field(repr=False)
    sha256: str
    x_3HW: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class Order:
    """One picture to draw, from which photographs, with which noise."""

    identity: Photograph
    expression: Photograph
    out: Path = field(repr=False)
    seed: int


@dataclass(frozen=True)
class Settings:
    """What the pictures of a folder have in common.

    Attributes:
        base_sha256, adapter_sha256: of the weights; no adapter = empty.
        sampling: sampler and steps.
        seed: from which every picture's own seed follows.
    """

    base_sha256: str
    adapter_sha256: str
    sampling: SamplingConfig
    seed: int


class PictureFolder:
    """Every identity with every expression, as pictures of one folder.

    Args:
        path: of the folder; it is not made before ``claim``.
        identities: of the people, in the order of their names.
        expressions: of who shows the expression, in the order of their names.
        settings: what the pictures are drawn with.
    """

    def __init__(
        self, path: Path, identities: Sequence[Photograph], expressions: Sequence[Photograph], settings: Settings
    ) -> None:
        self._path, self._settings = path, settings
        self._people, self._shown = _numbered(identities), _numbered(expressions)

    @property
    def orders(self) -> list[Order]:
        """All pictures; a picture's seed follows from the run's seed and the two photographs, not from their names."""
        return [
            Order(person, photo, self._path / f"{i}_{e}.png", _seed(self._settings.seed, person, photo))
            for i, person in self._people.items()
            for e, photo in self._shown.items()
        ]

    def claim(self) -> None:
        """Write down what the folder's pictures are drawn from, or see that it is what they were drawn from before.

        Raises:
            ConfigError: the folder holds pictures drawn from something else, or drawn by something else.
        """
        record = self._path / SETTINGS
        if record.is_file():
            self._compare(record)
        elif (self._path / MANIFEST).exists() or any(order.out.exists() for order in self.orders):
            raise ConfigError(
                f"the folder given as --out holds pictures without {SETTINGS}, so nobody can say what they were drawn "
                "from; name another --out"
            )
        # Settings come first: whatever else an interrupted command leaves, no picture is without them.
        atomic_write_json(record, self._record())
        atomic_write_json(self._path / SOURCES, self._sources())
        atomic_write_text(self._path / MANIFEST, self._manifest())

    def _compare(self, path: Path) -> None:
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{SETTINGS} in the folder given as --out is damaged; name another --out") from error
        now = self._record()
        changed = [f"{key}={before.get(key)!r}, now {now.get(key)!r}" for key in now if before.get(key) != now[key]]
        if changed:
            raise ConfigError(
                f"the pictures in the folder given as --out were drawn with {'; '.join(changed)}; give what they were "
                "drawn with to go on, or name another --out"
            )

    def _record(self) -> dict[str, Any]:
        own = asdict(self._settings)
        sources = hashlib.sha256(canonical_json(self._sources()).encode()).hexdigest()
        counts = {"identities": len(self._people), "expressions": len(self._shown)}
        return {**own.pop("sampling"), **own, **counts, "sources_sha256": sources}

    def _sources(self) -> dict[str, Any]:
        return {"warning": _WARNING} | {
            kind: {number: {"file": photo.name, "sha256": photo.sha256} for number, photo in photographs.items()}
            for kind, photographs in (("identity", self._people), ("expression", self._shown))
        }

    def _manifest(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        shared = asdict(self._settings.sampling) | {
            "base_sha256": self._settings.base_sha256, "adapter_sha256": self._settings.adapter_sha256,
        }  # fmt: skip
        writer.writerow(("file", "identity", "expression", "seed", *shared))
        for order in self.orders:
            writer.writerow((order.out.name, *order.out.stem.split("_"), order.seed, *shared.values()))
        return text.getvalue()


def _numbered(photographs: Sequence[Photograph]) -> dict[str, Photograph]:
    digits = max(_DIGITS, len(str(len(photographs))))
    return {f"{number:0{digits}d}": photo for number, photo in enumerate(photographs, start=1)}


def _seed(seed: int, identity: Photograph, expression: Photograph) -> int:
    digest = hashlib.sha256(f"{seed}/{identity.sha256}/{expression.sha256}".encode()).digest()
    return int.from_bytes(digest[:6], "little")
