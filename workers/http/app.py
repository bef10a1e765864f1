"""The application: which paths there are, and what each of them does.

A call to a model becomes the command ``call`` of the control socket, a chat with a fleet
``submit``: both are items, so a day of clients is a run that is verified and played again.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from h11 import LocalProtocolError, RemoteProtocolError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lockstep.workers.http import answers, metrics, params, stream
from lockstep.workers.http.answers import Head, Object
from lockstep.workers.http.asking import OURS, Asker, Call, Stream, Vanished
from lockstep.workers.http.control import Control
from lockstep.workers.http.guard import Guard, body_of, head_too_large
from lockstep.workers.http.metrics import Observations
from lockstep.workers.http.offered import FLEET, Market, Offered
from lockstep.workers.http.params import Asked
from lockstep.workers.http.problems import Problem, bad
from lockstep.workers.http.stream import Pieces
from lockstep.workers.http.words import Tokenizers, Words

CLIENT_GONE = 499  # Nobody hears it.
DECODER, TENSORS = "decoder", "tensors"
Told = Callable[[str], None]


class Served:
    """One front end's application.

    Args:
        control: The service.
        guard: Who is let in.
        failed: Told of what should not have happened.
    """

    def __init__(self, control: Control, guard: Guard, failed: Told) -> None:
        self._guard, self._failed = guard, failed
        self._observed = Observations()
        self._asker = Asker(control, self._observed)
        self._market = Market(control)
        self._tokenizers = Tokenizers()
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]
        handlers: dict[Any, Any] = {
            Problem: self._problem, HTTPException: self._no_route, Vanished: _gone,
            Exception: self._bug,  # Starlette raises it again, for `__call__`.
        }  # fmt: skip
        self._app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        try:
            self._guard.check(Request(scope))
        except Problem as problem:
            await self._said(problem)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except (ClientDisconnect, LocalProtocolError):
            pass  # It went away, or said its last word too early: nobody hears an answer.
        except Exception as error:  # A bug of ours: told, and the next request is served.
            self._failed(f"{scope['method']} {scope['path']}: {error!r}")

    def malformed(self, error: RemoteProtocolError) -> Response:
        """What is said to something that is no request. It is counted as an error like any other.

        Args:
            error: Of the parser, which also bounds a head that has not come to its end.
        """
        if error.error_status_hint == 431:
            return self._said(head_too_large())
        return self._said(bad(f"not a request of HTTP/1.1: {error!s:.200}", code="malformed"))

    # -- what is asked ------------------------------------------------------------------------

    async def _chat(self, request: Request) -> Any:
        offered, body = await self._read(request)
        if str(body.get("model")).startswith(FLEET):
            return await self._fleet(request, offered, body)
        return await self._generate(request, offered, params.chat(body), is_chat=True)

    async def _completions(self, request: Request) -> Any:
        offered, body = await self._read(request)
        return await self._generate(request, offered, params.completion(body), is_chat=False)

    async def _generate(
        self, request: Request, offered: Offered, asked: Asked, is_chat: bool
    ) -> Any:
        model = offered.find(asked.model, DECODER)
        told = asked.stream and asked.request.get("n", 1) == 1
        text = await self._tokenizers.of(model) if told else None
        call, id = self._call(request, asked, "chat" if is_chat else "completions", told)
        head = Head(id, asked.model, model["fingerprint"])
        made = answers.chat if is_chat else answers.completion
        heard = partial(answers.result_of, names=asked.names)
        if not asked.stream:
            return await self._whole(call, heard, lambda line, result: made(head, line, result))
        stops = asked.request.get("stop", [])
        words = Words(text, [stops] if isinstance(stops, str) else stops)
        pieces = Pieces(head, is_chat, asked.usage)
        return await self._streamed(
            call,
            heard,
            lambda lines: stream.of_model(pieces, words, lines, call.used),
        )

    async def _embeddings(self, request: Request) -> Any:
        offered, body = await self._read(request)
        asked = params.embedding(body)
        model = offered.find(asked.model, TENSORS)
        call, id = self._call(request, asked, "embeddings", told=False)
        head = Head(id, asked.model, model["fingerprint"])
        return await self._whole(
            call,
            answers.result_of,
            lambda line, result: answers.embeddings(head, line, result, asked.floats),
        )

    async def _fleet(self, request: Request, offered: Offered, body: Object) -> Any:
        asked = params.fleet(body)
        if not offered.fleet or asked.model != FLEET + offered.fleet:
            raise offered.unknown(asked.model)
        item = asked.request
        ours = None
        if str(item.get("id", "")).startswith(OURS):
            raise bad(f"id: {item['id']!r:.80} begins with {' or '.join(OURS)}, which is ours")
        if "id" not in item:
            item["id"], ours = self._asker.ids(request)
        head = Head(item["id"], asked.model, None)
        command = {"do": "submit", "item": item, "client": _client(request), "wait": True}
        call = Call(self._asker, "fleet", asked.model, command, ours, request.receive)
        if not asked.stream:
            return await self._whole(call, lambda _: {}, lambda line, _: answers.fleet(head, line))
        pieces = Pieces(head, True, asked.usage)
        return await self._streamed(
            call, answers.said_by_fleet, lambda lines: stream.of_fleet(pieces, lines)
        )

    def _call(self, request: Request, asked: Asked, route: str, told: bool) -> tuple[Call, str]:
        """A call that was begun, and the id of its item."""
        id, ours = self._asker.ids(request)
        command = {
            "do": "call", "model": asked.model, "request": asked.request, "id": id,
            "client": _client(request), "told": told,
        }  # fmt: skip
        return Call(self._asker, route, asked.model, command, ours, request.receive), id

    async def _whole(
        self,
        call: Call,
        heard: Callable[[Object], Object],
        made: Callable[[Object, Object], Object],
    ) -> Response:
        """An answer in one piece; ``heard``: what a model said, nothing of what a fleet did."""
        async with call.failing():
            line = await call.answer()
            result = heard(line)
            if result:
                call.used(result)
            response = JSONResponse(made(line, result))
        await call.over("ok")
        return response

    async def _streamed(
        self,
        call: Call,
        check: Callable[[Object], object],
        made: Callable[[stream.Lines], AsyncIterator[Object]],
    ) -> Stream:
        async with call.failing():
            lines = await call.begin(check)
        return Stream(call, made(lines))

    async def _read(self, request: Request) -> tuple[Offered, Object]:
        offered = await self._market.offered()
        return offered, await body_of(request, offered.body_bytes_max)

    # -- what is shown ------------------------------------------------------------------------

    async def _models(self, _: Request) -> Response:
        offered = await self._market.offered()
        data = [_model(offered, name) for name in offered.names()]
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        offered, name = await self._market.offered(), request.path_params["name"]
        if name not in offered.names():
            raise offered.unknown(name)
        return JSONResponse(_model(offered, name))

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _: Request) -> Response:
        status = await self._market.status()
        ready = status["state"] == "ready"
        return PlainTextResponse(f"{status['state']}\n", 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        try:
            status = await self._market.status()
        except Problem:
            status = {}
        text = metrics.exposition(status, self._observed)
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    # -- what is refused ----------------------------------------------------------------------

    async def _problem(self, _: Request, problem: Problem) -> Response:
        return self._said(problem)

    async def _bug(self, request: Request, error: Exception) -> Response:
        if isinstance(error, (ClientDisconnect, LocalProtocolError)):
            return await _gone(request, error)
        return self._said(Problem(500, "a bug in Lockstep; the log has more"))

    async def _no_route(self, request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        text = f"{request.method} {path[:80]}: {error.detail}"
        return self._said(Problem(error.status_code, text), error.headers)

    def _said(self, problem: Problem, more: Any = None) -> Response:
        if not problem.of_call:
            self._observed.turned_away(problem.status)
        headers = {**problem.headers(), **(more or {})}
        return JSONResponse(problem.body(), problem.status, headers)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


def _client(request: Request) -> str:
    """Whose an item is, for the limits of the service: one client for each address."""
    return f"http {request.client.host}" if request.client is not None else "http"


def _model(offered: Offered, name: str) -> Object:
    found = offered.models.get(name, {})
    shown = ("kind", "tokens_max", "provider", "class", "fingerprint")
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "lockstep",
        "lockstep": {key: found[key] for key in shown if key in found},
    }
