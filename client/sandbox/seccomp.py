"""System calls that an app has no need of, refused by the kernel: sockets of every kind, changing rights, ptrace, ...

Landlock closes files and TCP; this closes what it does not know: UDP and unix sockets, io_uring, rights and
attributes of files, namespaces, the memory of other processes, and leaving the process group by which the hospital
ends the app. A filter cannot be taken off again and holds for all children. This file imports nothing of the project:
it runs before any app code. Numbers are those of linux/seccomp.h, linux/audit.h and the kernel's tables of calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_SET_SECCOMP, _MODE_FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # offsets in struct seccomp_data
_X32 = 0x40000000  # a second table of calls on x86-64
_EVERYWHERE = (425, 426, 427, 438, 452, 463, 466)  # io_uring, pidfd_getfd, fchmodat2, setxattrat, removexattrat
# socket; rights, owners, times and attributes of files; ptrace and other memory; namespaces, mounts, keys, bpf; setsid.
_TABLES = {
    "x86_64": (
        0xC000003E,
        (
            41, 90, 91, 92, 93, 94, 101, 109, 112, 132, 165, 166, 188, 189, 190, 197, 198, 199, 235, 248, 249, 250, 260,
            261, 268, 272, 280, 298, 308, 310, 311, 321, 323,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            5, 6, 7, 14, 15, 16, 39, 40, 52, 53, 54, 55, 88, 97, 117, 154, 157, 198, 217, 218, 219, 241, 268, 270, 271,
            280, 282,
        ),
    ),
}  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def available() -> bool:
    """Whether this machine's system calls are known here."""
    return platform.system() == "Linux" and platform.machine() in _TABLES


def restrict() -> bool:
    """Refuse those calls from now on. Returns False on a machine whose calls are not known here.

    Raises:
        OSError: the kernel does not take the filter.
    """
    if not available():
        return False
    program = _program(platform.machine())
    library = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(program) // 8, program)
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or library.prctl(
        _SET_SECCOMP, _MODE_FILTER, ctypes.byref(loaded), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
    return True


def _program(machine: str) -> bytes:
    """Another architecture or table: refuse. One of the calls: refuse. Else allow."""
    architecture, calls = _TABLES[machine]
    refused = sorted({*calls, *_EVERYWHERE})
    last = 4 + len(refused)  # place of the instruction that allows; the one after it refuses
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 0, last - 1, architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, last - 3, 0, _X32),
        *((_JUMP_EQUAL, last - 4 - place, 0, number) for place, number in enumerate(refused)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
