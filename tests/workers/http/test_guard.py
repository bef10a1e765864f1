"""Who is let in: by the name that they call us by, and by the token."""

from __future__ import annotations

import pytest
from starlette.datastructures import URL
from starlette.requests import Request

from lockstep.workers.http.guard import HEAD_BYTES_MAX, Guard
from lockstep.workers.http.problems import Problem

REBOUND, STRANGER, IN = 421, 401, 200


def status(guard: Guard, host: str, authorization: str | None, path: str = "/v1/models") -> int:
    """What becomes of a request."""
    headers = [(b"host", host.encode("latin-1"))]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode("latin-1")))
    url = {"scheme": "http", "path": path, "query_string": b"", "server": ("127.0.0.1", 1)}
    try:
        guard.check(Request({"type": "http", "method": "GET", "headers": headers, **url}))
    except Problem as problem:
        assert "secret" not in problem.message
        return problem.status
    return IN


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", IN),
        ("LOCALHOST:8000", IN),
        ("127.0.0.1:8000", IN),
        ("[::1]:8000", IN),
        ("192.168.1.9", IN),  # An address: no name that could lead here.
        ("box.example:80", IN),
        ("evil.example", REBOUND),
        ("127.0.0.1.evil.example", REBOUND),
        ("localhost.evil.example", REBOUND),
        ("evil.example:localhost", REBOUND),
        ("box.example.", REBOUND),
        ("[::1", REBOUND),
        ("[::1]x", REBOUND),
        ("127.0.0.1:/healthz?x=", REBOUND),
        ("127.0.0.1:80/healthz#", REBOUND),
        ("127.0.0.1/healthz", REBOUND),
        ("me@127.0.0.1", REBOUND),
        ("127.0.0.1:8000 ", REBOUND),
        ("127.0.0.1:\u00b2", REBOUND),
        ("[evil.example]", REBOUND),
        ("", REBOUND),
        ("\xff", REBOUND),
    ],
)
def test_only_names_that_are_ours_are_served(host: str, expected: int) -> None:
    assert status(Guard("", ["box.example"]), host, None) == expected


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer secret", IN),
        ("bearer  secret ", IN),
        (None, STRANGER),
        ("", STRANGER),
        ("Bearer", STRANGER),
        ("Bearer ", STRANGER),
        ("Bearer wrong", STRANGER),
        ("Bearer secre", STRANGER),
        ("Bearer secretsecret", STRANGER),
        ("Bearer secr\xe9t", STRANGER),
        ("secret", STRANGER),
        ("Basic secret", STRANGER),
    ],
)
def test_only_who_has_the_token_is_heard(authorization: str | None, expected: int) -> None:
    guard = Guard("secret", [])
    assert status(guard, "localhost", authorization) == expected
    assert status(guard, "evil.example", authorization) == REBOUND
    assert status(guard, "localhost", authorization, "/metrics") == expected
    for path in ("/healthz", "/readyz"):  # They say nothing that needs one.
        assert status(guard, "localhost", authorization, path) == IN


@pytest.mark.parametrize("where", ["name", "value", "path", "query"])
def test_a_head_that_came_at_once_is_bounded_like_one_that_did_not(where: str) -> None:
    def head(size: int) -> Request:
        parts = dict.fromkeys(("name", "value", "path", "query"), b"x") | {where: b"x" * size}
        headers = [(b"host", b"localhost"), (parts["name"], parts["value"])]
        path = {"path": "/", "raw_path": parts["path"], "query_string": parts["query"]}
        return Request({"type": "http", "method": "GET", "headers": headers, **path})

    Guard("", []).check(head(HEAD_BYTES_MAX - 100))
    with pytest.raises(Problem, match="more than 32768 bytes") as refused:
        Guard("", []).check(head(HEAD_BYTES_MAX))
    assert refused.value.status == 431


class Fooled(Request):
    """As old versions of Starlette read the path: of a URL that the Host header is part of."""

    url = URL("http://127.0.0.1:/healthz?x=:1/v1/models")


def test_what_a_client_calls_us_opens_no_other_path() -> None:
    headers = [(b"host", b"127.0.0.1")]
    request = Fooled({"type": "http", "method": "GET", "path": "/v1/models", "headers": headers})
    with pytest.raises(Problem, match="token"):
        Guard("secret", []).check(request)
