"""The inlet: what a service hands in to a run that it holds, and what it hears of it.

One socket that the supervisor inherited, lines both ways. Down:

    +{"id": "a", ...}       an item
    @{"id": "b", ...}       an item that is a call to a model (calls.c)
    *{"id": "b", ...}       likewise, whose tokens are told while it is answered
    ?                       is anybody there?
    {"do": "cancel", ...}   as workers/outside/control.py

Up: to each line one line, in their order; and unasked, whenever an item has come to its end:

    {"ok": true, "event": 9, "tag": "12.0", "item": 7}   it is recorded, and is item 7
    {"error": "not valid JSON: ..."}                     it was not taken
    {"ok": true, "step": 11, "rows": 3}                  the loop goes round
    {"closed": 7, "lines": [{"id": "a", ...}]}           as in the output, which is in item order
    {"tokens": 7, "at": 4, "ids": [1031]}                 of its answer, behind the first four

What is told is as durable as promised. The items are those of a source like any other, which is
added to the fleet file of the run: the run folder is whole, and is verified, replayed and resumed
without a service. There it is a socket that whoever goes on with the run may close.
"""

import socket
from collections.abc import Callable
from functools import partial

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import Outside
from lockstep.workers.loop import Loop
from lockstep.workers.outside.feed import Feed
from lockstep.workers.outside.lines import Answer, Client, accepted
from lockstep.workers.outside.tokens import Told

SERVICE = "service"
TABLE = b"""
# Added by `lockstep serve`: how the items came in.
[sources.service]
kind = "socket"
path = "service.sock"
"""
ITEM, CALL, TOLD_CALL, PING = b"+", b"@", b"*", b"?"
COMMAND_BYTES = 4096  # Room for a line that is no item.


def with_inlet(data: bytes, fleet: Fleet, where: str) -> bytes:
    """A fleet file with the source of the service.

    Raises:
        UsageError: it has one of that name.
    """
    if any(source.name == SERVICE for source in fleet.sources):
        raise UsageError(
            f"{where}: [sources.{SERVICE}] is what a service adds to the file: call it otherwise"
        )
    return data + TABLE


class Inlet:
    """The source of a service.

    Args:
        loop: Of the supervisor.
        feed: Of the source.
        descriptor: The inherited socket, owned from now on.
        command: Takes a line that is neither an item nor a ping.
        state: (step, rows) now.
        follow: Called with the number of an item whose tokens are to be told (`tokens`).
    """

    refused = 0  # Whoever sent a bad line was told.
    idle_s = 0.0

    def __init__(
        self,
        loop: Loop,
        feed: Feed,
        descriptor: int,
        command: Callable[[bytes, Answer], None],
        state: Callable[[], tuple[int, int]],
        follow: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._feed, self._command, self._state, self._follow = feed, command, state, follow
        self.line_bytes_max = feed.line_bytes_max + COMMAND_BYTES
        self.clients: dict[int, Client] = {}
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        connection.set_inheritable(False)
        self._client = Client(self, loop, connection)

    def closed(self, item: int, lines: list[bytes]) -> None:
        """An item has come to its end, and that is promised."""
        self._client.push(b'{"closed":%d,"lines":[%b]}' % (item, b",".join(lines)))

    def tokens(self, told: Told) -> None:
        """Tokens of an item's answer, and that is promised."""
        ids = ",".join(map(str, told.ids))
        self._client.push(f'{{"tokens":{told.item},"at":{told.at},"ids":[{ids}]}}'.encode())

    def on_line(self, line: bytes, answer: Answer) -> None:
        """As `Host`."""
        if line.startswith((ITEM, CALL, TOLD_CALL)):
            self._take(line, answer)
        elif line == PING:
            step, rows = self._state()
            answer.give({"ok": True, "step": step, "rows": rows})
        else:
            self._command(line, answer)

    def may_read(self) -> bool:
        """As `Host`: the service bounds what waits, and says so to who asks."""
        return True

    def resume(self) -> None:
        """Nothing waits for room."""

    def close(self) -> None:
        """It takes no items any more; those that it took are told of."""

    def end(self) -> None:
        """The run is over."""
        self._client.close()

    def _take(self, line: bytes, answer: Answer) -> None:
        if self._feed.closed:
            answer.give({"error": f"source {SERVICE} is closed"})
            return
        number = self._feed.next_item
        try:
            self._feed.bring(line[1:], partial(_taken, answer, number), line[:1] != ITEM)
        except ValueError as error:
            answer.give({"error": str(error)})
            return
        if line[:1] == TOLD_CALL:
            self._follow(number)


def _taken(answer: Answer, item: int, event: Outside | None) -> None:
    if event is not None:  # Else the run is over: what is recorded of it says how far it came.
        accepted(answer, event, item=item)
