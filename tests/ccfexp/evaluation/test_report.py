"""The report page: complete, self-contained, honest, escaped."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ccfexp.evaluation.comparison import compare
from ccfexp.evaluation.report import Curve, PrivacyFacts, ReportData, png_uri, render_report, write_report
from ccfexp.privacy.plan import PrivacyConfig
from ccfexp.privacy.statement import LIMITS, NONE, statement
from tests.ccfexp.evaluation.example_report import HOSTILE, example
from tests.ccfexp.evaluation.models import model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def data() -> ReportData:
    """The example with two rows of pictures."""
    return example()


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    """The example as a page."""
    return render_report(data)


class Outline(HTMLParser):
    """Tags with their attributes, and that every tag opened is closed."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "link", "input", "hr"})

    def __init__(self, page: str) -> None:
        """Read the page."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an opened tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which must be this one."""
        assert self.open.pop() == tag


def text_of(page: str) -> str:
    """The page's words in one line, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("</style>")[1]))


def test_page_is_well_formed_and_loads_nothing(page: str) -> None:
    """No script, no link, no address but data; the page itself forbids the network."""
    outline = Outline(page)

    assert not outline.open
    assert {tag for tag, _ in outline.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for tag, attributes in outline.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_every_picture_is_the_one_given_and_has_words(data: ReportData, page: str) -> None:
    """Two rows of five pictures, lossless, each with an alternative text that names column and labels."""
    images = [a for tag, a in Outline(page).tags if tag == "img"]

    assert len(images) == 10
    for index, attributes in enumerate(images):
        row, column = data.pictures[index // 5], ("identity", "expression", "base", "federated", "target")[index % 5]
        encoded = (attributes["src"] or "").removeprefix("data:image/png;base64,")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        np.testing.assert_array_equal(getattr(row, column), shown)
    assert images[3]["alt"] == "Federated result: Smile, showing teeth, left palsy, House-Brackmann II"


def test_tables_have_headers_and_every_number(data: ReportData, page: str) -> None:
    """All metrics of all models, with interval and direction; header cells carry their scope."""
    tags = Outline(page).tags
    assert {a.get("id") for tag, a in tags if tag == "table"} == {
        "results-table", "difference-table", "pictures-table", "sites-table", "movements-table",
    }  # fmt: skip
    assert all("scope" in a for tag, a in tags if tag == "th")
    words = text_of(page)
    for metric in data.comparison.metrics:
        assert metric.metric.label in words
        assert f"{metric.rows[0].value.estimate:.{metric.metric.digits}f}" in words
    assert words.count("lower is better") >= 4
    assert "True target" in words


def test_page_says_what_it_is_not(page: str) -> None:
    """Phantoms, no differential privacy, the patient's sides: said before any result."""
    words = text_of(page)

    for warning in (
        "They are not evidence about patients",
        "The updates are not anonymous.",
        "This run used no differential privacy",
        "Left and right are the patient&rsquo;s",
    ):
        assert warning in words
        assert words.index(warning) < words.index("Results on people never trained on")


def test_privacy_statement_replaces_the_warning(data: ReportData) -> None:
    """With a guarantee the page states it for every site, with what it does not say, and whom it does not cover."""
    plan = PrivacyConfig(noise_multiplier=1.0, steps=60)
    page = render_report(replace(data, privacy=PrivacyFacts(plan, {"A": 3.091, "B": 2.0, "C": None})))
    words = html.unescape(text_of(page))

    assert not Outline(page).open
    assert "Differential privacy of each patient: epsilon at most 3.10 at delta 1e-05." in words
    assert "used no differential privacy" not in words
    assert NONE not in words
    for site, epsilon in (("A", 3.091), ("B", 2.0), ("C", None)):
        assert statement(site, epsilon, plan) in words
    assert "95.66 %" in words, "e^3.091 to 1, rounded up"
    assert all(limit in words for limit in LIMITS)
    assert "best model that a single hospital trained alone, without differential privacy" in words
    assert "SEEDED" not in words


def test_a_simulation_with_seeded_noise_says_so_before_any_result(data: ReportData) -> None:
    plan = PrivacyConfig(noise_multiplier=1.0, source="seeded")
    words = html.unescape(text_of(render_report(replace(data, privacy=PrivacyFacts(plan, {"A": 3.0})))))

    assert words.index("The noise of this run is seeded.") < words.index("Results on people never trained on")
    assert "SEEDED" in words


def test_a_photograph_is_not_called_a_patient(data: ReportData) -> None:
    plan = PrivacyConfig(noise_multiplier=1.0, unit="image", images_per_patient=1)
    words = html.unescape(text_of(render_report(replace(data, privacy=PrivacyFacts(plan, {"A": 3.0})))))

    assert "Differential privacy of each photograph, not of a patient" in words
    assert "one patient, all photographs" not in words


def test_without_a_guarantee_the_section_says_none(page: str) -> None:
    assert NONE in text_of(page)
    assert "without differential privacy" not in text_of(page)


def test_summary_follows_the_numbers(data: ReportData, page: str) -> None:
    """The same words cannot come out of a run in which the federation failed."""
    failed = replace(data, comparison=compare(model("f", 0.2, 1), model("b", 0.85, 2), [], seed=0, resamples=100))
    words = text_of(render_report(failed))

    assert "clearly better in 4 of 4 main measures" in text_of(page)
    assert "clearly better" not in words
    assert "clearly worse in 4 (side accuracy, severity correlation, landmark error and SSIM )" in words.replace(
        "SSIM)", "SSIM )"
    )
    assert "single hospital trained alone" not in words


def test_text_from_the_run_is_escaped(data: ReportData, page: str) -> None:
    """A configuration is text, not markup; so are names in tables and charts."""
    site = replace(data.sites[0], name=HOSTILE)
    panel = replace(data.panels[0], title=HOSTILE, curves=(Curve(HOSTILE, (0.0, 1.0), (0.0, 1.0)),))
    hostile = render_report(replace(data, sites=(site,), panels=(panel,), title=HOSTILE))

    assert "<script" not in page
    assert "<script" not in hostile
    assert "&lt;script" in hostile


def test_page_without_optional_parts(data: ReportData) -> None:
    """No pictures, curves, sites or pooled model: still a page."""
    bare = replace(data, pictures=(), panels=(), sites=())
    outline = Outline(render_report(bare))

    assert not outline.open
    assert "img" not in {tag for tag, _ in outline.tags}


def test_same_data_same_page(data: ReportData, page: str) -> None:
    """Nothing of the moment of writing is in the page."""
    assert render_report(data) == page


def test_write_report_writes_the_page(data: ReportData, page: str, tmp_path: Path) -> None:
    """The file is the page, and nothing else is left in the folder."""
    write_report(tmp_path / "run" / "report.html", data)

    assert (tmp_path / "run" / "report.html").read_text("utf-8") == page
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["report.html"]


def test_a_bad_picture_leaves_the_old_report(data: ReportData, tmp_path: Path) -> None:
    """A float picture is refused before anything is written."""
    path = tmp_path / "report.html"
    path.write_text("old")
    bad = replace(data.pictures[0], base=np.zeros((8, 8, 3), np.float32))

    with pytest.raises(ValueError, match=r"float32 \[8, 8, 3\]"):
        write_report(path, replace(data, pictures=(bad,)))

    assert path.read_text() == "old"


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (8, 8, 4)])
def test_png_takes_rgb_only(shape: tuple[int, ...]) -> None:
    """Channels last, three of them."""
    with pytest.raises(ValueError, match="uint8"):
        png_uri(np.zeros(shape, np.uint8))


def test_last_value_of_a_curve() -> None:
    """The legend shows the last value there is."""
    assert Curve("a", (0.0, 1.0, 2.0), (0.5, 0.4, float("nan"))).last == 0.4
    assert np.isnan(Curve("a", (), ()).last)
