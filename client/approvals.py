"""Which app bundles may run at this hospital, who approved them, and what changed since the last one.

A bundle is the code that the coordinator sends; it is known by the SHA-256 of its bytes. Approvals stand in a
hash-chained file of their own (`client.chain`), so that an approval cannot be slipped in unnoticed.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp._io import atomic_write_bytes
from ccfexp.errors import PolicyError
from client.chain import Chain
from client.shown import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.site import Site

_HASH = re.compile(r"[0-9a-f]{64}")
MAX_BUNDLE = 10_485_760
"""Bytes; Flower's own bound of a bundle."""
_MAX_UNPACKED = 20 * MAX_BUNDLE
_LONGEST_NAME = 200  # characters of a file or folder
_APPROVED, _NEW = "approved", "new"
_OURS = frozenset({"ccfexp", "opacus", "torch", "numpy", "cryptography", "dp_accounting", "diffusers", "peft"})
_KEPT = 20  # bundles that came and were not approved


def digest_of(bundle: bytes) -> str:
    """The SHA-256 by which a bundle is known."""
    return hashlib.sha256(bundle).hexdigest()


def files_of(bundle: bytes) -> dict[str, bytes]:
    """Name -> content of every file in a bundle.

    Raises:
        PolicyError: not a bundle, too large, or with a name that leaves its folder.
    """
    if len(bundle) > MAX_BUNDLE:
        raise PolicyError(f"bundle bytes={len(bundle)} must be at most {MAX_BUNDLE}; ask the coordinator for another")
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if sum(info.file_size for info in infos) > _MAX_UNPACKED:
                raise PolicyError(f"unpacked bundle must be at most {_MAX_UNPACKED} bytes; ask for another")
            files = {info.filename: archive.read(info) for info in infos}
    except PolicyError:
        raise
    except Exception as error:  # an archive of somebody else may break any reader in any way
        raise PolicyError("this is not an app bundle (.fab); ask the coordinator for the bundle of the run") from error
    if len(files) != len(infos):
        raise PolicyError("the bundle holds a file name twice; do not use it")
    for name, content in files.items():
        _check_file(name, content, files)
    return files


def _check_file(name: str, content: bytes, files: Mapping[str, bytes]) -> None:
    """Only what a reviewer can read, and what can be written to a folder as it is."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise PolicyError("the bundle holds a file name that leaves its folder; do not use it")
    if parts[0].removesuffix(".py") in _OURS:
        raise PolicyError(
            f"the bundle holds {parts[0]}, which would stand in for the model package that is installed here, and with "
            "it for clipping and noise; do not use it"
        )
    folders = {"/".join(parts[:count]) for count in range(1, len(parts))}
    if not printable(name) == name or max(map(len, parts)) > _LONGEST_NAME or folders & files.keys():
        raise PolicyError("the bundle holds a file name that cannot be written or read; do not use it")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{name} of the bundle is not text, so nobody can review it; do not use it") from error


@dataclass(frozen=True)
class Approvals:
    """The bundles of a site: those approved, and those that came and were refused."""

    chain: Chain
    folder: Path

    @classmethod
    def of(cls, site: Site) -> Approvals:
        """The approvals in the site's work folder."""
        return cls(Chain(site.work / "approvals.jsonl"), site.work / "bundles")

    def approved(self) -> list[str]:
        """Hashes of all approved bundles, the last approved last. Raises LedgerError if the file was altered."""
        hashes: list[str] = []
        for entry in self.chain.entries():
            digest = str(entry.facts["bundle"])
            if digest in hashes:
                hashes.remove(digest)
            if entry.kind == "approved":
                hashes.append(digest)
        return hashes

    def find(self, wanted: str) -> bytes:
        """A bundle by its file, or by the (beginning of the) hash of one that came and was refused.

        Raises:
            PolicyError: there is none.
        """
        path = Path(wanted)
        if path.is_file():
            return path.read_bytes()
        kept = sorted(self.folder.glob("*.fab"))
        matches = [file for file in kept if len(wanted) >= 8 and file.stem.startswith(wanted)]
        if len(matches) != 1:
            known = ", ".join(file.stem[:12] for file in kept) or "none"
            raise PolicyError(f"bundle={wanted!r} is no file and no bundle kept here; kept: {known}")
        return matches[0].read_bytes()

    def keep(self, bundle: bytes) -> None:
        """Keep a bundle for review. Raises PolicyError if it is too large to be one."""
        if len(bundle) > MAX_BUNDLE:
            raise PolicyError(f"bundle bytes={len(bundle)} must be at most {MAX_BUNDLE}; it is not kept")
        path = self.folder / f"{digest_of(bundle)}.fab"
        if path.exists():
            return
        approved = set(self.approved())
        others = [file for file in self.folder.glob("*.fab") if file.stem not in approved]
        for old in sorted(others, key=lambda file: file.stat().st_mtime)[: max(0, len(others) - _KEPT + 1)]:
            old.unlink()
        atomic_write_bytes(path, bundle)

    def approve(self, bundle: bytes, who: str) -> str:
        """Write down that a bundle may run; returns its hash.

        Raises:
            PolicyError: it is not a bundle.
            LedgerError: the approval cannot be written down.
        """
        files_of(bundle)
        self.keep(bundle)
        digest = digest_of(bundle)
        self.chain.append("approved", {"bundle": digest, "by": who})
        return digest

    def withdraw(self, digest: str, who: str) -> None:
        """Write down that a bundle may no longer run. Raises PolicyError if it is not approved."""
        if _HASH.fullmatch(digest) is None or digest not in self.approved():
            raise PolicyError(f"bundle={digest[:12]!r} is not approved here; nothing to withdraw")
        self.chain.append("withdrawn", {"bundle": digest, "by": who})

    def unpack(self, digest: str) -> Path:
        """The folder of an approved bundle's files, written anew unless it is there and unchanged.

        Raises:
            PolicyError: it is not approved, or the kept file is not that bundle.
        """
        if digest not in self.approved():
            raise PolicyError(f"bundle {digest[:12]} is not approved here; review it with --approve {digest[:12]}")
        bundle = (self.folder / f"{digest}.fab").read_bytes()
        if digest_of(bundle) != digest:
            raise PolicyError(f"the kept bundle {digest[:12]} was altered; delete it and approve it again")
        folder = self.folder / digest
        files = files_of(bundle)
        present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for name in present - set(files):
            (folder / name).unlink()
        for name, content in files.items():
            if name not in present or (folder / name).read_bytes() != content:
                atomic_write_bytes(folder / name, content)
        return folder

    def changes(self, bundle: bytes) -> str:
        """What a reviewer reads: files added, removed and changed since the last approved bundle, line by line."""
        new = files_of(bundle)
        last = next((self.folder / f"{digest}.fab" for digest in reversed(self.approved())), None)
        old = files_of(last.read_bytes()) if last is not None and last.is_file() else {}
        lines = [
            f"bundle {digest_of(bundle)}",
            f"compared with {last.stem[:12] if last else 'nothing: the first bundle'}",
        ]
        for name in sorted(new.keys() | old.keys()):
            if new.get(name) != old.get(name):
                lines += _difference(name, old.get(name), new.get(name))
        return "\n".join(lines if len(lines) > 2 else [*lines, "no file differs"])


def _difference(name: str, old: bytes | None, new: bytes | None) -> list[str]:
    before, after = _lines(old), _lines(new)
    sign = "+" if old is None else "-" if new is None else "~"
    hashes = " -> ".join(hashlib.sha256(content).hexdigest()[:12] for content in (old, new) if content is not None)
    return [
        f"{sign} {name} ({hashes})",
        *(f"    {line}" for line in difflib.unified_diff(before, after, _APPROVED, _NEW, lineterm="", n=2)),
    ]


def _lines(content: bytes | None) -> list[str]:
    return [] if content is None else [printable(line) for line in content.decode("utf-8", "replace").split("\n")]
