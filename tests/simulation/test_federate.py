"""The real model, phantom hospitals and training through `run_federation`, at the smallest size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import configs
from ccfexp.adapter import trainable_names
from ccfexp.conditioning import ConditioningConfig
from ccfexp.data.phantom.sites import write_site
from ccfexp.errors import ConfigError
from ccfexp.model import PHANTOM, CCFExp, EncoderNames, FrozenEncoders, ModelConfig, config_to_json
from ccfexp.privacy.plan import PrivacyConfig
from client.memory import folder_of
from client.workbench import BenchPlan, SiteSource, Workbench
from configs.client_part import plan_text
from configs.run import RunConfig
from server.exchange import Patience
from server.settle import federation_of
from simulation.federate import Callbacks, run_federation
from simulation.personal import adapters_of
from simulation.spending import LEDGERS, spent_in
from strategies import wire
from strategies.packing import pack

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.slow
SMALL = ModelConfig(
    unet=replace(PHANTOM.unet, channels=(32, 32)),
    conditioning=ConditioningConfig(style_size=128),
    diffusion=PHANTOM.diffusion,
)
SEEDED = PrivacyConfig(noise_multiplier=1.0, sampling_rate=0.5, source="seeded")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The tiny preset on a small untrained base."""
    path = tmp_path_factory.mktemp("base") / "small.safetensors"
    torch.manual_seed(0)
    model = CCFExp(SMALL, FrozenEncoders.load(EncoderNames()))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # zero-initialised layers of an untrained network let no gradient through
                parameter.normal_(std=0.05)
    save_file(model.state_dict(), path, {"model": config_to_json(SMALL)})
    return replace(configs.load("tiny", [], RunConfig), base=str(path), threads=1)


@pytest.fixture(scope="module")
def manifests(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The two phantom hospitals of the preset."""
    folder = tmp_path_factory.mktemp("sites")
    return {site.name: write_site(site, folder / site.name, config.image_size) for site in config.sites}


@pytest.fixture(scope="module")
def message(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> wire.AdapterMessage:
    """What the coordinator sends in the first round."""
    model = CCFExp.from_base(config.base)
    model.attach_adapter(config.adapter, config.seed)
    plan = federation_of(
        config,
        initial=model.adapter_state(),
        base_sha256=model.base_sha256,
        out_dir=tmp_path_factory.mktemp("run"),
        wanted_sites=2,
        patience=Patience(60.0),
    )
    return wire.AdapterMessage.of(plan.terms, plan.initial, plan.client_config)


def bench_of(config: RunConfig, manifests: Mapping[str, Path], sites_in_memory: int = 8) -> Workbench:
    """A bench for the hospitals."""
    sources = tuple(SiteSource(name, path) for name, path in manifests.items())
    memory = next(iter(manifests.values())).parent / "memory"
    return Workbench(BenchPlan(config.base, sources, memory, sites_in_memory=sites_in_memory))


def test_a_federation_trains_the_adapter_and_resumes_to_the_same_bits(
    config: RunConfig, manifests: Mapping[str, Path], tmp_path: Path
) -> None:
    """Stopped in round 2 by an exception in a hook, then run again."""
    steps: list[tuple[str, int, int]] = []

    def stop_in_round_2(*where: object) -> None:
        if where[1] == 2:
            raise KeyboardInterrupt

    watch = Callbacks(on_step=lambda site, number, step, _steps, _loss: steps.append((site, number, step)))
    whole = run_federation(config, manifests, tmp_path / "whole", callbacks=watch)
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, manifests, tmp_path / "cut", callbacks=Callbacks(on_step=stop_in_round_2))
    run_federation(config, manifests, tmp_path / "cut")

    assert steps == [(site, number, step) for number in (1, 2) for site in ("A", "B") for step in (1, 2)]
    assert whole.history[2].weights == {"A": 2.0, "B": 2.0}
    assert any(tensor.abs().sum() > 0 for name, tensor in whole.adapter.items() if "lora_B" in name)
    cut, full = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in ("cut", "whole"))
    assert cut == full


def test_a_private_federation_tells_what_it_spent_and_resumes_to_the_same_bits(
    config: RunConfig, manifests: Mapping[str, Path], tmp_path: Path
) -> None:
    """Neither loss nor counts. Noise from a seed repeats, its price does not: the round that was cut is paid twice."""

    def stop_in_round_2(*where: object) -> None:
        if where[:2] == ("B", 2):
            raise KeyboardInterrupt

    private = replace(config, privacy=SEEDED)
    whole = run_federation(private, manifests, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_federation(private, manifests, tmp_path / "cut", callbacks=Callbacks(on_step=stop_in_round_2))
    cut = run_federation(private, manifests, tmp_path / "cut")
    plan = private.private_plan

    assert plan is not None
    once, twice = (plan.epsilon_after(number * config.train.steps) for number in (1, 2))
    assert whole.history[1].metrics["A"] == {"steps": 2.0, "epsilon_run": once, "epsilon_total": once}
    assert whole.history[2].epsilon() == twice
    assert whole.history[2].weights == {"A": 2.0, "B": 2.0}, "as declared"
    for name, tensor in whole.adapter.items():
        torch.testing.assert_close(cut.adapter[name], tensor, rtol=0, atol=0)
    for folder, run, rounds in (("whole", whole, 2), ("cut", cut, 3)):
        ledgers = tmp_path / folder / LEDGERS
        assert spent_in(run.run, ledgers, "B", plan) == plan.epsilon_after(rounds * config.train.steps)


def test_what_is_remembered_of_a_private_run_is_its_own(
    config: RunConfig, manifests: Mapping[str, Path], tmp_path: Path
) -> None:
    """Factors that never leave a site lie under the plan that they were trained with, and are found there."""
    federation = replace(config.federation, rounds=1, strategy="fedsa")
    private = replace(config, privacy=SEEDED, federation=federation)
    run = run_federation(private, manifests, tmp_path)

    assert list(adapters_of(run, tmp_path, plan_text(private.private_plan))) == ["A", "B"]
    assert not folder_of(tmp_path / "memory", run.run).exists()


def test_only_lora_is_trained_and_sent(
    config: RunConfig, manifests: Mapping[str, Path], message: wire.AdapterMessage
) -> None:
    """Parameters that ask for gradients, that change, and that are on the wire: one set of names."""
    bench = bench_of(config, manifests)
    update = bench.train("A", message)
    model = bench._model
    assert model is not None
    base = CCFExp.from_base(config.base).state_dict()
    now = {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items()}

    changed = {name for name, tensor in update.state().items() if tensor.any()}
    assert trainable_names(model) == set(update.manifest.names) == set(message.manifest.names)
    assert changed
    assert all(torch.equal(now[name], tensor) for name, tensor in base.items())


def test_a_site_trains_the_same_whoever_came_before(
    config: RunConfig, manifests: Mapping[str, Path], message: wire.AdapterMessage
) -> None:
    """One model for all sites, and nothing of one site in the next; with one site's images in memory at a time."""
    alone = bench_of(config, manifests).train("B", message)
    shared = bench_of(config, manifests, sites_in_memory=1)
    shared.train("A", message)
    after = shared.train("B", message)

    assert after.change_P.tobytes() == alone.change_P.tobytes()
    assert list(shared._data) == ["B"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base_sha256": "c" * 64}, "base_sha256=cccccccccccc of the message is not this site's"),
        ({"rank": 4}, "rank and alpha"),
    ],
)
def test_a_message_for_another_model_is_refused(
    config: RunConfig,
    manifests: Mapping[str, Path],
    message: wire.AdapterMessage,
    change: dict[str, object],
    reason: str,
) -> None:
    """Before any image is read."""
    bench = bench_of(config, manifests)
    other = replace(message, terms=replace(message.terms, **change))  # type: ignore[arg-type]

    with pytest.raises(Exception, match=reason):
        bench.train("A", other)
    assert not bench._data


def test_other_tensors_or_another_configuration_are_refused(
    config: RunConfig, manifests: Mapping[str, Path], message: wire.AdapterMessage
) -> None:
    """The manifest must be this model's, the client part must be readable."""
    bench = bench_of(config, manifests)
    state = message.state()
    state.pop(message.manifest.names[0])

    with pytest.raises(Exception, match="check 'names'"):
        bench.train("A", replace(message, manifest=pack(state)[0], flat_P=pack(state)[1]))
    with pytest.raises(Exception, match="not JSON"):
        bench.train("A", replace(message, client_config="no json"))
    with pytest.raises(Exception, match="Unknown key"):
        bench.train("A", replace(message, client_config='{"paths": ["/data"]}'))


def test_an_unknown_engine_is_refused(config: RunConfig, manifests: Mapping[str, Path], tmp_path: Path) -> None:
    """With the known ones."""
    with pytest.raises(ConfigError, match="'local' or 'ray'"):
        run_federation(config, manifests, tmp_path, engine="dask")  # type: ignore[arg-type]


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")  # Ray's own, in its threads and at its end
@pytest.mark.parametrize("privacy", [None, SEEDED], ids=["ordinary", "private"])
def test_both_engines_train_the_same_adapter(
    config: RunConfig, manifests: Mapping[str, Path], tmp_path: Path, privacy: PrivacyConfig | None
) -> None:
    """The real model, in this process and in Ray's workers."""
    pytest.importorskip("ray")
    config = replace(config, privacy=privacy)
    here = run_federation(config, manifests, tmp_path / "local")
    there = run_federation(config, manifests, tmp_path / "ray", engine="ray")
    told = [[record.metrics for record in run.history[1:]] for run in (here, there)] if privacy else [[], []]

    for name, tensor in here.adapter.items():
        torch.testing.assert_close(there.adapter[name], tensor, rtol=1e-4, atol=1e-6)
    assert told[0] == told[1]
