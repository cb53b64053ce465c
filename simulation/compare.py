"""What each aggregation rule gives for its bytes: ``python -m simulation.compare [RULE ...] [--seeds 1 2 3]``.

Every rule trains the five hospitals of ``configs/strategies.yaml`` from the same start, with the same number of steps
and rounds, and draws the same held-out cases. A rule is a file of ``configs/rule/``; ``key=value`` overrides all. The
table stands in ``runs/strategies/table.md``; an interrupted command goes on, and rules may be run one by one.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ccfexp._io import atomic_write_json, atomic_write_text
from ccfexp.adapter import AdapterState
from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.evaluation.cases import phantom_cases
from ccfexp.evaluation.scores import METRICS
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig
from configs import choices, config_hash, load
from configs.client_part import plan_text
from configs.run import RunConfig
from server.checkpoint import Progress
from simulation.commands import exit_code
from simulation.federate import Callbacks, run_federation
from simulation.personal import adapters_of
from simulation.preflight import preflight
from simulation.progress import RunProgress
from simulation.scoring import Scorer
from simulation.sites import prepare_sites

Figures = dict[str, float]
_RUN, GROUP, BASE = "strategies", "rule", "base"
_KEYS = ("side_accuracy", "severity_spearman", "severity_error", "landmark_nme", "ssim")


@dataclass(frozen=True)
class Study:
    """One row of a table with one seed.

    Attributes:
        name: of the row: a rule's, in the group.
        config: the resolved configuration.
        folder: of all rows and seeds.
    """

    name: str
    config: RunConfig
    folder: Path

    @property
    def own(self) -> Path:
        """What only this row and seed write."""
        return self.folder / f"{self.name}-seed{self.config.seed}"

    def figures(self) -> Figures:
        """Quality, bytes, seconds, bias and the price of privacy, on the disk where they were measured before."""
        path, digest = self.own / "figures.json", config_hash(self.config)
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["config_sha256"] == digest:
                return dict(record["figures"])
        plan = self.config.private_plan
        with RunProgress(self._steps + self._cases) as progress:
            trained = self._trained(progress)
            adapters = adapters_of(trained, self.own, plan_text(plan))
            figures = self._quality(adapters, progress) | _costs(trained)
        if plan is not None and plan.noise_multiplier is not None:
            told = [record.epsilon() for record in trained.history]
            figures |= {"epsilon": max(value or 0.0 for value in told), "noise": plan.noise_multiplier}
        atomic_write_json(path, {"config_sha256": digest, "figures": figures})
        return figures

    @property
    def _steps(self) -> int:
        return self.config.federation.rounds * self.config.train.steps * len(self.config.hospitals)

    @property
    def _cases(self) -> int:
        return 6 * self.config.evaluation.patients * self.config.evaluation.sampling_steps

    def _trained(self, progress: RunProgress) -> Progress:
        config = self.config
        manifests = prepare_sites(config.hospitals, config.image_size, self.folder / "sites")
        progress.stage(f"{self.name}, seed {config.seed}: {self._steps} steps at {len(manifests)} sites")

        def on_step(site: str, number: int, step: int, of: int, loss: float) -> None:
            told = f" loss {loss:.4f}" if config.privacy is None else ""
            progress.advance(1, f"{self.name} round {number} site {site} step {step}/{of}{told}")

        return run_federation(
            config, manifests, self.own, cache_dir=self.folder / "features", callbacks=Callbacks(on_step=on_step)
        )

    def _quality(self, adapters: dict[str, AdapterState], progress: RunProgress) -> Figures:
        """Every metric on the held-out cases, averaged over the adapters where each site has its own."""
        config, judged = self.config, self.config.evaluation
        model = CCFExp.from_base(config.base)
        model.attach_adapter(config.adapter, config.seed)
        cases = phantom_cases(judged.patients, config.image_size, config.hospitals, judged.movements)
        sampling = SamplingConfig(judged.sampling_steps, 0.0, judged.sampler, judged.guidance)
        scorer = Scorer(model, cases, sampling, 1, self.own / "pictures", config.threads)
        drawn = {name: scorer.draw(name or "federated", adapter, progress) for name, adapter in adapters.items()}
        scores = [scorer.score(name, pictures) for name, pictures in drawn.items()]
        return {
            metric.key: statistics.fmean(score.estimate(metric) for score in scores)
            for metric in METRICS
            if metric.key in _KEYS
        }


@dataclass(frozen=True)
class BaseStudy(Study):
    """What the base draws before any training: the floor of the table."""

    def figures(self) -> Figures:
        """Quality alone."""
        with RunProgress(self._cases) as progress:
            model = CCFExp.from_base(self.config.base)
            model.attach_adapter(self.config.adapter, self.config.seed)
            return self._quality({BASE: model.adapter_state()}, progress)


def _costs(trained: Progress) -> Figures:
    """Bytes each way, per site and round; seconds and bias per round."""
    rounds = trained.history[1:]

    def per_site(counts: str) -> float:
        return statistics.fmean(value for record in rounds for value in getattr(record, counts).values())

    biases = [record.bias for record in rounds if record.bias is not None]
    costs = {"up_kb": per_site("received_bytes") / 1e3, "down_kb": per_site("sent_bytes") / 1e3}
    costs["seconds"] = statistics.fmean(record.seconds for record in rounds)
    return costs | ({"bias": statistics.fmean(biases)} if biases else {})


Columns = dict[str, Callable[[Sequence[Figures]], str]]
"""Head of a column -> what stands in it for the figures of all seeds."""


def columns() -> Columns:
    """What every rule is compared in: mean and standard deviation over the seeds."""
    metrics = [metric for metric in METRICS if metric.key in _KEYS]
    made: Columns = {
        metric.label: partial(_cell, key=metric.key, digits=4 if metric.key == "landmark_nme" else 3)
        for metric in metrics
    }
    more = {"Up, kB": ("up_kb", ".0f"), "Down, kB": ("down_kb", ".0f"), "s a round": ("seconds", ".1f")}
    more |= {"Bias": ("bias", ".1g")}
    return made | {head: partial(mean, key=key, form=form) for head, (key, form) in more.items()}


def table(rows: dict[str, list[Figures]], head: str, shown: Columns) -> str:
    """Markdown: every row in every column."""
    heads = [head, *shown]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, seeds in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(seeds) for cell in shown.values()) + " |")
    return "\n".join(lines) + "\n"


def _cell(seeds: Sequence[Figures], *, key: str, digits: int) -> str:
    values = [figures[key] for figures in seeds]
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def mean(seeds: Sequence[Figures], *, key: str, form: str) -> str:
    """The mean of a figure over the seeds that have it."""
    values = [figures[key] for figures in seeds if key in figures]
    return format(statistics.fmean(values), form) if values else "–"


def studies(words: Sequence[str], seeds: Sequence[int], folder: Path) -> list[Study]:
    """What is to be measured.

    Raises:
        ConfigError: an unknown rule, or an override that does not fit.
    """
    overrides = [word for word in words if "=" in word]
    wanted = [word for word in words if "=" not in word] or choices(GROUP)
    made: list[Study] = [BaseStudy(BASE, load(_RUN, [*overrides, "seed=1"], RunConfig), folder)]
    for rule in wanted:
        check_rule(rule)
        for seed in seeds:
            config = load(_RUN, [f"+{GROUP}={rule}", *overrides, f"seed={seed}"], RunConfig)
            preflight(config)
            made.append(Study(rule, config, folder))
    return made


def check_rule(rule: str) -> None:
    """Raises ConfigError unless the group has a file of this name."""
    known = choices(GROUP)
    if rule not in known:
        raise ConfigError(f"unknown rule={rule!r}.{did_you_mean(rule, known)} Known: {', '.join(known)}")


def measured(planned: Sequence[Study]) -> dict[str, list[Figures]]:
    """The figures of every row, a list over its seeds; an interrupted call goes on where it stopped."""
    torch.set_num_threads(planned[0].config.threads)
    figures: dict[str, list[Figures]] = {}
    for study in planned:
        figures.setdefault(study.name, []).append(study.figures())
    return figures


def conclude(text: str, path: Path) -> None:
    """Write a table to the disk and to the terminal."""
    atomic_write_text(path, text)
    print(text, end="")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="RULE | key=value", help="rules (default: all), overrides for all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs") / _RUN)
    chosen = parser.parse_intermixed_args(arguments)
    return exit_code(lambda: _run(studies(chosen.words, chosen.seeds, chosen.out), chosen.out), "--out")


def _run(planned: Sequence[Study], folder: Path) -> None:
    figures = measured(planned)
    some = [rule for rule in figures if rule != BASE]
    name = "table.md" if set(some) == set(choices(GROUP)) else f"table-{'-'.join(some)}.md"
    conclude(table(figures, "Rule", columns()), folder / name)


if __name__ == "__main__":
    raise SystemExit(main())
