"""The server as a process: where it listens, what it prints, how it ends."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from ccfexp.errors import ConfigError
from client.prepare.landmarks_page.app import serve
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from tests.client.prepare.landmarks_page.desks import PLANTED, SIZE, read_rows
from tests.client.prepare.landmarks_page.server_process import served


def listening_at(port: int) -> list[str]:
    """Addresses of this computer on which somebody listens at a port, as the kernel writes them."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_listens_here_alone_and_ends_on_a_signal(manifest: Path, number: int) -> None:
    """And complains of nothing, whatever it was asked: no path and no pseudonym reaches a log."""
    row = read_rows(manifest)[1]
    with served(manifest, SIZE) as server, httpx.Client(base_url=server.origin) as client:
        assert client.get("/faces").status_code == 403
        assert client.get(server.address).status_code == 200
        assert client.get("/faces").status_code == 200
        assert client.get("/faces", headers={"host": "evil.example"}).status_code == 421
        (manifest.parent / row.path).unlink()
        assert client.get("/picture/2").status_code == 409
        manifest.write_text("spoiled")
        assert client.get("/faces").status_code == 409
        manifest.unlink()
        assert client.get("/faces").status_code == 507
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as raw:
            raw.sendall(f"{PLANTED}\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
        assert listening_at(client.base_url.port or 0) == ["0100007F"]

        assert server.end(number) == (0, "ended\n", "")
        assert server.line == f"Landmarks: {server.address} (Ctrl-C ends it)\n"


@pytest.mark.parametrize("port", [-1, 65_536, "taken"])
def test_a_port_that_cannot_be_used(manifest: Path, port: int | str) -> None:
    """Said before anything is served."""
    desk = ManifestDesk(manifest, SIZE)
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1] if port == "taken" else int(port)
        with pytest.raises(ConfigError, match=f"port={number} cannot be used"):
            serve(desk, number, say=said.append)
    assert said == []


def test_a_missing_package_is_named_with_its_extra(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette and uvicorn come with an extra."""
    for package in ("starlette.applications", "uvicorn"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ConfigError, match="install the extra `photos`"):
                serve(ManifestDesk(manifest, SIZE), 0)
