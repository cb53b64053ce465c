"""A browser without a screen: it asks the application itself, keeps cookies, and follows nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from client.prepare.landmarks_page.app import make_app
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from tests.client.prepare.landmarks_page.desks import SIZE

TOKEN = "0123456789abcdef" * 2
HERE = "http://127.0.0.1:8765"


class Browser:
    """Speaks with the page of a manifest. Exceptions that the application lets through are raised here."""

    def __init__(self, manifest: Path) -> None:
        app = make_app(ManifestDesk(manifest, SIZE), TOKEN)
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE)

    def request(self, method: str, address: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - as httpx has them
        """One request."""
        return asyncio.run(self._client.request(method, address, **options))

    def get(self, address: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        """Ask for something."""
        return self.request("GET", address, **options)

    def post(self, address: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        """Send something, as this page or, with other headers, as another."""
        return self.request("POST", address, **options)
