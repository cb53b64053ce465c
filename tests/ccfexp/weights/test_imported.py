"""A file that an import recorded is used only as it was imported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import save

from ccfexp.errors import WeightsError
from ccfexp.model import CCFExp, config_to_json
from ccfexp.weights.imported import RECORD_FILE, check_imported
from tests.ccfexp import tiny


def record(folder: Path, files: object) -> None:
    (folder / RECORD_FILE).write_text(json.dumps({"files": files}), encoding="utf-8")


def test_only_what_the_record_names_is_compared(tmp_path: Path) -> None:
    check_imported(tmp_path / "a.safetensors", b"anything")
    record(tmp_path, {"a.safetensors": {"sha256": hashlib.sha256(b"weights").hexdigest()}})
    check_imported(tmp_path / "a.safetensors", b"weights")
    check_imported(tmp_path / "b.safetensors", b"anything")
    with pytest.raises(WeightsError, match=r"altered weight file a.safetensors: expected sha256=\w{64}, found sha256="):
        check_imported(tmp_path / "a.safetensors", b"Weights")


@pytest.mark.parametrize("files", [[], {"a.safetensors": "hash"}, {"a.safetensors": {}}, None])
def test_a_damaged_record_is_no_permission(tmp_path: Path, files: object) -> None:
    record(tmp_path, files)
    with pytest.raises(WeightsError, match=r"no readable import.json in the folder .*; import the checkpoint again"):
        check_imported(tmp_path / "a.safetensors", b"weights")


def test_an_altered_base_of_an_import_is_refused(tmp_path: Path) -> None:
    """One bit of one weight: a readable file, and another model than the one that was imported."""
    path, data = tmp_path / "model.safetensors", save(tiny.model().state_dict(), {"model": config_to_json(tiny.TINY)})
    record(tmp_path, {path.name: {"sha256": hashlib.sha256(data).hexdigest()}})
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"altered weight file model.safetensors: .*ccfexp.checkpoint import"):
        CCFExp.from_base(path)
