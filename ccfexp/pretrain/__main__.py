"""Make the shipped weights: ``python -m ccfexp.pretrain encoder NAME`` and ``python -m ccfexp.pretrain base``.

``python -m ccfexp.pretrain fusion`` makes none: it measures what each correction of the fusion buys.
"""

import argparse
import sys
from pathlib import Path

import torch

from ccfexp.errors import CCFExpError
from ccfexp.pretrain.ship import WEIGHTS_FOLDER


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ccfexp.pretrain", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="rendered people and snapshots")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER, help="where finished weights go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    stages = parser.add_subparsers(dest="stage", required=True)
    encoder = stages.add_parser("encoder", help="train one small encoder (about 10 minutes on one core)")
    encoder.add_argument("name")
    base = stages.add_parser("base", help="train the phantom base on healthy people (resumes by itself)")
    base.add_argument("--device", default="cpu")
    base.add_argument("--minutes", type=float, default=None, help="stop after this long; the same command continues")
    base.add_argument("--from-shipped", action="store_true", help="without a snapshot, start from the shipped base")
    base.add_argument("--ship", action="store_true", help="write the present average into the package")
    stages.add_parser("fusion", help="compare the corrections of the fusion at equal steps (about 15 minutes)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        if chosen.stage == "encoder":
            from ccfexp.pretrain.encoder_stage import run_encoder

            run_encoder(chosen.name, chosen.work, chosen.out, chosen.workers)
        elif chosen.stage == "fusion":
            from ccfexp.pretrain.fusion_study import run_fusion_study

            run_fusion_study(chosen.work, chosen.workers, chosen.threads)
        else:
            from ccfexp.pretrain.base_stage import BasePlan, run_base

            run_base(
                BasePlan(
                    work=chosen.work, out=chosen.out, device=chosen.device, minutes=chosen.minutes,
                    ship_now=chosen.ship, from_shipped=chosen.from_shipped, workers=chosen.workers,
                )
            )  # fmt: skip
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
