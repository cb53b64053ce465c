"""The page about a preparation: whole, escaped, without a copy of a face, and honest."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from ccfexp.data.rows import LandmarkSource, Movement, Side, Split
from ccfexp.evaluation.quality import Flag
from client.prepare.entries import Refusal
from client.prepare.report import Duplicate, PreparationReport, render_report, write_report
from client.prepare.report_words import FLAGS, SCALES, SOURCES, cautions
from tests.ccfexp.evaluation.test_report import Outline
from tests.client.prepare.example_preparation import preparation

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def report(folder: Path) -> PreparationReport:
    return preparation(folder / "data", subjects=6)


@pytest.fixture(scope="module")
def page(report: PreparationReport, folder: Path) -> str:
    return render_report(report, folder / "state" / "prepare")


def words(page: str) -> str:
    """What is read, without tags."""
    body = page.split("</style>")[1].split("<script>", maxsplit=1)[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_the_page_is_well_formed_and_asks_for_the_prepared_files_alone(page: str, folder: Path) -> None:
    outline = Outline(page)
    assert not outline.open
    tags = {tag for tag, _ in outline.tags}
    assert tags.isdisjoint({"link", "iframe", "object", "embed", "base", "canvas", "source"})
    images = [attributes["src"] or "" for tag, attributes in outline.tags if tag == "img"]
    assert len(images) == 48
    for source in images:
        file = (folder / "state" / "prepare" / unquote(source)).resolve()
        assert file.parent == (folder / "data" / "images").resolve()
        assert file.is_file()
    links = [attributes["href"] or "" for tag, attributes in outline.tags if tag == "a"]
    anchors = {attributes.get("id") for _, attributes in outline.tags}
    assert links
    assert all(link.startswith("#") and link[1:] in anchors for link in links)
    assert "data:image" not in page  # no picture inside


def test_the_page_forbids_connections_and_foreign_scripts(page: str) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "'self' file:"
    assert rules["script-src"].startswith("'sha256-")
    assert rules["form-action"] == rules["base-uri"] == "'none'"
    assert "connect-src" not in rules  # falls back to none
    assert page.count("<script") == 1


def test_every_photograph_has_its_row(page: str, report: PreparationReport) -> None:
    for photograph in report.photographs:
        (row,) = re.findall(rf'<tr id="e{photograph.number}".*?</tr>', page)
        assert f'alt="entry {photograph.number}"' in row
        assert f"{photograph.side} " in row
        assert SOURCES[photograph.landmark_source] in row
        assert f"{100 * photograph.asymmetry:.1f}" in row
        assert f"{photograph.measures.brow_height[0]:.1f}" in row
        assert SCALES[photograph.measures.scale_source][0] in row
        for flag in Flag:
            assert (f">{FLAGS[flag][0]}<" in row) == (flag in photograph.flags)


def test_the_planted_hints_are_listed_with_links(page: str, report: PreparationReport) -> None:
    for flag in (Flag.OCCLUDED_EYES, Flag.OCCLUDED_MOUTH, Flag.BLURRED):
        (line,) = re.findall(rf'<tr><th scope="row">{re.escape(FLAGS[flag][0])}</th>.*?</tr>', page)
        numbers = [photo.number for photo in report.photographs if flag in photo.flags]
        assert numbers
        assert re.findall(r'href="#e(\d+)"', line) == [str(number) for number in numbers]


def test_counts_add_up(page: str, report: PreparationReport) -> None:
    captions = ("By movement", "By House-Brackmann grade", "By side of the palsy", "By where the points come from")
    for caption in captions:
        (table,) = re.findall(rf"<caption>{caption}</caption>.*?</table>", page, re.DOTALL)
        lines = re.findall(r'<td class="n">(\d+)</td>' * 4, table)
        assert sum(int(line[1]) for line in lines) == len(report.photographs)
        assert all(int(line[1]) == int(line[2]) + int(line[3]) for line in lines)
    (strata,) = re.findall(r'id="strata-table".*?</table>', page, re.DOTALL)
    cells = re.findall(r">(\d+) <small>\((\d+)\)", strata)
    assert sum(int(patients) for patients, _ in cells) == 6
    assert sum(int(held) for _, held in cells) == 1


def test_refusals_are_grouped_by_reason(page: str) -> None:
    (table,) = re.findall(r'id="refusals-table".*?</table>', page, re.DOTALL)
    assert "4, 29" in table
    assert table.index("faces=2") < table.index("no face was found")


def test_a_photograph_of_two_patients_is_the_first_thing_said(page: str) -> None:
    (aside,) = re.findall(r'<aside class="caution".*?</aside>', page, re.DOTALL)
    assert aside.index("stands under two patients") < aside.index("a detector")
    assert page.index(aside) < page.index('<h2 id="counts"')
    (table,) = re.findall(r'id="duplicates-table".*?</table>', page, re.DOTALL)
    assert table.index("two patients") < table.index("one patient")
    assert "the same file" in table


def test_nothing_is_claimed_beyond_what_was_measured(page: str) -> None:
    text = words(page)
    assert "The thresholds were set on phantoms" in text
    assert "not on patients" in text
    assert "neither grade nor diagnose" in text
    assert "stays in the hospital" in text
    assert "the adult mean" in text  # where the scale is assumed


def test_texts_from_outside_are_escaped(report: PreparationReport, folder: Path) -> None:
    hostile = replace(
        report,
        site=HOSTILE,
        notes=(HOSTILE,),
        settings={HOSTILE: HOSTILE},
        refusals=(Refusal(1, HOSTILE),),
        duplicates=(Duplicate(1, 2, HOSTILE, HOSTILE),),
        photographs=(replace(report.photographs[0], subject=HOSTILE, image=folder / "data" / f'"{HOSTILE[-9:]}.png'),),
    )
    page = render_report(hostile, folder)
    assert "<img src=x" not in page
    assert page.count("<script") == page.count("</script") == 1
    assert not Outline(page).open


def test_headings_captions_and_scopes(page: str) -> None:
    """What a screen reader goes by."""
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)][:2] == ["h1", "h2"]
    assert all(attributes.get("scope") for tag, attributes in outline.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in outline.tags if tag == "img")
    assert page.count("<table") == page.count("<caption") + page.count('aria-label="Photographs of')
    assert 'lang="en"' in page


def test_an_empty_preparation_has_a_page() -> None:
    nothing = PreparationReport(
        site="A", made="today", offered=0, image_size=64, photographs=(), refusals=(), duplicates=()
    )
    text = words(render_report(nothing, Path()))
    assert "Nothing was refused." in text
    assert "None were found." in text


def test_unknown_values_have_a_sign(report: PreparationReport, folder: Path) -> None:
    nan = float("nan")
    bare = replace(
        report.photographs[0],
        grade=None,
        score=None,
        asymmetry=nan,
        measures=replace(report.photographs[0].measures, philtrum_deviation=nan, unit="eye distances"),
    )
    page = render_report(replace(report, photographs=(bare,)), folder)
    (row,) = re.findall(r'<tr id="e\d+".*?</tr>', page)
    assert row.count("\u2013") == 2
    assert "eye distances" in row
    assert "not graded" in page


def test_it_is_written_whole_and_the_same_twice(report: PreparationReport, tmp_path: Path) -> None:
    write_report(tmp_path / "a" / "report.html", report)
    first = (tmp_path / "a" / "report.html").read_text("utf-8")
    write_report(tmp_path / "a" / "report.html", report)
    assert (tmp_path / "a" / "report.html").read_text("utf-8") == first
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["report.html"]


def test_ten_thousand_photographs_stay_within_ten_megabytes(report: PreparationReport, folder: Path) -> None:
    """And no table is open that nobody has asked for."""
    many = tuple(
        replace(report.photographs[number % 48], number=number, subject=f"patient {number // 8}")
        for number in range(10_000)
    )
    start = time.process_time()
    page = render_report(replace(report, photographs=many), folder)
    assert time.process_time() - start < 20
    assert len(page.encode()) < 10_000_000
    assert page.count('<details class="patient"') == 1250
    assert not re.findall(r"<details class=\"patient\"[^>]* open>", page)


def test_cautions_come_only_where_they_hold(report: PreparationReport) -> None:
    plain = replace(
        report,
        duplicates=report.duplicates[:1],
        photographs=tuple(replace(p, landmark_source=LandmarkSource.MANUAL) for p in report.photographs),
    )
    assert cautions(plain) == []
    healthy = tuple(replace(p, side=Side.NONE, landmark_source=LandmarkSource.DETECTOR) for p in report.photographs)
    assert cautions(replace(plain, photographs=healthy)) == []
    train = tuple(replace(p, split=Split.TRAIN) for p in plain.photographs)
    (none_held,) = cautions(replace(plain, photographs=train))
    assert "No patient is held out" in none_held.what
    moving = tuple(p for p in plain.photographs if p.movement is not Movement.REST or p.subject != "A-0000")
    (no_rest,) = cautions(replace(plain, photographs=moving))
    assert no_rest.what == "1 patient has no photograph at rest."


def test_identifiers_stay_out_of_the_text_forms(report: PreparationReport) -> None:
    for text in (repr(report.photographs[0]), repr(report.duplicates)):
        assert "A-" not in text
        assert ".png" not in text
