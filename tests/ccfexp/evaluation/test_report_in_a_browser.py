"""The page in a real browser: everything is in the document, and nothing is asked of any server."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from ccfexp.evaluation.report import write_report
from tests.ccfexp.evaluation.example_report import example

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Recorder(http.server.BaseHTTPRequestHandler):
    """Serves one page and notes every path asked for."""

    page: ClassVar[bytes] = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer with the page."""
        type(self).asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.page if self.path == "/report.html" else b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def dump_dom(address: str, profile: Path) -> str:
    """The document as the browser holds it after loading ``address``."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")
def test_browser_shows_the_whole_page_and_asks_for_nothing_else(tmp_path: Path) -> None:
    """Served over HTTP, so that a request for anything beside the page would be seen."""
    write_report(tmp_path / "report.html", example())
    Recorder.page, Recorder.asked = (tmp_path / "report.html").read_bytes(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dom = dump_dom(f"http://127.0.0.1:{server.server_port}/report.html", tmp_path / "profile")
        server.shutdown()

    assert set(Recorder.asked) <= {"/report.html", "/favicon.ico"}  # a browser asks for an icon of its own accord
    assert "/report.html" in Recorder.asked
    for name in ("results", "difference", "pictures", "sites", "movements"):
        assert f'id="{name}-table"' in dom
    assert dom.count("<img ") == 10
    assert dom.count("data:image/png;base64,") == 10
    assert dom.count("<svg ") >= 6
    assert "not evidence about patients" in dom
    assert "<script" not in dom
