"""Flower's SuperNode as `client.run` starts it: the stock program, asking for work as often as the site's file says.

``python -m client.supernode POLL_S PARENT_PID [flower-supernode's own arguments]``
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace


def main() -> None:
    """Start the SuperNode; it ends with its parent."""
    poll_s, parent = float(sys.argv[1]), int(sys.argv[2])
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli.flower_supernode import flower_supernode

    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, poll_s))

    # Flower pauses three seconds whenever there is no message, which is most of what a short round costs.
    vars(start_client_internal)["time"] = SimpleNamespace(sleep=sleep)
    sys.argv = ["flower-supernode", *sys.argv[3:]]
    start_parent_process_monitor(parent)
    flower_supernode()


if __name__ == "__main__":
    main()
