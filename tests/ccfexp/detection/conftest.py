"""The one real face that an installed package carries, and folders of random weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ccfexp.data.landmark_files import read_landmark_file
from ccfexp.data.photographs import decode_photograph


@pytest.fixture(scope="session")
def astronaut() -> npt.NDArray[np.uint8]:
    """scikit-image's astronaut, uint8 [512, 512, 3]."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image is not installed")
    data = (Path(package.origin).parent / "data/astronaut.png").read_bytes()
    return decode_photograph(data, max_pixels=512 * 512).image_HW3


@pytest.fixture(scope="session")
def astronaut_landmarks() -> npt.NDArray[np.float32]:
    """Her 68 points; the file says where they come from."""
    data = Path(__file__).with_name("astronaut_landmarks.json").read_bytes()
    return read_landmark_file(data, ".json", (512, 512))
