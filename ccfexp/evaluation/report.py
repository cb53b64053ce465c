"""One self-contained HTML page about a run, readable by a clinician who has never seen the project.

``write_report(path, data)`` takes frozen data and no other state.  The page asks the network for nothing (a content
security policy in the page forbids it): styles are inline, pictures are base64 PNG, curves are inline SVG.  It carries
no subject identifier and no file path, because none of the data classes has a place for one.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccfexp._io import atomic_write_text
from ccfexp.evaluation import _charts
from ccfexp.evaluation.comparison import Comparison
from ccfexp.evaluation.page import page_environment
from ccfexp.privacy.accounting import ACCOUNTANT
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.statement import LIMITS, NONE, epsilon_text, guess_text, statement

if TYPE_CHECKING:
    import os

    from markupsafe import Markup


@dataclass(frozen=True)
class Curve:
    """One named curve; ``x`` and ``y`` of equal length, NaN where there is no value."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    @property
    def last(self) -> float:
        """The last finite y, NaN if none."""
        finite = [v for v in self.y if np.isfinite(v)]
        return finite[-1] if finite else float("nan")


@dataclass(frozen=True)
class CurvePanel:
    """Curves over one pair of axes, for example the training loss per round, federated, pooled and by site."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class SiteComposition:
    """What one hospital holds: images by side (the patient's), by House-Brackmann grade (1 to 6) and by movement."""

    name: str
    patients: int
    images: int
    sides: Mapping[str, int]
    grades: Mapping[int, int]
    movements: Mapping[str, int]


@dataclass(frozen=True)
class PictureRow:
    """One held-out case as pictures, uint8 [H, W, 3] each, with its labels; ``side`` is the patient's."""

    movement: str
    side: str
    grade: int
    identity: NDArray[np.uint8]
    expression: NDArray[np.uint8]
    base: NDArray[np.uint8]
    federated: NDArray[np.uint8]
    target: NDArray[np.uint8]


@dataclass(frozen=True)
class RunFacts:
    """What is needed to repeat the run and to judge its cost.

    Bytes on the wire are the sums over all rounds and sites, ``wire_bytes_up`` from the hospitals to the coordinator.
    """

    command: str
    seeds: Mapping[str, int]
    started: str
    seconds: float
    hardware: str
    versions: Mapping[str, str]
    base_sha256: str
    encoder_sha256: Mapping[str, str]
    config_hash: str
    rounds: int
    steps_per_round: int
    adapter_parameters: int
    adapter_bytes: int
    wire_bytes_up: int
    wire_bytes_down: int


@dataclass(frozen=True)
class PrivacyFacts:
    """What a private run promised and has cost.

    ``plan`` is calibrated; ``epsilons`` are by site, at its delta, None where nothing was computed from patients.
    """

    plan: PrivacyConfig
    epsilons: Mapping[str, float | None]

    @property
    def largest(self) -> float:
        """Epsilon of the site that has spent most."""
        return max((value for value in self.epsilons.values() if value is not None), default=0.0)


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.  ``config_json`` is the resolved configuration as readable JSON text.

    Without ``privacy`` the page says that the updates are not anonymous.
    """

    title: str
    comparison: Comparison
    panels: tuple[CurvePanel, ...]
    sites: tuple[SiteComposition, ...]
    pictures: tuple[PictureRow, ...]
    facts: RunFacts
    config_json: str
    privacy: PrivacyFacts | None = None
    notes: tuple[str, ...] = field(default=())


def write_report(path: str | os.PathLike[str], data: ReportData) -> None:
    """Write the page to ``path``, wholly or not at all.

    Raises OSError where it cannot be written, ValueError where a picture is not uint8 [H, W, 3].
    """
    atomic_write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The page as text; the same data give the same text."""
    environment = page_environment()
    environment.filters |= {"epsilon": epsilon_text, "png": png_uri}
    template = environment.from_string((files(__package__) / "templates" / "report.html.j2").read_text("utf-8"))
    return template.render(
        d=data,
        findings=_findings(data.comparison),
        statements=_statements(data.privacy),
        accountant=ACCOUNTANT,
        limits=LIMITS,
        guess=guess_text,
        charts=[_panel_chart(p) for p in data.panels],
        interval_charts=[
            (m, _charts.interval_chart([(r.model, r.value) for r in m.rows], title=f"{m.metric.label} by model"))
            for m in data.comparison.metrics
            if m.metric.headline
        ],
        sides=_sides(data.sites),
        movements=_movements(data.sites),
        styles=_charts.STYLES,
        columns=_PICTURE_COLUMNS,
    )


_PICTURE_COLUMNS = (
    ("identity", "Identity photo", "who: this person, at rest"),
    ("expression", "Expression photo", "what: the movement and palsy asked for"),
    ("base", "Base result", "before any hospital trained"),
    ("federated", "Federated result", "after the hospitals trained together"),
    ("target", "True target", "the picture that would be right"),
)


def png_uri(image_HW3: NDArray[np.uint8]) -> str:
    """A picture uint8 [H, W, 3] as a data address.  Raises ValueError for anything else."""
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"Expected a uint8 picture [H, W, 3], got {image_HW3.dtype} {list(image_HW3.shape)}.")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HW3)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _panel_chart(panel: CurvePanel) -> tuple[CurvePanel, Markup]:
    curves = [(c.name, c.x, c.y) for c in panel.curves]
    names = ", ".join(c.name for c in panel.curves)
    title = f"{panel.title}: {panel.y_label} against {panel.x_label}, curves for {names}"
    return panel, _charts.line_chart(curves, title=title, x_label=panel.x_label, y_label=panel.y_label)


def _findings(comparison: Comparison) -> list[dict[str, Any]]:
    """Per opponent, in which headline metrics the federated model is better, worse or not clearly different."""
    headline = [m for m in comparison.metrics if m.metric.headline]
    opponents = [d.against for d in headline[0].differences] if headline else []
    findings = []
    for opponent in opponents:
        verdicts: dict[str, list[str]] = {"better": [], "not clear": [], "worse": []}
        for m in headline:
            verdict = next(d.verdict for d in m.differences if d.against == opponent)
            verdicts[verdict].append(m.metric.label.lower() if m.metric.label != "SSIM" else "SSIM")
        findings.append({"against": opponent, "of": len(headline), "verdicts": verdicts})
    return findings


def _statements(privacy: PrivacyFacts | None) -> list[str]:
    """A sentence for every site, or the one that holds for all."""
    if privacy is None:
        return [NONE]
    return [statement(site, epsilon, privacy.plan) for site, epsilon in privacy.epsilons.items()]


def _sides(sites: tuple[SiteComposition, ...]) -> list[str]:
    """Left, right, none, and bilateral where a site has it."""
    return [*("left", "right", "none"), *(["bilateral"] if any(s.sides.get("bilateral") for s in sites) else [])]


def _movements(sites: tuple[SiteComposition, ...]) -> list[str]:
    """Movements that any site has, in the order of first appearance."""
    return list(dict.fromkeys(name for site in sites for name, count in site.movements.items() if count))
