"""Who gets an answer from the page's server, and what is in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccfexp.evaluation.measures import Scale, measure
from client.prepare.landmarks_page.guard import LARGEST_BODY
from client.prepare.landmarks_page.manifest_desk import ManifestDesk
from tests.client.prepare.landmarks_page.browsers import HERE, TOKEN, Browser
from tests.client.prepare.landmarks_page.desks import PLANTED, SIZE, landmark_files, read_points, read_rows

ORIGIN = {"origin": HERE}


@pytest.fixture
def page(manifest: Path) -> Browser:
    """A browser that opened the printed address."""
    client = Browser(manifest)
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def error(answer: httpx.Response, status: int) -> str:
    """The reason of a refusal, which never names a folder, a file or a patient."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    reason = answer.json()["error"]
    assert isinstance(reason, str)
    assert reason
    assert not any(word in reason for word in (PLANTED, "P001", ".npy", ".png", "/tmp", "landmarks/"))  # noqa: S108
    return reason


def points_of(page: Browser, number: int = 1) -> dict[str, Any]:
    """What the server says of the points of a face."""
    answer: dict[str, Any] = page.get(f"/points/{number}").json()
    return answer


def test_the_address_opens_the_page_and_the_cookie_all_else(manifest: Path) -> None:
    """The cookie is for this server and for no script."""
    client = Browser(manifest)
    addresses = ["/", "/faces", "/points/1", "/picture/1", "/static/main.js", "/static/anatomy.json"]
    for address in addresses:
        assert "open the address that the command printed" in error(client.get(address), 403)

    opened = client.get("/", params={"token": TOKEN})

    assert opened.status_code == 200
    assert opened.headers["content-type"] == "text/html; charset=utf-8"
    assert opened.headers["set-cookie"] == f"landmarks_8765={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert TOKEN not in opened.text
    for address in addresses:
        assert client.get(address).status_code == 200
        assert "set-cookie" not in client.get(address).headers


@pytest.mark.parametrize(
    "query", ["token=", f"token={TOKEN[:-1]}", f"token={TOKEN}x", f"token={TOKEN}&token=x", "x=1", "token=%E4%BD%A0"]
)
def test_a_wrong_token_opens_nothing(manifest: Path, query: str) -> None:
    """Neither in the address nor in the cookie."""
    client = Browser(manifest)
    error(client.get(f"/?{query}"), 403)
    cookie = query.partition("=")[2].encode()
    error(client.get("/", headers={b"cookie": b"landmarks_8765=" + cookie + b"; other=" + TOKEN.encode()}), 403)


def test_the_token_opens_the_page_alone(manifest: Path) -> None:
    """Not the data, where it would stay in addresses; not with another method."""
    client = Browser(manifest)
    for address in ("/faces", "/points/1", "/static/main.js"):
        error(client.get(address, params={"token": TOKEN}), 403)
    error(client.post("/", params={"token": TOKEN}, headers=ORIGIN, json={}), 403)
    error(client.get("/faces", headers={"cookie": f"landmarks_8766={TOKEN}"}), 403)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "127.0.0.1",
        "127.0.0.1:8766",
        "localhost.evil.example:8765",
        "127.0.0.1:8765.evil",
        "",
        "[::1]:8765",
    ],
)
def test_a_rebound_name_gets_nothing(page: Browser, host: str) -> None:
    """A page whose domain was made to point to this computer sends its own name."""
    assert "127.0.0.1" in error(page.get("/faces", headers={"host": host}), 421)
    assert page.get("/faces", headers={"host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765", "http://localhost:8765", "http://evil.example"],
)
def test_another_page_of_the_browser_changes_nothing(page: Browser, manifest: Path, origin: str | None) -> None:
    """Even though the browser sends the cookie along."""
    before, known = manifest.read_bytes(), points_of(page)
    headers = {} if origin is None else {"origin": origin}
    for address in ("/save", "/measure"):
        assert "another page" in error(page.post(address, headers=headers, json={"number": 1, **known}), 403)
    assert manifest.read_bytes() == before


def test_a_save_comes_back_and_is_on_the_disk(page: Browser, manifest: Path) -> None:
    """One row, by hand, in single precision; the next save is against the new version."""
    known = points_of(page, 2)
    points = np.array(known["points"])
    points[48] += (0.3, -0.7)

    answer = page.post(
        "/save", headers=ORIGIN, json={"number": 2, "points": points.tolist(), "version": known["version"]}
    )

    assert answer.status_code == 200
    saved = answer.json()
    row = read_rows(manifest)[1]
    assert row.landmark_source == "manual"
    assert np.array_equal(read_points(manifest, row), points.astype(np.float32))
    assert saved["points"] == points.astype(np.float32).tolist()
    assert saved["version"] == points_of(page, 2)["version"] != known["version"]
    assert saved["face"] == page.get("/faces").json()["faces"][1]
    assert (saved["face"]["landmark_source"], saved["face"]["urgency"]) == ("manual", 0)
    stale = {"number": 2, "points": points.tolist(), "version": known["version"]}
    assert "load the face again" in error(page.post("/save", headers=ORIGIN, json=stale), 409)


def test_the_page_is_told_what_the_manifest_says(page: Browser, manifest: Path) -> None:
    """Grades in Roman numerals; pictures to the byte."""
    faces, rows = page.get("/faces").json()["faces"], read_rows(manifest)

    assert [face["subject"] for face in faces] == [row.subject_id for row in rows]
    grades = [None, "I", "II", "III", "IV", "V", "VI"]
    assert [face["grade"] for face in faces] == [grades[row.grade or 0] for row in rows]
    for face, row in zip(faces, rows, strict=True):
        picture = page.get(f"/picture/{face['number']}")
        assert picture.content == (manifest.parent / row.path).read_bytes()
        assert picture.headers["content-type"] == "image/png"
        assert not {row.path, row.landmarks, row.sha256} & set(map(str, face.values()))


def test_measures_are_those_of_the_evaluation(page: Browser) -> None:
    """In eye distances; what is not defined is null."""
    points = np.array(points_of(page)["points"])
    expected = measure(points, Scale.from_eye_distance(points))

    found = page.post("/measure", headers=ORIGIN, json={"points": points.tolist()}).json()

    assert found["unit"] == "eye distances"
    measures = found["measures"]
    assert measures["commissure_height_difference"] == float(expected.commissure_height_difference)
    assert measures["palpebral_fissure_S"] == expected.palpebral_fissure_S.tolist()
    assert measures["brow_height_S"] == expected.brow_height_S.tolist()
    assert measures["philtrum_deviation"] == float(expected.philtrum_deviation)
    nowhere = page.post("/measure", headers=ORIGIN, json={"points": [[1, 1]] * 68}).json()
    assert nowhere["measures"]["commissure_height_difference"] is None
    assert nowhere["measures"]["palpebral_fissure_S"] == [None, None]


def test_every_answer_says_that_it_is_for_this_page_and_not_to_be_kept(page: Browser, manifest: Path) -> None:
    """Refusals too."""
    answers = [page.get(address) for address in ("/", "/faces", "/picture/1", "/static/page.css", "/nothing")]
    answers += [
        Browser(manifest).get("/"),
        page.get("/", headers={"host": "evil"}),
        page.post("/save"),
        page.request("PUT", "/"),
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy.pop("default-src") == "'none'"
        assert set(policy.values()) == {"'self'", "'none'"}
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [
        ("POST", "/", 405), ("POST", "/faces", 405), ("POST", "/picture/1", 405), ("GET", "/save", 405),
        ("DELETE", "/points/1", 405), ("PUT", "/save", 405), ("TRACE", "/", 405), ("GET", "/faces/", 404),
        ("GET", "/nothing", 404), ("GET", "/static/", 404), ("GET", "/static/app.py", 404), ("GET", "/picture/5", 404),
        ("GET", "/picture/0", 404), ("GET", "/picture/-1", 404), ("GET", "/picture/1.0", 404),
        ("GET", "/points/²", 404), ("GET", "/points/" + "9" * 5000, 404), ("GET", "/static/..%2fguard.py", 404),
        ("GET", "/static/%2e%2e/guard.py", 404),
    ],
)  # fmt: skip
def test_wrong_addresses_and_methods(page: Browser, method: str, address: str, status: int) -> None:
    """Each with its own status, as JSON, without a name."""
    error(page.request(method, address, headers=ORIGIN | {"content-type": "application/json"}), status)


def test_bodies_are_bounded_and_json_alone(page: Browser) -> None:
    """Announced or not."""
    json_type = ORIGIN | {"content-type": "application/json"}
    large = b" " * (LARGEST_BODY + 1)

    async def pieces() -> AsyncIterator[bytes]:  # without an announced length
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    for content in (large, pieces()):
        assert f"larger than {LARGEST_BODY} bytes" in error(page.post("/save", headers=json_type, content=content), 413)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"):
        error(page.post("/save", headers=ORIGIN | {"content-type": kind}, content=b"{}"), 415)
    error(page.post("/save", headers=ORIGIN, content=b"{}"), 415)
    for content in (b"", b"{", b"\xff\xfe", b"[" * 30_000, b"9" * 5_000):
        assert error(page.post("/save", headers=json_type, content=content), 400) == "the body is not JSON"
    for content in (b"[]", b"null", b"{}", b'{"points": []}', b'{"points": [], "number": 1, "version": "", "x": 1}'):
        assert "exactly: number, points, version" in error(page.post("/save", headers=json_type, content=content), 400)


BAD_POINTS = {
    "none": None,
    "text": "x",
    "too few": [[1, 2]] * 67,
    "triples": [[1, 2, 3]] * 68,
    "flat": [1, 2] * 34,
    "words": [["1", "2"]] * 68,
    "truths": [[True, False]] * 68,
    "nothing": [[None, 1]] * 68,
    "nested": [[[1], [2]]] * 68,
    "huge": [[10**400, 1]] * 68,
}


@pytest.mark.parametrize("name", [*BAD_POINTS, "NaN", "Infinity", "1e999"])
def test_points_that_are_none(page: Browser, manifest: Path, name: str) -> None:
    """Python's JSON takes NaN and Infinity; the server does not."""
    before = manifest.read_bytes()
    points = json.dumps(BAD_POINTS[name]) if name in BAD_POINTS else "[" + ",".join([f"[1,{name}]"] * 68) + "]"
    headers = ORIGIN | {"content-type": "application/json"}
    fields = f'"number": 1, "version": "{points_of(page)["version"]}", "points": {points}'

    assert "68 pairs" in error(page.post("/save", headers=headers, content=f"{{{fields}}}"), 422)
    assert "68 pairs" in error(page.post("/measure", headers=headers, content=f'{{"points": {points}}}'), 422)
    assert manifest.read_bytes() == before


def test_what_the_desk_refuses_is_said(page: Browser, manifest: Path) -> None:
    """A mirrored face, an unknown one, a version of no sort."""
    known = points_of(page)
    mirrored = [[SIZE - x, y] for x, y in known["points"]]

    def refused(status: int, **fields: object) -> str:
        body = {"number": 1, **known, **fields}
        return error(page.post("/save", headers=ORIGIN, json=body), status)

    assert "right and left are the patient's" in refused(422, points=mirrored)
    assert "no face number=9" in refused(404, number=9)
    assert "load the face again" in refused(409, version="")
    for number in ("1", 1.0, True, None):
        assert "whole number" in refused(400, number=number)
    assert "whole number" in refused(400, version=1)
    assert len(landmark_files(manifest)) == 4


@settings(max_examples=30, deadline=None)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_gets_an_answer(rendered: Path, body: object) -> None:
    """Never a 500, and nothing changes."""
    manifest = rendered / "manifest.csv"
    before, client = manifest.read_bytes(), Browser(manifest)
    client.get("/", params={"token": TOKEN})
    headers = ORIGIN | {"content-type": "application/json"}
    for address in ("/save", "/measure"):
        for value in (body, {"points": body}, {"number": body, "points": body, "version": body}):
            answer = client.post(address, headers=headers, content=json.dumps(value).encode())
            assert answer.status_code in (400, 422)
    assert manifest.read_bytes() == before


def test_a_disk_at_fault_and_a_fault_of_the_program_tell_no_path(
    page: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system's reason holds one; nothing is raised to the server, which would log it."""
    known = points_of(page)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", f"/data/{PLANTED}/x.npy")

    def broken(*_: object) -> None:
        raise RuntimeError(f"/data/{PLANTED}")

    with monkeypatch.context() as patch:
        patch.setattr("client.prepare.landmarks_page.manifest_desk.atomic_write_bytes", full)
        assert "room" in error(page.post("/save", headers=ORIGIN, json={"number": 1, **known}), 507)
        patch.setattr(ManifestDesk, "faces", broken)
        assert "in the program" in error(page.get("/faces"), 500)
    assert PLANTED not in caplog.text
    assert page.post("/save", headers=ORIGIN, json={"number": 1, **known}).status_code == 200
