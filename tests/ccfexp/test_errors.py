"""The error tree and its suggestions."""

from __future__ import annotations

import pytest

from ccfexp import errors


def test_every_error_is_a_ccfexp_error() -> None:
    """One except clause catches whatever the project refuses."""
    classes = [getattr(errors, name) for name in errors.__all__ if name != "did_you_mean"]

    assert len(classes) == 9
    assert all(issubclass(cls, errors.CCFExpError) for cls in classes)


def test_config_error_is_a_value_error() -> None:
    """Callers that only know Python's own errors still catch a bad value."""
    assert issubclass(errors.ConfigError, ValueError)


def test_manifest_error_shows_every_problem() -> None:
    """The message holds the summary and all problems; the tuple holds the problems alone."""
    error = errors.ManifestError("2 rows refused.", ["row 2: a", "row 5: b"])

    assert error.problems == ("row 2: a", "row 5: b")
    assert str(error) == "2 rows refused.\n  row 2: a\n  row 5: b"


@pytest.mark.parametrize(
    ("key", "expected"),
    [("ruonds", " Did you mean 'rounds'?"), ("rounds", " Did you mean 'rounds'?"), ("zzz", "")],
)
def test_did_you_mean(key: str, expected: str) -> None:
    """A near miss is suggested; nonsense is not guessed at."""
    assert errors.did_you_mean(key, ["rounds", "strategy", "min_sites"]) == expected
