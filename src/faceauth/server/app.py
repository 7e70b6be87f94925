"""The routes: what is asked for, and how it is answered."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from faceauth import __version__
from faceauth.errors import FaceAuthError
from faceauth.images import EncodedImage
from faceauth.output.rows import printable
from faceauth.server import documents, uploads, work
from faceauth.server.documents import EVERYWHERE, NDJSON, WITH_IMAGES, WITH_KEY, answers, problems
from faceauth.server.gate import Gate, Visit
from faceauth.server.judges import Judges
from faceauth.server.keys import Rates, find
from faceauth.server.metrics import Metrics
from faceauth.server.problems import Problem, busy, unavailable
from faceauth.server.settings import Settings
from faceauth.server.uploads import Body, Held
from faceauth.server.work import Answer, GivenUp, Job, Refused, Task
from faceauth.verdict import Verdict

HINTS = {404: "the API is described at /v1/openapi.json", 405: f"send images with POST: {uploads.HOW}"}
PAGE = Path(__file__).parent / "page"
T = TypeVar("T")


@dataclass
class Service:
    """What the routes share."""

    settings: Settings
    model: documents.Model
    judges: Judges
    held: Held
    metrics: Metrics
    rates: Rates
    admitted: int = 0
    listed: tuple[int, int] | None = None  # stamp of the learned file whose classes `model` lists
    seconds: float = 1.0  # that a request takes, lately; for Retry-After

    def admit(self, visit: Visit) -> None:
        """Count a request as judged or waiting for it until its end. Raises Problem 429 where there are too many."""
        self.check_room()
        self.admitted += 1
        visit.holds.callback(self._leave)
        self.metrics.admitted.set(self.admitted)

    def refresh(self) -> None:
        """List what the learned file holds now, which this service or a command may have changed since it started."""
        stamp = work.stamp(work.learned_file(self.settings))
        if stamp != self.listed:
            with suppress(FaceAuthError):  # of a damaged file nothing is judged, and each request is told so
                self.model.learned[:] = work.learned_names(self.settings, self.model.sha256)
            self.listed = stamp

    def check_room(self) -> None:
        """Raises Problem 429 where no further request is taken."""
        if self.admitted >= self.settings.queue:
            wait = self.admitted * self.seconds / self.settings.workers
            raise busy(f"{self.admitted} requests are being judged already", min(60.0, wait))

    def _leave(self) -> None:
        self.admitted -= 1
        self.metrics.admitted.set(self.admitted)


def create(settings: Settings, described: dict[str, Any]) -> ASGIApp:
    """The application, for the model that `work.described` has described."""
    judges, held = Judges(settings), Held(settings.max_held)
    model = documents.Model.model_validate(described)
    service = Service(settings, model, judges, held, Metrics(judges, held), Rates(settings.rate))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        judges.open()
        yield
        await judges.close()

    app = FastAPI(title=documents.TITLE, description=documents.DESCRIPTION, version=__version__, lifespan=lifespan,
                  docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", redirect_slashes=False)  # fmt: skip
    app.state.service = service
    app.include_router(router)
    if settings.teach:
        app.include_router(teaching)
    app.router.default = _page  # a mount at / would take other routes' wrong methods
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _problem)
    app.add_exception_handler(RequestValidationError, _problem)
    return Gate(app, settings, service.metrics)


_files = StaticFiles(directory=PAGE, html=True)


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """What is at a path without a route: a file of the page, which is only read."""
    if scope["type"] == "http" and scope["method"] not in {"GET", "HEAD"}:
        raise HTTPException(404)
    await _files(scope, receive, send)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        app.openapi_schema = documents.completed(made)
    return app.openapi_schema


async def _problem(request: Request, error: Exception) -> Response:
    """Every error as a problem; what was sent is not repeated."""
    if isinstance(error, RequestValidationError):
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        error = Problem(422, wrong or "the request is not as it has to be")
    elif isinstance(error, HTTPException):
        error = Problem(error.status_code, error.detail, HINTS.get(error.status_code), error.headers)
    assert isinstance(error, Problem)
    return error.response(_visit(request).id)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _visit(request: Request) -> Visit:
    visit: Visit = request.state.visit
    return visit


_bearer = HTTPBearer(auto_error=False, description="A key of `faceauth serve --new-key`.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key, for clients without Bearer.")


async def _key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> str | None:
    """The name of the key that asks; None where no key is wanted. Raises Problem 401."""
    keys = _service(request).settings.keys
    if not keys:
        return None
    given = bearer.credentials if bearer else header
    key = find(keys, given) if given else None
    if key is None:
        hint = "send the header: Authorization: Bearer KEY"
        raise Problem(
            401, "this key is not known" if given else "a key is needed", hint, {"WWW-Authenticate": "Bearer"}
        )
    _visit(request).fields["key"] = key.name
    return key.name


Key = Annotated[str | None, Depends(_key)]
router = APIRouter()
teaching = APIRouter()


@router.get("/healthz", tags=["operation"], responses=problems(*EVERYWHERE))
async def healthz(request: Request) -> documents.State:
    """Whether the service lives."""
    return documents.State(status="ok", workers=len(_service(request).judges.ready()))


@router.get("/readyz", tags=["operation"], responses=problems(503, *EVERYWHERE))
async def readyz(request: Request) -> documents.State:
    """Whether a worker process has opened the model and judged once."""
    ready = len(_service(request).judges.ready())
    if not ready:
        raise unavailable("no worker process is ready")
    return documents.State(status="ready", workers=ready)


_METRICS = documents.text("Counts, in the text format of Prometheus.") | problems(*WITH_KEY)
_ROWS = answers(documents.Row, "One row a face, in the order of the images.") | problems(*WITH_IMAGES)
_REPORTS = answers(documents.Provenance, "One report an image.") | problems(*WITH_IMAGES)
_EXPLANATION = documents.model(documents.Explanation, "The report.") | problems(422, *WITH_IMAGES)
_LESSON = documents.model(documents.Lesson, "What was learned.") | problems(422, *WITH_IMAGES)


@router.get("/metrics", tags=["operation"], response_class=Response, responses=_METRICS)
async def metrics(request: Request, key: Key) -> Response:
    """What was counted since the start."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/models", tags=["judging"], responses=problems(*EVERYWHERE))
async def models(request: Request) -> documents.Models:
    """Which model judges here, and within which limits; needs no key."""
    service, settings = _service(request), _service(request).settings
    limits = documents.Allowed(
        max_bytes=settings.max_bytes, max_files=settings.max_files, max_pixels=settings.max_pixels,
        max_faces=settings.max_faces, timeout=settings.timeout, images_a_minute=settings.rate if settings.keys else 0,
    )  # fmt: skip
    tasks = ["detect", "explain", "provenance", *(["learn"] if settings.teach else [])]
    await asyncio.to_thread(service.refresh)
    return documents.Models(models=[service.model], tasks=tasks, needs_key=bool(settings.keys), limits=limits)


@router.post("/v1/detect", tags=["judging"], openapi_extra=documents.body(), responses=_ROWS)
async def detect(request: Request, key: Key) -> Response:
    """Say of every face whether it is real, fake or uncertain, and what made it."""
    return await _each(request, key, "detect")


@router.post("/v1/explain", tags=["judging"], openapi_extra=documents.body(), responses=_EXPLANATION)
async def explain(request: Request, key: Key) -> Response:
    """Say why one image gets its verdict, how firm that is, and what judged it: the report of `faceauth explain`."""
    images = await _images(request, key)
    if len(images) > 1:
        raise Problem(422, f"{len(images)} images, and one at a time is explained", "send one")
    answer = await _while_connected(request, _service(request).judges.answer(Job("explain", tuple(images))))
    return JSONResponse(_counted(_service(request), "explain", _values(answer))[0])


@router.post("/v1/provenance", tags=["judging"], openapi_extra=documents.body(), responses=_REPORTS)
async def provenance(request: Request, key: Key) -> Response:
    """Say what files say of their own making, who signed it, and what can be measured on them; no model takes part."""
    return await _each(request, key, "provenance")


@teaching.post("/v1/learn", tags=["judging"], openapi_extra=documents.body(), responses=_LESSON)
async def learn(
    request: Request,
    key: Key,
    name: Annotated[str, Query(max_length=64, description="What to call it.", examples=["new-generator"])],
    real: Annotated[bool, Query(description="The pictures are photographs, of one camera or pipeline.")] = False,
    family: Annotated[
        Literal["gan", "diffusion", "swap", "laundered", "other"] | None, Query(description="The generator's family.")
    ] = None,
) -> Response:
    """Learn a generator, or a kind of photograph, from 10 to 50 pictures, for everybody who asks this service."""
    images = await _images(request, key, frozenset({"name", "real", "family"}))
    job = Job("learn", tuple(images), {"name": name, "real": real, "family": family})
    answer = await _while_connected(request, _service(request).judges.answer(job))
    (lesson,) = _values(answer)
    return JSONResponse(lesson)


async def _images(request: Request, key: str | None, known: frozenset[str] = frozenset()) -> list[EncodedImage]:
    """The images of a request that is admitted, whose query has no parameters but those known. Raises Problem."""
    service, visit = _service(request), _visit(request)
    if unknown := [name for name in request.query_params if name not in known]:
        hint = "model, threshold and limits are set where the service is started"
        raise Problem(400, f"the query has {printable(unknown[0])[:40]!r}, which is not known here", hint)
    if key is not None and (wait := service.rates.wait(key)):
        raise busy(f"more than {service.settings.rate} images a minute", wait)
    service.check_room()
    client = key or (request.client.host if request.client else "")
    body = Body(service.held, client)
    visit.holds.callback(body.release)
    images = await uploads.read(request, service.settings, body)
    visit.fields |= {"images": len(images), "bytes": body.size}
    if key is not None:
        service.rates.take(key, len(images))
    service.admit(visit)
    return images


async def _each(request: Request, key: str | None, task: Task) -> Response:
    """One answer an image: as a list, or as lines; as `Accept` says, else lines where there are many."""
    images = await _images(request, key)
    accepted = request.headers.get("accept", "")
    lines = NDJSON in accepted or (len(images) > 1 and "application/json" not in accepted)
    service = _service(request)
    if len(images) == 1:
        answer = await _while_connected(request, service.judges.answer(Job(task, (images[0],))))
        found = _counted(service, task, _values(answer))
        return Response(_lines(found), media_type=NDJSON) if lines else JSONResponse(found)
    stream = _stream(service, task, images)
    if lines:
        return StreamingResponse((_lines(found) async for found in stream), media_type=NDJSON)
    return JSONResponse(await _while_connected(request, _gathered(stream)))


async def _stream(service: Service, task: Task, images: list[EncodedImage]) -> AsyncIterator[list[dict[str, Any]]]:
    """Answers in order, each as soon as it is there; no more are asked for than keep the workers busy.

    So a request of many images does not stand before the others' with all of them.
    """
    asked: deque[tuple[EncodedImage, asyncio.Task[Answer]]] = deque()
    left = iter(images)
    try:
        while True:
            while len(asked) <= service.settings.workers and (image := next(left, None)) is not None:
                asked.append((image, asyncio.create_task(service.judges.answer(Job(task, (image,))))))
            if not asked:
                return
            image, answer = asked.popleft()
            yield _counted(service, task, _among_many(service, task, image, await answer))
    finally:
        for _, answer in asked:
            answer.cancel()


async def _gathered(stream: AsyncIterator[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [value async for found in stream for value in found]


def _among_many(service: Service, task: Task, image: EncodedImage, answer: Answer) -> list[dict[str, Any]]:
    """The answer to one image of many: one that was given up has its error where the others have theirs."""
    if not isinstance(answer, GivenUp):
        return _values(answer)
    path = image.path or "-"
    if task == "provenance":
        empty: dict[str, Any] = {"sha256": None, "format": "", "disagreements": [], "findings": []}
        return [{"path": path} | empty | {"error": answer.reason, "version": __version__}]
    verdict = Verdict(path, (), service.model.name, service.model.sha256, error=answer.reason)
    return [row | {"path_id": None} for row in verdict.rows()]


def _values(answer: Answer) -> list[dict[str, Any]]:
    """The values of an answer. Raises Problem where there are none."""
    if isinstance(answer, Refused):
        raise Problem(422, answer.message, answer.hint)
    if isinstance(answer, GivenUp):
        raise Problem(504, answer.reason, "send a smaller picture") if answer.late else unavailable(answer.reason)
    return answer


def _counted(service: Service, task: Task, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    service.metrics.images.labels(task).inc()
    if task == "detect":
        for row in found:
            service.metrics.labels.labels(row["label"] or "unreadable").inc()
            service.seconds += 0.1 * ((row["ms"] or 0) / 1000 - service.seconds)
    return found


def _lines(found: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in found)


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which is given up when the client goes. Raises ClientDisconnect then."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
