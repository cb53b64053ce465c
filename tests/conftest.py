"""What holds for every test: one torch thread, because two test machines' worth of threads only wait for each other."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the programs that tests start
    import torch

    torch.set_num_threads(1)
