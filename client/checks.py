"""Is this hospital ready? Everything that can be known before connecting, each check with its own remedy."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from rich.table import Table
from rich.text import Text

from ccfexp._io import sha256_file
from ccfexp.data.manifest import ended_consents, read_manifest
from ccfexp.errors import CCFExpError, ManifestError, PolicyError
from ccfexp.model import CCFExp
from ccfexp.privacy.engines import engine_of
from client import coordinator
from client.approvals import Approvals
from client.budget import Budget, check_delta
from client.coordinator import Level
from client.ledger import UPDATE, EgressLedger
from client.payment import Cohort, local_today
from client.sandbox import landlock, seccomp
from client.shown import printable, rounded_up
from client.worker import readable_roots

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from client.site import Site

_FREE_DISK = 1 << 30  # bytes that features, ledger and logs may need
_FLOWER = "1.41"
_SHOWN = 12  # lines of what is wrong with a manifest
_GPU_BASE = 1 << 30  # bytes of GPU memory besides 16 for each weight


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, how it is, and what to do if it is not ready."""

    name: str
    level: Level
    text: str


@dataclass(frozen=True)
class Readiness:
    """All checks, and what they found that the work needs.

    Attributes:
        checks: in the order of the table.
        base_sha256: of the installed base; empty if it cannot be used.
        cohort: who may be trained on; nobody if the manifest cannot be used.
    """

    checks: tuple[Check, ...]
    base_sha256: str
    cohort: Cohort

    @property
    def ready(self) -> bool:
        """Whether nothing stands in the way of connecting."""
        return all(check.level != "not ready" for check in self.checks)

    @property
    def patients(self) -> int:
        """How many may be trained on."""
        return len(self.cohort.subjects)

    def table(self, site: str) -> Table:
        """For a terminal."""
        table = Table("check", "", "", title=f"site {site}")
        colours = {"ready": "green", "warning": "yellow", "not ready": "bold red"}
        for check in self.checks:
            table.add_row(check.name, Text(check.level, colours[check.level]), Text(printable(check.text)))
        return table


def examine(site: Site, today: Callable[[], date] = local_today) -> Readiness:
    """Make every check; none of them changes anything or says anything to anyone but the coordinator's port."""
    checks: list[Check] = [Check("site file", *_site_file(site))]
    checks.append(_guarded("private key", lambda: _private_key(site.private_key)))
    checks.append(_guarded("approved bundles", lambda: _bundles(site)))
    checks.append(_guarded("egress ledger", lambda: _ledger(site)))
    model: CCFExp | None = None
    cohort = Cohort()
    try:
        model = CCFExp.from_base(site.base)
        checks.append(Check("base and encoders", "ready", f"SHA-256 {model.base_sha256[:12]}, all hashes as recorded"))
        checks.append(_guarded("device", lambda: _device(site, model)))
    except CCFExpError as error:
        checks.append(Check("base and encoders", "not ready", str(error)))
    if model is not None:
        check, cohort = _manifest(site, model.config.unet.image_size, today())
        checks += [check, _guarded("privacy ledger", lambda: _privacy(site, cohort))]
    checks.append(Check("release of Flower", *_flower()))
    checks.append(_guarded("disk", lambda: _disk(site.work)))
    checks.append(_guarded("isolation", lambda: _isolation(site)))
    checks.append(_guarded("local port", lambda: _port(site.file.port)))
    checks += [Check(*found) for found in coordinator.examine(*site.address, site.root_certificate)]
    return Readiness(tuple(checks), model.base_sha256 if model else "", cohort)


def _guarded(name: str, look: Callable[[], tuple[Level, str]]) -> Check:
    try:
        return Check(name, *look())
    except CCFExpError as error:
        return Check(name, "not ready", str(error))
    except OSError as error:
        return Check(name, "not ready", f"cannot be looked at ({error.strerror}); mend the rights of the work folder")


def _site_file(site: Site) -> tuple[Level, str]:
    mode = site.path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "not ready", f"mode={stat.S_IMODE(mode):o} lets others change the policy; chmod go-w the file"
    policy = site.policy
    privacy = "no differential privacy asked for" if policy.max_epsilon is None else f"epsilon <= {policy.max_epsilon}"
    return "ready", f"at most {policy.max_rounds} rounds, {policy.max_bytes:,} bytes a message; {privacy}"


def _flower() -> tuple[Level, str]:
    """`client.flower_runtime` reads an interface of Flower's that is not public: it fits one release."""
    found = version("flwr")
    if not found.startswith(f"{_FLOWER}."):
        return "not ready", f"flwr={found} must be {_FLOWER}.*; install what requirements.lock names"
    return "ready", f"{found}; the coordinator needs {_FLOWER} too"


def _private_key(path: Path) -> tuple[Level, str]:
    if not path.is_file():
        return "not ready", f"{path.name} is missing; make it with python -m client.keygen and send the .pub file"
    mode = path.stat().st_mode
    if mode & 0o077:
        return "not ready", f"mode={stat.S_IMODE(mode):o} lets others read the key; chmod 600 it, or make a new pair"
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, UnsupportedAlgorithm, TypeError):
        return "not ready", "not an OpenSSH private key without passphrase; make one with python -m client.keygen"
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return "not ready", "not an elliptic curve key; make one with python -m client.keygen"
    return "ready", "readable by its owner alone"


def _bundles(site: Site) -> tuple[Level, str]:
    approved = Approvals.of(site).approved()
    if not approved:
        return "not ready", "none; review the coordinator's bundle with client.run --approve FILE"
    return "ready", f"{len(approved)}, the last {approved[-1][:12]}"


def _ledger(site: Site) -> tuple[Level, str]:
    sent = EgressLedger.of(site).updates()
    left = site.policy.max_rounds - sent
    if left <= 0:
        return "not ready", f"policy.max_rounds={site.policy.max_rounds} are spent; raise it to let more leave"
    return "ready", f"chain intact; {sent} updates have left, {left} may"


def _device(site: Site, model: CCFExp) -> tuple[Level, str]:
    device = torch.device(site.file.device)
    site.file.compute.check(device)
    if device.type != "cuda":
        return "ready", f"{device}, {site.file.threads} threads"
    if not torch.cuda.is_available():
        return "not ready", f"device={device} but no GPU can be used; mend the driver or set device: cpu"
    free, total = torch.cuda.mem_get_info(device)
    needed = _GPU_BASE + 16 * sum(parameter.numel() for parameter in model.parameters())
    level: Level = "ready" if free >= needed else "not ready"
    return level, f"{torch.cuda.get_device_name(device)}: {free >> 20} of {total >> 20} MiB free, {needed >> 20} needed"


def _privacy(site: Site, cohort: Cohort) -> tuple[Level, str]:
    """What private rounds have cost and may still cost, and whether all that has left was private."""
    policy, patients = site.policy, cohort.subjects
    egress = EgressLedger.of(site).chain.entries()
    budget = Budget.of(site.work, site.name, site.file.data_set, "patient")
    budget.check(patients, EgressLedger.of(site).chain.entries)
    if policy.delta is not None and patients:
        check_delta(policy.delta, len(patients))
    spent = budget.summary(max_epsilon=policy.max_epsilon, delta=policy.delta)
    told = f"chain intact; {spent['rounds']} private rounds have cost epsilon={rounded_up(spent['epsilon'])}"
    if policy.max_epsilon is None:
        return "ready", f"{told}; the policy asks for no limit"
    engine_of(site.file.compute)
    if site.file.declared_patients is None:
        return "not ready", "declared_patients=null must be a number with policy.max_epsilon; declare one"
    told += f" of {policy.max_epsilon} at delta={policy.delta}"
    if spent["epsilon"] >= policy.max_epsilon:
        return "not ready", f"{told}: it is spent, and nothing private may leave any more"
    if uncovered := sum(entry.kind == UPDATE and entry.facts.get("unit") != "patient" for entry in egress):
        return "warning", f"{told}; {uncovered} updates have left that this does not cover"
    return "ready", told


def _manifest(site: Site, image_size: int, today: date) -> tuple[Check, Cohort]:
    """Rows, files, hashes, consent and split (`read_manifest` refuses all that is wrong), and enough patients."""
    try:
        digest = _digest(site.manifest)  # before it is read, so that no later one passes for it
        manifest = read_manifest(site.manifest, image_size)
        if ended := ended_consents(manifest.rows, today):
            raise ManifestError(f"{len(ended)} row(s) may not be used any more:", ended)
        rows = [row for row in manifest.rows if row.split == "train"]
        subjects = frozenset(row.subject_id for row in rows)
        if (patients := len(subjects)) < site.policy.min_patients:
            raise PolicyError(
                f"training patients={patients} are fewer than policy.min_patients={site.policy.min_patients}; add "
                "patients or lower the limit"
            )
    except CCFExpError as error:
        problems = str(error).splitlines()
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        return Check("manifest", "not ready", "\n".join([*problems[:_SHOWN], *more])), Cohort()
    text = f"{patients} training patients, {len(rows)} images; hashes, consent and split as they must be"
    ends = min((row.consent_expires for row in rows if row.consent_expires is not None), default=None)
    return Check("manifest", "ready", text), Cohort(subjects, digest, ends)


def _digest(manifest: Path) -> str:
    try:
        return sha256_file(manifest)
    except OSError:
        return ""  # `read_manifest` says why


def _disk(work: Path) -> tuple[Level, str]:
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    if not os.access(work, os.W_OK):
        return "not ready", "the work folder cannot be written; give it to the user of this service"
    if free < _FREE_DISK:
        return (
            "not ready",
            f"free={free >> 20} MiB must be at least {_FREE_DISK >> 20}; nothing leaves without a record",
        )
    return "ready", f"{free >> 30} GiB free"


def _isolation(site: Site) -> tuple[Level, str]:
    roots = [Path(root).resolve() for root in readable_roots()]
    secrets = {"work": site.work, "private_key": site.private_key, "site file": site.path}
    for name, path in secrets.items():
        inside = next((root for root in roots if path.resolve().is_relative_to(root)), None)
        if inside is not None:
            return "not ready", f"{name} lies below {inside}, which approved code may read; move it elsewhere"
    if any(path.resolve().is_relative_to(site.manifest.parent.resolve()) for path in secrets.values()):
        return (
            "not ready",
            "work, key and site file must not lie in the manifest's folder: approved code may read it",
        )
    found = landlock.version()
    if found and seccomp.available():
        return "ready", f"Landlock {found} and a filter of system calls: the data folder alone, and no network"
    level: Level = "warning" if site.file.isolation == "python" else "not ready"
    return level, "the kernel cannot close off approved code; isolation: python accepts Python's audit hook instead"


def _port(port: int) -> tuple[Level, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return "not ready", f"port={port} is in use; another site, or this one a second time? Set another port"
    return "ready", f"{port} on the loopback interface"
