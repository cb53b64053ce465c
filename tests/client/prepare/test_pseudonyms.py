"""Pseudonyms: the same for the same patient, of no use without the key."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccfexp.errors import ConfigError
from client.prepare.pseudonyms import Pseudonyms

KEY = bytes(range(32))
TEXTS = st.text(min_size=1)


def test_pseudonym_is_a_keyed_hash_of_the_number_in_one_form() -> None:
    """Against RFC 2104 by hand; however the number was typed, it is the same patient."""
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (b"subject", b"mrn 77"))
    expected = "S" + hmac.new(KEY, message, hashlib.sha256).hexdigest()[:20]

    assert {Pseudonyms(KEY).subject(text) for text in ("MRN 77", " mrn  77 ", "\uff2d\uff32\uff2e 77")} == {expected}
    assert Pseudonyms(bytes(32)).subject("MRN 77") != expected


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_two_lists_of_texts_have_the_same_mark(a: str, b: str, c: str, d: str) -> None:
    """Texts are not simply joined: ("ab", "c") is not ("a", "bc")."""
    marks = Pseudonyms(KEY)

    assert (marks.mark(a, b) == marks.mark(c, d)) == ((a, b) == (c, d))
    assert marks.mark(a, b) != marks.mark(a + b)


def test_names_that_are_not_utf8_have_a_mark() -> None:
    """As file systems give them."""
    assert Pseudonyms(KEY).mark("x", b"\xff\xfe".decode("utf-8", "surrogateescape"))


def test_key_is_made_once_and_shown_to_nobody(tmp_path: Path) -> None:
    """For its owner alone, whole, and not in any text form."""
    path = tmp_path / "private" / "pseudonyms.key"
    made = Pseudonyms.of(path, make=True)

    assert Pseudonyms.of(path, make=False) == Pseudonyms.of(path, make=True) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(set(made.key)) > 8
    assert repr(made) == "Pseudonyms()"


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [(None, 0, "restore the work folder"), (KEY[:-1], 0o600, "bytes=31"), (KEY, 0o640, "mode=640, others may read")],
)
def test_key_that_is_missing_damaged_or_open_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, reason: str
) -> None:
    """With another key every patient would get a new pseudonym, and with it a new privacy budget."""
    path = tmp_path / "pseudonyms.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)

    with pytest.raises(ConfigError, match=reason):
        Pseudonyms.of(path, make=False)
