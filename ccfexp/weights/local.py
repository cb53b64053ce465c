"""The hospital's own folder of pretrained weights for photographs: nothing is ever downloaded, everything is checked.

A hospital places files by hand. ``weights.json`` in that folder records the hash of each; the table here says which
files the programs know, what they are for, under which licence and where they come from.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ccfexp._io import atomic_write_json, sha256_file
from ccfexp.errors import WeightsError

RECORD: Final = "weights.json"
Status = Literal["verified", "beginning", "recorded", "unverified", "altered", "missing"]


@dataclass(frozen=True)
class KnownFile:
    """A file that the programs know.

    Attributes:
        name: path in the folder.
        role: what it is for.
        licence: in words; a privacy officer or an ethics board will ask.
        source: where it comes from, in words.
        sha256: of the file where it is publicly recorded, else empty; a shorter text is its beginning.
    """

    name: str
    role: str
    licence: str
    source: str
    sha256: str = ""


_PACK = "the insightface model pack buffalo_l (unpack its archive flat into this folder)"
_RESEARCH = "non-commercial research only (insightface's statement on its packs)"
_OFFICIAL = "the links in the CCFExp repository's README"
_TERMS = "no licence stated; research terms of its training data"
KNOWN: Final = (
    KnownFile(
        "insightface/w600k_r50.onnx", "identity (ArcFace IR-50)", _RESEARCH, _PACK,
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
    ),
    KnownFile("insightface/det_10g.onnx", "face detection with five points", _RESEARCH, _PACK, "5838f7fe"),
    KnownFile(
        "face_alignment/2DFAN4-11f355bf06.pth.tar", "68 landmarks (FAN)", "weights' licence not stated; code BSD",
        "the face-alignment project's downloads", "11f355bf06",
    ),
    KnownFile(
        "face_alignment/s3fd-619a316812.pth", "face detection (S3FD)", "weights' licence not stated; code BSD",
        "the face-alignment project's downloads", "619a316812",
    ),
    KnownFile("published/CCFExp.ckpt", "the published model", _TERMS, _OFFICIAL),
    KnownFile("published/dcface_5x5.ckpt", "the U-Net that CCFExp starts from", _TERMS, "the DCFace repository"),
    KnownFile("published/adaface_ir50_casia.ckpt", "identity (AdaFace IR-50)", _TERMS, "the AdaFace repository"),
    KnownFile("published/IR-50_affectnet_deviation_Softmax.pth", "expression (deviation network)", _TERMS, _OFFICIAL),
    KnownFile("published/mobilefacenet_model_best.pth", "68 landmarks (MobileFaceNet)", _TERMS, _OFFICIAL),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is known of one file: ``sha256`` as found (empty where missing), ``expected`` where it differs."""

    file: KnownFile
    status: Status
    sha256: str = ""
    expected: str = ""


def check_folder(folder: Path) -> list[Finding]:
    """Every known file, and every other one that the folder's record names.

    verified: as publicly recorded. beginning: only the beginning of the hash is public, and matches. recorded: as this
    folder's own record says. unverified: present, with no hash to compare with. altered: another hash than is public or
    recorded. missing.

    Raises:
        WeightsError: no such folder, or a record that cannot be read.
    """
    record = _read_record(folder)
    return [_find(folder, file, record) for file in _files(record)]


def _files(record: dict[str, dict[str, Any]]) -> list[KnownFile]:
    """The known files, and the others that a record names."""
    others = [
        KnownFile(name, str(entry.get("role", "")), str(entry.get("licence", "")), str(entry.get("source", "")))
        for name, entry in record.items()
        if name not in {file.name for file in KNOWN}
    ]
    return [*KNOWN, *others]


def _find(folder: Path, file: KnownFile, record: dict[str, dict[str, Any]]) -> Finding:
    recorded = str(record.get(file.name, {}).get("sha256", ""))
    path = folder / file.name
    if not path.is_file():
        return Finding(file, "missing")
    found = sha256_file(path)
    if recorded and found != recorded:
        return Finding(file, "altered", found, recorded)
    if file.sha256 and not found.startswith(file.sha256):
        return Finding(file, "altered", found, file.sha256)
    if found == file.sha256:
        return Finding(file, "verified", found)
    if recorded:
        return Finding(file, "recorded", found)
    return Finding(file, "beginning" if file.sha256 else "unverified", found)


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    if not folder.is_dir():
        raise WeightsError("the weights folder does not exist; make it and place the files there by hand")
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise TypeError("files must be a mapping of mappings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{RECORD} cannot be read ({type(error).__name__}); delete it and record anew") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
        raise WeightsError(f"{RECORD} names a file outside of its folder; names must be relative and without '..'")
    return files


def record_folder(folder: Path) -> list[str]:
    """Write the hashes of all present, unaltered files into the record; returns the names that are new in it.

    Raises:
        WeightsError: as ``check_folder``, or an altered file: what changed must be settled first.
    """
    findings = check_folder(folder)
    altered = [finding.file.name for finding in findings if finding.status == "altered"]
    if altered:
        raise WeightsError(
            f"{len(altered)} files are altered, the first is {altered[0]}; restore them before recording"
        )
    record = _read_record(folder)
    new = [finding for finding in findings if finding.sha256 and finding.file.name not in record]
    for finding in new:
        file = finding.file
        record[file.name] = {
            "sha256": finding.sha256, "role": file.role, "licence": file.licence, "source": file.source,
        }  # fmt: skip
    atomic_write_json(folder / RECORD, {"files": record})
    return [finding.file.name for finding in new]


def require(folder: Path, name: str) -> Path:
    """The path of a file that is present and not altered; the others of the folder are not read.

    Raises:
        WeightsError: missing (with where it comes from and its licence) or altered.
    """
    record = _read_record(folder)
    file = next((file for file in _files(record) if file.name == name), None)
    if file is None:
        raise WeightsError(f"no known weights file is called {name!r}; known: {', '.join(f.name for f in KNOWN)}")
    finding = _find(folder, file, record)
    if finding.status == "missing":
        raise WeightsError(
            f"missing weights file {name} ({finding.file.role}); it comes from {finding.file.source}. Licence: "
            f"{finding.file.licence}"
        )
    if finding.status == "altered":
        raise WeightsError(
            f"altered weights file {name}: expected sha256={finding.expected}, found sha256={finding.sha256}; "
            "copy it again"
        )
    return folder / name
