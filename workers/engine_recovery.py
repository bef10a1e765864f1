"""Engine recovery: an inference process that died by accident is brought back (rule 10).

A new one is forked, with what the record says the old one had (engine/restore.py). Every step
report that had arrived whole counts; the step that the old one was in is run again, from keys and
values that the supervisor holds. Nobody but who reads the notes can tell.

Keys and values are lost where they lay on a device. In arrival order they are not used, either:
there the step that runs again may be another one than the one that was under way, and what that
had overwritten could be needed. Then recorded steps are executed again, and compared.

Where a provider failed and the fleet allows it, the next process goes on on the CPU (workers/
fallbacks.py); one that repeats such a run is ended and started anew at the recorded step.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lockstep.engine.errors import ProtocolError, ProviderMissing, RunStopped
from lockstep.engine.fleet import Fleet
from lockstep.engine.past import Past
from lockstep.engine.restore import Known, restore
from lockstep.engine.restored import Restored
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.wire import FromEngine, StepAssembler, ToEngine
from lockstep.shm import RingError
from lockstep.workers import lifecycle
from lockstep.workers.crew import Crew
from lockstep.workers.deaths import how
from lockstep.workers.engine_links import TicketSlot
from lockstep.workers.fallbacks import Fallbacks
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.lifecycle import Lifecycle, Restarts
from lockstep.workers.loading import Loading
from lockstep.workers.loop import Loop, Timer
from lockstep.workers.overdue import Suspect
from lockstep.workers.placement import Placement

KEY = "inference"  # Among who may be overdue.


class EngineRecovery:
    """The inference process's way through `lifecycle.MOVES`, from when it serves.

    Args:
        crew: Which has started it.
        sequencer: Takes its reports, and knows what it is granted.
        loop: Watches it.
        placement: A child inherits what the supervisor is bound to.
        fleet: That runs.
        spec: What it was given first.
        said: What it said when it was loaded first (`Loading.said`).
        read_back: What was recorded so far, as much of it as is enough (`Ledger.read_back`).
        note: Tells the parent.
        fallbacks: Which models went on elsewhere, and which may.

    Attributes:
        restarts: Processes that were started again so far.
    """

    def __init__(
        self,
        *,
        crew: Crew,
        sequencer: Sequencer,
        loop: Loop,
        placement: Placement,
        fleet: Fleet,
        spec: InferenceSpec,
        said: dict[str, Any],
        read_back: Callable[..., Past],
        note: Callable[[str], None],
        fallbacks: Fallbacks,
    ) -> None:
        self._fallbacks = fallbacks
        self._crew = crew
        self._sequencer = sequencer
        self._loop = loop
        self._placement = placement
        self._fleet = fleet
        models = said["models"]
        # Slots that may hold something; they never become fewer.
        first = () if spec.restored is None else spec.restored.kept
        self._used: dict[tuple[int, int], None] = {(kept.model, kept.slot): None for kept in first}
        self._spec = replace(
            spec,
            restored=None,
            agents_bytes=0,
            files=tuple(m["files"] for m in models),
            got=tuple(tuple(m["provider"]["got"]) for m in models),
        )
        self._slab_holds = self._holds(said)
        self._read_back = read_back
        self._note = note
        self._life = Lifecycle()
        self._life.on("ready")
        self._limiter = Restarts(fleet.recovery)
        self._assembler = StepAssembler()
        self._loading: Loading | None = None
        self._timer: Timer | None = None
        self._cause = ""  # Of its death, if we know better than its exit status.
        self._failed: tuple[int | None, str] | None = None  # Whose provider, and why.
        self._death = ""
        self._said = 0  # How often something came from it.
        self._died_at = -2  # The step behind which it died last; none is like that.
        self._futile = 0  # Processes that were started again since, and brought no step.

    def _holds(self, said: dict[str, Any]) -> bool:
        """Whether the next process finds keys and values as the one that said this leaves them."""
        outlives = all(m["outlives"] for m in said["models"])
        return bool(outlives and self._fleet.schedule.order == "strict")

    @property
    def restarts(self) -> int:
        """Processes that were started again so far."""
        return self._limiter.total

    def watch(self) -> None:
        """Hear of what it reports, and of its end."""
        assert self._crew.engine is not None
        self._loop.watch(self._crew.engine.descriptor, self._exited)
        bell = self._crew.engine_link.memory.supervisor_bell
        self._loop.watch(bell.fileno(), self._reported)
        self._elsewhere()

    def suspects(self) -> Iterator[Suspect]:
        """It, if it has work (workers/overdue.py): a step that it may run, or models to load."""
        child = self._crew.engine
        if child is None:
            return
        if self._life.state == lifecycle.RECOVERING or self._sequencer.horizon.engine_may_run():
            yield Suspect(KEY, child.pid, self._said, self._overdue)

    # -- what the sequencer says ----------------------------------------------------------------

    def send(self, slot: TicketSlot, record: bytes = b"") -> None:
        """As `EngineLink.send`. While there is no process it is dropped: the record has it."""
        if self._crew.engine is not None:
            self._crew.engine_link.send(slot, record)

    def flush(self) -> None:
        """As `EngineLink.flush`."""
        if self._crew.engine is not None:
            try:
                self._crew.engine_link.flush()
            except RingError as error:
                self._kill("broken", f"was ended: {error}")

    # -- what the supervisor hears --------------------------------------------------------------

    def _reported(self) -> None:
        if self._crew.engine is None:
            return  # Its bell, rung before it died: what it said was taken then.
        try:
            slots, records = self._crew.engine_link.drain()
            self._said += bool(len(slots) or records)
            filled = np.isin(slots["op"], (FromEngine.ADMIT, FromEngine.MOVE))
            for slot in slots[filled]:
                self._used[int(slot["model"]), int(slot["slot"])] = None
            for report in self._assembler.feed(slots, records):
                self._sequencer.step_reported(report)
        except (RingError, ProtocolError) as error:
            self._kill("broken", f"was ended: {error}")
            return
        if self._assembler.failed is not None and self._failed is None:
            self._failed = self._assembler.failed
            # Not asked to leave: what it holds of a device that is lost may never let go.
            self._kill("broken", f"was ended, its provider failed: {self._failed[1]}")
        self._elsewhere()

    def _elsewhere(self) -> None:
        """End it where the record goes on on another provider."""
        if self._fallbacks.due and self._life.state == lifecycle.RUNNING:
            self._kill("elsewhere", "was ended: the record goes on on another provider")

    def _overdue(self, silence: str) -> None:
        if self._life.state != lifecycle.KILLING:
            self._kill("overdue", silence)

    def _kill(self, event: str, cause: str) -> None:
        self._life.on(event)
        self._cause = self._cause or cause
        assert self._crew.engine is not None
        self._crew.engine.kill()

    def _exited(self) -> None:
        """Its process has ended.

        Raises:
            RunStopped: too often.
            ModelError, Diverged: it said, as its last word, why it cannot go on.
        """
        while self._loading is not None:
            self._heard()
        self._reported()  # Whole reports count; of a step that is not whole, nothing does.
        child, self._crew.engine = self._crew.engine, None
        assert child is not None
        self._loop.forget(child.descriptor)
        self._show_nobody()
        self._life.on("exit")
        self._died(self._cause or how(child.reap()), f"(process {child.pid}) ")

    def _show_nobody(self) -> None:
        """Its slot of the board is ours while there is no process."""
        sequencer = self._sequencer
        tokens = sequencer.world.counts.tokens_out
        self._crew.board.engine.update(pid=0, step=max(sequencer.step, 0), tokens=tokens)

    def _died(self, death: str, who: str = "") -> None:
        self._death, self._cause = f"{who}{death}", ""
        failed, self._failed = self._failed, None
        if self._fallbacks.due:
            self._fallbacks.repeat()
            self._go_elsewhere()
            return
        if failed is not None and self._fallbacks.failed(failed[1], failed[0]):
            self._go_elsewhere()
            return
        step = self._sequencer.step
        self._futile = self._futile + 1 if step == self._died_at else 0
        self._died_at = step
        # A step that never ends is found out so slowly that no window would ever be full of it.
        futile = self._futile >= self._fleet.recovery.restarts_max
        wait_s = None if futile else self._limiter.next(time.monotonic())
        # Without its pid: the record does not depend on one.
        if wait_s is None and self._fallbacks.failed(f"the inference process {death}, again"):
            self._go_elsewhere()
            return
        if wait_s is None:
            self._life.on("exhausted")
            limit = self._limiter.exhausted()
            if self._futile:
                limit += f" or behind one step, here step {step}"
            raise RunStopped(
                f"the inference process {self._death}; it was not started again: {limit}"
            )
        self._timer = self._loop.after(wait_s, self._start_again)

    def _go_elsewhere(self) -> None:
        """Start it again, on other providers: what the slots hold is made anew there."""
        self._spec = self._fallbacks.applied(self._spec)
        self._slab_holds = False
        self._died_at, self._futile = -2, 0
        self._limiter.forget()
        self._timer = self._loop.after(0, self._start_again)

    # -- back again -----------------------------------------------------------------------------

    def _start_again(self) -> None:
        self._timer = None
        self._life.on("timer")
        self._placement.together()
        try:
            self._loading = self._crew.fork_inference(self._restored())
        except RunStopped as error:
            self._life.on("refused")
            self._died(f"is not back: {error}")
            return
        assert self._crew.engine is not None
        self._assembler = StepAssembler()
        self._loop.watch(self._crew.engine.descriptor, self._exited)
        self._loop.watch(self._loading.descriptor, self._heard)
        # Every ticket and cancel so far is in what it was given: it needs the grant alone.
        grant = self._sequencer.horizon.grant_again()
        self.send((ToEngine.GRANT, 0, 0, grant.limit, grant.applied))
        self.flush()

    def _restored(self) -> InferenceSpec:
        """What the next process is given."""
        known = Known(self._unanswered(), tuple(self._used))
        found: list[Restored] = []

        def enough(part: Past) -> bool:
            past = Past([*part.entries, *ahead], part.kept, part.skipped)
            lost = not self._slab_holds
            found[:] = [restore(past, self._fleet, slab_lost=lost, known=known)]
            return True

        ahead = self._sequencer.reported_ahead()
        part = self._read_back(enough if self._slab_holds else None)
        if part.whole:
            enough(part)
        restored = found[0]
        tokens = self._sequencer.world.counts.tokens_out
        return replace(self._spec, restored=restored, tokens=tokens)

    def _unanswered(self) -> tuple[int, ...]:
        """Tickets that the engine owes an answer to, as far as it was heard."""
        book = self._sequencer.world.requests
        everybody = (book.open(agent) for agent in range(len(self._fleet.agents)))
        tickets = (ticket for requests in everybody for ticket in requests.values())
        return tuple(sorted(ticket.number for ticket in tickets if book.unanswered(ticket)))

    def _heard(self) -> None:
        """It says something while it loads.

        Raises:
            ModelError, Diverged: as `Loading.take`; for want of a provider, if none may fall back.
        """
        loading = self._loading
        if loading is None:
            return
        self._said += 1
        try:
            for text in loading.take():
                self._note(text)
        except ProviderMissing as error:
            if not self._fallbacks.allowed:
                raise
            self._failed, self._cause = (None, str(error)), f"left: {error}"
        if not loading.over:
            return
        self._loop.forget(loading.descriptor)
        loading.close()
        self._loading = None
        if loading.said is not None and self._life.state == lifecycle.RECOVERING:
            self._life.on("caught_up")
            self._slab_holds = self._holds(loading.said)
            self._fallbacks.loaded(loading.said["models"])
            self._note(f"the inference process {self._death}; brought back")
            self._elsewhere()  # Its first steps may have been heard before this was.
