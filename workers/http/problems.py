"""Problems: what a client hears in place of an answer, in the shape of OpenAI's errors."""

import math
from typing import Any

INVALID, AUTHENTICATION, BUSY, SERVER = (
    "invalid_request_error", "authentication_error", "rate_limit_error", "server_error",
)  # fmt: skip


class Problem(Exception):
    """A request that is not served.

    Attributes:
        status: Of HTTP.
        message: For people.
        type, param, code: As OpenAI has them.
        retry_s: When to ask again; None: nothing is said of it.
        of_call: It became of a call, which is counted as such.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.type = _type(status)
        self.retry_s, self.of_call = retry_s, False

    @property
    def outcome(self) -> str:
        """Of the call, for the metrics."""
        return "busy" if self.status == 429 else "failed" if self.status >= 500 else "refused"

    def body(self) -> dict[str, Any]:
        """The object that is sent."""
        names = ("message", "type", "param", "code")
        return {"error": {name: getattr(self, name) for name in names}}

    def headers(self) -> dict[str, str]:
        """Besides those of any answer."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_s is not None:
            headers["Retry-After"] = str(max(math.ceil(self.retry_s), 1))
            headers["Retry-After-Ms"] = str(max(math.ceil(self.retry_s * 1000), 1))
        return headers


def bad(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """A request that can never be served as it is."""
    return Problem(400, message, param=param, code=code)


def of_service(answer: dict[str, Any]) -> Problem:
    """What the control socket said in place of taking an item."""
    text, code = str(answer["error"]), str(answer.get("code", ""))
    retry_s = answer.get("retry_after_s", 1.0)
    match code:
        case "busy":
            return Problem(429, text, code="rate_limit_exceeded", retry_s=retry_s)
        case "other":
            return bad(text, code="id_in_use")
        case "refused":
            return bad(text)
        case "" if text.startswith("a line of more than"):
            return Problem(413, text, code="too_large")
        case "stuck" | "unreadable":
            return Problem(500, text, code=code)
        case _:  # It stops, drains, is being brought back, or has too many connections.
            return Problem(503, text, code=code, retry_s=retry_s)


def _type(status: int) -> str:
    known = {401: AUTHENTICATION, 429: BUSY}
    return known.get(status, SERVER if status >= 500 else INVALID)
