"""A base by the name of shipped weights, or by the path of a safetensors file that pretraining or an import made."""

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from safetensors import SafetensorError, safe_open

from ccfexp import weights
from ccfexp.errors import WeightsError
from ccfexp.weights.imported import check_imported

RESTORE_BASE: Final = "copy the file again, or make it again with the pretraining or the import that it came from"


class BaseFile(NamedTuple):
    """A base as it is stored.

    Attributes:
        name: of the weights or of the file, without its folder.
        tensors: in single precision.
        metadata: of the file's header.
        sha256: of the file.
        folder: of a file given by path, where its encoders lie too; None for a shipped base.
    """

    name: str
    tensors: weights.Tensors
    metadata: dict[str, str]
    sha256: str
    folder: Path | None


def read_base(base: str | Path) -> BaseFile:
    """A whole base.

    Raises:
        WeightsError: missing, damaged, or altered.
    """
    if not _is_file(base):
        return BaseFile(str(base), *weights.load(str(base)), weights.sha256(str(base)), None)
    path = _existing(base)
    data = path.read_bytes()
    check_imported(path, data)
    tensors, metadata = weights.parse(data, path.name, RESTORE_BASE)
    return BaseFile(path.name, tensors, metadata, hashlib.sha256(data).hexdigest(), path.parent)


def read_base_metadata(base: str | Path) -> tuple[str, dict[str, str]]:
    """Name and metadata of a base without its tensors: of a file only the header is read.

    Raises:
        WeightsError: missing or damaged.
    """
    if not _is_file(base):
        return str(base), weights.load(str(base))[1]
    path = _existing(base)
    try:
        with safe_open(path, "pt") as file:
            return path.name, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path.name} is not a readable safetensors file ({type(error).__name__}); {RESTORE_BASE}"
        ) from error


def _is_file(base: str | Path) -> bool:
    return str(base).endswith(".safetensors")


def _existing(base: str | Path) -> Path:
    path = Path(base)
    if not path.is_file():
        raise WeightsError(
            "the base file given as a path does not exist; give the name of shipped weights or an existing file"
        )
    return path
