"""A whole simulated run from phantoms to the report; every stage goes on where an interrupted run stopped."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from ccfexp._io import atomic_write_text
from ccfexp.adapter import AdapterState
from ccfexp.checkpoint import save_adapter
from ccfexp.evaluation.cases import phantom_cases
from ccfexp.evaluation.report import SiteComposition
from ccfexp.evaluation.scores import ModelScores
from ccfexp.model import CCFExp
from ccfexp.sampling import SamplingConfig
from ccfexp.training import SiteData
from configs import config_hash, resolved_json
from configs.run import RunConfig
from server.checkpoint import Progress
from simulation.baselines import POOLED, local_and_pooled, train_baseline
from simulation.federate import Callbacks, Engine, run_federation
from simulation.progress import RunProgress
from simulation.scoring import Scorer
from simulation.sites import composition, prepare_sites

BASE, FEDERATED, TARGET = "base", "federated", "true target"


@dataclass
class Outcome:
    """What a run has come to; pictures uint8 [C,3,H,W] by model name."""

    config: RunConfig
    command: str
    manifests: dict[str, Path]
    sites: tuple[SiteComposition, ...]
    started: str
    seconds: float
    histories: dict[str, Progress]
    scorer: Scorer
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: dict[str, ModelScores] = field(default_factory=dict)

    @property
    def adapter(self) -> AdapterState:
        """The federated adapter."""
        return self.histories[FEDERATED].adapter


def work_units(config: RunConfig) -> int:
    """Units of work for the progress bar: a training image counts ``_TRAIN_COST`` network evaluations."""
    trained = 3 * len(config.hospitals) * config.federation.rounds * config.train.steps
    drawn = (3 + len(config.hospitals)) * 6 * config.evaluation.patients * config.evaluation.sampling_steps
    return trained * _step_units(config) + drawn


_TRAIN_COST = 6  # a two-pass step over one image costs about as much as six evaluations of the network


def _step_units(config: RunConfig) -> int:
    return _TRAIN_COST * config.train.batch_size


def simulate(config: RunConfig, folder: Path, command: str, engine: Engine, progress: RunProgress) -> Outcome:
    """Prepare sites, federate, train the baselines, draw and score the held-out cases.

    Raises:
        CCFExpError: anything refused on purpose; the same command goes on after the cause is mended.
    """
    clock, started = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    torch.set_num_threads(config.threads)
    atomic_write_text(folder / "config.json", resolved_json(config))
    photographs = sum(site.images for site in config.hospitals)
    progress.stage(f"rendering {photographs} phantom photographs for {len(config.hospitals)} sites")
    manifests = prepare_sites(config.hospitals, config.image_size, folder / "sites")
    # Every file is checked here, so that a damaged data set is told row by row before anything is trained.
    sites = tuple(composition(name, path, config.image_size) for name, path in sorted(manifests.items()))
    scorer = _scorer(config, folder)
    outcome = Outcome(config, command, manifests, sites, started, 0.0, {}, scorer)
    _federate(outcome, folder, engine, progress)
    _train_baselines(outcome, folder, progress)
    _score(outcome, progress)
    outcome.seconds = time.monotonic() - clock
    return outcome


def _scorer(config: RunConfig, folder: Path) -> Scorer:
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    cases = phantom_cases(config.evaluation.patients, config.image_size)
    sampling = SamplingConfig(steps=config.evaluation.sampling_steps)
    return Scorer(model, cases, sampling, config.seed, folder / "pictures")


def _federate(outcome: Outcome, folder: Path, engine: Engine, progress: RunProgress) -> None:
    config, scorer = outcome.config, outcome.scorer
    rounds, units = config.federation.rounds, _step_units(config)
    progress.stage(f"federated: {rounds} rounds of {config.train.steps} steps at each of {len(config.hospitals)} sites")

    def on_step(site: str, number: int, step: int, steps: int, loss: float) -> None:
        progress.advance(units, f"federated round {number}/{rounds} site {site} step {step}/{steps} loss {loss:.4f}")

    def on_round(number: int, adapter: AdapterState, _: dict[str, float]) -> dict[str, float]:
        if engine == "ray" and number:  # workers report no steps
            done = units * config.train.steps * len(config.hospitals)
            progress.advance(done, f"federated round {number}/{rounds}")
        return _validation(scorer, config, number, adapter)

    def on_reply(number: int, site: str, refused: str | None) -> None:
        if refused is not None:
            progress.stage(f"round {number}: the update of site {site} was refused: {refused}")

    outcome.histories[FEDERATED] = run_federation(
        config,
        outcome.manifests,
        folder,
        engine=engine,
        cache_dir=folder / "features",
        callbacks=Callbacks(on_round=on_round, on_reply=on_reply, on_step=on_step),
    )
    about = {"base_sha256": scorer.model.base_sha256, "config_sha256": config_hash(config), "rounds": str(rounds)}
    save_adapter(folder / "adapter", outcome.adapter, scorer.model, config.adapter, about)


def _validation(scorer: Scorer, config: RunConfig, number: int, adapter: AdapterState) -> dict[str, float]:
    if number % config.evaluation.every_rounds and number != config.federation.rounds:
        return {}
    return {"validation_loss": scorer.loss(adapter)}


def _train_baselines(outcome: Outcome, folder: Path, progress: RunProgress) -> None:
    config, scorer = outcome.config, outcome.scorer
    rounds, units = config.federation.rounds, _step_units(config)
    initial = _initial(config)
    data = {
        name: SiteData.prepare(scorer.model, manifest, cache_dir=folder / "features" / name)
        for name, manifest in outcome.manifests.items()
    }

    def on_step(who: str, number: int, step: int, steps: int, loss: float) -> None:
        progress.advance(units, f"{who} alone, round {number}/{rounds} step {step}/{steps} loss {loss:.4f}")

    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    for run in local_and_pooled(data, config.train, config.seed):
        what = "pooled" if run.name == POOLED else f"local only, site {run.name}"
        progress.stage(f"{what}: {rounds} rounds of {run.train.steps} steps")
        outcome.histories[run.name] = train_baseline(
            run,
            model,
            initial,
            rounds,
            folder / "baselines" / run.name,
            config_hash(config),
            on_step=on_step,
            evaluate=lambda number, adapter: _validation(scorer, config, number, adapter),
        )


def _initial(config: RunConfig) -> AdapterState:
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    return model.adapter_state()


def _score(outcome: Outcome, progress: RunProgress) -> None:
    scorer, initial = outcome.scorer, _initial(outcome.config)
    progress.stage(f"drawing {len(scorer.cases)} held-out cases with each of {len(outcome.histories) + 1} models")
    for name, adapter in {BASE: initial, **{key: value.adapter for key, value in outcome.histories.items()}}.items():
        outcome.pictures[name] = scorer.draw(name, adapter, progress)
        outcome.scores[name] = scorer.score(name, outcome.pictures[name])
    outcome.scores[TARGET] = scorer.score_target()
