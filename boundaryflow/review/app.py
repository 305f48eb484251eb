"""The web application of the review page. Every address begins with a secret; whoever lacks it gets a 404.

What it serves of a run is of one generation: after a run has changed the tables, requests that name the former one get
status 409, and the page loads the new one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from boundaryflow.errors import PipelineError
from boundaryflow.review.cases import Cases, about_measures, generation_of, read_cases
from boundaryflow.review.neighbours import Features, read_features
from boundaryflow.review.pictures import LOSSLESS_PX, picture, side_px, strip
from boundaryflow.review.selecting import STATES, Judged, Selection, judged, select
from boundaryflow.review.verdicts import Change, Stamp, Verdicts
from boundaryflow.store.catalog.review import REVIEW

_STATIC = Path(__file__).parent / "static"
_MAX_BODY_BYTES = 2**20
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)
_KEPT = "private, max-age=86400, immutable"
Mode = Annotated[str, Query(pattern=r"best|weakest|\d{1,3}")]


class Room:
    """The cases of a data set and the verdicts on them, read again when their files change.

    Args:
        dataset: Name of the data set.
        root: The checkout.

    Raises:
        ManifestError: There is nothing to review.
    """

    def __init__(self, dataset: str, root: Path) -> None:
        self._dataset, self._root = dataset, root
        self._cases = read_cases(dataset, root)
        self._features: tuple[str, Features | None] | None = None
        self._judged: tuple[str, Stamp, Judged] | None = None
        self._lock = threading.Lock()
        self.verdicts = Verdicts(REVIEW.folder(dataset, root))
        self.judged(self._cases)  # refuses a damaged table

    def cases(self, generation: str | None = None) -> Cases:
        """The cases as they are now; status 409 if the page knows others, 503 while a run replaces them."""
        with self._lock:
            if self._cases.generation != generation_of(self._dataset, self._root):
                try:
                    self._cases = read_cases(self._dataset, self._root)
                except PipelineError as error:
                    raise HTTPException(503, str(error)) from None
        if generation not in (None, self._cases.generation):
            raise HTTPException(409, "a run changed the edits")
        return self._cases

    def judged(self, cases: Cases) -> Judged:
        """The verdicts on these cases as they are now."""
        known, stamp = self._judged, self.verdicts.stamp
        if known is None or known[:2] != (cases.generation, stamp):
            known = self._judged = cases.generation, stamp, judged(cases, self.verdicts.table())
        return known[2]

    def features(self, cases: Cases) -> Features | None:
        """Features for neighbours, read when first asked for."""
        with self._lock:
            if self._features is None or self._features[0] != cases.generation:
                self._features = cases.generation, read_features(cases)
            return self._features[1]


class VerdictOn(BaseModel):
    """A decision on a case; `strength` is an index, and None takes that at which the case is shown."""

    case: int = Field(ge=0)
    strength: int | None = Field(None, ge=0)
    verdict: Literal["accepted", "rejected"] | None


class Verdict(BaseModel):
    """Decisions on cases of one generation."""

    generation: str
    mode: str = Field("best", pattern=r"^(best|weakest|\d{1,3})$")
    changes: list[VerdictOn] = Field(max_length=5000)


def create_app(dataset: str, root: Path, token: str) -> Secret:
    """The application for one data set.

    Raises:
        ManifestError: There is nothing to review.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    room = Room(dataset, root)
    _add_files(app)
    _add_reading(app, room)
    _add_pictures(app, room)
    _add_writing(app, room)
    return Secret(app, token)


class Secret:
    """Passes on requests whose address begins with the secret, with bodies of stated and bounded size; ASGI.

    Args:
        app: The application behind it, which sees addresses without the secret.
        token: The secret.
    """

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given, slash, rest = scope["path"].removeprefix("/").partition("/")
        if scope["type"] != "http" or not secrets.compare_digest(given.encode(errors="replace"), self._token):
            await Response(status_code=404)(scope, receive, send)
            return
        if not slash:
            await Response(status_code=307, headers={"Location": f"{given}/"})(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            await Response(status_code=413)(scope, receive, send)
            return

        async def send_safely(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = {name for name, _value in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in kept)]
            await send(message)

        await self._app({**scope, "path": f"/{rest}", "raw_path": None}, receive, send_safely)


def _add_files(app: FastAPI) -> None:
    for path, name in (("/", "index.html"), ("/style.css", "style.css"), ("/script.js", "script.js")):
        app.add_api_route(path, lambda name=name: FileResponse(_STATIC / name), include_in_schema=False)


def _add_reading(app: FastAPI, room: Room) -> None:
    @app.get("/api/facts")
    def facts() -> dict[str, Any]:
        cases = room.cases()
        size = side_px(cases)
        edits = [{"name": name, "num": int((cases.edit_of == number).sum())} for number, name in enumerate(cases.edits)]
        about = {"dataset": cases.dataset, "generation": cases.generation, "num": len(cases), "size": size}
        about |= {"exact": size <= LOSSLESS_PX, "edits": edits, "strengths": cases.strengths}
        return {**about, "measures": about_measures(cases), **_state(room)}

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        room.cases()
        return _state(room)

    @app.get("/api/order")
    def order(request: Request, generation: str, mode: Mode = "best") -> Response:
        cases = room.cases(generation)
        wanted = _selection(request, mode, cases)
        try:
            found = select(cases, room.judged(cases), wanted)
        except KeyError as error:
            raise HTTPException(422, f"there is no {error}") from None
        return Response(found.astype("<i4").tobytes(), media_type="application/octet-stream")

    @app.get("/api/cases")
    def rows(generation: str, ids: Annotated[str, Query(max_length=8192)]) -> list[dict[str, Any]]:
        cases = room.cases(generation)
        verdicts = room.judged(cases)
        numbers = [int(text) if text.isdecimal() and text.isascii() else -1 for text in ids.split(",")]
        return [_row(cases, verdicts, _case(cases, number)) for number in numbers]

    @app.get("/api/near")
    def near(generation: str, case: int) -> dict[str, Any]:
        cases = room.cases(generation)
        number, features = _case(cases, case), room.features(cases)
        if features is None:
            return {"known": False, "cases": []}
        return {"known": True, "cases": features.nearest(number, cases.edit_of, 12)}


def _add_pictures(app: FastAPI, room: Room) -> None:
    @app.get("/strip/{generation}/{case}.webp")
    def strip_of(generation: str, case: int) -> Response:
        cases = room.cases(generation)
        return _picture(lambda: strip(cases, _case(cases, case)), "image/webp")

    @app.get("/picture/{generation}/{case}/{at}.png")
    def picture_of(generation: str, case: int, at: str) -> Response:
        cases = room.cases(generation)
        if at != "input" and not (at.isdecimal() and int(at) < len(cases.strengths)):
            raise HTTPException(404)
        return _picture(lambda: picture(cases, _case(cases, case), None if at == "input" else int(at)), "image/png")


def _picture(make: Callable[[], bytes], kind: str) -> Response:
    try:
        return Response(make(), media_type=kind, headers={"Cache-Control": _KEPT})
    except PipelineError as error:
        raise HTTPException(404, str(error)) from None


def _add_writing(app: FastAPI, room: Room) -> None:
    @app.post("/api/verdicts")
    def put(body: Verdict) -> dict[str, Any]:
        cases = room.cases(body.generation)
        shown = cases.shown(_mode(body.mode, cases), room.judged(cases).at)
        changes: list[Change] = []
        for change in body.changes:
            case = _case(cases, change.case)
            k = int(shown[case]) if change.strength is None else change.strength
            if k >= len(cases.strengths):
                raise HTTPException(422, f"there is no strength {k}")
            edit = cases.edits[cases.edit_of[case]]
            changes.append(Change(cases.items[case], edit, cases.strengths[k], change.verdict))
        try:
            room.verdicts.put(changes)
        except (PipelineError, OSError) as error:
            raise HTTPException(507, str(error)) from None
        return _state(room)


def _state(room: Room) -> dict[str, Any]:
    cases = room.cases()
    verdicts = room.judged(cases)
    counts = np.bincount(verdicts.state, minlength=len(STATES)).tolist()
    stamp = "-".join(map(str, room.verdicts.stamp))
    return {
        "generation": cases.generation, "stamp": stamp, "counts": dict(zip(STATES, counts, strict=True)),
        "gone": verdicts.num_gone,
    }  # fmt: skip


def _row(cases: Cases, verdicts: Judged, case: int) -> dict[str, Any]:
    """What the page shows of a case."""
    item = cases.items[case]
    measures = {
        name: [None if np.isnan(v) else round(float(v), 4) for v in values[case]]
        for name, values in cases.measures.items()
    }
    return {
        "case": case, "item": item, "edit": cases.edits[cases.edit_of[case]], "source": cases.sources.get(item, ""),
        "targets": cases.targets[case], "best": int(cases.best[case]), "weakest": int(cases.weakest[case]),
        "state": STATES[verdicts.state[case]], "at": int(verdicts.at[case]), "measures": measures,
    }  # fmt: skip


def _case(cases: Cases, case: int) -> int:
    if not 0 <= case < len(cases):
        raise HTTPException(404, f"there is no case {case}")
    return case


def _mode(text: str, cases: Cases) -> str | int:
    if text in ("best", "weakest"):
        return text
    if not text.isdecimal() or int(text) >= len(cases.strengths):
        raise HTTPException(422, f"there is no strength {text}")
    return int(text)


def _selection(request: Request, mode: str, cases: Cases) -> Selection:
    """The query of a request: `edit` and `state` (repeated), `MEASURE=LOW..HIGH`, `find`, `sort`, `descending`."""
    query = request.query_params
    ranges: dict[str, tuple[float, float]] = {}
    for name in (*cases.measures, "strength"):
        if name in query:
            try:
                low, high = (float(part) for part in query[name].split(".."))
            except ValueError:
                raise HTTPException(422, f"{name} must be LOW..HIGH") from None
            ranges[name] = low, high
    return Selection(
        mode=_mode(mode, cases),
        edits=query.getlist("edit"),
        states=query.getlist("state"),
        ranges=ranges,
        find=query.get("find", "")[:200],
        sort=query.get("sort", ""),
        descending="descending" in query,
    )
