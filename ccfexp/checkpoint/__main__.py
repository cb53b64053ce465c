"""Published checkpoints: ``python -m ccfexp.checkpoint import OFFICIAL.ckpt --out DIR`` and ``... check DIR``."""

import argparse
import sys
from pathlib import Path

from ccfexp.checkpoint.importing import MODEL_FILE, import_checkpoint, verify_import
from ccfexp.errors import CCFExpError


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ccfexp.checkpoint", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser(
        "import", help="read a published checkpoint of CCFExp, DCFace, AdaFace, AffectNet deviation or MobileFaceNet"
    )
    bring.add_argument("source", type=Path)
    bring.add_argument("--out", type=Path, required=True, help="a new folder")
    bring.add_argument(
        "--weights", choices=("average", "last"), default="average",
        help="which U-Net of a training checkpoint: the average that samples are drawn from, or the last",
    )  # fmt: skip
    check = commands.add_parser("check", help="compare every file of an import with its record")
    check.add_argument("folder", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "import":
            record = import_checkpoint(chosen.source, chosen.out, chosen.weights)
            print(f"{record['layout']}: {record['keys']} keys, {record['mapped']} mapped, {len(record['left'])} left")
            for reason in sorted(set(record["left"].values())):
                count = sum(1 for why in record["left"].values() if why == reason)
                print(f"  left {count}: {reason}")
            for name, facts in record["files"].items():
                print(f"  {name} {facts['bytes']:,} bytes sha256={facts['sha256']}")
        else:
            config = verify_import(chosen.folder)
            print("every file is as it was imported" + (f"; the model is {MODEL_FILE}" if config else ""))
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: the disk refused: {error.strerror}; free some space, or give a folder that can be written and "
            "read",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
