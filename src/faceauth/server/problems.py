"""What went wrong, as `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer other than the one that was asked for: a status, one line, and a hint that names the next step."""

    def __init__(
        self, status: int, detail: str, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint, self.headers = status, detail, hint, dict(headers or {})

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the problem; `hint` and `request_id` are extensions."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail} | {
            "hint": self.hint,
            "request_id": request_id,
        }

    def response(self, request_id: str) -> JSONResponse:
        """The problem as a response."""
        return JSONResponse(self.body(request_id), self.status, self.headers, media_type=MEDIA_TYPE)


def busy(detail: str, seconds: float) -> Problem:
    """429: come back in so many seconds."""
    wait = str(max(1, round(seconds)))
    return Problem(429, detail, f"try again in {wait} s", {"Retry-After": wait})


def unavailable(detail: str) -> Problem:
    """503: not now, through no fault of the request."""
    return Problem(503, detail, "try again", {"Retry-After": "1"})
