"""Every shipped YAML file says how it is run, how long that takes and what comes out."""

from __future__ import annotations

import re
from pathlib import Path

import configs

FOLDER = Path(configs.__file__).parent
FILES = sorted(FOLDER.rglob("*.yaml"))
HEADINGS = ("Command", "Expected time", "Expected figure")


def opening(path: Path) -> str:
    """Return the comment lines at the top of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])


def test_every_yaml_file_opens_with_command_time_and_figure() -> None:
    """The heading of a file is `# Command: ...`, `# Expected time: ...`, `# Expected figure: ...`."""
    missing = [
        f"{path.relative_to(FOLDER)}: # {heading}: ..."
        for path in FILES
        for heading in HEADINGS
        if not re.search(rf"^# {heading}: \S", opening(path), re.MULTILINE)
    ]

    assert missing == []


def test_files_are_found() -> None:
    """The tests above and below look at real files."""
    assert len(FILES) >= 1
    assert set(configs.available()) <= {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES}
    assert not list(FOLDER.rglob("*.yml")), "write .yaml: .yml files are neither loaded nor packed"
