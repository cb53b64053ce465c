"""Approved bundles: what may run, who said so, and what a reviewer is shown."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from ccfexp.errors import LedgerError, PolicyError
from client.approvals import MAX_BUNDLE, Approvals, digest_of, files_of
from client.run import main as run
from tests.client.bundles import bundle
from tests.client.sites import make_site


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    """Those of a new site."""
    return Approvals.of(make_site(tmp_path))


def test_nothing_is_approved_at_first(approvals: Approvals) -> None:
    """And what is not approved is not unpacked."""
    assert approvals.approved() == []
    with pytest.raises(PolicyError, match="is not approved here"):
        approvals.unpack(digest_of(bundle()))


def test_an_approved_bundle_is_unpacked_and_kept_as_it_was(approvals: Approvals) -> None:
    """Files that were changed or added afterwards are put right before it runs again."""
    digest = approvals.approve(bundle(), "IT of A")
    folder = approvals.unpack(digest)
    (folder / "client" / "app.py").write_text("evil = 1")
    (folder / "client" / "added.py").write_text("evil = 1")

    assert approvals.unpack(digest) == folder
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert found == files_of(bundle())


def test_one_byte_makes_another_bundle(approvals: Approvals) -> None:
    """The approval is of bytes, not of a name or a version."""
    approvals.approve(bundle(), "IT of A")
    altered = bundle("pass ")

    assert digest_of(altered) not in approvals.approved()


def test_a_kept_bundle_that_was_altered_does_not_run(approvals: Approvals) -> None:
    """Neither by its name."""
    digest = approvals.approve(bundle(), "IT of A")
    (approvals.folder / f"{digest}.fab").write_bytes(bundle("import os"))

    with pytest.raises(PolicyError, match="was altered"):
        approvals.unpack(digest)


def test_an_approval_cannot_be_slipped_in(approvals: Approvals) -> None:
    """The list of approvals is a chain as the ledger is."""
    approvals.approve(bundle(), "IT of A")
    line = approvals.chain.path.read_bytes()
    approvals.chain.path.write_bytes(line + line)

    with pytest.raises(LedgerError):
        approvals.approved()


def test_a_withdrawn_bundle_is_no_longer_approved(approvals: Approvals) -> None:
    """Both decisions stay in the list, with who took them."""
    first, second = approvals.approve(bundle(), "IT of A"), approvals.approve(bundle("x = 1"), "IT of A")
    approvals.withdraw(first, "privacy officer of A")

    assert approvals.approved() == [second]
    assert [(entry.kind, entry.facts["by"]) for entry in approvals.chain.entries()][-1] == (
        "withdrawn",
        "privacy officer of A",
    )
    with pytest.raises(PolicyError, match="not approved here"):
        approvals.withdraw(first, "privacy officer of A")
    approvals.approve(bundle(), "IT of A")
    assert approvals.approved() == [second, first]


def test_a_reviewer_sees_every_line_that_changed(approvals: Approvals) -> None:
    """Against the last approved bundle: changed lines, files that came and files that went."""
    approvals.approve(bundle(files={"strategies/old.py": "a = 1\n"}), "IT of A")
    shown = approvals.changes(bundle("import socket", files={"strategies/new.py": "b = 2\n"}))

    assert "~ client/app.py" in shown
    assert "+    import socket" in shown
    assert "+ strategies/new.py" in shown
    assert "+b = 2" in shown
    assert "- strategies/old.py" in shown
    assert "-a = 1" in shown
    assert "~ pyproject.toml" not in shown
    assert "no file differs" in approvals.changes(bundle(files={"strategies/old.py": "a = 1\n"}))


def test_a_first_bundle_is_shown_line_by_line(approvals: Approvals) -> None:
    """There is nothing to compare it with, so all of it is new."""
    shown = approvals.changes(bundle("import socket"))

    assert "+    import socket" in shown
    assert "+app = ClientApp()" in shown


def test_nothing_in_a_bundle_steers_the_reviewer_s_terminal(approvals: Approvals) -> None:
    """Codes that move, hide or turn around text are written out."""
    shown = approvals.changes(
        bundle("x = 1  # \x1b[1A\x1b[2K\x1b[8m \u202e txet", files={"configs/a.yaml": "b: \x9b2J"})
    )

    assert not [sign for sign in shown if not (sign.isprintable() or sign == "\n")]
    assert "\\x1b[2K" in shown


def test_refused_bundles_do_not_fill_the_disk(approvals: Approvals) -> None:
    """The oldest that nobody approved make room; an approved one stays."""
    digest = approvals.approve(bundle(), "IT of A")
    for number in range(30):
        approvals.keep(bundle(f"x = {number}"))

    assert len(list(approvals.folder.glob("*.fab"))) <= 21
    assert (approvals.folder / f"{digest}.fab").is_file()


def _zip(name: str, content: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an app bundle"),
        (b"PK\x03\x04 not really", "not an app bundle"),
        (bundle()[:-30], "not an app bundle"),
        (_zip("../outside.py"), "leaves its folder"),
        (_zip("/etc/cron.d/x"), "leaves its folder"),
        (_zip("a\\..\\b.py"), "leaves its folder"),
        (_zip("a\x1b[8m.py"), "cannot be written or read"),
        (_zip("x" * 300), "cannot be written or read"),
        (bundle(files={"client/app.py/inner.py": ""}), "cannot be written or read"),
        (_zip("blob.py", b"\xff\xfe"), "is not text"),
        (bundle(files={"ccfexp/privacy/noise.py": ""}), "stand in for the model package"),
        (bundle(files={"torch.py": ""}), "stand in for the model package"),
        (_zip("bomb.py", b"0" * (21 * MAX_BUNDLE)), "unpacked bundle"),
        (b"0" * (MAX_BUNDLE + 1), "bundle bytes="),
    ],
)
def test_what_is_no_bundle_is_refused_and_not_approved(approvals: Approvals, content: bytes, message: str) -> None:
    """Nothing of it is written anywhere."""
    with pytest.raises(PolicyError, match=message):
        approvals.approve(content, "IT of A")
    assert approvals.approved() == []
    assert not approvals.folder.exists()


def test_the_command_line_shows_asks_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything but yes leaves all as it was; a refused bundle can be named by the beginning of its hash."""
    site = make_site(tmp_path)
    kept = Approvals.of(site)
    kept.keep(bundle())
    name = digest_of(bundle())[:12]
    command = ["--site-file", str(site.path), "--approve", name, "--by", "IT of A"]
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert run(command) == 1
    assert kept.approved() == []
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    assert run(command) == 0
    assert kept.approved() == [digest_of(bundle())]
    assert "+ client/app.py" in capsys.readouterr().out
    assert run(["--site-file", str(site.path), "--withdraw", digest_of(bundle()), "--by", "IT of A"]) == 0
    assert kept.approved() == []
