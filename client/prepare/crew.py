"""Processes that open photographs: one that crashes or hangs in a damaged file costs that file alone.

What a decoder writes to its error stream goes nowhere, because it may hold what stands in the file.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from collections import deque
from concurrent.futures import TimeoutError as TookTooLongError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ccfexp.data.files import BadFileError
from ccfexp.errors import CCFExpError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pebble import ProcessFuture, ProcessPool

J = TypeVar("J")
R = TypeVar("R")
_AHEAD = 4  # jobs waiting for each process: enough to keep it busy, few enough to hold little in memory


class Crew:
    """Processes that are started once and then do one job after another."""

    def __init__(self, pool: ProcessPool, processes: int, seconds: float) -> None:
        self._pool, self._waiting, self._seconds = pool, processes * _AHEAD, seconds

    @classmethod
    @contextmanager
    def of(cls, processes: int, seconds: float) -> Iterator[Crew]:
        """Start the processes.

        Args:
            processes: how many.
            seconds: that one job may take; then its process is ended and the job has failed.
        """
        from pebble import ProcessPool

        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of numeric libraries' threads
        pool = ProcessPool(processes, initializer=_quiet, context=context)
        try:
            yield cls(pool, processes, seconds)
            pool.close()  # type: ignore[no-untyped-call]
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise
        finally:
            pool.join()

    def each(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[tuple[J, R | Failed]]:
        """Each job with its result, or why there is none, in the order of the jobs.

        Raises:
            ConfigError: something that no job can do without is missing, such as weights.
        """
        running: deque[tuple[J, ProcessFuture[R | Failed]]] = deque()
        for job in jobs:
            running.append((job, self._pool.schedule(_guarded, args=(work, job), timeout=self._seconds)))
            if len(running) >= self._waiting:
                yield self._next(running)
        while running:
            yield self._next(running)

    def _next(self, running: deque[tuple[J, ProcessFuture[R | Failed]]]) -> tuple[J, R | Failed]:
        from pebble import ProcessExpired

        job, future = running.popleft()
        try:
            answer = future.result()
        except TookTooLongError:
            return job, Failed(f"took more than limits.seconds={self._seconds:g}; it is damaged, or raise the limit")
        except ProcessExpired:
            return job, Failed("crashed the program that decodes it; it is damaged, save it anew from its original")
        if isinstance(answer, Failed) and answer.every:
            raise ConfigError(answer.reason)
        return job, answer


@dataclass(frozen=True)
class Failed:
    """Why a job gave nothing; ``every``: no job can."""

    reason: str
    every: bool = False


def _quiet() -> None:
    """What holds in every process: nothing is said, and nothing is left behind by a crash."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who gives the jobs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the photograph
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (for as long as the process lives)
    warnings.simplefilter("ignore")
    logging.disable()


def _guarded(work: Callable[[J], R], job: J) -> R | Failed:
    """The border to all decoders: whatever they raise becomes a reason without their words."""
    try:
        return work(job)
    except BadFileError as error:
        return Failed(str(error))
    except CCFExpError as error:
        return Failed(str(error), every=True)
    except OSError as error:
        return Failed(f"cannot be read ({error.strerror or type(error).__name__}); mend the disk or its rights")
    except MemoryError:
        return Failed("needs more memory than there is; make it smaller")
    except Exception as error:  # noqa: BLE001 (their texts may hold what stands in the file)
        return Failed(f"cannot be used ({type(error).__name__}); save it anew from its original")
