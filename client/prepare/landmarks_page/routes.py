"""What the page asks its server: faces, pictures, points, measures, and to save.

Only `client.prepare.landmarks_page.app` imports this module, because Starlette is part of an extra.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ccfexp.data.files import LANDMARKS
from ccfexp.errors import CCFExpError
from ccfexp.evaluation.measures import Scale, measure
from client.prepare.landmarks_page.desk import Desk, UnknownFaceError
from client.prepare.landmarks_page.point_checks import RefusedPointsError

if TYPE_CHECKING:
    import numpy.typing as npt
    from starlette.requests import Request

    from client.prepare.landmarks_page.desk import Face, Placed

_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_MEASURES = ("commissure_height_difference", "palpebral_fissure_S", "brow_height_S", "philtrum_deviation")
_GRADES = ("I", "II", "III", "IV", "V", "VI")


def static_files() -> dict[str, tuple[bytes, str]]:
    """The page's own files and their media types, by name."""
    files = {path.name: path for path in _STATIC.iterdir() if path.suffix in _MEDIA_TYPES}
    return {name: (path.read_bytes(), _MEDIA_TYPES[path.suffix]) for name, path in files.items()}


@dataclass(frozen=True)
class Routes:
    """The answers.

    Attributes:
        desk: what the page works on.
        files: of the page, by name.
    """

    desk: Desk
    files: Mapping[str, tuple[bytes, str]]

    def table(self) -> list[Route]:
        """What is answered at which address."""
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/static/{name}", self.file, methods=["GET"]),
            Route("/faces", self.faces, methods=["GET"]),
            Route("/picture/{number}", self.picture, methods=["GET"]),
            Route("/points/{number}", self.points, methods=["GET"]),
            Route("/measure", self.measure, methods=["POST"]),
            Route("/save", self.save, methods=["POST"]),
        ]

    def page(self, _: Request) -> Response:
        """The page itself."""
        data, media_type = self.files["page.html"]
        return Response(data, media_type=media_type)

    def file(self, request: Request) -> Response:
        """A style sheet, a script."""
        found = self.files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(found[0], media_type=found[1])

    def faces(self, _: Request) -> Response:
        """All faces on the desk."""
        return JSONResponse({"faces": [_face(face) for face in self.desk.faces()]})

    def picture(self, request: Request) -> Response:
        """The picture of a face."""
        picture = self.desk.picture(_number(request.path_params["number"]))
        return Response(picture.data, media_type=picture.media_type)

    def points(self, request: Request) -> Response:
        """The saved points of a face."""
        return JSONResponse(_placed(self.desk.placed(_number(request.path_params["number"]))))

    async def measure(self, request: Request) -> Response:
        """Measures of points that are not saved yet."""
        points = _points((await _fields(request, {"points"}))["points"])
        found = measure(points, Scale.from_eye_distance(points))
        measures = {name: _numbers(getattr(found, name)) for name in _MEASURES}
        return JSONResponse({"unit": found.scale.unit, "measures": measures})

    async def save(self, request: Request) -> Response:
        """Save the points of a face."""
        fields = await _fields(request, {"number", "points", "version"})
        number, version = fields["number"], fields["version"]
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(version, str):
            raise HTTPException(HTTPStatus.BAD_REQUEST, "number must be a whole number and version a text")
        face, placed = await run_in_threadpool(self.desk.save, number, _points(fields["points"]), version)
        return JSONResponse({"face": _face(face), **_placed(placed)})


def refuse_request(_: Request, error: Exception) -> Response:
    """Say why a request is not answered: no such address, another method, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def refuse_content(_: Request, error: Exception) -> Response:
    """Say what the desk refuses; its reasons hold neither paths nor pseudonyms."""
    status = HTTPStatus.CONFLICT
    if isinstance(error, UnknownFaceError):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, RefusedPointsError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    return JSONResponse({"error": str(error)}, status)


def refuse_for_the_disk(_: Request, __: Exception) -> Response:
    """Say that the disk is at fault; the system's own reason may hold a path."""
    reason = "the disk cannot be read or written; see that it has room and that this user may write, then try again"
    return JSONResponse({"error": reason}, HTTPStatus.INSUFFICIENT_STORAGE)


ANSWERS_TO_ERRORS = {HTTPException: refuse_request, CCFExpError: refuse_content, OSError: refuse_for_the_disk}


def _number(text: str) -> int:
    if len(text) > 9 or not (text.isascii() and text.isdigit()):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return int(text)


async def _fields(request: Request, names: set[str]) -> dict[str, Any]:
    """The fields of a JSON body, neither more nor fewer."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(body, dict) or set(body) != names:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body must hold exactly: {', '.join(sorted(names))}")
    return body


def _points(given: object) -> npt.NDArray[np.float64]:
    """68 pairs of finite numbers."""
    refusal = HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "points must be 68 pairs of finite numbers [x, y]")
    if not isinstance(given, list) or len(given) != LANDMARKS:
        raise refusal
    for point in given:
        if not isinstance(point, list) or len(point) != 2 or any(type(value) not in (int, float) for value in point):
            raise refusal
    try:
        points = np.array(given, np.float64)
    except OverflowError:  # a whole number beyond any float
        raise refusal from None
    if not np.isfinite(points).all():
        raise refusal
    return points


def _numbers(value: npt.NDArray[np.float64]) -> Any:  # noqa: ANN401 - as JSON has it
    """An array as JSON: NaN, which JSON does not have, is null."""
    return [_numbers(part) for part in value] if value.ndim else (float(value) if math.isfinite(value) else None)


def _face(face: Face) -> dict[str, Any]:
    grade = None if face.grade is None else _GRADES[face.grade - 1]
    return dataclasses.asdict(face) | {"grade": grade, "urgency": face.urgency}


def _placed(placed: Placed) -> dict[str, Any]:
    return {"points": placed.point_682.tolist(), "version": placed.version}
