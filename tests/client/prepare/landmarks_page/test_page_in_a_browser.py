"""The page in a real browser on the real server: what a person does is on the disk, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect, sync_playwright

from ccfexp.data.manifest import write_manifest
from ccfexp.data.rows import LandmarkSource
from ccfexp.detection.faces import Points
from ccfexp.evaluation.measures import Scale, measure
from tests.client.prepare.landmarks_page.desks import (
    PLANTED,
    landmark_files,
    read_points,
    read_rows,
    with_points,
    write_phantoms,
)
from tests.client.prepare.landmarks_page.server_process import Served, served

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="no chromium installed")]
SIZE = 112
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
POINT = "#marks .point[data-index='{}']"


@dataclass
class Session:
    """One person's visit.

    Attributes:
        page: in the browser.
        server: that it was opened on.
        manifest: on the disk.
        asked: every address that the browser asked for.
        told: what the page wrote to the console, or raised.
    """

    page: Page
    server: Served
    manifest: Path
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def point(self, index: int) -> tuple[float, float]:
        """Where a point is on the screen."""
        box = self.page.locator(POINT.format(index) + " .centre").bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def scale(self) -> float:
        """Screen pixels of one pixel of the picture, from the picture's own width on the screen."""
        box = self.page.locator("#picture").bounding_box()
        assert box is not None
        return box["width"] / SIZE

    def place(self, index: int) -> tuple[float, float]:
        """Where a point is drawn, in pixels of the picture as it lies on the screen."""
        box = self.page.locator("#picture").bounding_box()
        assert box is not None
        x, y = self.point(index)
        return (x - box["x"]) / self.scale(), (y - box["y"]) / self.scale()

    def drag(self, index: int, dx: float, dy: float, grip: tuple[float, float] = (0.0, 0.0)) -> None:
        """Drag a point by as many pixels of the picture, taken `grip` screen pixels beside its middle."""
        x, y = self.point(index)
        x, y, scale = x + grip[0], y + grip[1], self.scale()
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + dx * scale / 2, y + dy * scale / 2)
        self.page.mouse.move(x + dx * scale, y + dy * scale)
        self.page.mouse.up()

    def saved(self, number: int = 2) -> Points:
        """The points of a face on the disk; a manifest with all its files is still valid."""
        return read_points(self.manifest, read_rows(self.manifest, SIZE)[number - 1])

    def save(self) -> None:
        """Press the button and await the answer."""
        self.page.get_by_role("button", name="Save", exact=True).click()
        expect(self.page.locator("#status")).to_have_text("Saved.")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; every session has a profile of its own."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms at the size of the published model."""
    return write_phantoms(tmp_path_factory.mktemp("large"), SIZE).parent


@pytest.fixture
def session(browser: Browser, large: Path, tmp_path: Path) -> Iterator[Session]:
    """The page as it comes up: on face 2, the first whose points no person has seen."""
    manifest = Path(shutil.copytree(large, tmp_path / PLANTED)) / "manifest.csv"
    with served(manifest, SIZE) as server, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        session = Session(page, server, manifest)

        def on_request(request: Request) -> None:
            session.asked.append(request.url)

        def on_console(message: ConsoleMessage) -> None:
            session.told.append(message.text)

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: session.told.append(str(error)))
        page.goto(server.address)
        expect(page.locator("#measures td").first).not_to_have_text("–")
        yield session


def test_points_moved_by_mouse_and_keyboard_are_saved_and_the_others_are_not_touched(session: Session) -> None:
    """To a third of a pixel by mouse, exactly by key; an undone step is not saved; a reload shows what was."""
    page, before = session.page, session.saved()
    files = landmark_files(session.manifest)

    session.drag(48, 3.0, -2.0)
    page.locator("#point-54").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    session.drag(30, 9.0, 0.0)
    page.keyboard.press("Control+z")
    assert np.array_equal(session.saved(), before)
    session.save()

    expected = before.copy()
    expected[48] += (3.0, -2.0)
    expected[54] += (-0.5, 1.75)
    after = session.saved()
    assert np.abs(after[48] - expected[48]).max() < 0.3
    assert np.abs(after[54] - expected[54]).max() < 1e-4
    others = [index for index in range(68) if index not in (48, 54)]
    assert np.array_equal(after[others], before[others])
    rows = read_rows(session.manifest, SIZE)
    assert [row.landmark_source for row in rows].count(LandmarkSource.MANUAL) == 1
    assert rows[1].landmark_source is LandmarkSource.MANUAL
    assert landmark_files(session.manifest) == {row.landmarks for row in rows} != files

    page.reload()
    page.locator("#face").select_option("2")
    expect(page.locator("#facts")).to_contain_text("a person")
    for index in (30, 48, 54):
        page.locator(f"#point-{index}").click()
        shown = [float(page.locator(axis).input_value()) for axis in ("#x", "#y")]
        assert np.allclose(shown, after[index], atol=0.0051)

    assert {address.partition("/")[0] for address in session.asked} == {"http:"}
    assert all(address.startswith(session.server.origin + "/") for address in session.asked)
    assert session.told == []
    assert page.url == session.server.origin + "/"


def test_undo_redo_and_reset_step_by_step(session: Session) -> None:
    """Buttons and keys; what comes to nothing is no step."""
    page, before = session.page, session.place(8)
    undo, redo, reset = (page.locator(f"#{name}") for name in ("undo", "redo", "reset"))
    expect(undo).to_be_disabled()
    there = session.point(8)
    session.drag(8, 0.15, 0.1)  # a tremble of the hand
    expect(page.locator("#chosen-name")).to_have_text("chin (8)")
    expect(undo).to_be_disabled()
    assert session.point(8) == pytest.approx(there, abs=0.01)  # the picture stays under the hand
    session.drag(8, 0.0, -4.0)
    once = session.place(8)
    session.drag(8, 5.0, 0.0)
    twice = session.place(8)

    undo.click()
    assert session.place(8) == pytest.approx(once, abs=0.01)
    undo.click()
    assert session.place(8) == pytest.approx(before, abs=0.01)
    expect(undo).to_be_disabled()
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+Shift+z")
    assert session.place(8) == pytest.approx(twice, abs=0.01)
    expect(redo).to_be_disabled()
    reset.click()
    assert session.place(8) == pytest.approx(before, abs=0.01)
    expect(page.locator("#save")).to_have_text("Confirm")
    undo.click()
    assert session.place(8) == pytest.approx(twice, abs=0.01)


def test_the_picture_is_under_the_points_whatever_is_zoomed(session: Session) -> None:
    """A point stays on its pixel, keeps its size on the screen, and moves as far as the picture says."""
    page, before = session.page, session.saved()

    assert session.place(48) == pytest.approx(before[48].tolist(), abs=0.05)
    page.get_by_role("button", name="Mouth", exact=True).click()
    assert session.scale() > 10
    assert session.place(48) == pytest.approx(before[48].tolist(), abs=0.05)
    mark = page.locator(POINT.format(48) + " .centre").bounding_box()
    assert mark is not None
    assert 1 < mark["width"] < 4
    x, y = session.point(48)
    page.mouse.move(x - 60, y - 60)
    page.mouse.wheel(0, -100)
    session.drag(48, -1.5, 0.75, grip=(6, -5))
    page.mouse.move(x, y + 120)
    page.mouse.down()
    page.mouse.move(x + 40, y + 90)
    page.mouse.up()
    session.save()

    after = session.saved()
    assert after[48] == pytest.approx(before[48] + (-1.5, 0.75), abs=0.05)
    others = [index for index in range(68) if index != 48]
    assert np.array_equal(after[others], before[others])


def test_a_finger_drags_a_point_and_two_fingers_zoom(session: Session) -> None:
    """Touches as the browser makes them from a screen."""
    page, before, scale = session.page, session.saved(), session.scale()
    x, y = session.point(36)
    screen = page.context.new_cdp_session(page)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": fx, "y": fy, "id": number} for number, (fx, fy) in enumerate(fingers)]
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - 15, y))
    touch("touchMove", (x - 15, y - 2 * scale))
    touch("touchEnd")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#status")).to_have_text("Saved.")
    assert session.saved()[36] == pytest.approx(before[36] + (0, -2), abs=0.3)

    touch("touchStart", (700, 350))
    touch("touchStart", (700, 350), (800, 350))
    touch("touchMove", (650, 350), (850, 350))
    touch("touchEnd")
    assert session.scale() == pytest.approx(2 * scale, rel=0.05)
    expect(page.locator("#save")).to_have_text("Saved")


def test_measures_follow_the_points(session: Session) -> None:
    """As the evaluation defines them, beside those of the saved points."""
    page, points = session.page, session.saved()
    before = measure(points, Scale.from_eye_distance(points)).commissure_height_difference
    row = page.locator("#measures tr").first
    expect(row.locator("td").nth(0)).to_have_text(f"{float(before):.3f}".replace("-", "−"))
    page.locator("#point-54").click()
    page.locator("#y").fill(f"{points[54, 1] + 4:.3f}")
    page.locator("#y").press("Enter")
    points[54, 1] = float(f"{points[54, 1] + 4:.3f}")
    after = measure(points, Scale.from_eye_distance(points)).commissure_height_difference

    expect(row.locator("td").nth(0)).to_have_text(f"{float(after):.3f}".replace("-", "−"))
    expect(row.locator("td").nth(1)).to_have_text(f"{float(before):.3f}".replace("-", "−"))
    assert after > before


def test_the_whole_work_without_a_mouse(session: Session) -> None:
    """From the top of the page by Tab, Enter, arrows and Escape to a saved point; every stop has a name."""
    page, before = session.page, session.saved()
    page.locator("#face").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        named = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent"
            " ?? e.getAttribute('aria-labelledby') }"
        )
        assert str(named).strip()
        if page.evaluate("() => document.activeElement.id") == "points":
            break
    page.keyboard.press("End")
    page.keyboard.press("Home")
    expect(page.locator("#chosen-name")).to_have_text("right outer canthus (36)")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#said")).to_have_text(f"x {before[37, 0] + 0.25:.2f}, y {before[37, 1]:.2f}")
    label = page.locator(POINT.format(37)).get_attribute("aria-label")
    assert label == f"right upper lid, outer (37), x {before[37, 0] + 0.25:.2f}, y {before[37, 1]:.2f}, moved"
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.id") == "points"
    page.keyboard.press("Control+s")
    expect(page.locator("#status")).to_have_text("Saved.")

    moved = before.copy()
    moved[37, 0] += 0.25
    assert np.allclose(session.saved(), moved, atol=1e-4)


def test_unsaved_changes_are_asked_about(session: Session) -> None:
    """Before another face, and before the page is left."""
    page, before = session.page, session.saved()
    asked: list[str] = []

    session.drag(48, 2.0, 0.0)
    page.locator("#following").click()
    page.get_by_role("button", name="Stay").click()
    expect(page.locator("#face")).to_have_value("2")

    def on_dialog(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    page.close(run_before_unload=True)
    page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    page.locator("#following").click()
    page.get_by_role("button", name="Discard and go on").click()
    expect(page.locator("#face")).to_have_value("3")
    assert np.array_equal(session.saved(), before)

    page.locator("#previous").click()
    expect(page.locator("#facts")).to_contain_text("detector")
    session.drag(48, 2.0, 0.0)
    page.locator("#urgent").click()
    page.get_by_role("button", name="Save and go on").click()
    expect(page.locator("#face")).to_have_value("4")
    assert session.saved()[48] == pytest.approx(before[48] + (2, 0), abs=0.3)
    expect(page.locator("#urgent")).to_have_text("Next needing attention (1)")
    expect(page.locator("#urgent")).to_be_disabled()
    page.locator("#save").click()
    expect(page.locator("#urgent")).to_have_text("Next needing attention (0)")
    assert session.told == []


def test_a_refusal_keeps_the_points_on_the_page(session: Session) -> None:
    """Somebody else's change, a mirrored face, an ended program."""
    page, rows = session.page, read_rows(session.manifest, SIZE)
    session.drag(48, 2.0, 0.0)
    mine = session.place(48)
    theirs = read_points(session.manifest, rows[1]) + np.float32(1)
    changed = [rows[0], with_points(session.manifest, rows[1], theirs), *rows[2:]]
    write_manifest(session.manifest, changed[::-1])

    page.locator("#save").click()
    expect(page.locator("#status")).to_contain_text("changed by somebody else")
    assert session.place(48) == pytest.approx(mine, abs=0.01)
    page.get_by_role("button", name="Load again").click()
    expect(page.locator("#status")).to_contain_text("Your points are kept as changes")
    assert session.place(48) == pytest.approx(mine, abs=0.01)
    assert np.array_equal(session.saved(3), theirs)
    session.save()
    assert not np.array_equal(session.saved(3), theirs)

    page.locator("#point-48").click()
    page.locator("#x").fill("100")
    page.locator("#x").press("Enter")
    page.locator("#save").click()
    expect(page.locator("#status")).to_contain_text("right and left are the patient's")
    assert page.locator("#x").input_value() == "100.00"

    session.server.end()
    page.locator("#save").click()
    expect(page.locator("#status")).to_contain_text("has it been ended?")
    assert page.locator("#x").input_value() == "100.00"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (800, 600), (390, 800)])
def test_nothing_is_cut_off(session: Session, width: int, height: int) -> None:
    """At every size the page is no wider than the window; the words for right and left are on their sides."""
    page = session.page
    page.set_viewport_size({"width": width, "height": height})
    page.locator("#mirror").check()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    sides = [
        (page.locator(f"{stage} .side").nth(i).inner_text(), page.locator(f"{stage} .side").nth(i).bounding_box())
        for stage in (".stage:first-child", "#reflection")
        for i in (0, 1)
    ]
    texts = [text for text, _ in sides]
    lefts = [box["x"] for _, box in sides if box is not None]
    assert texts == ["patient’s RIGHT", "patient’s LEFT", "patient’s LEFT", "patient’s RIGHT"]
    assert lefts == sorted(lefts)
    assert session.told == []
