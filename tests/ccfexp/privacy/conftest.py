"""One small hospital for all tests of private training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.training import SiteData
from tests.ccfexp import tiny

SITE = PhantomSite("T", subjects=4, holdout=0, first_identity=70_000, sessions=2, movements=("smile_teeth",))


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    """Four phantom patients of whom 4, 1, 3 and 2 photographs may be drawn."""
    data = SiteData.prepare(tiny.model(), write_site(SITE, tmp_path_factory.mktemp("site"), tiny.SIZE))
    drawn = torch.tensor([0, 1, 2, 3, 5, 8, 9, 11, 13, 14])
    return replace(data, images=replace(data.images, target_T=drawn))
