"""The whole federation on one machine: phantoms in, a federated adapter and a report out.

    python -m simulation.run                          the default configuration
    python -m simulation.run full                     another one (see configs/*.yaml)
    python -m simulation.run train.steps=24 seed=2    overrides key=value
    python -m simulation.run --dry-run                the resolved configuration and the estimated time
    python -m simulation.run --engine ray             sites in parallel through Flower's own simulation runtime

The run is written to runs/<name>/. Interrupt it at any time: the same command goes on where it stopped.
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.evaluation.comparison import Comparison
from ccfexp.privacy.statement import summary
from configs import available, load, resolved_json
from configs.named import load_named
from configs.run import RunConfig
from simulation.commands import exit_code
from simulation.outputs import write_outputs
from simulation.preflight import preflight
from simulation.progress import RunProgress
from simulation.stages import Plan, simulate

_DEFAULT = "default"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 2 refused, 130 interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = _parse(words)
    return exit_code(lambda: _run(chosen, words), "--out")


def _run(chosen: argparse.Namespace, words: list[str]) -> None:
    config = _config(chosen)
    preflight(config)
    if chosen.dry_run:
        print(resolved_json(config))
        print(summary(config.private_plan, config.steps))
        print(f"estimated time on two cores: {_minutes(config, load(_name(chosen), [], RunConfig))}")
        return
    folder = chosen.out or Path("runs") / config.name
    _check_device(chosen.device)
    config.compute.check(torch.device(chosen.device))
    _check_folder(folder, config)
    command = shlex.join(["python", "-m", "simulation.run", *words])
    plan = Plan(config, folder, command, chosen.engine, chosen.device)
    with RunProgress(plan.work_units) as progress:
        outcome = simulate(plan, progress)
        comparison = write_outputs(outcome, folder)
    print(table(comparison))
    print(f"{outcome.seconds / 60:.1f} minutes; open {folder / 'report.html'}")
    print("Phantoms are synthetic: nothing here is evidence about patients.")


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m simulation.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "words", nargs="*", metavar="CONFIG | key=value", help=f"one of {', '.join(available())}; overrides"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="local: in this process, one after the other"
    )
    parser.add_argument("--out", type=Path, default=None, help="folder of the run (default runs/<name>)")
    parser.add_argument("--device", default="cpu", help="torch device, for example cuda")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--verbose", action="store_true", help="show what the parts log")
    chosen = parser.parse_intermixed_args(words)
    logging.basicConfig(level=logging.INFO if chosen.verbose else logging.WARNING, format="%(name)s: %(message)s")
    return chosen


def _config(chosen: argparse.Namespace) -> RunConfig:
    overrides = [word for word in chosen.words if "=" in word]
    return load_named(_name(chosen), overrides)


def _name(chosen: argparse.Namespace) -> str:
    names = [word for word in chosen.words if "=" not in word]
    for name in names:
        if name not in available():
            raise ConfigError(
                f"{name!r} is no configuration (known: {', '.join(available())}) and, without '=', no override; write "
                f"key=value.{did_you_mean(name, available())}"
            )
    if len(names) > 1:
        raise ConfigError(f"configurations {', '.join(names)} were given; name at most one")
    return names[0] if names else _DEFAULT


def _minutes(config: RunConfig, plain: RunConfig) -> str:
    """The expected time of the unchanged configuration, in the proportion of the work."""
    work, usual = (Plan(each, Path(), "").work_units for each in (config, plain))
    minutes = config.expected_minutes * work / usual
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{minutes:.1f} minutes"


def _check_device(device: str) -> None:
    """Raises ConfigError for a device that this machine or this build of torch does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch says of unknown and of missing devices
        raise ConfigError(
            f"device={device!r} cannot be used here, it must be cpu or a device of this machine; "
            "leave --device out, or install the CUDA build of torch (make setup TORCH=cuda)"
        ) from error


def _check_folder(folder: Path, config: RunConfig) -> None:
    """Raises ConfigError where the folder holds progress of another configuration; nothing in it is changed then."""
    record = folder / "config.json"
    if not (record.is_file() and (folder / "checkpoint").is_dir()):
        return
    if record.read_text(encoding="utf-8") != resolved_json(config):
        raise ConfigError(
            f"the folder of run name={config.name} holds a run of another configuration (its config.json); "
            "give that configuration again, choose another folder with --out, or delete the folder"
        )


def table(comparison: Comparison) -> str:
    """The comparison as plain text: one line per headline metric, one column per model, 95 % intervals."""
    headline = [entry for entry in comparison.metrics if entry.metric.headline]
    models = [row.model for row in headline[0].rows]
    lines = [" | ".join(["metric".ljust(22), *(model.ljust(20) for model in models)])]
    for entry in headline:
        cells = []
        for row in entry.rows:
            digits = entry.metric.digits
            value = row.value
            cells.append(f"{value.estimate:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]".ljust(20))
        lines.append(" | ".join([entry.metric.label.ljust(22), *cells]))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
