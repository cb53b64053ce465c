"""Where a preparation reads and writes at a hospital.

manifest.csv, images/, landmarks/    the data set: what training, and so the coordinator's code, may read
work/prepare/                        key, record, withdrawals, report: what only the hospital reads
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccfexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.site import Site


@dataclass(frozen=True)
class Place:
    """The paths of one site.

    Attributes:
        manifest: the table of the data set; its folder is the data set's.
        work: the site's work folder.
    """

    manifest: Path
    work: Path

    @classmethod
    def of(cls, site: Site) -> Place:
        """Those of a site. Raises ConfigError where the private folder would lie within the data set."""
        place = cls(site.manifest, site.work)
        if place.private.resolve().is_relative_to(place.data.resolve()):
            raise ConfigError(
                "the work folder lies within the folder of the manifest, where training could read the key of the "
                "pseudonyms; name another `work` or `manifest` in the site's file"
            )
        return place

    @property
    def data(self) -> Path:
        """The data set's folder."""
        return self.manifest.parent

    @property
    def private(self) -> Path:
        """What only the hospital reads."""
        return self.work / "prepare"

    @property
    def key(self) -> Path:
        """The key of the pseudonyms."""
        return self.private / "pseudonyms.key"

    @property
    def record(self) -> Path:
        """What has been prepared."""
        return self.private / "prepared.sqlite"

    @property
    def cache(self) -> Path:
        """Features that training keeps of the photographs."""
        return self.work / "cache"

    @property
    def report(self) -> Path:
        """The report on quality."""
        return self.private / "prepare_report.html"

    @property
    def refused(self) -> Path:
        """What was not taken, as a table."""
        return self.private / "refused.csv"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other preparations of this site out. Raises ConfigError where one is at work."""
        self.private.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.private / "prepare.lock", "another preparation of this site is at work; wait for its end"):
            yield

    @contextmanager
    def unserved(self) -> Iterator[None]:
        """Keep the site's service out. Raises ConfigError where it runs: it holds photographs in memory."""
        self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(
            self.work / "run.lock",
            "the site's service (client.run) runs and holds photographs in memory; stop it, and start it again after",
        ):
            yield


@contextmanager
def _locked(path: Path, refusal: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(refusal) from None
        yield
