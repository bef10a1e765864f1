"""Tools, as the supervisor sees them: calls go out, answers come in by the gate.

The commands run in a process of their own (workers/outside/tool_process.py), forked before the
first agent. A run without tools has none.
"""

import select
import socket
from collections.abc import Callable, Sequence

from lockstep.engine import actions
from lockstep.engine.outside import What
from lockstep.workers import spawn
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.outside.commands import Command
from lockstep.workers.outside.frames import Frames
from lockstep.workers.outside.gate import Gate
from lockstep.workers.outside.tool_process import Say, adopt_orphans, end_descendants, tools_main

END_S_MAX = 5.0  # For the tools process to clean up; then it is killed.


class Tools:
    """The tools of one run. `end` in any state.

    Attributes:
        body: What the tools process does, as `tools_main`.
    """

    body: Callable[..., int] = staticmethod(tools_main)

    def __init__(
        self,
        loop: Loop,
        gate: Gate,
        commands: Sequence[Command],
        died: Callable[[str, spawn.Child], None],
    ) -> None:
        """Fork the tools process, if there is any tool.

        Args:
            loop: Of the supervisor.
            gate: Answers go in there.
            commands: By index of the tool.
            died: Called when the tools process ended before its time; reaping is up to it.
        """
        self._loop, self._gate = loop, gate
        self._open: dict[int, None] = {}  # Calls that are not answered.
        self._timer: Timer | None = None
        self._cause = ""
        # One of those that run must have its answer by then, its own time-out being one.
        self._silence_s = max((each.timeout_s for each in commands), default=0.0) + END_S_MAX
        self._child: spawn.Child | None = None
        if not commands:
            return
        adopt_orphans()  # Should the tools process be killed: `end_orphans`.
        ours, theirs = socket.socketpair()
        self._child = spawn.fork("tools", lambda: self.body(commands, theirs), [theirs.fileno()])
        theirs.close()
        self._died = died
        self._frames = Frames(loop, ours, self._taken, lambda: None)
        loop.watch(self._child.descriptor, self._ended)

    @property
    def pid(self) -> int:
        """Of the tools process; 0: there is none."""
        return self._child.pid if self._child is not None else 0

    def call(self, action: actions.CallTool) -> None:
        """Start a command, or let it wait for its turn."""
        body = action.tool.to_bytes(4, "little") + action.payload
        self._open[action.call] = None
        if self._timer is None:
            self._watch()
        self._frames.send(Say.CALL, action.call, body)

    def stop(self, action: actions.StopTool) -> None:
        """Kill a command. An answer that is on its way is the sequencer's to ignore."""
        self._heard(action.call)
        self._frames.send(Say.STOP, action.call)

    def end(self) -> None:
        """Everything that runs is killed; bounded in time."""
        child, self._child = self._child, None
        if child is None:
            return
        self._loop.forget(child.descriptor)
        self._unwatch()
        self._frames.close()
        poll = select.poll()
        poll.register(child.descriptor, select.POLLIN)
        if not poll.poll(END_S_MAX * 1000):
            child.kill()  # Stopped, perhaps: then its commands come to us.
        child.reap()

    @staticmethod
    def end_orphans() -> None:
        """After every other child was reaped: kill what a tools process left that was killed."""
        end_descendants()

    def _taken(self, what: int, call: int, body: bytes) -> None:
        if what == Say.ANSWER:
            self._heard(call)
            flags = int.from_bytes(body[:4], "little")
            self._gate.bring(What.TOOL, call, body[4:], flags)

    def _ended(self) -> None:
        assert self._child is not None
        child, self._child = self._child, None
        self._loop.forget(child.descriptor)
        self._frames.close()
        self._unwatch()
        self._died(f"the tools process{self._cause}", child)

    def _heard(self, call: int) -> None:
        """A call is over: what is left has all its time again."""
        self._open.pop(call, None)
        self._unwatch()
        if self._open:
            self._watch()

    def _watch(self) -> None:
        self._timer = self._loop.after(self._silence_s, self._silent)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _silent(self) -> None:
        """It keeps its commands to their time, and nobody keeps it: it is stopped, or hangs."""
        self._timer = None
        if self._child is not None:
            self._cause = f", which had said nothing for {self._silence_s:g} s,"
            self._child.kill()
