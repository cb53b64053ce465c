"""The page in a real browser: pictures shown, nothing else asked for, and worked by keyboard, link and filter."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from client.prepare.report import write_report
from tests.client.prepare.example_preparation import preparation

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of twelve patients, so that their tables are closed at first."""
    folder = tmp_path_factory.mktemp("site")
    path = folder / "state" / "prepare" / "report.html"
    write_report(path, preparation(folder / "data", subjects=12))
    return path


@pytest.fixture
def opened(file: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str], list[str]]]:
    """The page, what it asked for and what the browser complained of."""
    if CHROMIUM is None:
        pytest.skip("no chromium installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        scripts = getattr(request, "param", True)
        page = browser.new_page(java_script_enabled=scripts, viewport={"width": 1280, "height": 900})
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        yield page, asked, complaints
        browser.close()


def test_pictures_are_shown_from_the_prepared_files_and_nothing_else_is_asked_for(
    opened: tuple[Page, list[str], list[str]], file: Path
) -> None:
    page, asked, complaints = opened
    images = (file.parents[2] / "data" / "images").as_uri()
    page.locator("details.patient summary").first.click()
    picture = page.locator("details.patient img").first
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 112)
    assert {url for url in asked if not url.startswith(images)} == {file.as_uri()}
    assert len(asked) < 60  # closed tables load nothing
    assert complaints == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # tables scroll, the page does not


def test_the_policy_stops_a_foreign_script_and_any_connection(opened: tuple[Page, list[str], list[str]]) -> None:
    """Against a listener on this machine, which nothing reaches."""
    page, _, complaints = opened
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        page.evaluate(
            """port => {
              const script = document.createElement("script"); script.textContent = "window.planted = 1";
              document.body.append(script);
              const image = new Image(); image.src = `http://127.0.0.1:${port}/x.png`; document.body.append(image);
              fetch(`http://127.0.0.1:${port}/`).catch(() => {});
            }""",
            listener.getsockname()[1],
        )
        with pytest.raises(TimeoutError):
            listener.accept()
    assert page.evaluate("window.planted") is None
    assert len([text for text in complaints if "Content Security Policy" in text]) >= 3


def test_a_filter_shows_what_matches_and_says_how_much(opened: tuple[Page, list[str], list[str]]) -> None:
    page, _, complaints = opened
    hidden = page.locator("#hints-table tr", has_text="eyes hidden?").locator("td.n")
    count = int(hidden.inner_text())
    page.select_option("select[name=flag]", "occluded_eyes")
    rows = page.locator("details.patient tbody tr:visible")
    expect(rows).to_have_count(count)
    assert page.locator("#shown").inner_text().startswith(f"{count} photographs of ")
    page.fill("input[name=text]", "72")
    expect(rows).to_have_count(1)
    page.click("button[type=reset]")
    expect(page.locator("details.patient")).to_have_count(12)
    expect(page.locator("#shown")).to_be_empty()
    page.select_option("select[name=order]", "asymmetry")
    order = [float(part.get_attribute("data-asymmetry") or 0) for part in page.locator("details.patient").all()]
    assert order == sorted(order, reverse=True)
    assert complaints == []


def test_a_column_is_sorted_by_keyboard(opened: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = opened
    part = page.locator("details.patient").first
    part.locator("summary").focus()
    page.keyboard.press("Enter")
    button = part.get_by_role("button", name="Asym")
    button.focus()
    page.keyboard.press("Enter")
    head = part.locator("th", has=page.get_by_role("button", name="Asym"))
    expect(head).to_have_attribute("aria-sort", "ascending")
    values = [float(text) for text in part.locator("tbody td:nth-child(8)").all_inner_texts()]
    assert values == sorted(values)
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")


def test_a_link_of_a_hint_opens_the_patient(opened: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = opened
    link = page.locator("#hints-table a").first
    number = link.inner_text()
    link.click()
    expect(page.locator(f"#e{number}")).to_be_in_viewport()


@pytest.mark.parametrize("opened", [False], indirect=True)
def test_without_scripts_everything_is_there(opened: tuple[Page, list[str], list[str]]) -> None:
    page, _, _ = opened
    assert page.locator("details.patient tbody tr").count() == 96
    assert not page.locator("#filter").is_visible()
    page.locator("details.patient summary").first.click()
    expect(page.locator("details.patient tbody tr").first).to_be_visible()


def test_it_prints(opened: tuple[Page, list[str], list[str]]) -> None:
    """Closed patients as one line each, so that a print of many has few pages."""
    page, _, _ = opened
    closed = page.pdf(prefer_css_page_size=True)
    for part in page.locator("details.patient summary").all():
        part.click()
    opened_pages = page.pdf(prefer_css_page_size=True)
    assert 3 <= closed.count(b"/Type /Page\n") <= 6
    assert opened_pages.count(b"/Type /Page\n") > closed.count(b"/Type /Page\n")
