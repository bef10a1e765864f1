"""The tools process, profiled: each call, from when it came until its answer went out."""

import socket
from collections.abc import Sequence
from functools import partial

from lockstep.workers.loop import Loop
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.tool_call import ToolCall
from lockstep.workers.outside.tool_process import Say, Shop, tools_main
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import Kind, Role, Spans, now

TOOLS_BYTES_MAX = 16 << 20


class TimedShop(Shop):
    """A shop that notes its calls."""

    def __init__(
        self, spans: Spans, loop: Loop, commands: Sequence[Command], end: socket.socket
    ) -> None:
        self._spans = spans
        self._came: dict[int, int] = {}
        super().__init__(loop, commands, end)

    def _taken(self, what: int, number: int, body: bytes) -> None:
        if what == Say.CALL:
            self._came[number] = now()
        elif what == Say.STOP:
            self._came.pop(number, None)
        super()._taken(what, number, body)

    def _answered(self, tool: int, call: ToolCall, payload: bytes, flags: int) -> None:
        super()._answered(tool, call, payload, flags)
        came = self._came.pop(call.number, 0)
        if came:
            self._spans.add(Kind.TOOL, came, now(), call.number, 0, tool)


def timed_tools(place: Place, commands: Sequence[Command], end: socket.socket) -> int:
    """As `tools_main`, with a track."""
    spans = Spans(place, Role.TOOLS, 0, "tools", TOOLS_BYTES_MAX)
    spans.open()
    return tools_main(commands, end, partial(TimedShop, spans))
