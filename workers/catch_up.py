"""Catch-up: the turns that an agent's new process repeats until it is in the present.

Its recorded wakes are fed to it again; each turn must end as it did the first time, to the unit
of fuel and the byte of its records, and none of it takes effect twice. The turn that was running
when the old process died is not repeated but done: it is nobody's yet.
"""

import hashlib
from collections.abc import Sequence

from lockstep.engine import tag as tags
from lockstep.engine.effects import Turn
from lockstep.engine.errors import Diverged, LockstepBug
from lockstep.engine.past import PastTurn, same_turn
from lockstep.engine.record import TurnEnd, encode_wake

AHEAD_TURNS = 32  # Wakes that lie ready for it behind the one it works on.
AHEAD_BYTES = 1 << 18  # Of them, if there is more than one.


class CatchUp:
    """One agent's way back. `wakes` says what to send; `ended` takes the turns as they come.

    Args:
        name: The agent's.
        turns: All that are recorded, turn 0 first, so that a turn's number is its place. Each
            from `first` on is asked for once, when it is due.
        first: Number of the first turn that the new process runs: 0, which it begins by itself,
            or that of the first wake it is sent. It may be behind the last: nothing is repeated.
        running: Whether the last of them has not arrived yet: it is handed to the sequencer.
        newest: End of the last turn that arrived, if one did: it may not be recorded yet.

    Attributes:
        newest: As given.
        repeated: Turns that came again so far.
    """

    def __init__(
        self,
        name: str,
        turns: Sequence[PastTurn],
        first: int,
        running: bool,
        newest: TurnEnd | None,
    ) -> None:
        if first > len(turns) - running:
            raise LockstepBug(f"agent {name}: catch-up from turn {first} of {len(turns)}")
        self._name = name
        self._turns = turns
        self._ready: dict[int, PastTurn] = {}  # That were sent and have not ended.
        self._next = first  # To end.
        self._unsent = max(first, 1)  # Turn 0 has no wake.
        self._running = running
        self.newest = newest
        self._late: list[bytes] = []
        self.repeated = 0

    @property
    def done(self) -> bool:
        """It is in the present."""
        return self._next == len(self._turns)

    def wakes(self) -> bytes:
        """Records to send now, perhaps none; what came late lies behind the last of the turns."""
        parts, size = [], 0
        most = min(self._next + AHEAD_TURNS, len(self._turns))
        while self._unsent < most and size < AHEAD_BYTES:
            turn = self._ready[self._unsent] = self._turns[self._unsent]
            step, micro = turn.tag
            parts.append(encode_wake(turn.number, step, micro, turn.events, turn.count))
            size += len(parts[-1])
            self._unsent += 1
        if self.done:
            parts += self._late
            self._late = []
        return b"".join(parts)

    def later(self, wake: bytes) -> None:
        """Its next turn was begun meanwhile."""
        self._late.append(wake)

    def ended(self, turn: Turn) -> bool:
        """A turn has ended (again): whether it is new, and takes effect.

        Raises:
            Diverged: it differs from what is recorded.
        """
        expected = self._next if self._next < len(self._turns) else "none"
        if turn.number != expected:
            raise Diverged(f"agent {self._name}: turn {turn.number} came again, not {expected}")
        sent = self._next in self._ready  # As every turn but turn 0.
        past = self._ready.pop(self._next) if sent else self._turns[self._next]
        self._next += 1
        self.repeated += 1
        if self.done and self._running:
            return True
        difference = self._difference(past, turn)
        if difference:
            raise Diverged(
                f"agent {self._name}: turn {turn.number} at tag {tags.text(past.tag)} was repeated "
                f"and differs from the record: {difference}"
            )
        return False

    def _difference(self, past: PastTurn, turn: Turn) -> str:
        """What differs, for people; empty: nothing."""
        if past.outcome is not None:
            return same_turn(past, turn)
        newest = self.newest
        if newest is None or newest.turn != turn.number:
            raise LockstepBug(f"agent {self._name}: turn {turn.number} is not running, not known")
        return same_end(newest, turn)


def same_end(end: TurnEnd, turn: Turn) -> str:
    """What differs between a turn that arrived, and was not kept, and its repetition."""
    digest = hashlib.sha256(turn.records).digest()
    pairs = (
        ("fuel", end.fuel, turn.fuel),
        ("outcome", end.outcome, turn.outcome),
        ("reason", end.reason, turn.reason),
        ("sha256 of its records", end.digest.hex()[:16], digest.hex()[:16]),
    )
    return "; ".join(f"{what} {was} -> {now}" for what, was, now in pairs if was != now)
