"""Silence lasts as long as it is asked for, and no longer."""

from __future__ import annotations

import logging
import os
import threading
import warnings

import pytest

from ccfexp.data.quiet import native_silenced, silenced


def test_log_lines_and_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    parent, child = logging.getLogger("a.library"), logging.getLogger("a.library.part")

    @silenced("a.library")
    def fail() -> None:
        child.critical("SMITH^JOHN")
        warnings.warn("SMITH^JOHN", UserWarning, stacklevel=1)  # an error in this suite, were it heard
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert caplog.text == ""
    assert parent.level == logging.NOTSET
    child.warning("afterwards")
    assert "afterwards" in caplog.text
    with pytest.warns(UserWarning, match="afterwards"):
        warnings.warn("afterwards", UserWarning, stacklevel=1)


def test_c_libraries_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Also with several threads at once, after which standard error still works."""

    def speak() -> None:
        for _ in range(20):
            with native_silenced():
                os.write(2, b"SMITH^JOHN")

    threads = [threading.Thread(target=speak) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(KeyError), native_silenced():
        raise KeyError
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"
