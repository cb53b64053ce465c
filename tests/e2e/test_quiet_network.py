"""Nothing phones home: a whole deployment in a network where every other connection would be seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.quiet_network import IP
from tests.e2e.stage import NGINX, ROOT


def _own_network() -> bool:
    """Whether this user may make a network of its own, with the tools to set it up."""
    if shutil.which("unshare") is None or not Path(IP).is_file():
        return False
    probe = ["unshare", "-n", IP, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.skipif(not _own_network(), reason="this user cannot make a network of its own"),
]


def test_a_deployment_talks_to_itself_alone(tmp_path: Path) -> None:
    """Not one frame leaves loopback, no name is looked up; an attempt made on purpose is seen."""
    program = [sys.executable, "-m", "tests.e2e.quiet_network", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "-n", *program], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=850, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])

    assert found["code"] == 0
    assert found["frames"] == []
    assert found["on_purpose"] > 0
