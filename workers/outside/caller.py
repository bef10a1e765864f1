"""The caller: the agent of a service that takes calls to models, and how it gets into a fleet file.

Its guest is ours (calls.c) and lies beside this file; a run folder has it as any other module.
"""

import tomllib
from pathlib import Path

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet_file import ITEMS_IN_FLIGHT_MAX, RECORD_BYTES_MAX

CALLER = "caller"
MODULE = "lockstep:calls"  # In place of a path: ours.
PATH = Path(__file__).with_name("calls.wasm")
TABLE = """
# Added by `lockstep serve --http`: who takes calls to models.
[agents.{name}]
module = "{module}"
input = "calls"
turn_out_bytes_max = {out}
memory_bytes_max = {memory}
"""
OUT_MIN, OUT_MAX = 1 << 20, 1 << 30  # Bytes of one turn of the agent that takes calls.


def with_caller(data: bytes, where: str) -> bytes:
    """A fleet file with the agent that takes calls to models, the last one.

    In a turn it may be given everything that is in flight, and says as much.

    Raises:
        UsageError: an agent has its name.
    """
    try:
        table = tomllib.loads(data.decode())
        named = CALLER in table.get("agents", {})
        items = int(table.get("schedule", {}).get("items_in_flight_max", ITEMS_IN_FLIGHT_MAX))
        record = int(table.get("fleet", {}).get("record_bytes_max", RECORD_BYTES_MAX))
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return data  # It is no fleet file, which who reads it says.
    if named:
        raise UsageError(
            f"{where}: [agents.{CALLER}] is what `lockstep serve --http` adds to the file: call it "
            "otherwise"
        )
    out = min(max(items * record, OUT_MIN), OUT_MAX)
    memory = min(8 * out + (64 << 20), 1 << 32)
    made = TABLE.format(name=CALLER, module=MODULE, out=out, memory=memory)
    return data + made.encode()
