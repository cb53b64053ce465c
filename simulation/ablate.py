"""What each switch of the method buys: ``python -m simulation.ablate [VARIANT ...]``.

Every variant trains one adapter on all hospitals' data from the same start, with the same batches and as many steps,
and draws the same held-out cases. ``corrected`` is the method as it is by default; each other one changes what a file
of ``configs/ablation/`` says. The table of all stands in ``runs/corrected/table.md``, one of some variants in a file
that names them; an interrupted command goes on.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ccfexp._io import atomic_write_text
from ccfexp.errors import ConfigError, did_you_mean
from ccfexp.evaluation.bootstrap import paired_difference
from ccfexp.evaluation.cases import HeldOutCases, phantom_cases
from ccfexp.evaluation.scores import METRICS, Metric, ModelScores
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig
from ccfexp.training import SiteData
from configs import choices, config_hash, load
from configs.run import RunConfig
from simulation.baselines import BaselineRun, pool, train_baseline
from simulation.commands import exit_code
from simulation.preflight import preflight
from simulation.progress import RunProgress
from simulation.scoring import Scorer
from simulation.sites import prepare_sites

_RUN, _GROUP = "corrected", "ablation"
_LONGEST = 100  # letters of a file's name that are variants' names
_KEYS = ("side_accuracy", "severity_spearman", "severity_error", "landmark_nme", "ssim", "identity_leak")


def variants() -> list[str]:
    """Names of the group's files."""
    return choices(_GROUP)


def config_of(variant: str, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a variant.

    Raises:
        ConfigError: an unknown variant, or an override that does not fit.
    """
    known = [_RUN, *variants()]
    if variant not in known:
        raise ConfigError(
            f"unknown variant={variant!r}.{did_you_mean(variant, known)} Known: {', '.join(known)}; an override is "
            "written key=value"
        )
    chosen = [] if variant == _RUN else [f"+{_GROUP}={variant}"]
    return load(_RUN, [*chosen, *overrides], RunConfig)


def score_variant(variant: str, config: RunConfig, cases: HeldOutCases, folder: Path) -> ModelScores:
    """Train a variant's adapter, or take it from ``folder``, and judge its pictures."""
    manifests = prepare_sites(config.hospitals, config.image_size, folder / "sites")
    model = CCFExp.from_base(config.base)
    data = [
        SiteData.prepare(model, manifests[site], cache_dir=folder / "features" / site) for site in sorted(manifests)
    ]
    model.attach_adapter(config.adapter, config.seed)
    initial = model.adapter_state()
    judged = config.evaluation
    sampling = SamplingConfig(judged.sampling_steps, 0.0, judged.sampler, judged.guidance)
    scorer = Scorer(model, cases, sampling, config.seed, folder / "pictures", config.threads)
    steps = config.federation.rounds * config.train.steps
    with RunProgress(steps + len(cases) * judged.sampling_steps) as progress:
        progress.stage(f"{variant}: {steps} steps on {sum(site.subjects for site in config.hospitals)} patients")
        trained = train_baseline(
            BaselineRun(variant, pool(data), config.train, config.seed),
            model,
            initial,
            config.federation.rounds,
            folder / variant,
            config_hash(config),
            threads=config.threads,
            on_step=lambda _who, number, step, of, loss: progress.advance(
                1, f"{variant}: round {number} step {step}/{of} loss {loss:.4f}"
            ),
        )
        return scorer.score(variant, scorer.draw(variant, trained.adapter, progress))


def table(scores: Sequence[ModelScores], seed: int, resamples: int) -> str:
    """Markdown: every variant in every metric, and where it differs clearly from the first."""
    metrics = [metric for metric in METRICS if metric.key in _KEYS]
    lines = ["| variant | " + " | ".join(metric.label for metric in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for place, model in enumerate(scores):
        cells = [_cell(metric, model, scores[0], (seed, place), resamples) for metric in metrics]
        lines.append(f"| {model.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(metric: Metric, model: ModelScores, first: ModelScores, seed: tuple[int, int], resamples: int) -> str:
    digits = 4 if metric.key == "landmark_nme" else 3
    text = f"{model.estimate(metric):.{digits}f}"
    if model is first:
        return text
    rng = np.random.default_rng(seed)
    subject = model.columns["subject"]
    value = paired_difference(
        metric.statistic, model.arrays(metric), first.arrays(metric), subject, rng=rng, resamples=resamples
    )
    clear = "" if not value.excludes_zero else " (better)" if metric.better(value.estimate, 0.0) else " (worse)"
    return f"{text}{clear}"


def table_file(names: Sequence[str]) -> str:
    """Where a table is written: that of every variant under its own name, which a table of some never takes."""
    some = sorted(set(names) - {_RUN})
    if set(some) == set(variants()):
        return "table.md"
    text = "-".join(some) or _RUN
    if len(text) > _LONGEST:
        text = f"{len(some)}-variants-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"table-{text}.md"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variant", nargs="*", help="variants, or key=value for all of them; without variants: all")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    chosen = parser.parse_args(arguments)
    return exit_code(lambda: _run(chosen.variant, chosen.runs), "--runs")


def _run(words: Sequence[str], runs: Path) -> None:
    overrides = [text for text in words if "=" in text]
    wanted = [text for text in words if "=" not in text] or variants()
    configs = {name: config_of(name, overrides) for name in dict.fromkeys([_RUN, *wanted])}
    for config in configs.values():
        preflight(config)
    first = configs[_RUN]
    torch.set_num_threads(first.threads)
    folder = runs / first.name
    judged = first.evaluation
    cases = phantom_cases(judged.patients, first.image_size, first.hospitals, judged.movements)
    scores = [score_variant(name, config, cases, folder) for name, config in configs.items()]
    text = table(scores, first.seed, first.evaluation.bootstrap)
    atomic_write_text(folder / table_file(list(configs)), text)
    steps = first.federation.rounds * first.train.steps
    people = len(set(cases.subject_C))
    print(f"{steps} steps of {first.train.batch_size}, seed {first.seed}, {len(cases)} cases of {people} people")
    print(text, end="")


if __name__ == "__main__":
    raise SystemExit(main())
