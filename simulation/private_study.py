"""What privacy costs: ``python -m simulation.private_study [--rules fedsvd] [--epsilons none 8 3] [--seeds 1 2 3]``.

Every rule trains the hospitals of ``configs/private.yaml`` at every epsilon from the same start, with the same number
of steps and rounds, and draws the same held-out cases; ``none`` is without differential privacy. ``key=value`` before
the options overrides all. The table stands in ``runs/private/table.md``, one of fewer rules or epsilons in a file that
names them; an interrupted command goes on.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ccfexp.errors import ConfigError
from configs import load
from configs.run import RunConfig
from simulation.commands import exit_code
from simulation.compare import (
    BASE,
    GROUP,
    BaseStudy,
    Columns,
    Figures,
    Study,
    check_rule,
    columns,
    conclude,
    mean,
    measured,
    table,
)
from simulation.preflight import preflight

_RUN, NONE = "private", "none"
RULES, EPSILONS = ("fedit", "ffa", "fedsvd"), (NONE, "8", "3")
_RATIOS = {"side_accuracy": "Side", "severity_spearman": "Severity"}


def studies(
    rules: Sequence[str], epsilons: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], folder: Path
) -> list[Study]:
    """What is to be measured.

    Raises:
        ConfigError: an unknown rule, an epsilon that is none, or an override that does not fit.
    """
    plain = [word for word in overrides if not word.startswith("privacy.")]
    made: list[Study] = [BaseStudy(BASE, load(_RUN, [*overrides, "seed=1"], RunConfig), folder)]
    for rule in rules:
        check_rule(rule)
        for epsilon in epsilons:
            # Where there is no privacy nothing of it can be overridden.
            private = ["+privacy=none", *plain]
            if epsilon != NONE:
                private = [f"privacy.epsilon={_number(epsilon)}", *overrides]
            for seed in seeds:
                config = load(_RUN, [f"+{GROUP}={rule}", *private, f"seed={seed}"], RunConfig)
                preflight(config)
                made.append(Study(row(rule, epsilon), config, folder))
    return made


def row(rule: str, epsilon: str) -> str:
    """Name of a row and of its folders."""
    return f"{rule}-{NONE}" if epsilon == NONE else f"{rule}-epsilon{epsilon}"


def _number(epsilon: str) -> float:
    try:
        value = float(epsilon)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"epsilon={epsilon!r} must be {NONE} or a number above 0; 8 is weak, 1 is strong")
    return value


def private_table(rows: dict[str, list[Figures]]) -> str:
    """Markdown: every rule at every epsilon, and what is left of the same rule's quality without privacy."""
    spent: Columns = {
        "Epsilon": partial(mean, key="epsilon", form=".2f"),
        "Noise multiplier": partial(mean, key="noise", form=".2f"),
    }
    left: Columns = {
        f"{head} / without": partial(mean, key=f"{key}_ratio", form=".3f") for key, head in _RATIOS.items()
    }
    return table(with_ratios(rows), "Rule", spent | columns() | left)


def with_ratios(rows: dict[str, list[Figures]]) -> dict[str, list[Figures]]:
    """The same, and for every private row its quality over that of the same rule and seed without privacy."""
    added = {}
    for name, seeds in rows.items():
        without = rows.get(row(name.rsplit("-", 1)[0], NONE), [])
        if not without or without is seeds:
            added[name] = seeds
            continue
        added[name] = [
            ours | {f"{key}_ratio": ours[key] / theirs[key] for key in _RATIOS if theirs[key]}
            for ours, theirs in zip(seeds, without, strict=True)
        ]
    return added


def table_file(rules: Sequence[str], epsilons: Sequence[str]) -> str:
    """Where a table is written: the whole one under its own name, which a part never takes."""
    whole = set(rules) == set(RULES) and set(epsilons) == set(EPSILONS)
    return "table.md" if whole else f"table-{'-'.join([*rules, *epsilons])}.md"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation.private_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration, for all")
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    parser.add_argument("--epsilons", nargs="+", default=list(EPSILONS), metavar="none|EPSILON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs") / _RUN)
    chosen = parser.parse_intermixed_args(arguments)

    def work() -> None:
        planned = studies(chosen.rules, chosen.epsilons, chosen.seeds, chosen.overrides, chosen.out)
        conclude(private_table(measured(planned)), chosen.out / table_file(chosen.rules, chosen.epsilons))

    return exit_code(work, "--out")


if __name__ == "__main__":
    raise SystemExit(main())
