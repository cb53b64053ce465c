"""Updates that wait on the disk are the same numbers, and nothing of them stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ccfexp.errors import CheckpointError
from server.shelf import NumbersOnDisk, Shelf
from strategies.aggregation import SiteUpdate
from strategies.packing import AdapterManifest

MANIFEST = AdapterManifest((("layer.lora_A.weight", (3, 33_000)),))  # more than is worked on at a time


def update(site: str = "north") -> SiteUpdate:
    """One with numbers that no float64 would be needed for, and some that are easily lost."""
    change_P = np.random.default_rng(3).normal(size=MANIFEST.parameters).astype(np.float32)
    change_P[:4] = [0.0, -0.0, 1e-45, 3.4028235e38]
    return SiteUpdate(site, 2.0, MANIFEST, change_P, 3, 1.0)


def test_the_numbers_come_back_bit_for_bit_part_by_part(tmp_path: Path) -> None:
    """And all that is said of them stays with them."""
    before = update("a.b-c_d")

    kept = Shelf(tmp_path / "waiting").put(before)

    assert isinstance(kept.change_P, NumbersOnDisk)
    assert (kept.site, kept.weight, kept.manifest, kept.rank, kept.scale) == ("a.b-c_d", 2.0, MANIFEST, 3, 1.0)
    for part in (slice(0, MANIFEST.parameters), slice(0, 1), slice(98_999, 99_000), slice(32_768, 65_536)):
        assert kept.change_P[part].tobytes() == before.change_P[part].tobytes()


def test_an_update_from_the_shelf_is_used_once_or_often(tmp_path: Path) -> None:
    """Two of them do not disturb each other, and one is not used up."""
    shelf = Shelf(tmp_path / "waiting")
    first, second = shelf.put(update("north")), shelf.put(update("south"))

    assert {path.name for path in (tmp_path / "waiting").iterdir()} == {"north.f4", "south.f4"}
    assert first.change_P[0:9].tobytes() == first.change_P[0:9].tobytes() == second.change_P[0:9].tobytes()


def test_what_an_interrupted_round_left_is_cleared_away(tmp_path: Path) -> None:
    """At the beginning of the next one, and at its end."""
    Shelf(tmp_path / "waiting").put(update())

    shelf = Shelf(tmp_path / "waiting")
    assert not (tmp_path / "waiting").exists()

    shelf.put(update())
    shelf.clear()
    assert not (tmp_path / "waiting").exists()


def no_folder(folder: Path) -> None:
    """A file stands where the folder should be."""
    folder.touch()


def no_room(folder: Path) -> None:
    """The disk is full."""
    folder.mkdir()
    (folder / "north.f4").symlink_to("/dev/full")


@pytest.mark.parametrize("parameters", [3, 99_000])
@pytest.mark.parametrize(("spoil", "reason"), [(no_folder, "File exists"), (no_room, "No space left on device")])
def test_a_disk_that_refuses_ends_the_round_with_its_reason(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str, parameters: int
) -> None:
    """However few numbers do not fit."""
    shelf = Shelf(tmp_path / "waiting")
    spoil(tmp_path / "waiting")
    small = AdapterManifest((("layer.lora_A.weight", (3, parameters // 3)),))
    early = SiteUpdate("north", 1.0, small, np.ones(parameters, np.float32), 3, 1.0)

    with pytest.raises(CheckpointError, match=rf"site north could not be kept \({reason}\); free the disk"):
        shelf.put(early)


def test_a_file_that_lost_its_end_is_not_read(tmp_path: Path) -> None:
    """One number that is left would be stretched over all of its part."""
    kept = Shelf(tmp_path / "waiting").put(update())
    with (tmp_path / "waiting" / "north.f4").open("r+b") as file:
        file.truncate(4 * 32_769)

    assert kept.change_P[0:32_768].size == 32_768
    with pytest.raises(CheckpointError, match="site north could not be read"):
        kept.change_P[32_768:65_536]
    (tmp_path / "waiting" / "north.f4").unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        kept.change_P[0:1]
