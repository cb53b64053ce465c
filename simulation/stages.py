"""A whole simulated run from phantoms to the report; every stage goes on where an interrupted run stopped."""

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from ccfexp._io import atomic_write_json, atomic_write_text
from ccfexp.adapter import AdapterState
from ccfexp.checkpoint import save_adapter
from ccfexp.evaluation.cases import EXAMINATIONS_PER_PERSON, phantom_cases
from ccfexp.evaluation.report import SiteComposition
from ccfexp.evaluation.scores import ModelScores
from ccfexp.model import CCFExp
from ccfexp.privacy.statement import epsilon_text, summary
from ccfexp.sampling import SamplingConfig
from ccfexp.training import SiteData
from configs import config_hash, resolved_json
from configs.client_part import plan_text
from configs.run import RunConfig
from server.checkpoint import Progress
from server.federation import Answer
from simulation.baselines import POOLED, local_and_pooled, train_baseline
from simulation.federate import Callbacks, Engine, run_federation
from simulation.personal import adapters_of
from simulation.progress import RunProgress
from simulation.scoring import Scorer
from simulation.sites import composition, prepare_sites
from strategies import registry

BASE, FEDERATED, TARGET = "base", "federated", "true target"
_PASS_COST = 3  # one pass over one image, forwards and backwards, costs about as much as three evaluations


@dataclass(frozen=True)
class Plan:
    """What was asked for: the resolved configuration, where it is written, and how it is run.

    Attributes:
        config: the resolved configuration.
        folder: of the run.
        command: as it was typed, for the report.
        engine: "local" (this process) or "ray" (parallel workers).
        device: torch device on which everything is trained and drawn.
    """

    config: RunConfig
    folder: Path
    command: str
    engine: Engine = "local"
    device: str = "cpu"

    @property
    def step_units(self) -> int:
        """Units of work of one training step without privacy."""
        return self._units(self.config.train.batch_size)

    @property
    def federated_step_units(self) -> int:
        """The same in the federation: in a private run the expected number of images that are drawn."""
        privacy, sites = self.config.privacy, self.config.hospitals
        if privacy is None:
            return self.step_units
        units = sum(site.subjects if privacy.unit == "patient" else site.images for site in sites) / len(sites)
        drawn = privacy.sampling_rate * units * privacy.images_per_patient * privacy.draws_per_image
        return max(1, self._units(drawn))

    def _units(self, images: float) -> int:
        train = self.config.train
        passes = 1 + (1 / train.cycle_every if train.cycle.cycle_weight else 0)
        return round(_PASS_COST * passes * images)

    @property
    def work_units(self) -> int:
        """Units of work of the whole run, in evaluations of the network."""
        config, sites = self.config, len(self.config.hospitals)
        alone = config.evaluation.baselines
        # Federated, and then each site alone and pooled.
        units = self.federated_step_units + (2 * self.step_units if alone else 0)
        trained = sites * config.federation.rounds * config.train.steps * units
        drawn = (
            (3 + sites if alone else 2)
            * EXAMINATIONS_PER_PERSON
            * config.evaluation.movements
            * config.evaluation.patients
            * config.evaluation.sampling_steps
        )
        return trained + drawn

    def model(self) -> CCFExp:
        """The base with the run's first adapter."""
        model = CCFExp.from_base(self.config.base).to(self.device)
        model.attach_adapter(self.config.adapter, self.config.seed)
        model.compute_as(self.config.compute)
        return model


@dataclass
class Outcome:
    """What a run has come to; pictures uint8 [C,3,H,W] and scores by model name."""

    plan: Plan
    manifests: dict[str, Path]
    sites: tuple[SiteComposition, ...]
    initial: AdapterState
    scorer: Scorer
    started: str = ""
    seconds: float = 0.0
    histories: dict[str, Progress] = field(default_factory=dict)
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: dict[str, ModelScores] = field(default_factory=dict)

    @property
    def adapter(self) -> AdapterState:
        """The federated adapter."""
        return self.histories[FEDERATED].adapter

    @property
    def adapters(self) -> dict[str, AdapterState]:
        """The same, named by nothing; or those of the sites, where each has its own."""
        privacy = plan_text(self.plan.config.private_plan)
        return adapters_of(self.histories[FEDERATED], self.plan.folder, privacy)


def simulate(plan: Plan, progress: RunProgress) -> Outcome:
    """Prepare sites, federate, train the baselines, draw and score the held-out cases.

    Raises:
        CCFExpError: anything refused on purpose; the same command goes on after the cause is mended.
    """
    torch.set_num_threads(plan.config.threads)
    watch = _Watch(plan.folder / "elapsed.json")
    outcome = _prepare(plan, progress)
    outcome.started = watch.started
    for stage in (_federate, _train_baselines, _score):
        stage(outcome, progress)
        outcome.seconds = watch.lap()
    return outcome


class _Watch:
    """When the run first began, and the seconds spent on it by every process that worked on it."""

    def __init__(self, path: Path) -> None:
        self._path, self._begin, self._before = path, time.monotonic(), 0.0
        self.started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            self.started, self._before = str(record["started"]), float(record["seconds"])

    def lap(self) -> float:
        """Seconds so far, written down so that a later process goes on counting."""
        seconds = self._before + time.monotonic() - self._begin
        atomic_write_json(self._path, {"started": self.started, "seconds": round(seconds, 1)})
        return seconds


def _rounds_done(checkpoint: Path) -> int:
    """The last complete round of an earlier process, for the progress bar alone."""
    state = checkpoint / "state.json"
    if not state.is_file():
        return 0
    return int(json.loads(state.read_text(encoding="utf-8"))["round"])


def _prepare(plan: Plan, progress: RunProgress) -> Outcome:
    config = plan.config
    atomic_write_text(plan.folder / "config.json", resolved_json(config))
    photographs = sum(site.images for site in config.hospitals)
    progress.stage(f"rendering {photographs} phantom photographs for {len(config.hospitals)} sites")
    manifests = prepare_sites(config.hospitals, config.image_size, plan.folder / "sites")
    # Every file is checked here, so that a damaged data set is told row by row before anything is trained.
    sites = tuple(composition(name, path, config.image_size) for name, path in sorted(manifests.items()))
    model = plan.model()
    judged = config.evaluation
    cases = phantom_cases(judged.patients, config.image_size, config.hospitals, judged.movements)
    sampling = SamplingConfig(judged.sampling_steps, 0.0, judged.sampler, judged.guidance)
    scorer = Scorer(model, cases, sampling, config.seed, plan.folder / "pictures", config.threads)
    return Outcome(plan, manifests, sites, model.adapter_state(), scorer)


def _federate(outcome: Outcome, progress: RunProgress) -> None:
    plan = outcome.plan
    config, rounds, units = plan.config, plan.config.federation.rounds, plan.federated_step_units
    progress.stage(f"federated: {rounds} rounds of {config.train.steps} steps at each of {len(config.hospitals)} sites")

    promised = config.private_plan
    if promised is not None:
        progress.stage(summary(promised, config.steps))
    progress.skip_to(units * _rounds_done(plan.folder / "checkpoint") * config.train.steps * len(config.hospitals))
    spent: dict[str, str] = {}

    def on_step(site: str, number: int, step: int, steps: int, loss: float) -> None:
        # Sites of a private run tell no loss, but what they have spent in the rounds before.
        told = f" loss {loss:.4f}" if promised is None else spent.get(site, "")
        progress.advance(units, f"federated round {number}/{rounds} site {site} step {step}/{steps}{told}")

    def on_round(number: int, adapter: AdapterState, _: dict[str, float]) -> dict[str, float]:
        if plan.engine == "ray" and number:  # workers report no steps
            progress.advance(units * config.train.steps * len(config.hospitals), f"federated round {number}/{rounds}")
        return _validation(outcome, number, adapter)

    def on_reply(answer: Answer) -> None:
        if "epsilon_run" in answer.metrics:
            spent[answer.site] = f" after epsilon {epsilon_text(answer.metrics['epsilon_run'])}"
        if answer.refused is not None:
            progress.stage(
                f"round {answer.round_number}: the update of site {answer.site} was refused: {answer.refused}"
            )

    outcome.histories[FEDERATED] = run_federation(
        config,
        outcome.manifests,
        plan.folder,
        engine=plan.engine,
        cache_dir=plan.folder / "features",
        device=plan.device,
        callbacks=Callbacks(on_round=on_round, on_reply=on_reply, on_step=on_step),
    )
    share = units * rounds * config.train.steps * len(config.hospitals)
    progress.skip_to(share)
    _save_adapters(outcome)


def _save_adapters(outcome: Outcome) -> None:
    config, model = outcome.plan.config, outcome.scorer.model
    about = {"base_sha256": model.base_sha256, "config_sha256": config_hash(config)}
    about |= {"rounds": str(config.federation.rounds), "privacy": plan_text(config.private_plan)}
    for site, adapter in outcome.adapters.items():
        save_adapter(outcome.plan.folder / "adapter" / site, adapter, model, config.adapter, about)


def _validation(outcome: Outcome, number: int, adapter: AdapterState) -> dict[str, float]:
    config = outcome.plan.config
    if number % config.evaluation.every_rounds and number != config.federation.rounds:
        return {}
    if registry.make(config.federation.strategy).personal and number:
        return {}  # there is no model of the whole
    # Nothing is trained in round 0: what is measured there is the base, without a bottleneck that it never had.
    return {"validation_loss": outcome.scorer.loss(adapter if number else None)}


def _train_baselines(outcome: Outcome, progress: RunProgress) -> None:
    """Each site alone and pooled, without differential privacy also where the federation has it."""
    if not outcome.plan.config.evaluation.baselines:
        return
    plan, model = outcome.plan, outcome.plan.model()
    config, rounds = plan.config, plan.config.federation.rounds
    data = {
        name: SiteData.prepare(model, manifest, cache_dir=plan.folder / "features" / name)
        for name, manifest in outcome.manifests.items()
    }

    def on_step(who: str, number: int, step: int, steps: int, loss: float) -> None:
        name = who if who == POOLED else f"site {who} alone,"
        progress.advance(plan.step_units, f"{name} round {number}/{rounds} step {step}/{steps} loss {loss:.4f}")

    share = plan.federated_step_units * rounds * config.train.steps * len(data)
    for run in local_and_pooled(data, config.train, config.seed):
        what = "pooled" if run.name == POOLED else f"local only, site {run.name}"
        progress.stage(f"{what}: {rounds} rounds of {run.train.steps} steps")
        own = plan.folder / "baselines" / run.name
        progress.skip_to(share + plan.step_units * _rounds_done(own) * run.train.steps)
        outcome.histories[run.name] = train_baseline(
            run,
            model,
            outcome.initial,
            rounds,
            own,
            config_hash(config),
            threads=config.threads,
            on_step=on_step,
            evaluate=lambda number, adapter: _validation(outcome, number, adapter),
        )
        share += plan.step_units * rounds * run.train.steps
        progress.skip_to(share)


def _drawn_by_all(scorer: Scorer, adapters: dict[str, AdapterState], progress: RunProgress) -> torch.Tensor:
    """Where every site has a model of its own, people are shared out among them: uint8 [C,3,H,W]."""
    drawn = [scorer.draw(f"site {site}", adapters[site], progress) for site in sorted(adapters)]
    place = {person: index % len(drawn) for index, person in enumerate(sorted(set(scorer.cases.subject_C)))}
    return torch.stack([drawn[place[person]][case] for case, person in enumerate(scorer.cases.subject_C)])


def _score(outcome: Outcome, progress: RunProgress) -> None:
    scorer = outcome.scorer
    trained = {name: history.adapter for name, history in outcome.histories.items()}
    adapters: dict[str, AdapterState | None] = {BASE: None, **trained}
    progress.stage(f"drawing {len(scorer.cases)} held-out cases with each of {len(adapters)} models")
    personal = {site: adapter for site, adapter in outcome.adapters.items() if site}
    for name, adapter in adapters.items():
        if name == FEDERATED and personal:
            outcome.pictures[name] = _drawn_by_all(scorer, personal, progress)
        else:
            outcome.pictures[name] = scorer.draw(name, adapter, progress)
        outcome.scores[name] = scorer.score(name, outcome.pictures[name])
    outcome.scores[TARGET] = scorer.score_target()
