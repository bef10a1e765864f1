"""Requests that nobody ought to send, drawn from a seed; some of them are almost good."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

JSON = "application/json"
DEEP = 100_000
LONG = 1 << 20


class Case(NamedTuple):
    """One of them.

    Attributes:
        name: What was done to it.
        data: What is sent.
        ends: No more comes, though more was promised: silence is an answer to that.
        good: It may be one that is answered with success.
    """

    name: str
    data: bytes
    ends: bool = False
    good: bool = False


def junk(draw: random.Random) -> Any:
    """A value of some type, seldom the right one."""
    return draw.choice(
        (None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 0.5, -1e308, 1e-320, "", "x", "\0",
         "\ud800", "é" * 40, "..", [], {}, [[]], [None], {"": None}, [1, "a", {}], "a" * 70_000,
         [{"role": "user", "content": "x"}] * 3, {"type": "json_object"}, ["stop"] * 40)
    )  # fmt: skip


def body_of(draw: random.Random, model: str) -> tuple[str, dict[str, Any]]:
    """A route and a body that is good, and soon answered."""
    route = draw.choice(("chat/completions", "completions", "embeddings"))
    body: dict[str, Any] = {"model": model}
    if route == "embeddings":
        return f"/v1/{route}", {**body, "input": "hello"}
    if route == "completions":
        body["prompt"] = "hello"
    else:
        body["messages"] = [{"role": "user", "content": "hello"}]
    return f"/v1/{route}", {**body, "max_tokens": 1, "seed": draw.randrange(9)}


def _sent(path: str, body: bytes, extra: bytes = b"", head: bytes = b"") -> bytes:
    first = head or b"POST %b HTTP/1.1" % path.encode()
    lines = (first, b"host: localhost", b"content-type: application/json",
             b"content-length: %d" % len(body))  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n" + extra + b"\r\n" + body


def _value(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    places = [*body, "n", "stop", "stream", "temperature", "top_p", "logprobs", "stream_options",
              "max_completion_tokens", "presence_penalty", "response_format", "tools", "logit_bias",
              "seed", "user", "top_logprobs", "echo", "encoding_format", "dimensions"]  # fmt: skip
    for _ in range(draw.randint(1, 3)):
        body[draw.choice(places)] = junk(draw)
    if body.get("max_tokens") != 1:  # Else a good one may take its time.
        body["max_completion_tokens"] = junk(draw)
    return Case("value", _sent(path, json.dumps(body).encode()), good=True)


def _message(draw: random.Random, model: str) -> Case:
    _, body = body_of(draw, model)
    message = {"role": "user", "content": "x"}
    for _ in range(draw.randint(1, 2)):
        message[draw.choice(("role", "content", "name", "tool_calls", "x"))] = junk(draw)
    body = {"model": model, "max_tokens": 1, "messages": [message] * draw.choice((1, 1, 2, 600))}
    return Case("message", _sent("/v1/chat/completions", json.dumps(body).encode()), good=True)


def _missing(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    needed = [key for key in ("model", "messages", "prompt", "input") if key in body]
    del body[draw.choice(needed)]
    return Case("missing", _sent(path, json.dumps(body).encode()))


def _unknown(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    body[draw.choice(("fantasy", "max_token", "Model", "", "\0", "__proto__"))] = junk(draw)
    return Case("unknown", _sent(path, json.dumps(body).encode()))


def _model(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    body["model"] = draw.choice(("gpt-4", "fleet:", "fleet:none", "../../etc/passwd", "\0", "", 5))
    return Case("model", _sent(path, json.dumps(body).encode()))


def _bytes(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    data = bytearray(json.dumps(body).encode())
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(data))
        match draw.randrange(3):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                data[at:at] = draw.randbytes(draw.randint(1, 4))
            case _:
                del data[at : at + draw.randint(1, 4)]
    return Case("bytes", _sent(path, bytes(data)), good=True)


def _text(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    whole = json.dumps(body).encode()
    data = draw.choice(
        (b"", b" ", b"null", b"[]", b'"x"', b"5", b"{", b"}", b"\xff\xfe", b"\xef\xbb\xbf" + whole,
         b"[" * DEEP, b'{"a":' * DEEP, b"1" * 5000, b'{"model": NaN}', b'{"model": 1e999}',
         whole[:-1] + b', "model": "other"}', whole[:-1] + b",}", whole + whole, b"x" * LONG,
         b"\0" * 100, whole.replace(b'"', b"'"), b'{"model": "\\ud800"}', draw.randbytes(200),
         whole[: draw.randrange(len(whole))])
    )  # fmt: skip
    return Case("text", _sent(path, data))


def _line(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    first = draw.choice(
        (b"GET", b"GET /", b"GET / HTTP/9.9", b"", b" ", b"\0 / HTTP/1.1", b"POST  / HTTP/1.1",
         b"GET /" + b"a" * 100_000 + b" HTTP/1.1", b"GET /%00 HTTP/1.1", b"GET /\xff HTTP/1.1",
         b"GET /../../../etc/passwd HTTP/1.1", b"GET /v1/models/..%2f..%2fservice.json HTTP/1.1",
         b"G" * 9000 + b" / HTTP/1.1", b"PRI * HTTP/2.0", b"CONNECT a:1 HTTP/1.1",
         b"TRACE / HTTP/1.1", b"DELETE /v1/models HTTP/1.1", b"PUT " + path.encode() + b" HTTP/1.1",
         b"GET " + path.encode() + b" HTTP/1.1", b"POST /v1/models HTTP/1.1",
         b"POST /v1/nothing HTTP/1.1", b"GET http://evil.example/v1/models HTTP/1.1",
         b"POST " + path.encode() + b"?a=" + b"%f" * 50 + b" HTTP/1.1")
    )  # fmt: skip
    data = json.dumps({**body, "fantasy": 1}).encode()
    return Case("line", _sent(path, data, head=first) if first else b"\r\n" * 100, ends=not first)


def _header(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    extra = draw.choice(
        (b"x" * 100_000 + b": y\r\n", b"x: " + b"y" * 100_000 + b"\r\n", b"x: y\r\n" * 5000,
         b"no colon\r\n", b"space : x\r\n", b" folded\r\n", b": empty\r\n", b"x\0y: z\r\n",
         b"x: a\0b\r\n", b"x: \xff\xfe\r\n", b"host: evil.example\r\n", b"expect: something\r\n",
         b"content-length: 1\r\n", b"transfer-encoding: identity\r\n",
         b"transfer-encoding: gzip, chunked\r\n", b"transfer-encoding: chunked\r\n",
         b"content-encoding: gzip\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n",
         b"authorization: Bearer " + b"z" * 9000 + b"\r\n", b"content-type: text/html\r\n",
         b"origin: http://evil.example\r\n", b"range: bytes=0-1\r\n", b"x: y\n", b"\rx: y\r\n")
    )  # fmt: skip
    waits = b"transfer-encoding" in extra  # For a body of another form than the one that it gets.
    return Case("header", _sent(path, json.dumps({**body, "fantasy": 1}).encode(), extra), waits)


def _length(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    said = draw.choice(
        (b"-1", b"+5", b"0x10", b"1_0", b"", b"a", b"9" * 30, b"99999999", b"1, 2", b"\xb2", b"5 5")
    )
    data = json.dumps(body).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %b\r\n\r\n" % (
        path.encode(), said,
    )  # fmt: skip
    return Case("length", head + data, ends=True)


def _chunks(draw: random.Random, model: str) -> Case:
    path, _ = body_of(draw, model)
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    data = draw.choice(
        (b"zz\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello", b"5\r\nhelloworld\r\n0\r\n\r\n",
         b"ffffffffffffffff\r\nx", b"0\r\n\r\n", b"1;" + b"x" * 100_000 + b"\r\na\r\n0\r\n\r\n",
         b"4\r\nnull\r\n0\r\n\r\n", b"100000000\r\n", b"0\r\nx: y\r\n\r\n")
    )  # fmt: skip
    return Case("chunks", head % path.encode() + data, ends=True)


def _cut(draw: random.Random, model: str) -> Case:
    path, body = body_of(draw, model)
    data = _sent(path, json.dumps(body).encode())
    return Case("cut", data[: draw.randrange(1, len(data))], ends=True)


def _host(draw: random.Random, model: str) -> Case:
    host = draw.choice((b"", b"evil.example", b"localhost.evil.example", b"127.0.0.1.nip.io",
                        b"local host", b"[", b"a" * 5000, b"\xff"))  # fmt: skip
    return Case("host", b"GET /v1/models HTTP/1.1\r\nhost: %b\r\n\r\n" % host)


KINDS: tuple[Callable[[random.Random, str], Case], ...] = (
    _value, _value, _message, _missing, _unknown, _model, _bytes, _text, _line, _header, _length,
    _chunks, _cut, _host,
)  # fmt: skip


def case(seed: int, model: str) -> Case:
    """The case of a seed; ``model``: one that is served."""
    draw = random.Random(seed)
    return draw.choice(KINDS)(draw, model)
