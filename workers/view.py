"""The view: what observers and the parent see of a run. Reads the run, never changes it.

Wall time decides here when something is shown, nowhere what happens.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

from lockstep.engine import tag as tags
from lockstep.engine.sequencer import Sequencer
from lockstep.shm import Board
from lockstep.workers.seat import Seat
from lockstep.workers.stalls import Stalls

BOARD_S = 0.02  # An observer sees the board at most this late.
STARTING, RUNNING, IDLE, GONE, RECOVERING = range(5)  # Agent states on the board.
STATES = ("starting", "running", "idle", "gone", "recovering")


class View:
    """Board, progress and the table of agents."""

    def __init__(
        self, board: Board, seats: Sequence[Seat], sequencer: Sequencer, stalls: Stalls
    ) -> None:
        self._board = board
        self._stalls = stalls
        self._seats = seats
        self._sequencer = sequencer
        self._states = [STARTING] * len(seats)
        self._waiting = [(0, 0)] * len(seats)  # Events and requests, as the board shows them.
        self._dirty = dict.fromkeys(range(len(seats)))
        self._shown_s = 0.0
        for index, seat in enumerate(seats):
            board.agent(index).update(name=seat.name)
        board.supervisor.update(pid=os.getpid(), state=RUNNING)

    def set_state(self, index: int, state: int) -> None:
        """An agent's state changed. `GONE` is for ever."""
        if self._states[index] != GONE:
            self._states[index] = state
        self._dirty[index] = None

    def touch(self, index: int) -> None:
        """Something else about an agent changed."""
        self._dirty[index] = None

    def timeout_s(self) -> float:
        """How long the loop may block: for ever, unless the board owes its observers something."""
        return BOARD_S if self._dirty else -1

    def update(self) -> None:
        """Bring the board up to date, now and then."""
        now = time.monotonic()
        if not self._dirty or now - self._shown_s < BOARD_S:
            return
        self._shown_s = now
        step, micro = max(self._sequencer.tag, tags.ORIGIN)
        self._look_at_mailboxes()
        for index in self._dirty:
            seat = self._seats[index]
            mailbox, requests = self._waiting[index]
            self._board.agent(index).update(
                state=self._states[index],
                pid=seat.child.pid if seat.child is not None else 0,
                step=step,
                micro=micro,
                turns=self._sequencer.world.agents[index].turn,
                fuel=self._stalls.fuel(index),
                stall_us=self._stalls.held_us(index),
                mailbox=mailbox,
                requests=requests,
            )
        self._dirty = {}

    def _look_at_mailboxes(self) -> None:
        """What waits for an agent also changes by what others do."""
        world = self._sequencer.world
        for index in range(len(self._seats)):
            waiting = len(world.roster[index].mailbox), len(world.requests.open(index))
            if waiting != self._waiting[index]:
                self._waiting[index] = waiting
                self._dirty[index] = None

    def events_waiting(self) -> int:
        """For agents, all together, as the board shows it."""
        return sum(events for events, _ in self._waiting)

    def progress(self) -> dict[str, Any]:
        """For the parent's progress line."""
        world = self._sequencer.world
        waits = self._sequencer.waits_for()
        return {
            "items_done": world.items.finished + world.items.failed,
            "items": len(world.items),
            "tokens_in": world.counts.tokens_in,
            "tokens": world.counts.tokens_out,
            "steps": world.counts.steps,
            "turns": world.counts.turns,
            "rows": self._sequencer.rows,
            "requests_open": world.requests.open_count(),
            "waits_for": self._seats[waits[0]].name if waits else "",
        }

    def table(self) -> list[dict[str, Any]]:
        """The agents as they were at the end, for `lockstep top` afterwards."""
        step = max(self._sequencer.tag[0], 0)
        return [
            {
                "name": seat.name,
                "index": index,
                "pid": None,
                "state": STATES[self._states[index]],
                "step": step,
                "turns": self._sequencer.world.agents[index].turn,
                "fuel": self._stalls.fuel(index),
                "stall_s": round(self._stalls.held_us(index) / 1e6, 3),
            }
            for index, seat in enumerate(self._seats)
        ]
