"""A hospital's weights folder: every file is named, compared, and never taken on trust in silence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ccfexp._io import sha256_file
from ccfexp.errors import WeightsError
from ccfexp.weights import local
from ccfexp.weights.__main__ import main
from ccfexp.weights.local import KNOWN, RECORD, check_folder, record_folder, require

ADAFACE = "published/adaface_ir50_casia.ckpt"
ARCFACE = "insightface/w600k_r50.onnx"


def place(folder: Path, name: str, content: bytes = b"weights") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def status(folder: Path) -> dict[str, str]:
    return {finding.file.name: finding.status for finding in check_folder(folder)}


def test_an_empty_folder_misses_everything_and_says_where_it_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(status(tmp_path).values()) == {"missing"}
    assert main(["check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for file in KNOWN:
        assert f"missing    {file.name}: {file.role}" in said
        assert file.source in said
        assert file.licence in said
    assert f"{len(KNOWN)} missing" in said


def test_a_file_without_a_public_hash_is_unverified_until_it_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(tmp_path, ADAFACE)
    assert status(tmp_path)[ADAFACE] == "unverified"
    assert main(["record", str(tmp_path)]) == 0
    assert ADAFACE in capsys.readouterr().out
    assert status(tmp_path)[ADAFACE] == "recorded"
    assert record_folder(tmp_path) == []
    record = json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))
    assert record["files"][ADAFACE]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    place(tmp_path, ADAFACE, b"other")
    assert status(tmp_path)[ADAFACE] == "altered"
    assert main(["check", str(tmp_path)]) == 1
    assert "copy it again" in capsys.readouterr().out
    with pytest.raises(WeightsError, match=r"1 files are altered, the first is published/adaface"):
        record_folder(tmp_path)


def test_a_public_hash_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file under a known name with other content is altered; the true content is verified."""
    place(tmp_path, ARCFACE)
    assert status(tmp_path)[ARCFACE] == "altered"
    digest = hashlib.sha256(b"weights").hexdigest()
    known = (local.KnownFile(ARCFACE, "identity", "licence", "source", digest),)
    monkeypatch.setattr(local, "KNOWN", known)
    assert status(tmp_path) == {ARCFACE: "verified"}
    assert require(tmp_path, ARCFACE) == tmp_path / ARCFACE


def test_the_beginning_of_a_hash_is_not_called_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the folder's own record holds the whole of it."""
    place(tmp_path, ARCFACE)
    digest = hashlib.sha256(b"weights").hexdigest()
    known = (local.KnownFile(ARCFACE, "identity", "licence", "source", digest[:12]),)
    monkeypatch.setattr(local, "KNOWN", known)
    assert main(["check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"matches the recorded beginning {digest[:12]} of its hash" in said
    assert "1 beginning" in said
    assert require(tmp_path, ARCFACE) == tmp_path / ARCFACE
    record_folder(tmp_path)
    assert status(tmp_path) == {ARCFACE: "recorded"}


def test_one_file_is_asked_for_and_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of gigabytes beside it are not hashed once more with every encoder."""
    for name in (ADAFACE, "published/CCFExp.ckpt"):
        place(tmp_path, name)
    hashed: list[Path] = []

    def watch(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(local, "sha256_file", watch)
    require(tmp_path, ADAFACE)
    assert hashed == [tmp_path / ADAFACE]


def test_what_is_required_is_there_or_said(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"missing weights file insightface/w600k_r50.onnx .*Licence: non-commercial"
    ):
        require(tmp_path, ARCFACE)
    place(tmp_path, ARCFACE)
    with pytest.raises(
        WeightsError, match=r"altered weights file insightface/w600k_r50.onnx: expected sha256=4c06341c"
    ):
        require(tmp_path, ARCFACE)
    with pytest.raises(WeightsError, match=r"no known weights file is called 'x.onnx'"):
        require(tmp_path, "x.onnx")
    place(tmp_path, ADAFACE)
    assert require(tmp_path, ADAFACE).read_bytes() == b"weights"


def test_other_files_count_once_they_are_recorded(tmp_path: Path) -> None:
    place(tmp_path, "own/net.safetensors")
    entry = {"sha256": hashlib.sha256(b"weights").hexdigest(), "role": "own", "licence": "ours", "source": "here"}
    (tmp_path / RECORD).write_text(json.dumps({"files": {"own/net.safetensors": entry}}), encoding="utf-8")
    assert status(tmp_path)["own/net.safetensors"] == "recorded"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "weights.json cannot be read"),
        ('{"files": []}', "weights.json cannot be read"),
        ('{"files": {"../x": {}}}', "names a file outside of its folder"),
        ('{"files": {"/etc/passwd": {}}}', "names a file outside of its folder"),
    ],
)
def test_bad_records(tmp_path: Path, capsys: pytest.CaptureFixture[str], record: str, message: str) -> None:
    (tmp_path / RECORD).write_text(record, encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "the weights folder does not exist" in capsys.readouterr().err
