"""Run a federation among the registered hospitals, and stay with it until the adapter is there.

    python -m server.run --kits kits/ --config demo                  a line for each site and round
    python -m server.run --kits kits/ --config demo train.steps=10   overrides key=value
    python -m server.run --kits kits/ --config demo --stop           end it; the last complete round is kept

Ctrl-C only detaches: the run goes on, and the same command attaches to it again. After a crash of the SuperLink or of
the machine the same command goes on after the last complete round.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configs
from ccfexp.errors import CCFExpError, ConfigError
from ccfexp.privacy.statement import epsilon_text, summary
from configs.named import load_named
from configs.run import RunConfig
from server import bundle, lock
from server.deployment import rounds_done
from server.kits import Kits
from server.superlink import RefusedError, SuperLink
from server.supervise import Pace, Supervisor, recorded_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.journal import Event

_DETACHED = 130


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    kits: Kits
    name: str  # of the configuration
    overrides: tuple[str, ...]
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return Path(self.kits.addresses().runs) / self.config.name

    def run_config(self) -> dict[str, str | int]:
        """What Flower hands to the ServerApp; every hospital can read it."""
        return {"config": self.name, "hydra": shlex.join(self.overrides), "sites": len(self.kits.registered())}


def request(kits: Path, name: str, overrides: Sequence[str]) -> Request:
    """Check a command line.

    Raises:
        ConfigError: no kits; an unknown configuration, key or value; an epsilon for which no noise is enough; a path of
            this machine in an override, which every hospital could read; fewer registered sites than a round needs.
    """
    config = load_named(name, overrides)
    _ = config.private_plan  # refused here, if it is, and not in the ServerApp
    for override in overrides:
        key, _, value = override.partition("=")
        if value.strip("'\"").startswith(("/", "~")):
            raise ConfigError(
                f"{key}={value} is a path of this machine, and overrides travel to every hospital; "
                "give a path relative to the folder from which the SuperLink was started, or a name"
            )
    asked = Request(Kits.open(kits), name, tuple(overrides), config)
    registered, needed = len(asked.kits.registered()), config.federation.min_sites
    if registered < needed:
        raise ConfigError(
            f"registered sites={registered} must be at least federation.min_sites={needed}; "
            "register the hospitals' keys (python -m server.register) or lower federation.min_sites"
        )
    return asked


def run(asked: Request, pace: Pace) -> None:
    """Carry the run to its end, printing what happens.

    Raises:
        CCFExpError: as `Supervisor.carry`; another program watches over this run; the bundle is not the approved one.
    """
    superlink = SuperLink(asked.kits)
    with lock.held(asked.folder / "run.lock", 0.0, "another server.run"):
        supervisor = Supervisor(
            control=superlink,
            submit=functools.partial(_submit, asked, superlink),
            folder=asked.folder,
            on_event=lambda event: _print_event(event, asked),
            tell=lambda line: print(line, flush=True),
            pace=pace,
        )
        supervisor.carry()


def stop(asked: Request) -> str:
    """End a run. Returns what to tell. Raises RoundError if the SuperLink does not answer."""
    run_id = recorded_run(asked.folder)
    if run_id is None:
        return f"no run of {asked.config.name} was ever submitted"
    try:
        SuperLink(asked.kits).stop(run_id)
    except RefusedError as error:
        return f"run {run_id} of {asked.config.name}: {error}"
    done = rounds_done(asked.folder)
    return f"run {run_id} of {asked.config.name} is stopped; the same command without --stop goes on after round {done}"


def _submit(asked: Request, superlink: SuperLink) -> int:
    """Submit exactly the bundle that the hospitals have."""
    approved = asked.kits.addresses().bundle_sha256
    with bundle.staged() as app:
        found = bundle.sha256(bundle.build(app))
        if found != approved:
            raise ConfigError(
                f"bundle_sha256={found[:12]} of this source is not {approved[:12]} of the kits, and hospitals run only "
                f"what they approved; go back to that source, or make python -m server.provision --renew --out "
                f"{asked.kits.folder} and let every hospital approve the new bundle.fab"
            )
        return superlink.submit(app, asked.run_config())


def _print_event(event: Event, asked: Request) -> None:
    line = event_line(event, list(asked.kits.registered()))
    if line:
        print(line, flush=True)


def event_line(event: Event, registered: Sequence[str]) -> str:
    """An event for the terminal, empty if it is not worth a line."""
    kind, number = event["kind"], event.get("round")
    if kind == "started":
        return f"the ServerApp works, going on after round {event.get('after')} of {event.get('rounds')}"
    if kind == "site":
        site, seconds = event.get("site"), event.get("seconds")
        if event.get("refused"):
            return f"round {number}: site {site} not used after {seconds:.1f} s: {event['refused']}"
        told = _told(event.get("metrics", {}), "loss", "epsilon_run")
        return f"round {number}: site {site} answered after {seconds:.1f} s{told}, {event.get('bytes', 0) / 1e6:.2f} MB"
    if kind == "round":
        asked = {*event.get("sites", []), *event.get("refused", {})}
        missing = [site for site in registered if site not in asked]
        absent = f"; not connected: {', '.join(missing)}" if missing else ""
        told = _told(event, "loss", "epsilon", "mean ", "largest ")
        if event.get("bias") is not None:
            told += f", bias {event['bias']:.1g}"
        return (
            f"round {number} complete: {len(event.get('sites', []))} sites{told}, {event.get('seconds'):.1f} s{absent}"
        )
    return ""


def _told(values: Mapping[str, Any], loss: str, spent: str, of_loss: str = "", of_spent: str = "") -> str:
    """A loss, or in a private run, where none is told, what has been spent."""
    if values.get(spent) is not None:
        return f", {of_spent}epsilon {epsilon_text(values[spent])}"
    return "" if values.get(loss) is None else f", {of_loss}loss {values[loss]:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (0 complete, 1 not complete, 2 refused, 130 detached)."""
    chosen = _parse(arguments)
    try:
        asked = request(chosen.kits, chosen.config, chosen.overrides)
        if chosen.stop:
            print(stop(asked))
            return 0
        print(f"run {asked.config.name}, configuration {configs.config_hash(asked.config)[:12]}", flush=True)
        print(summary(asked.config.private_plan, asked.config.steps), flush=True)
        run(asked, Pace(attempts=chosen.attempts))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except CCFExpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: the disk refused: {error.strerror}; free some space and try again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndetached: the run goes on; the same command attaches to it again, with --stop it ends it", flush=True)
        return _DETACHED
    print(f"complete; the adapter is in {asked.folder / 'adapter'}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m server.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    parser.add_argument("--kits", type=Path, default=Path("kits"), help="folder of the kits (default kits)")
    parser.add_argument("--config", default="default", help=f"one of {', '.join(configs.available())}")
    parser.add_argument("--attempts", type=int, default=5, help="in a row without a new round before it gives up")
    parser.add_argument("--stop", action="store_true", help="end the run")
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
