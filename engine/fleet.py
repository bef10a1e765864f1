"""Fleets, typed: what a run is made from, without its bytes.

Every default is resolved when the file is read (engine/fleet_file.py), so that
`Fleet.settings()` names everything that the file could have said; it is part of the identity.
"""

import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine.version import KV_REUSE, LOGIC_FLAGS

SEED_MAX = 2**63 - 1
AGENTS_MAX = 10_000  # Replicas included.
STEPS_MAX = 2**48  # Of `steps_max`: as good as none.
TOKENS_MAX_LEAST = 4  # Tokens of a slot: the least that a prompt and an answer fit into.
JOIN_ALL = 0
CALLS = "calls"  # `AgentGroup.input` of who takes them.
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The [schedule] table. Steps are decode steps; fuel is wasmtime's unit."""

    policy: str
    lookahead: int  # Steps between taking effect and being admitted.
    fuel_per_step: int  # Guest work that costs one step of logical time.
    items_in_flight_max: int
    items_reordered_max: int  # Finished items that wait for an earlier one; stops admission.
    rounds_max: int  # Round-robin: passes of one conversation.
    priority_steps: int  # Steps that one level of priority costs in the queue.
    credit: int  # Steps that may be granted ahead of the next one (rule 8).
    order: str  # "strict", or "arrival" (rule 11).
    topics: tuple[str, ...]  # Names that agents may subscribe to.
    item_steps_max: int  # Steps after which an unfinished item is cancelled; 0: never.
    mailbox_cycle: str  # Senders that park in a cycle: "accept" one message, or "stop" the run.


@dataclass(frozen=True, slots=True)
class Tool:
    """One [tools.NAME] table: a host command that agents may call."""

    name: str
    command: tuple[str, ...]
    timeout_ms: int  # Wall time, after which the command is killed.
    output_bytes_max: int
    parallel_max: int  # Commands of this tool at once; more calls wait in ticket order.
    env: dict[str, str]  # The whole environment of the command.


@dataclass(frozen=True, slots=True)
class Source:
    """One [sources.NAME] table: where outside events come from while the run goes on."""

    name: str
    kind: str  # "stdin", "socket" or "timer".
    to: tuple[str, ...]  # Agents' groups that get each event; empty: each line is an item.
    path: str  # socket: file name in the run folder.
    every_ms: int  # timer: wall time between two events.
    count: int  # timer: events; 0: until the run ends, which it does not hold.


@dataclass(frozen=True, slots=True)
class Recovery:
    """The [recovery] table: how a run is kept alive. Physical: no bit of the run depends on it.

    So it is no part of the identity, and a run goes on (or is verified) under other values.
    """

    restarts_max: int = 10  # Of one process within `window_s`; one more stops the run.
    window_s: int = 60  # Wall time that those are counted over.
    overdue_s: int = 30  # Wall time of silence after which a process is killed; 0: never.
    snapshot_turns: int = 1000  # Turns between two snapshots of a reactor agent; 0: none.
    segment_bytes_max: int = 67_108_864  # A journal segment that has so many is followed by a new.
    step_s: int = 600  # CPU time of a step, on each of its threads, that ends it; 0: any.


@dataclass(frozen=True, slots=True)
class Model:
    """One [models.NAME] table."""

    name: str
    path: str
    providers: tuple[str, ...]
    require: str
    intra_op_threads: int
    rows_max: int
    tokens_max: int
    prefill_tokens_per_step: int
    period: int
    rows_kept: int = 0  # KV slots behind those: conversations rest there, nothing computes.
    prefix_copies: bool = False  # A prompt's prefix that another slot has is copied from there.
    file: str = ""  # The ONNX file in the folder; empty: the only one.
    kind: str = "decoder"  # Or "tensors": any graph, one run a request.
    spin: str = "auto"  # "on", "off": whether its threads spin while they wait. Physical.
    fallback: bool = False  # Goes on on the CPU when its provider fails, as an outside event.
    candidates: int = 0  # Largest logits cut by the graph; 0: the whole row goes to the sampler.
    cuda_graphs: str = "off"  # "auto", "on": decoding is captured once and repeated by the device.


@dataclass(frozen=True, slots=True)
class AgentGroup:
    """One [agents.NAME] table: one agent, or ``replicas`` of it."""

    name: str
    module: str
    replicas: int  # 0: not given; the agent is named like the group.
    # "broadcast", "deal", "" (gets no input, or by the policy's default); "calls": those of a
    # service alone, and the policy knows nothing of it.
    input: str
    after: tuple[str, ...]
    join: int  # EMITs of predecessors that an item needs; 0: all.
    back: tuple[str, ...]  # Groups before it that it may send an item back to.
    passes_max: int  # Times that one item may be sent back by it.
    retries: int  # Times that an item it gave up is given to it again.
    topics: tuple[str, ...]  # Subscribed to from the start.
    tools: tuple[str, ...]  # It may call these.
    may_cancel_run: bool
    mailbox_max: int  # Messages that may wait for it.
    mailbox_full: str  # What then happens to a message: its sender "wait"s, or it "fail"s.
    memory_bytes_max: int
    table_elements_max: int
    delay: int
    turn_fuel_max: int
    turn_out_bytes_max: int
    log_lines_max: int
    log_bytes_max: int
    canonical_nans: bool
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: a replica with its place in the fleet."""

    name: str
    index: int
    replica: int
    group: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """A whole fleet file after defaults."""

    name: str
    seed: int
    frozen_date: str
    step_us: int
    turns_max: int
    messages_max: int
    steps_max: int
    record_bytes_max: int
    module_bytes_max: int
    schedule: Schedule
    models: tuple[Model, ...]
    groups: tuple[AgentGroup, ...]
    agents: tuple[Agent, ...]
    tools: tuple[Tool, ...]
    sources: tuple[Source, ...]
    recovery: Recovery = field(default_factory=Recovery)
    logic_flags: int = LOGIC_FLAGS  # Rules that the run was begun under; a part of its own.

    def settings(self) -> dict[str, Any]:
        """Everything logical that the file says or could have said, JSON-able (the identity)."""
        settings = dataclasses.asdict(self)
        del settings["recovery"], settings["logic_flags"]
        for model in settings["models"]:
            del model["file"]  # Its name is among the hashed files that stand for the path.
            del model["spin"]  # No bit depends on it.
            del model["fallback"]  # What came of it is recorded.
            for key, off in (("candidates", 0), ("cuda_graphs", "off")):
                if model[key] == off:  # As it was before there were such keys.
                    del model[key]
            if model["kind"] == "decoder":  # All were, before there were others.
                del model["kind"]
            if not self.logic_flags & KV_REUSE:  # These were no settings then.
                del model["rows_kept"], model["prefix_copies"]
        return settings

    @property
    def caller(self) -> AgentGroup | None:
        """Who takes calls to models, the last of the groups; None: nobody does."""
        return self.groups[-1] if self.groups[-1].input == CALLS else None

    @property
    def routed(self) -> "Fleet":
        """The fleet without who takes calls: those among whom items go round."""
        if self.caller is None:
            return self
        return dataclasses.replace(self, groups=self.groups[:-1], agents=self.agents[:-1])

    @property
    def frozen_epoch_us(self) -> int:
        """Microseconds since 1970 that the guests' clock shows at step 0."""
        return (moment(self.frozen_date) - EPOCH) // dt.timedelta(microseconds=1)


def moment(text: str) -> dt.datetime:
    """A date and time as the fleet file writes it.

    Raises:
        ValueError: it is none.
    """
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
