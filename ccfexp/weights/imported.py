"""Whether a file of an import is still as it was imported: ``import.json`` beside it says its hash."""

import hashlib
import json
from pathlib import Path
from typing import Final

from ccfexp.errors import WeightsError

RECORD_FILE: Final = "import.json"
RESTORE: Final = "import the checkpoint again with `python -m ccfexp.checkpoint import`, or copy the file again"


def imported_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that the folder's record names; none where the folder is no import.

    Raises:
        WeightsError: the record cannot be read.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {str(name): str(facts["sha256"]) for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"no readable {RECORD_FILE} in the folder ({type(error).__name__}); {RESTORE}") from error


def check_imported(path: Path, data: bytes) -> None:
    """Refuse the bytes of a file that its import recorded with another hash; a file of no import passes.

    Raises:
        WeightsError: altered, or the record cannot be read.
    """
    expected = imported_hashes(path.parent).get(path.name)
    if expected is None:
        return
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise WeightsError(
            f"altered weight file {path.name}: expected sha256={expected}, found sha256={found}; {RESTORE}"
        )
