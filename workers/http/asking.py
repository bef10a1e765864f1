"""Asking: a call on its way through the service, for as long as its client is there."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lockstep.workers.http import stream
from lockstep.workers.http.answers import Object, usage_of
from lockstep.workers.http.control import Control
from lockstep.workers.http.metrics import Observations
from lockstep.workers.http.problems import Problem, bad, of_service

CALLS_MAX = 192  # At once: the service takes 256 connections at its control socket.
SEND_S = 30.0  # A client that reads nothing for so long has gone.
KEY_CHARS_MAX = 100
ID_BYTES = 12  # Random ones; ids are input, and decide no bit.
OURS = ("http-", "key-")  # What our ids begin with, and no client's.
T = TypeVar("T")


class Vanished(Exception):
    """The client has gone."""


class Call:
    """One call, from the command to its end.

    Args:
        asker: Who asks.
        route, model: For `Observations`.
        command: For the control socket.
        id: Of its item, if that is ours; None: it is the client's, who may ask for it again.
        receive: Of the request, whose body was read: it tells when the client goes.
    """

    def __init__(
        self,
        asker: "Asker",
        route: str,
        model: str,
        command: Object,
        id: str | None,
        receive: Receive,
    ) -> None:
        self._asker, self._route, self._model = asker, route, model
        self._id, self._receive = id, receive
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._usage: Object = {}
        asker.enter()
        asker.observed.asked(route, model)
        self._lines = asker.control.lines(command)

    async def answer(self) -> Object:
        """The last line, good or bad.

        Raises:
            Problem: the service did not take it.
            Vanished: nobody waits for it any more.
        """
        return await self._while_there(_last(self._lines))

    async def begin(self, check: Callable[[Object], object]) -> AsyncIterator[Object]:
        """All lines, once the first is there: so it was taken, and not refused.

        Args:
            check: Raises `Problem` of an answer that is none. Errors besides as `answer`.
        """
        first = await self._while_there(anext(self._lines))
        if "error" in first:
            raise of_service(first)
        if "ids" not in first:
            check(first)
        return _rejoined(first, self._lines)

    def first(self) -> None:
        """The first piece of the answer is going out."""
        if self._first_s is None:
            self._first_s = time.monotonic() - self._began_s
            self._asker.observed.first_token(self._route, self._model, self._first_s)

    def used(self, result: Object) -> None:
        """The model has answered."""
        self._usage = usage_of(result)

    @asynccontextmanager
    async def failing(self) -> AsyncIterator[None]:
        """What is raised inside is the end of the call."""
        try:
            yield
        except BaseException as error:
            outcome = "vanished" if isinstance(error, Vanished) else "failed"
            if isinstance(error, Problem):
                outcome, error.of_call = error.outcome, True
            await self.over(outcome)  # First: its place is free while the item is cancelled.
            if outcome == "vanished":
                await self.vanished()
            raise

    async def over(self, outcome: str) -> None:
        """The call is over; called once."""
        await self._lines.aclose()
        usage = self._usage
        details = usage.get("prompt_tokens_details", {})
        self._asker.leave()
        self._asker.observed.done(
            self._route,
            self._model,
            outcome,
            time.monotonic() - self._began_s,
            usage.get("prompt_tokens", 0),
            details.get("cached_tokens", 0),
            usage.get("completion_tokens", 0),
            self._first_s,
        )

    async def vanished(self) -> None:
        """Cancel the item, if nobody else can ask for it."""
        if self._id is not None:
            await self._asker.control.cancel(self._id)

    async def _while_there(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(self._receive))
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
        raise Vanished


class Asker:
    """Makes calls, not too many at once.

    Attributes:
        control: The service.
        observed: For metrics.
    """

    def __init__(self, control: Control, observed: Observations) -> None:
        self.control, self.observed = control, observed
        self._calls = 0

    def ids(self, request: Request) -> tuple[str, str | None]:
        """The id of an item, and once more if it is ours: one that no other item has.

        Raises:
            Problem: the client's own is none.
        """
        given = request.headers.get("idempotency-key")
        if given is None:
            id = f"http-{os.urandom(ID_BYTES).hex()}"  # Nobody can foresee it, and take it first.
            return id, id
        if not 1 <= len(given) <= KEY_CHARS_MAX or not all("!" <= c <= "~" for c in given):
            raise bad(f"Idempotency-Key: expected 1 to {KEY_CHARS_MAX} visible characters of ASCII")
        return f"key-{given}", None

    def enter(self) -> None:
        """One more call.

        Raises:
            Problem: there are too many.
        """
        if self._calls >= CALLS_MAX:
            text = f"{CALLS_MAX} calls are under way already; nothing was taken"
            raise Problem(429, text, code="rate_limit_exceeded", retry_s=1.0)
        self._calls += 1

    def leave(self) -> None:
        """One less."""
        self._calls -= 1


class Stream:
    """A response in pieces, for as long as its client reads them.

    Args:
        call: Whose answer it is.
        objects: The pieces.
    """

    def __init__(self, call: Call, objects: AsyncIterator[Object]) -> None:
        self._call, self._objects = call, objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        outcome = "failed"
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            outcome = sending.result() if sending.done() else "vanished"
        finally:
            for each in (sending, gone):
                each.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._call.over(outcome)
        if outcome == "vanished":
            await self._call.vanished()

    async def _send(self, send: Send) -> str:
        """The outcome."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        outcome, last = "ok", stream.END
        try:
            async for each in self._objects:
                self._call.first()
                await _piece(send, stream.event(each))
        except Problem as problem:
            outcome, last = problem.outcome, stream.event(problem.body())
        except TimeoutError:
            return "vanished"
        await _piece(send, last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return outcome


async def _piece(send: Send, data: bytes) -> None:
    """Raises TimeoutError: nobody reads."""
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _last(lines: AsyncIterator[Object]) -> Object:
    async for line in lines:
        last = line
    if "error" in last:
        raise of_service(last)
    return last


async def _rejoined(first: Object, lines: AsyncIterator[Object]) -> AsyncIterator[Object]:
    yield first
    async for line in lines:
        yield line


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    """Until the client has gone; its body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass
