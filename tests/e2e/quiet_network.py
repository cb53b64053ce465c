"""A program for a test: what leaves this machine's loopback while it runs a whole deployment.

Started in a network namespace of its own. All routes lead to an interface behind which there is nobody; every frame
that is sent to it is caught, so a connection that is tried is seen even though it cannot succeed. Prints one line of
JSON: the frames caught during the deployment, and those of an attempt made on purpose afterwards.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

IP = shutil.which("ip") or "/usr/sbin/ip"
NOBODY = "198.51.100.7"  # of a block reserved for documentation
_ALL = 0x0003  # ETH_P_ALL
_IPV6_NEIGHBOURS = 0x86DD


class Watch:
    """Counts frames that go out of an interface, those of IPv6's own house-keeping left out."""

    def __init__(self, interface: str) -> None:
        self.frames: list[str] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind((interface, 0))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            frame = self._socket.recv(2048)
            kind = struct.unpack("!H", frame[12:14])[0]
            if kind != _IPV6_NEIGHBOURS:
                self.frames.append(frame[:34].hex())


def set_up() -> Watch:
    """Loopback, and one way out: a cable whose other end nobody holds."""
    for words in (
        "link set lo up",
        "link add out0 type veth peer name out1",
        "addr add 192.0.2.1/24 dev out0",
        "link set out1 up",
        "link set out0 up",
        "route add default via 192.0.2.2 dev out0",
    ):
        subprocess.run([IP, *words.split()], check=True)
    return Watch("out0")


def main() -> None:
    """The deployment of the tests, small, from its kits to its last round."""
    folder = Path(sys.argv[1])
    watch = set_up()
    import configs
    from configs.run import RunConfig
    from simulation.sites import prepare_sites
    from tests.e2e.stage import deployment

    small = ["name=quiet", "train.steps=1", "train.batch_size=1", "train.cycle_every=1", "federation.rounds=1"]
    small += [f"sites.{place}.subjects=2" for place in range(3)]
    config = configs.load("demo", small, RunConfig)
    data = prepare_sites(config.hospitals, config.image_size, folder / "data")
    with deployment(folder / "here", ("A", "B", "C")) as stage:
        for name in data:
            stage.settle_site(name, data[name])
            stage.start_site(name)
        for name in data:
            stage.wait(f"site {name}", lambda name=name: stage.connected(name))  # type: ignore[misc]
        stage.start_run("demo", small)
        code = stage.finish_run()
        if code:
            sys.stderr.write(stage.log("run"))
    quiet = list(watch.frames)
    with suppress(OSError):
        socket.create_connection((NOBODY, 443), timeout=3)
    sys.stdout.write(json.dumps({"code": code, "frames": quiet, "on_purpose": len(watch.frames) - len(quiet)}) + "\n")


if __name__ == "__main__":
    main()
