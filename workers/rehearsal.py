"""Rehearsal: one agent's life, played once in the parent before it forks the agents.

Whatever is done for the first time changes the process for good: code is specialised, types get
their versions, the C library's heap grows. Done before the fork these pages are shared by all
agents, done after it each has its own (0.3 MB, and 1 ms). The guest played is ours, of a few
instructions; its rings lie in private memory, and nothing of it is left. It is played in two parts:
a turn that logs goes the ordinary way, one that sends the short lane (workers/agent/lane.py).
"""

from dataclasses import replace

from lockstep import shm
from lockstep.engine.record import Kind, encode, encode_wake
from lockstep.workers.agent.channel import RingChannel
from lockstep.workers.agent.process import agent_main
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.links import AgentEnd, AgentLink, RingPair, ring_slice_bytes
from lockstep.workers.seat import Seat

TURNS = 20  # An instruction of Python's is specialised after it was met 8 times.
RECORD_BYTES_MAX = 4096

# (module (import "lockstep" "turn" (func $turn (param i32 i32 i32 i32) (result i32)))
#   (memory (export "memory") 2)
#   (data (i32.const 1024) "...")  ;; A record: LOG, level 1, "rehearse".
#   (func (export "main") (loop $l
#     (drop (call $turn (i32.const 1024) (i32.const 40) (i32.const 4096) (i32.const 8192)))
#     (br $l))))
WASM = bytes.fromhex(
    "0061736d01000000010c0260047f7f7f7f017f600000021101086c6f636b73746570047475726e00000302010105"
    "03010002071102066d656d6f72790200046d61696e00010a18011600034041800841284180204180c00010001a0c"
    "000b0b0b2f01004180080b28280000002800000001000000000000000000000000000000ffffffff000000007265"
    "686561727365"
)
_LOGS = b"\x28\0\0\0\x28\0"  # Its size, and its kind.
PARTS = (WASM, WASM.replace(_LOGS, b"\x28\0\0\0" + bytes([Kind.SEND, 0])))


def rehearse(spec: AgentSpec, code: bytes) -> tuple[int, int]:
    """Play an agent from READY over some turns to its leaving, in this process.

    Args:
        spec: Of any agent of the fleet.
        code: Machine code of one of `PARTS`.

    Returns:
        The exit status its process would have had, and how many turns the seat received.
    """
    memory = memoryview(bytearray(2 * ring_slice_bytes(RECORD_BYTES_MAX)))
    bell = shm.SharedDoorbell()
    pair = RingPair.create(memory, bell)
    try:
        seat = Seat("rehearsal", AgentLink(pair, "rehearsal"))
        for turn in range(1, TURNS + 1):
            event = encode(Kind.ITEM, b"rehearse", item=turn)
            seat.link.send(encode_wake(turn, turn, 0, event, 1))
        seat.link.send(encode(Kind.SHUTDOWN))
        actor = replace(spec, name="rehearsal", code=code, canonical_nans=True)
        end = AgentEnd(pair)
        status = agent_main(actor, RingChannel(end, end, end, end, end.exchange))
        return status, len(seat.receive())
    finally:
        pair.close()
        bell.close()
