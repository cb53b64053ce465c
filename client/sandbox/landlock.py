"""Linux's Landlock: a process gives up, for itself and its children and for good, all files and connections but some.

No privilege is needed and nothing is to be installed; kernels from 5.13 on have it, connections are covered from 6.7
on. Numbers are those of linux/landlock.h. This file imports nothing of the project: it runs before any app code.
"""

from __future__ import annotations

import ctypes
import os
import stat

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_READ = 0b1101  # execute, read a file, list a folder
_FILE_RIGHTS = 0b111 | 1 << 14 | 1 << 15  # what a rule on a single file may grant
_ALL_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals of others


class _Attributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """The version of Landlock in this kernel; 0 where there is none."""
    try:
        return max(0, int(_call(_CREATE_RULESET, None, 0, _ASK_VERSION)))
    except OSError:
        return 0


def restrict(read: list[str], write: list[str]) -> int:
    """Leave this process, for good, only files below ``read`` (to read) and ``write`` (to do anything).

    Paths that do not exist are passed over. From version 4 on, TCP is closed too. Returns the version that was used.

    Raises:
        OSError: the kernel refused; where there is no Landlock at all, 0 is returned instead.
    """
    found = version()
    if not found:
        return 0
    handled = max(rights for since, rights in _ALL_BY_VERSION.items() if since <= found)
    attributes = _Attributes(handled, _TCP if found >= 4 else 0, _SCOPES if found >= 6 else 0)
    size = ctypes.sizeof(attributes) if found >= 6 else 16 if found >= 4 else 8
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for paths, rights in ((read, _READ), (write, handled)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        _prctl(_NO_NEW_PRIVILEGES)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return found


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = _Beneath(rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    result = int(library.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, 1, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
