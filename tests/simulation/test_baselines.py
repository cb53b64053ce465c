"""What the federation is compared with: fair numbers of steps, and a pool in which every index keeps its meaning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccfexp.adapter import AdapterConfig
from ccfexp.data.phantom.sites import PhantomSite, write_site
from ccfexp.training import SiteData, TrainConfig, train_local
from configs.client_part import site_seed
from simulation.baselines import POOLED, BaselineRun, local_and_pooled, pool, train_baseline
from tests.ccfexp import tiny

SITES = (
    PhantomSite("A", subjects=1, first_identity=71_000, sessions=2, movements=("smile_teeth",), left_share=1.0),
    PhantomSite("B", subjects=2, first_identity=72_000, sessions=1, movements=("brow_raise", "frown"), left_share=0.0),
)
TRAIN = TrainConfig(steps=2, batch_size=2, learning_rate=1e-2)
FEATURES = ("identity_ND", "identity_map_NCGG", "deviation_ND", "landmark_map_NCGG", "landmark_N136")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SiteData]:
    """Two hospitals: one patient on two days, and two patients on one day."""
    folder, model = tmp_path_factory.mktemp("sites"), tiny.model()
    return {s.name: SiteData.prepare(model, write_site(s, folder / s.name, tiny.SIZE)) for s in SITES}


def test_a_recogniser_of_its_own_is_pooled_too(data: dict[str, SiteData]) -> None:
    """A base whose recogniser is another network than the embedder keeps its vectors of every image."""
    parts = [replace(part, recogniser_ND=part.identity_ND + 1) for part in data.values()]
    pooled = pool(parts)
    assert pooled.recogniser_ND is not None
    assert torch.equal(pooled.recogniser_ND, pooled.identity_ND + 1)
    assert pool(list(data.values())).recogniser_ND is None


def test_pooled_indices_keep_their_meaning(data: dict[str, SiteData]) -> None:
    """Image, identity image, patient, labels and features of every pooled image are those it had at its site."""
    a, b = data["A"], data["B"]
    pooled = pool([a, b])

    assert len(pooled.images) == len(a.images) + len(b.images) == 4 + 6
    assert pooled.images.patients == 3
    assert sorted(set(pooled.images.patient_N.tolist())) == [0, 1, 2]
    for part, first in ((a, 0), (b, len(a.images))):
        for index in range(len(part.images)):
            own, there = part.images, pooled.images
            whose, whose_there = int(own.identity_N[index]), int(there.identity_N[first + index])
            assert torch.equal(there.image_N3HW[first + index], own.image_N3HW[index])
            assert torch.equal(there.image_N3HW[whose_there], own.image_N3HW[whose])
            assert torch.equal(there.landmark_N682[first + index], own.landmark_N682[index])
            assert there.movement_N[first + index] == own.movement_N[index]
            assert (there.side_N[first + index], there.grade_N[first + index]) == (
                own.side_N[index],
                own.grade_N[index],
            )
            assert there.patient_N[whose_there] == there.patient_N[first + index]
            for name in FEATURES:
                assert torch.equal(getattr(pooled, name)[first + index], getattr(part, name)[index])
    targets = [*a.images.target_T.tolist(), *(len(a.images) + t for t in b.images.target_T.tolist())]
    assert pooled.images.target_T.tolist() == targets


def test_everybody_takes_the_steps_of_the_federated_run(data: dict[str, SiteData]) -> None:
    """A site alone takes its own, with its own seed; pooled takes the sum."""
    runs = {run.name: run for run in local_and_pooled(data, TRAIN, 7)}

    assert list(runs) == ["A", "B", POOLED]
    assert {name: run.train.steps for name, run in runs.items()} == {"A": 2, "B": 2, POOLED: 4}
    assert runs["A"].seed == site_seed(7, "A")
    assert len({run.seed for run in runs.values()}) == 3
    assert runs["B"].data is data["B"]
    assert len(runs[POOLED].data.images) == 10


def test_a_baseline_is_the_plain_loop_and_goes_on_after_a_stop(data: dict[str, SiteData], tmp_path: Path) -> None:
    """Round by round from the same start; stopped after one round and started again, the same adapter."""
    model = tiny.model()
    model.attach_adapter(AdapterConfig(rank=2), 0)
    initial = model.adapter_state()
    run = BaselineRun("A", data["A"], TRAIN, 5)
    for number in (1, 2):
        train_local(model, data["A"], TRAIN, seed=5, round_number=number)
    expected = model.adapter_state()
    seen: list[tuple[str, int, int]] = []

    def evaluate(number: int, _: dict[str, torch.Tensor]) -> dict[str, float]:
        return {"validation_loss": float(number)}

    train_baseline(run, model, initial, 1, tmp_path, "c" * 64, evaluate=evaluate)
    progress = train_baseline(
        run, model, initial, 2, tmp_path, "c" * 64, on_step=lambda *step: seen.append(step[:3]), evaluate=evaluate
    )

    assert progress.adapter.keys() == expected.keys()
    assert all(torch.equal(progress.adapter[name], expected[name]) for name in expected)
    assert seen == [("A", 2, 1), ("A", 2, 2)]
    assert [record.round_number for record in progress.history] == [0, 1, 2]
    assert [record.evaluation["validation_loss"] for record in progress.history] == [0.0, 1.0, 2.0]
