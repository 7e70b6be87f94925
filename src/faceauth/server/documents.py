"""What the OpenAPI document says: fields, examples, and the body of every status that can occur."""

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from faceauth import __version__
from faceauth.server.problems import MEDIA_TYPE
from faceauth.server.uploads import FIELD, MULTIPART

NDJSON = "application/x-ndjson"
SHA256 = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
TITLE = "faceauth"
DESCRIPTION = """Is this face photograph real, and if not, what made it?

Images come in the form field `files`, one or many, or one as the body. Nothing is fetched by URL, no path of the
server is read, no image is written to a disk or logged. One image is answered as JSON, a list; many as JSON Lines
(`application/x-ndjson`), in order, each as soon as it is judged. The `Accept` header chooses otherwise.

An image that cannot be read is an answer too, with `error`. A score is evidence, not proof."""

EXAMPLE_ROW: dict[str, Any] = {
    "path": "photo.jpg", "face": 0, "box": [92, 58, 211, 222], "label": "uncertain", "score": 0.61, "stability": None,
    "source": "flux", "threshold": 0.87, "false_alarm_rate": 0.05, "model": "accurate", "model_sha256": SHA256,
    "image_sha256": SHA256[::-1], "width": 512, "height": 640, "ms": 161.2, "error": None, "generator": "unknown",
    "generators": {"unknown": 0.55, "flux": 0.45}, "families": {"unknown": 0.55, "diffusion": 0.45},
    "says_itself": ["EXIF Software: Adobe Firefly"], "reason": "between thresholds", "version": __version__,
    "judged_at": "2026-01-31T12:00:00Z", "learned": [], "learned_sha256": None, "face_finder": "centerface 3",
    "path_id": None, "duplicate_of": None, "note": None,
}  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Row(_Record):
    """One face of an image, or an image without one: the row of `faceauth detect`, field for field.

    `path` is the name that the client gave; `path_id` is null, as there is no path.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ROW]}, protected_namespaces=())

    path: str
    face: int | None
    box: list[int] | None
    label: Literal["real", "fake", "uncertain", "no-face"] | None
    score: float | None
    stability: float | None
    source: str | None
    threshold: float | None
    false_alarm_rate: float | None
    model: str
    model_sha256: str
    image_sha256: str | None
    width: int | None
    height: int | None
    ms: float | None
    error: str | None
    generator: str | None
    generators: dict[str, float] | None
    families: dict[str, float] | None
    says_itself: list[str]
    reason: str | None
    version: str
    judged_at: str
    learned: list[str]
    learned_sha256: str | None
    face_finder: str | None
    path_id: None
    duplicate_of: None
    note: str | None


class Finding(_Record):
    """One line of evidence: what anybody can write, what a signature covers, what was measured, what is absent."""

    kind: Literal["says", "signed", "measured", "absent"]
    where: str
    text: str
    generator: str | None


class Provenance(_Record):
    """What one file says of its own making: the report of `faceauth provenance`. No model takes part."""

    path: str
    sha256: str | None
    format: str
    disagreements: list[str]
    findings: list[Finding]
    error: str | None
    version: str


class Explanation(_Record):
    """Why one image gets its verdict: the report of `faceauth explain -o report.json`, field for field.

    For each face a sentence, what it is worth, where the evidence lies, its spectrum, the nearest training sources and
    the score after edits.
    """

    format: int
    sentence: str
    verdict: dict[str, Any]
    faces: list[dict[str, Any]]
    provenance: dict[str, Any] | None
    custody: dict[str, Any]
    caveats: list[str]
    ms: float


class Lesson(_Record):
    """What was learned, and how well it will be told apart; `notes` say in words what was left out."""

    taught: str
    label: Literal["real", "fake"]
    family: str
    count: int
    recall: float
    unreadable: list[str]
    duplicates: list[str]
    faceless: list[str]
    whole: int
    left: int
    confused: dict[str, int]
    notes: list[str]


class Model(_Record):
    """The model that judges, as `faceauth model info` describes it."""

    name: str
    version: str
    sha256: str
    fake_from: float
    real_to: float
    false_alarm_rate: float
    measured_on: str
    sources: list[str]
    labels: list[str]
    trained_on: str
    licence: str
    learned: list[str]


class Allowed(_Record):
    """What a request may hold, and how long an image may take, in seconds; null for as long as it takes."""

    max_bytes: int
    max_files: int
    max_pixels: int
    max_faces: int
    timeout: float | None
    images_a_minute: int


class Models(_Record):
    """What judges here, what can be asked for, and within which limits."""

    models: list[Model]
    tasks: list[str]
    needs_key: bool
    limits: Allowed


class State(_Record):
    """That the service lives, or is ready, with how many processes can judge."""

    status: Literal["ok", "ready"]
    workers: int


class ProblemBody(_Record):
    """What went wrong (RFC 9457): one line in `detail`, the next step in `hint`, the id of the request."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    hint: str | None
    request_id: str


WHY = {
    400: ("The form is broken or holds no image, or the query a parameter that is not known.", "no image was sent"),
    401: ("No key, or none that is known.", "a key is needed"),
    403: ("A page of another site asked.", "a page of another site may not ask this service"),
    404: ("There is nothing at this path.", "Not Found"),
    405: ("Not with this method.", "Method Not Allowed"),
    408: ("The body came too slowly.", "the body came too slowly"),
    413: ("Too many bytes or files.", "more than the limit of 64,000,000 bytes"),
    415: ("The body is neither a form nor an image.", "the body is neither a form of files nor an image"),
    421: ("The Host header names another machine.", "the Host header names another machine"),
    422: ("What was asked for makes no sense.", "the name 'flux' is in use"),
    429: ("Too many requests at once, or images a minute; see Retry-After.", "64 requests are being judged already"),
    500: ("A fault of faceauth.", "a fault of faceauth"),
    503: ("The process at the image ended, or none can be started.", "not judged: the process ended"),
    504: ("The image took too long.", "not judged: it took more than 60 s"),
}
EVERYWHERE = (403, 421, 500)
WITH_KEY = (401, *EVERYWHERE)
WITH_IMAGES = (400, 408, 413, 415, 429, 503, 504, *WITH_KEY)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of these statuses, each with its body and an example, as FastAPI takes them."""
    return {status: _response(status) for status in sorted(statuses)}


def _response(status: int) -> dict[str, Any]:
    meaning, detail = WHY[status]
    example = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "hint": None,
        "request_id": "4f1d2c6b8a90e375",
    }  # fmt: skip
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    response: dict[str, Any] = {
        "description": meaning,
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status in {429, 503}:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": seconds}
    return response


def answers(kind: type[BaseModel], text: str) -> dict[int | str, dict[str, Any]]:
    """The response 200 of a task: a JSON list, or JSON Lines."""
    schema = {"type": "array", "items": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    lines = {"type": "string", "description": f"One {kind.__name__} a line, as JSON."}
    return {200: {"description": text, "content": {"application/json": {"schema": schema}, NDJSON: {"schema": lines}}}}


def model(kind: type[BaseModel], meaning: str) -> dict[int | str, dict[str, Any]]:
    """The response 200 of one record, as JSON."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {200: {"description": meaning, "content": {"application/json": {"schema": schema}}}}


def text(meaning: str) -> dict[int | str, dict[str, Any]]:
    """A response 200 that is plain text."""
    return {200: {"description": meaning, "content": {"text/plain": {"schema": {"type": "string"}}}}}


def body() -> dict[str, Any]:
    """The request body of a task, as OpenAPI has it."""
    file = {"type": "string", "format": "binary"}
    form = {
        "schema": {
            "type": "object", "required": [FIELD], "additionalProperties": False,
            "properties": {FIELD: {"type": "array", "items": file, "minItems": 1}},
        },
    }  # fmt: skip
    image = {"schema": file | {"minLength": 1}}
    content = {MULTIPART: form, "application/octet-stream": image, "image/*": image}
    return {"requestBody": {"required": True, "content": content}}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document that FastAPI made, with the records that only bodies refer to, and without its own error bodies."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for kind in (Row, Finding, Provenance, Explanation, Lesson, ProblemBody):
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[kind.__name__] = schema
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
