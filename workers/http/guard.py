"""The guard: who is let in, and how much of a request is read.

A page in a browser can send requests to this host. It cannot choose the Host that its own name
resolves to (DNS rebinding), and cannot send JSON to another origin without asking first, which is
not answered: so names of Host and the type of a body are checked.
"""

import asyncio
import hmac
import ipaddress
import re
from typing import Any

from starlette.requests import Request

from lockstep.engine.strict_json import loads
from lockstep.workers.http.problems import Problem, bad

HEAD_BYTES_MAX = 32_768
BODY_S = 30.0  # To send a body.
DEPTH_MAX = 32
OPEN = ("/healthz", "/readyz")  # Say nothing that needs a token.
NAMES = ("localhost",)
# A name or an address, and its port: of anything else others may make another path or host.
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{0,5})?", re.ASCII)


class Guard:
    """Checks of one front end.

    Args:
        token: That clients must have; empty: none.
        hosts: Names that they may call us by, besides.
    """

    def __init__(self, token: str, hosts: list[str]) -> None:
        self._token = token.encode()
        self._hosts = (*NAMES, *hosts)

    def check(self, request: Request) -> None:
        """Before anything else of a request counts.

        Raises:
            Problem: it is not let in.
        """
        if _head_bytes(request) > HEAD_BYTES_MAX:
            raise head_too_large()
        given = request.headers.get("host", "")
        host = _host_of(given)
        if host not in self._hosts and not _literal(host):
            text = f"Host {given!r:.80} is not served: lockstep serve --http-host allows it"
            raise Problem(421, text, code="host_not_allowed")
        # Not `request.url`, which some versions of Starlette make of what the client calls us.
        if not self._token or request.scope["path"] in OPEN:
            return
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(word.strip().encode(), self._token)
        if not matches or scheme.lower() != "bearer":
            raise Problem(401, "the token is missing or wrong", code="invalid_api_key")


def head_too_large() -> Problem:
    """What is said to a head that is too large, whether or not its end came."""
    text = f"the head of the request has more than {HEAD_BYTES_MAX} bytes"
    return Problem(431, text, code="too_large")


async def body_of(request: Request, bytes_max: int) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        Problem: it is none, too large, or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        text = f"Content-Type is {kind!r:.80}, expected application/json"
        raise Problem(415, text, code="unsupported_media_type")
    try:
        async with asyncio.timeout(BODY_S):
            data = await _read(request, bytes_max)
    except TimeoutError:
        raise Problem(408, f"the body did not come within {BODY_S:g} s") from None
    try:
        value = loads(data, DEPTH_MAX)
    except (ValueError, RecursionError) as error:
        raise bad(f"the body is not valid JSON: {error!s:.200}") from None
    if not isinstance(value, dict):
        raise bad("the body: expected a JSON object")
    return value


async def _read(request: Request, bytes_max: int) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > bytes_max:
            raise Problem(413, f"the body has more than {bytes_max} bytes", code="too_large")
    return bytes(data)


def _head_bytes(request: Request) -> int:
    """Of a head as it was sent, without optional space. One that came at once is not bounded by
    who parses it: that bounds what is kept until the rest comes."""
    scope = request.scope
    target = scope.get("raw_path") or scope["path"].encode()
    first = len(target) + len(scope.get("query_string", b""))
    return first + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _host_of(header: str) -> str:
    """The name in a Host header, in lower case, without its port; empty: it has none."""
    found = HOST.fullmatch(header.lower())
    return (found[1] or found[2]) if found is not None else ""


def _literal(host: str) -> bool:
    """Whether it is an address: no name, so that nobody could let it resolve to us."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
