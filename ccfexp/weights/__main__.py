"""The folder of pretrained weights: ``python -m ccfexp.weights check DIR`` and ``... record DIR``."""

import argparse
import sys
from pathlib import Path

from ccfexp.errors import CCFExpError
from ccfexp.weights.local import Finding, check_folder, record_folder


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 where a file is altered, 2 where nothing could be checked."""
    parser = argparse.ArgumentParser(prog="python -m ccfexp.weights", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="what is present, verified, altered or missing, and where to get it")
    record = commands.add_parser(
        "record", help="write the hashes of the present files down, to be compared from now on"
    )
    for command in (check, record):
        command.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "record":
            new = record_folder(chosen.folder)
            print(f"{len(new)} files newly recorded" + "".join(f"\n  {name}" for name in new))
            return 0
        findings = check_folder(chosen.folder)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for finding in findings:
        print(_line(finding))
    counts = {
        status: sum(1 for f in findings if f.status == status) for status in dict.fromkeys(f.status for f in findings)
    }
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts.get("altered") else 0


def _line(finding: Finding) -> str:
    file = finding.file
    first = f"{finding.status:<10} {file.name}: {file.role}"
    if finding.status == "missing":
        return f"{first}\n           from {file.source}; licence: {file.licence}"
    if finding.status == "altered":
        return f"{first}\n           expected sha256={finding.expected}, found sha256={finding.sha256}; copy it again"
    if finding.status == "beginning":
        return (
            f"{first}\n           matches the recorded beginning {file.sha256} of its hash, more is not public; found "
            f"sha256={finding.sha256}; compare it with the source, then record it\n           licence: {file.licence}"
        )
    if finding.status == "unverified":
        return f"{first}\n           sha256={finding.sha256}; compare it with the source, then record it"
    return f"{first}\n           licence: {file.licence}"


if __name__ == "__main__":
    raise SystemExit(main())
