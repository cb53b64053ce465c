"""A federation as it is deployed: real processes, TLS, registered keys, a proxy, three hospitals on loopback."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from PIL import ExifTags, Image
from safetensors.torch import load_file

import configs
from ccfexp._io import sha256_file
from ccfexp.data.manifest import Row, read_manifest, write_manifest
from ccfexp.privacy.accounting import Spent, epsilon
from client import ledger
from configs.run import RunConfig
from server import bundle
from server.superlink import SuperLink
from simulation.federate import run_federation
from simulation.sites import prepare_sites
from strategies import wire
from tests.client.test_checks import certificate
from tests.e2e.stage import NGINX, Relay, Stage, deployment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.chain import Entry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]
SITES = ("A", "B", "C")
RANKS = {"A": 16, "B": 8, "C": 4}  # C has a small GPU: the run's rank is 8, and the rule becomes flex
PATIENT = "Jane-Doe-1961"  # planted where a hospital might have it: in a folder's name and in EXIF
SMALL = [
    "train.steps=2",
    "train.batch_size=2",
    "federation.rounds=3",
    "federation.round_timeout_s=150",
    *(f"sites.{place}.subjects=2" for place in range(3)),
]


def overrides(name: str, **changed: str) -> list[str]:
    """The small run under a name of its own."""
    return [*SMALL, f"name={name}", *(f"{key.replace('__', '.')}={value}" for key, value in changed.items())]


def config(name: str, **changed: str) -> RunConfig:
    """Its configuration."""
    ranks = f"site_ranks={[RANKS[site] for site in SITES]}"
    return configs.load("demo", [*overrides(name, **changed), ranks], RunConfig)


DECLARED = 2  # patients, in public
PRIVATE = ["+privacy=patient", "privacy.epsilon=null", "privacy.noise_multiplier=1.5", "privacy.sampling_rate=0.5"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The hospitals' photographs, below a folder with a patient's name, which also stands in every image's EXIF."""
    manifests = prepare_sites(config("data").hospitals, 64, tmp_path_factory.mktemp("hospital") / PATIENT)
    for manifest in manifests.values():
        write_manifest(manifest, [_named(row, manifest.parent) for row in read_manifest(manifest, 64).rows])
    return manifests


def _named(row: Row, folder: Path) -> Row:
    """The row of an image into which the patient's name was written as cameras and archives do."""
    path = folder / row.path
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.ImageDescription] = PATIENT
        image.save(path, exif=exif)
    assert PATIENT.encode() in path.read_bytes()
    return replace(row, sha256=sha256_file(path))


@pytest.fixture(scope="module")
def simulated(data: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, torch.Tensor]:
    """The adapter of the same configuration on one machine, undisturbed."""
    return dict(run_federation(config("simulated"), data, tmp_path_factory.mktemp("simulated")).adapter)


@pytest.fixture(scope="module")
def relay_and_stage(
    data: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Relay, Stage]]:
    """The deployment of this file; hospital A reaches the proxy through a relay that counts and can be cut."""
    with deployment(tmp_path_factory.mktemp("deployment") / "here", (*SITES, "D")) as stage:
        relay = Relay(stage.kits.addresses().port)
        for name in SITES:
            door = relay.port if name == "A" else stage.kits.addresses().port
            where = f"127.0.0.1:{door}"
            stage.settle_site(name, data[name], superlink=where, max_rank=RANKS[name], declared_patients=DECLARED)
            stage.start_site(name)
        for name in SITES:
            stage.wait(f"site {name}", lambda name=name: stage.connected(name))  # type: ignore[misc]
        yield relay, stage
        relay.close()


@pytest.fixture
def relay(relay_and_stage: tuple[Relay, Stage]) -> Relay:
    """Between hospital A and the proxy."""
    return relay_and_stage[0]


@pytest.fixture
def stage(relay_and_stage: tuple[Relay, Stage]) -> Stage:
    """The deployment."""
    return relay_and_stage[1]


def adapter(stage: Stage, name: str) -> Mapping[str, torch.Tensor]:
    """The last checkpoint of a run."""
    folder = stage.folder / "runs" / name / "checkpoint"
    return load_file(max(folder.glob("adapter-*.safetensors")))


def kinds(entries: list[Entry], run: str | None = None) -> list[str]:
    """What a ledger says, in order."""
    return [entry.kind for entry in entries if run is None or entry.facts.get("run") == run]


def last_run(stage: Stage, name: str) -> str:
    """Flower's number of the last attempt at a run."""
    return str(stage.events(name)[-1]["run_id"])


def close(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Equal to the tolerance of float32."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_deployment_gives_the_simulations_adapter_and_writes_down_every_byte(
    stage: Stage, relay: Relay, simulated: Mapping[str, torch.Tensor]
) -> None:
    """Three rounds through TLS, proxy and closed processes; what the ledger of A counts is what its socket sent."""
    stage.start_run("demo", overrides("first"))
    assert stage.finish_run() == 0, stage.log("run")
    stage.end("site-A")  # its last entry says what went out after the last message
    sent = relay.sent
    close(adapter(stage, "first"), simulated)
    for name in SITES:
        assert kinds(stage.ledger(name))[:4] == [ledger.NAME, *[ledger.UPDATE] * 3]
        assert stage.ledger(name)[1].facts["rank"] == min(8, RANKS[name])
    facts = [entry.facts for entry in stage.ledger("A")]
    counted, signs = (sum(int(fact.get(name, 0)) for fact in facts) for name in ("bytes", "signs"))
    assert counted + signs == pytest.approx(sent, rel=0.02)
    assert signs < 0.1 * counted
    shown = stage.call("client.ledger", "--site-file", str(stage.site("A").path), "--json")
    assert f'"bytes": {counted}' in shown
    stage.start_site("A")
    stage.wait("site A again", lambda: stage.connected("A"))


def test_no_patient_is_named_outside_the_hospital(stage: Stage, data: Mapping[str, Path]) -> None:
    """Neither in the coordinator's database, logs and journal, nor in any log of a hospital's programs."""
    subjects = {line.split(",")[0] for line in data["A"].read_text(encoding="utf-8").splitlines()[1:]}
    hospital = stage.site("A").work
    looked = [path for path in (stage.folder / "kits" / "coordinator").rglob("*") if path.is_file()]
    looked += [path for path in (stage.folder / "runs").rglob("*") if path.is_file()]
    looked += [*stage.folder.glob("*.txt"), *(hospital / "logs").iterdir(), hospital / "egress.jsonl"]
    assert any(path.name.startswith("superlink.db") for path in looked)
    for path in looked:
        content = path.read_bytes()
        assert PATIENT.encode() not in content, path.name
        assert not [subject for subject in subjects if subject.encode() in content], path.name


def test_who_is_not_registered_or_not_ready_does_not_connect(stage: Stage, data: Mapping[str, Path]) -> None:
    """An unregistered key is told so; a foreign certificate is refused before anything is said."""
    stage.settle_site("D", data["C"], registered=False)
    stage.start_site("D")
    stage.wait("the refusal of D", lambda: "does not know this site's key" in stage.log("site-D"))
    stage.end("site-D")
    assert kinds(stage.ledger("D")) == [ledger.ENDED]
    shutil.copy(certificate(stage.folder / "foreign", "ca")[0], stage.site("D").root_certificate)
    stage.start_site("D")
    stage.wait("the end of D", lambda: stage.processes["site-D"].poll() is not None)
    assert stage.processes.pop("site-D").returncode == 2
    assert "do not go around it" in " ".join(stage.log("site-D").split())


def test_a_bundle_with_one_other_byte_does_not_run(stage: Stage) -> None:
    """A coordinator that changes the code gets nothing: not a line of it runs at a hospital."""
    before = {name: len(stage.ledger(name)) for name in SITES}
    with bundle.staged() as app:
        source = app / "client" / "app.py"
        source.write_text(source.read_text(encoding="utf-8").replace("One", "one", 1) + "\n", encoding="utf-8")
        run = SuperLink(stage.kits).submit(
            app, {"config": "demo", "hydra": " ".join(overrides("altered", federation__wait_for_sites_s="20"))}
        )
        stage.wait("the run's end", lambda: not (SuperLink(stage.kits).run(run) or stage).active)  # type: ignore[union-attr]

    assert "need at least 2" in str(stage.events("altered")[-1]["reason"])
    for name in SITES:
        new = stage.ledger(name)[before[name] :]
        assert {entry.kind for entry in new} == {ledger.REFUSED}
        assert all("is not approved at this site" in str(entry.facts["reason"]) for entry in new)


EVIL = """

from flwr.app import Array, ArrayRecord
_honest = app
app = ClientApp()


@app.train()
def evil(message: Message, context: Context) -> Message:
    answer = _honest(message, context)
    if context.node_config["site"] == "B":
        answer.content["more"] = ArrayRecord({"face": Array(__import__("numpy").zeros((64, 64)))})
    else:
        open("/etc/hostname").read()
    return answer
"""


def test_approved_code_that_turns_evil_is_stopped_at_the_gate(stage: Stage) -> None:
    """Even what a hospital approved by mistake reads no other file and sends no other tensor; both are recorded."""
    with bundle.staged() as app:
        source = app / "client" / "app.py"
        source.write_text(source.read_text(encoding="utf-8") + EVIL, encoding="utf-8")
        for site in SITES:
            stage.approvals(site).approve(bundle.build(app), f"IT of {site}, too hastily")
        run = SuperLink(stage.kits).submit(app, {"config": "demo", "hydra": " ".join(overrides("evil"))})
        stage.wait("the run's end", lambda: not (SuperLink(stage.kits).run(run) or stage).active)  # type: ignore[union-attr]

    end = str(stage.events("evil")[-1]["reason"])
    assert "stopped by this site's gate" in end
    assert "hostname" not in end
    reasons = {"A": "reading a file outside the site's data folder", "B": "records"}
    for site in SITES:
        assert kinds(stage.ledger(site), str(run)) == [ledger.NAME, ledger.STOPPED]
        assert reasons.get(site, reasons["A"]) in str(stage.ledger(site)[-1].facts["reason"])


def test_a_hospital_that_is_killed_in_a_round_comes_back(stage: Stage) -> None:
    """The round goes on without it, the run completes, and it takes part again."""
    rounds = 16  # of some seconds each: more than a hospital needs to start again
    stage.start_run("demo", overrides("killed", federation__rounds=f"{rounds}"))
    stage.wait("round 1", lambda: 1 in stage.rounds("killed"))
    stage.end("site-C", signal.SIGKILL)
    stage.start_site("C")
    assert stage.finish_run() == 0, stage.log("run")

    done = [event for event in stage.events("killed") if event["kind"] == "round"]
    assert [event["round"] for event in done] == list(range(1, rounds + 1))
    assert any("C" not in event["sites"] for event in done)  # type: ignore[operator]
    assert "C" in done[-1]["sites"]  # type: ignore[operator]
    assert "site C" in stage.log("run")


def test_a_network_that_is_cut_and_mended(stage: Stage, relay: Relay) -> None:
    """Hospital A loses its connection; the others go on, and A says since when and connects again."""
    stage.start_run("demo", overrides("cut", federation__rounds="4", federation__round_timeout_s="45"))
    stage.wait("round 1", lambda: 1 in stage.rounds("cut"))
    relay.cut()
    stage.wait("the others", lambda: 3 in stage.rounds("cut"))
    relay.mend()
    assert stage.finish_run() == 0, stage.log("run")
    stage.wait("A again", lambda: "has not answered since" in stage.log("site-A"))
    stage.wait("A again", lambda: stage.log("site-A").rstrip().endswith("waiting for work"))


def test_superlink_and_serverapp_are_killed_and_the_run_goes_on(
    stage: Stage, simulated: Mapping[str, torch.Tensor]
) -> None:
    """Nobody at a hospital does anything; the adapter is that of an undisturbed run."""
    stage.start_run("demo", overrides("crashed"))
    stage.wait("round 1", lambda: 1 in stage.rounds("crashed"))
    stage.end("superlink", signal.SIGKILL)
    stage.start_superlink()
    assert stage.finish_run() == 0, stage.log("run")

    assert stage.rounds("crashed") == [1, 2, 3]
    starts = [event["after"] for event in stage.events("crashed") if event["kind"] == "started"]
    assert starts[0] == 0
    assert starts[-1] in (1, 2)
    close(adapter(stage, "crashed"), simulated)


def test_a_private_run_is_paid_for_until_a_hospital_has_no_more_to_spend(stage: Stage) -> None:
    """Every round is charged before it is trained; who cannot afford the next refuses it and says no more."""
    stage.start_run("demo", [*overrides("private"), *PRIVATE])
    assert stage.finish_run() == 0, stage.log("run")
    spent = epsilon([Spent(0.5, 1.5, 6)], 1e-5)  # three rounds of two steps
    for name in SITES:
        facts = [entry.facts for entry in stage.ledger(name) if entry.facts.get("run") == last_run(stage, "private")]
        updates = [fact for fact in facts if "factors" in fact]
        assert [fact["factors"] for fact in updates] == ["B"] * 3  # one noised factor
        assert updates[-1]["epsilon"] == pytest.approx(spent)
        assert updates[-1]["weight"] == DECLARED
        assert set(updates[-1]["metrics"]) == wire.PRIVATE_METRICS

    path = stage.site("C").path
    file = yaml.safe_load(path.read_text(encoding="utf-8"))
    file["policy"] |= {"max_epsilon": epsilon([Spent(0.5, 1.5, 8)], 1e-5) + 1e-6, "delta": 1e-5}
    path.write_text(yaml.safe_dump(file), encoding="utf-8")
    stage.end("site-C")
    stage.start_site("C")
    stage.wait("C again", lambda: stage.connected("C"))
    stage.start_run("demo", [*overrides("spent", federation__min_sites="2"), *PRIVATE])
    assert stage.finish_run() == 0, stage.log("run")

    rounds = [event for event in stage.events("spent") if event["kind"] == "round"]
    assert ["C" in event["sites"] for event in rounds] == [True, False, False]  # type: ignore[operator]
    refused = str(rounds[-1]["refused"]["C"])  # type: ignore[index]
    assert "policy does not allow it" in refused
    assert "epsilon" not in refused
    shown = json.loads(stage.call("client.ledger", "--site-file", str(path), "--json"))["privacy"][0]
    assert shown["epsilon"] == pytest.approx(epsilon([Spent(0.5, 1.5, 8)], 1e-5))
    assert shown["remaining"] < 0.01


def test_every_hospital_stops_cleanly(stage: Stage) -> None:
    """SIGTERM: within seconds, with nothing left behind, and the ledger intact."""
    for name in SITES:
        stage.end(f"site-{name}")
        assert stage.log(f"site-{name}").rstrip().endswith("stopped")
        assert stage.ledger(name)
