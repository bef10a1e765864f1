"""Slots of a recorded step, read one by one."""

import struct

import pytest

from lockstep.engine.errors import ProtocolError
from lockstep.engine.step_slots import FIELDS, Slot, split
from lockstep.engine.wire import RESULT_SLOT, FromEngine

SLOT = struct.Struct("<HHIQqq")
CLOSED = SLOT.pack(FromEngine.STEP, 0, 0, 0, 7, 0)


def test_slots_are_laid_out_as_the_engine_writes_them() -> None:
    names = RESULT_SLOT.names
    assert names == ("op", "model", "slot", "ticket", "a", "b")
    offsets = [RESULT_SLOT.fields[name][1] for name in names] if RESULT_SLOT.fields else []
    assert (offsets, RESULT_SLOT.itemsize) == ([0, 2, 4, 8, 16, 24], SLOT.size)


def test_a_step_is_split_into_slots_and_answers() -> None:
    data = SLOT.pack(FromEngine.TOKEN, 1, 2, 3, 4, 5) + SLOT.pack(FromEngine.EVICT, 0, 6, 0, 0, 0)
    assert split(data + CLOSED + b"answers") == (
        [
            Slot(FromEngine.TOKEN, 1, 2, 3, {"token": 4, "position": 5}),
            Slot(FromEngine.EVICT, 0, 6, 0, {}),
        ],
        b"answers",
    )
    assert [str(slot) for slot in split(data + CLOSED)[0]] == [
        "token ticket 3 slot 2 token 4 position 5",
        "evict ticket 0 slot 6",
    ]
    assert split(CLOSED) == ([], b"")


@pytest.mark.parametrize("op", [op for op in FromEngine if op != FromEngine.STEP])
def test_each_operation_names_its_fields(op: FromEngine) -> None:
    ((slot,), _) = split(SLOT.pack(op, 0, 0, 1, 8, 9) + CLOSED)
    names = [name for name in FIELDS.get(op, ()) if name]
    assert list(slot.values) == names and str(slot).startswith(op.name.lower())


@pytest.mark.parametrize("data", [b"", b"1234", CLOSED[:-1], SLOT.pack(99, 0, 0, 0, 0, 0) + CLOSED,
                                  SLOT.pack(FromEngine.TOKEN, 0, 0, 0, 0, 0)])  # fmt: skip
def test_what_is_no_step_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="step"):
        split(data)
