"""Try to refute what private training claims, and attack a released adapter.

``python -m ccfexp.privacy.audit canaries`` trains on phantoms, with canary patients in or out by the toss of a coin,
and compares the epsilon that can be proven from what is released with the one that is claimed. ``... membership`` asks
of a trained adapter which patients of a manifest it was trained on. How to read both: docs/audit.md.
"""

import argparse
import sys
from pathlib import Path

from ccfexp._io import atomic_write_json
from ccfexp.errors import CCFExpError
from ccfexp.privacy.audit.broken import BREAKS
from ccfexp.privacy.audit.commands import canaries, membership


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code (0 not refuted, 1 claim refuted, 2 refused to run, 130 interrupted)."""
    chosen = _parser().parse_args(arguments)
    try:
        outcome = chosen.run(chosen)
        if chosen.out is not None:
            atomic_write_json(chosen.out, outcome.record)
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: --out cannot be written ({error.strerror}); free space or give another", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was kept, the same command begins again", file=sys.stderr)
        return 130
    print("\n".join(outcome.lines))
    return 1 if outcome.refuted else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ccfexp.privacy.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one_run = commands.add_parser("canaries", help="train with canaries; a lower bound on epsilon beside the claim")
    attack = commands.add_parser("membership", help="tell an adapter's training patients from held-out ones")
    one_run.set_defaults(run=canaries)
    attack.set_defaults(run=membership)
    _add_mechanism(one_run)
    attack.add_argument("--adapter", type=Path, required=True, help="folder of an adapter as a run writes it")
    attack.add_argument("--manifest", type=Path, required=True, help="split=train are members, split=holdout are not")
    attack.add_argument("--draws", type=int, default=8, help="timesteps and noises of every photograph")
    for command in (one_run, attack):
        command.add_argument("--base", default="phantom-base", help="shipped base, or model.safetensors of an import")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, help="JSON file of everything that was found")
    return parser


def _add_mechanism(command: argparse.ArgumentParser) -> None:
    """The training that is audited; the defaults take minutes and catch both of the broken mechanisms."""
    command.add_argument("--epsilon", type=float, default=2.0, help="what is claimed; the noise follows from it")
    command.add_argument("--delta", type=float, default=1e-5)
    command.add_argument("--canaries", type=int, default=128, help="more can refute higher claims, and take longer")
    command.add_argument("--patients", type=int, default=16, help="ordinary phantom patients beside them")
    command.add_argument("--steps", type=int, default=20)
    command.add_argument("--sampling-rate", type=float, default=0.5)
    command.add_argument("--clipping-norm", type=float, default=0.003, help="a fifth of an ordinary patient's gradient")
    command.add_argument("--learning-rate", type=float, default=5e-4)
    command.add_argument("--rank", type=int, default=8)
    command.add_argument("--draws", type=int, default=16, help="with which the attacker computes a patient's gradient")
    command.add_argument("--source", choices=("secure", "seeded"), default="secure", help="of sampling and noise")
    command.add_argument(
        "--break", dest="broken", choices=tuple(BREAKS), default="nothing", help="audit a mechanism broken on purpose"
    )
    command.add_argument("--threads", type=int, default=1)


if __name__ == "__main__":
    raise SystemExit(main())
