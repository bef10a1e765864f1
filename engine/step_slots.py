"""The slots of a recorded step, one by one, for whoever shows or compares them.

engine/wire.py draws them; here they are plain numbers, without numpy.
"""

import struct
from typing import NamedTuple

from lockstep.engine.errors import ProtocolError
from lockstep.engine.wire import FromEngine

_SLOT = struct.Struct("<HHIQqq")
# Names of the fields a and b by operation; the operations that are missing have neither.
FIELDS = {
    FromEngine.ADMIT: ("hit", "sample"),
    FromEngine.COPY: ("start", "tokens"),
    FromEngine.MOVE: ("start", "tokens"),
    FromEngine.SHARE: ("tokens", ""),
    FromEngine.CHUNK: ("start", "tokens"),
    FromEngine.TOKEN: ("token", "position"),
    FromEngine.SCORE: ("token", "logprob_1e4"),
    FromEngine.END: ("status", "prompt_tokens"),
    FromEngine.TAKEN: ("due", ""),
}


class Slot(NamedTuple):
    """One slot; ``values`` are its a and b by name.

    Of a SCORE, ``model`` is the sample and ``slot`` the place of its token in the answer.
    """

    op: FromEngine
    model: int
    slot: int
    ticket: int
    values: dict[str, int]

    def __str__(self) -> str:
        row = "" if self.op in (FromEngine.END, FromEngine.TAKEN) else f" slot {self.slot}"
        if self.op == FromEngine.SCORE:
            row = f" sample {self.model} place {self.slot}"
        whose = "from" if self.op in (FromEngine.COPY, FromEngine.MOVE) else "ticket"
        values = "".join(f" {name} {value}" for name, value in self.values.items())
        return f"{self.op.name.lower()} {whose} {self.ticket}{row}{values}"


def split(payload: bytes) -> tuple[list[Slot], bytes]:
    """The slots of a STEP record before the one that closes it, and the records of its answers.

    Raises:
        ProtocolError: they are none, or nothing closes them.
    """
    slots: list[Slot] = []
    for offset in range(0, len(payload) - _SLOT.size + 1, _SLOT.size):
        op, model, slot, ticket, a, b = _SLOT.unpack_from(payload, offset)
        if op not in FromEngine.__members__.values():
            raise ProtocolError(f"slot {len(slots)} of a step: operation {op}")
        if op == FromEngine.STEP:
            return slots, payload[offset + _SLOT.size :]
        names = FIELDS.get(FromEngine(op), ("", ""))
        values = {name: value for name, value in zip(names, (a, b), strict=True) if name}
        slots.append(Slot(FromEngine(op), model, slot, ticket, values))
    raise ProtocolError(f"a step of {len(payload)} bytes is not closed")
