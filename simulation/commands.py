"""How a command of the simulation ends: its exit code, and a word to the person who gave it."""

import sys
from collections.abc import Callable

from ccfexp.errors import CCFExpError


def exit_code(work: Callable[[], None], folder_option: str) -> int:
    """Do the work; 0 when it is done, 2 where something is refused, 130 when it is interrupted.

    Args:
        work: prints its own result.
        folder_option: of the command, by which another disk can be chosen.
    """
    try:
        work()
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: the disk refused: {error.strerror}; free some space, or name another folder with {folder_option}, "
            "and give the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last complete round", file=sys.stderr)
        return 130
    return 0
