"""A hospital's photographs become training data: ``python -m client.prepare --site-file site.yaml``.

    --template            print a prepare.yaml to start from
    --check               is the data set what it should be? in seconds, changes nothing
    --forget SUBJECT      a patient withdraws: photographs, rows and caches go (- reads the number from the input)
    --locate ENTRY        which file or row an entry of a message is, in this terminal alone
    --landmarks           a page on this machine to correct landmarks by hand

Without one of these: prepare what is new, and write the manifest of all. Ctrl-C ends it; the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ccfexp.errors import CCFExpError
from client.prepare import commands
from client.site import add_site_arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _Parser(argparse.ArgumentParser):
    """Repeats nothing of what was given: it could be a patient's name."""

    def error(self, message: str) -> NoReturn:  # noqa: ARG002 (it holds what was given)
        """End with what may be said."""
        self.exit(2, f"error: the arguments cannot be read and are not repeated; {self.prog} --help lists them\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m client.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_site_arguments(parser)
    parser.add_argument(
        "--from", dest="settings", type=Path, default=None, help="default: prepare.yaml in the site's folder"
    )
    parser.add_argument("--source", type=Path, default=None, help="folder or table, instead of the file's `source`")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--template", action="store_true", help="print a prepare.yaml")
    what.add_argument("--check", action="store_true", help="verify the data set")
    what.add_argument("--forget", metavar="SUBJECT", help="the hospital's number of a patient, or a pseudonym")
    what.add_argument("--locate", metavar="ENTRY", type=int, help="number of an entry")
    what.add_argument("--landmarks", action="store_true", help="serve the page")
    parser.add_argument("--port", type=int, default=8765, help="of the page (0: any free one)")
    parser.add_argument("--yes", action="store_true", help="do not ask before forgetting")
    parser.add_argument("--unknown", action="store_true", help="forget also a patient of whom nothing is prepared")
    return parser


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing that a library says of a file may be read anywhere: it could be a patient's name."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code.

    0: done. 1: something is wrong with the data set, or nothing could be prepared. 2: refused, nothing was changed.
    """
    chosen = _parser().parse_args(arguments)
    os.environ.update({"HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"})
    try:
        with _silence():
            return commands.run(chosen)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Its whole text has a path in it.
        print(f"error: the disk refuses: {error.strerror}; mend its rights or free some space", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 (a traceback would show names and paths on their way into a log)
        print(f"error: a fault of this program ({commands.where(error)}); report this line", file=sys.stderr)
        return 3


if __name__ == "__main__":
    raise SystemExit(main())
