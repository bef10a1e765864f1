"""Callers: HTTP clients of a service, one or many at once, and how long each call took them."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from lockstep.engine.errors import UsageError

PATH = "/v1/chat/completions"
ANSWER_S_MAX = 600.0


class Caller:
    """One client, on one connection that stays open.

    Args:
        address: Of the front end.
        model: As the request has it.
    """

    def __init__(self, address: str, model: str) -> None:
        place = urlsplit(address).netloc
        self._connection = http.client.HTTPConnection(place, timeout=ANSWER_S_MAX)
        self._model = model

    def answer(self, content: str, **more: Any) -> float:
        """Seconds for one call.

        Raises:
            UsageError: it was not answered.
        """
        messages = [{"role": "user", "content": content}]
        body = json.dumps({"model": self._model, "messages": messages, **more})
        began_s = time.perf_counter()
        try:
            self._connection.request("POST", PATH, body, {"Content-Type": "application/json"})
            reply = self._connection.getresponse()
            said = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise UsageError(f"the front end went away: {error}") from None
        if reply.status != 200:
            raise UsageError(f"the front end did not answer: {reply.status} {said[:200]!r}")
        return time.perf_counter() - began_s

    def close(self) -> None:
        """Leave."""
        self._connection.close()


def crowd(
    address: str, model: str, clients: int, calls: int, content: str, **more: Any
) -> list[float]:
    """Seconds of each call of so many clients at once, each of which makes so many in turn.

    Raises:
        UsageError: one was not answered.
    """
    found: list[float] = []

    def one(number: int) -> None:
        caller = Caller(address, model)
        try:
            for _ in range(calls):
                found.append(caller.answer(content, seed=number, **more))
        finally:
            caller.close()

    all_at_once(clients, one)
    return sorted(found)


def all_at_once(count: int, body: Callable[[int], None]) -> None:
    """Run ``body(number)`` side by side, from one moment on; what one of them raises is raised."""
    start = threading.Barrier(count)
    broken: list[BaseException] = []

    def one(number: int) -> None:
        start.wait()
        try:
            body(number)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
