"""What the sequencer wants done. The supervisor does it, in this order, and decides nothing."""

from typing import NamedTuple

from lockstep.engine.history import Entry
from lockstep.engine.requests import Ticket
from lockstep.engine.tag import Tag


class Wake(NamedTuple):
    """Begin a turn of an agent with these events (records, ``count`` of them)."""

    agent: int
    turn: int
    tag: Tag
    events: bytes
    count: int  # type: ignore[assignment]


class Issue(NamedTuple):
    """Hand a ticket to the inference process; ``record`` is the guest's INFER as written."""

    ticket: Ticket
    record: bytes


class Revoke(NamedTuple):
    """Cancel a ticket at the boundary before step ``due``."""

    ticket: int
    due: int


class Grant(NamedTuple):
    """Steps below ``limit`` may run; results of steps below ``applied`` were known (rule 5)."""

    limit: int
    applied: int


class Append(NamedTuple):
    """Append an entry to the journal and the digests."""

    entry: Entry


class Keep(NamedTuple):
    """Append a record to the journal that is no history: OUTSIDE or ORDERED."""

    record: bytes


class CallTool(NamedTuple):
    """Start a host command, once everything before it is as durable as promised.

    Its answer comes in by `Sequencer.outside` with ``What.TOOL`` and ``source`` = ``call``.
    """

    call: int  # Numbered from 1 over the whole run.
    agent: int
    tool: int
    payload: bytes


class StopTool(NamedTuple):
    """The call was cancelled: kill its command, nobody waits for it."""

    call: int


class Output(NamedTuple):
    """A line of the output file, without newline. Visible only after the entries before it."""

    line: bytes


class Log(NamedTuple):
    """A log line of an agent; ``stream`` 1 and 2 are its standard output and error."""

    agent: int
    level: int
    stream: int
    tag: Tag
    text: bytes


class Bury(NamedTuple):
    """An agent has ended (``reason`` empty) or failed; its process leaves by itself."""

    agent: int
    reason: str


class Finish(NamedTuple):
    """The run is over. ``state`` is "finished" or "stopped", the latter with a reason."""

    state: str
    reason: str


Action = (
    Wake
    | Issue
    | Revoke
    | Grant
    | Append
    | Keep
    | CallTool
    | StopTool
    | Output
    | Log
    | Bury
    | Finish
)
