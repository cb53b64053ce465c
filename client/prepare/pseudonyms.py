"""Names that stand for patients: keyed, so that nobody without the hospital's key can try a list of numbers on them.

HMAC-SHA-256 (RFC 2104) with a key of 256 bits that is made here and never leaves this machine. A plain hash of a
hospital's number is no pseudonym: there are few enough numbers to hash them all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError
from client.prepare.facts import same_subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BYTES = 32
_SUBJECT_DIGITS, _MARK_DIGITS = 20, 40  # hexadecimal: 80 bits tell any number of patients apart


@dataclass(frozen=True)
class Pseudonyms:
    """Makes pseudonyms with one key."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, path: Path, *, make: bool, source: Callable[[int], bytes] = secrets.token_bytes) -> Pseudonyms:
        """Read the hospital's key.

        Args:
            path: of the key; for its owner's eyes alone.
            make: whether a new key may be made where there is none.
            source: of random bytes.

        Raises:
            ConfigError: the key is missing, is no key, can be read by others, or cannot be read or written.
        """
        try:
            if make and not path.exists():
                _write_new(path, source(_BYTES))
            rights = stat.S_IMODE(path.stat().st_mode)
            key = path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(
                "the key of the pseudonyms is missing, and photographs were prepared with it; restore the work folder "
                "from its backup as a whole: with another key every patient would be somebody else"
            ) from None
        except OSError as error:
            raise ConfigError(f"the key of the pseudonyms cannot be used ({error.strerror}); mend its rights") from None
        if rights & 0o077:
            raise ConfigError(f"the key of the pseudonyms has mode={rights:03o}, others may read it; chmod 600 it")
        if len(key) != _BYTES:
            raise ConfigError(f"the key of the pseudonyms has bytes={len(key)}, it must have {_BYTES}; restore it")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """By which a key is known without being told."""
        return self.mark("key")

    def subject(self, identifier: str) -> str:
        """The pseudonym of a patient, the same however the hospital's number was typed (`same_subject`)."""
        return "S" + self._digits(_SUBJECT_DIGITS, "subject", same_subject(identifier))

    def mark(self, purpose: str, *texts: str) -> str:
        """What anything else is known by, such as a file's content; another one for every purpose."""
        return self._digits(_MARK_DIGITS, purpose, *texts)

    def _digits(self, digits: int, *texts: str) -> str:
        # Each text with its length, so that no two lists of texts make the same bytes. Names that are not UTF-8 pass.
        message = b"".join(
            len(data).to_bytes(8, "big") + data for data in (text.encode("utf-8", "surrogateescape") for text in texts)
        )
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()[:digits]


def _write_new(path: Path, key: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
