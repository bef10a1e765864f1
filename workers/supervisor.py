"""The supervisor: one thread that forks everybody, feeds the sequencer and does what it says.

It decides nothing. Turns and step reports come in in any physical order, the sequencer makes one
history of them, and the loop here journals it, wakes agents, issues tickets and writes output.
"""

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lockstep.engine import actions
from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNFINISHED,
    JournalError,
    LockstepBug,
    LockstepError,
    RunStopped,
    UsageError,
)
from lockstep.engine.record import encode_wake
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.wire import StepAssembler, ToEngine
from lockstep.shm import RingError
from lockstep.workers import folder as folders
from lockstep.workers import prepare, view
from lockstep.workers.agent.process import AgentSpec
from lockstep.workers.crew import Crew
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import check_identity
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.job import Job
from lockstep.workers.ledger import Ledger
from lockstep.workers.report import Reporter
from lockstep.workers.signals import Signals
from lockstep.workers.view import View


class Supervisor:
    """One run, from its job to its summary."""

    def __init__(self, job: Job, reporter: Reporter, signals: Signals) -> None:
        self._job = job
        self._reporter = reporter
        self._signals = signals
        self._orphaned = False  # Our parent's end of the pipe was closed.

    def run(self) -> int:
        """Prepare, start, loop, finish. Returns the exit code; says everything to the parent.

        Raises:
            LockstepError: before the run folder exists: nothing was made.
        """
        job = self._job
        wanted = Path(job.run_dir) if job.run_dir else None
        if wanted is not None:
            folders.check_free(wanted)
        if job.output:
            made_from = [Path(job.fleet), *([job.input_path] if job.input_path else [])]
            folders.check_output(Path(job.output), made_from)
        prepared = prepare.prepare(
            Path(job.fleet),
            job.input_path,
            job.seed,
            Path(job.modules_at) if job.modules_at else None,
            job.models_at,
        )
        self._fleet = fleet = prepared.fleet
        self._sequencer = Sequencer(fleet, prepared.items)
        if job.input_path is None and self._sequencer.world.schedule.takes_input:
            self._reporter.say("note", "no input was given (--input), so there are no items")
        self._crew = crew = Crew(fleet)
        try:
            codes = crew.compile(prepared, self._given_up)
            said = self._load_models()
            identity = prepare.identity(prepared, [m["files"] for m in said["models"]])
            providers = [m["provider"] for m in said["models"]]
            self._provider = ", ".join(dict.fromkeys(p["got"][0] for p in providers)) or "none"
            environment = prepare.environment(prepared, providers)
            if job.verify_of:
                for line in check_identity(Path(job.verify_of), identity, environment):
                    self._reporter.say("note", f"since the run: {line}")
            self._folder = RunFolder.create(wanted, Path(job.base), fleet.name)
            try:
                self._fill_folder(prepared, identity, environment)
            except (OSError, JournalError) as error:
                self._folder.remove()
                raise UsageError(
                    f"{self._folder.path}: cannot fill the run folder: {error}; it was removed"
                ) from None
            self._reporter.say("run", str(self._folder.path))
            return self._live([self._agent_spec(n, codes) for n in range(len(fleet.agents))])
        finally:
            crew.end()

    def _given_up(self) -> bool:
        """Whether to stop preparing: a signal came, or our parent is gone."""
        readable, _, _ = select.select([0], [], [], 0)
        if readable:
            self._parent_spoke()
        return self._signals.count > 0 or self._orphaned

    def _load_models(self) -> dict[str, Any]:
        fleet = self._fleet
        if not fleet.models:
            return {"models": [], "notes": []}
        spec = InferenceSpec(
            models=fleet.models,
            agent_names=tuple(agent.name for agent in fleet.agents),
            seed=fleet.seed,
            frozen_date=fleet.frozen_date,
            lookahead=fleet.schedule.lookahead,
            priority_steps=fleet.schedule.priority_steps,
            record_bytes_max=fleet.record_bytes_max,
        )
        said = self._crew.start_inference(spec, self._given_up)
        for note in said["notes"]:
            self._reporter.say("note", note)
        return said

    def _fill_folder(
        self, prepared: prepare.Prepared, identity: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        folder = self._folder
        folder.write(folders.FLEET, prepared.fleet_bytes)
        folder.write(folders.INPUT, prepared.input_bytes or b"")
        for group, module in zip(self._fleet.groups, prepared.modules, strict=True):
            folder.write(f"modules/{group.name}.wasm", module)
        self._ledger = Ledger(folder, self._job.durability, identity, environment)
        folder.write_json(
            folders.MANIFEST,
            {
                "run_id": self._ledger.run_id.hex(),
                "identity": identity,
                "environment": environment,
                "durability": self._job.durability,
            },
        )
        folder.write_json(folders.BOARD, {"name": self._crew.board.name})

    def _agent_spec(self, index: int, codes: list[bytes]) -> AgentSpec:
        fleet = self._fleet
        agent = fleet.agents[index]
        group = fleet.groups[agent.group]
        return AgentSpec(
            name=agent.name,
            index=index,
            replica=agent.replica,
            seed=fleet.seed,
            code=codes[agent.group],
            memory_bytes_max=group.memory_bytes_max,
            turn_fuel_max=group.turn_fuel_max,
            turn_out_bytes_max=group.turn_out_bytes_max,
            record_bytes_max=fleet.record_bytes_max,
            log_lines_max=group.log_lines_max,
            log_bytes_max=group.log_bytes_max,
            table_elements_max=group.table_elements_max,
            frozen_epoch_us=fleet.frozen_epoch_us,
            step_us=fleet.step_us,
            canonical_nans=group.canonical_nans,
        )

    # -- the loop -----------------------------------------------------------------------------

    def _live(self, specs: list[AgentSpec]) -> int:
        """From the first fork of an agent to the end of the run, which is always booked."""
        self._finish: actions.Finish | None = None
        self._assembler = StepAssembler()
        self._view = View(self._crew.board, self._crew.seats, self._sequencer)
        stopped, code = "", EXIT_OK
        try:
            self._crew.start_agents(specs, self._job.perturb)
            self._register()
            self._sequencer.start()
            self._perform()
            while self._finish is None:
                self._wait()
                self._perform()
                if 0 < self._job.entries_max <= self._ledger.entries:
                    stopped = "as far as it was asked for"
                    break
        except KeyboardInterrupt:
            stopped, code = "interrupted", EXIT_INTERRUPTED
        except LockstepBug as error:
            stopped, code = f"a bug in Lockstep: {error}", error.exit_code
        except (LockstepError, RingError, OSError) as error:
            stopped, code = str(error), EXIT_UNFINISHED
        except Exception as error:
            stopped, code = f"a bug in Lockstep: {told(error)}", LockstepBug.exit_code
        return self._close(stopped, code)

    def _register(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._watch(self._signals.descriptor, self._signals.clear)
        self._watch(0, self._parent_spoke)
        if self._crew.engine is not None:
            self._watch(self._crew.engine.pidfd, self._engine_ended)
            self._watch(self._crew.engine_link.memory.supervisor_bell.fileno(), self._from_engine)
        for index, seat in enumerate(self._crew.seats):
            bell = seat.link.pair.supervisor_bell
            self._watch(bell.fileno(), partial(self._from_agent, index))
            if seat.child is not None:
                self._watch(seat.child.pidfd, partial(self._agent_ended, index))

    def _watch(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _wait(self) -> None:
        """Block until something happened, and take it in.

        Raises:
            KeyboardInterrupt: a signal came, or our parent is gone. It goes before everything
                that came with it: a signal to the whole group ends our children, too.
        """
        ready = [descriptor for descriptor, _ in self._poll.poll(self._view.timeout_s())]
        for descriptor in (self._signals.descriptor, 0):
            if descriptor in ready:
                self._handlers[descriptor]()
        if self._signals.count or self._orphaned:
            raise KeyboardInterrupt
        for descriptor in ready:
            handler = self._handlers.get(descriptor)
            if handler is not None and descriptor not in (self._signals.descriptor, 0):
                handler()
        self._view.update()
        if self._reporter.progress_due():
            self._reporter.progress(self._view.progress())

    def _parent_spoke(self) -> None:
        if not os.read(0, 4096):
            self._orphaned = True

    def _from_agent(self, index: int) -> None:
        seat = self._crew.seats[index]
        was_loaded = seat.loaded
        turns = seat.receive()
        if seat.loaded and not was_loaded:
            self._view.set_state(index, view.RUNNING)  # It is in its turn 0.
        for turn in turns:
            self._sequencer.turn_ended(index, turn)
            self._view.set_state(index, view.IDLE)

    def _from_engine(self) -> None:
        slots, records = self._crew.engine_link.drain()
        for report in self._assembler.feed(slots, records):
            self._sequencer.step_reported(report)

    def _agent_ended(self, index: int) -> None:
        seat = self._crew.seats[index]
        assert seat.child is not None
        self._from_agent(index)  # What it published before it died counts.
        child, seat.child = seat.child, None
        self._forget(child.pidfd)
        status = child.reap()
        self._view.set_state(index, view.GONE)
        if not seat.ended:
            raise RunStopped(f"agent {seat.name} (process {child.pid}) {_how(status)}")

    def _engine_ended(self) -> None:
        assert self._crew.engine is not None
        child, self._crew.engine = self._crew.engine, None
        self._forget(child.pidfd)
        raise RunStopped(f"the inference process (process {child.pid}) {_how(child.reap())}")

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._handlers[descriptor]

    def _perform(self) -> None:
        """Do what the sequencer says, in its order; then show what is promised."""
        engine = self._crew.engine_link
        for action in self._sequencer.pump():
            match action:
                case actions.Append():
                    self._ledger.append(action.entry)
                case actions.Wake():
                    step, micro = action.tag
                    data = encode_wake(action.turn, step, micro, action.events, action.count)
                    self._crew.seats[action.agent].link.send(data)
                    self._view.set_state(action.agent, view.RUNNING)
                case actions.Issue():
                    t = action.ticket
                    slot = (ToEngine.TICKET, t.agent, t.number, t.due, t.ordinal)
                    engine.send(slot, action.record)
                case actions.Revoke():
                    engine.send((ToEngine.CANCEL, 0, action.ticket, action.due, 0))
                case actions.Grant() if self._crew.engine is not None:
                    engine.send((ToEngine.GRANT, 0, 0, action.limit, action.applied))
                case actions.Output():
                    self._ledger.output(action.line)
                case actions.Log():
                    self._ledger.log(self._fleet.agents[action.agent].name, action)
                case actions.Bury():
                    self._bury(action.agent)
                case actions.Finish():
                    self._finish = action
        if self._crew.engine is not None:
            engine.flush()
        self._ledger.reveal()

    def _bury(self, index: int) -> None:
        seat = self._crew.seats[index]
        if seat.child is not None and not seat.ended:
            seat.ended = True  # It waits for events that will never come.
            seat.child.kill()
        self._view.set_state(index, view.GONE)

    # -- the end --------------------------------------------------------------------------------

    def _close(self, stopped: str, code: int) -> int:
        self._crew.end()
        self._reporter.progress(self._view.progress())
        folder = self._folder
        try:
            self._ledger.close()
            if self._job.output:
                folders.copy_output(folder.path, Path(self._job.output))
        except (LockstepError, OSError) as error:
            stopped, code = stopped or str(error), code or EXIT_UNFINISHED
        summary = self._summary(stopped, code)
        try:
            folder.write_json(folders.SUMMARY, summary | {"agents": self._view.table()})
            (folder.path / folders.BOARD).unlink()
        except OSError as error:
            self._reporter.say("note", f"{folder.path}: {folders.SUMMARY} was not written: {error}")
        folder.close()
        self._reporter.say("summary", summary)
        return int(summary["exit_code"])

    def _summary(self, stopped: str, code: int) -> dict[str, Any]:
        world, counts = self._sequencer.world, self._sequencer.world.counts
        state, reason = "stopped", stopped
        if not stopped and self._finish is not None:
            state, reason = self._finish.state, self._finish.reason
        if not code and (state == "stopped" or world.items.failed or world.failures):
            code = EXIT_UNFINISHED
        return {
            "run": str(self._folder.path),
            "digest": self._ledger.digest.digest,
            "digest_text": self._ledger.digest.digest_text,
            "steps": counts.steps,
            "turns": counts.turns,
            "messages": counts.messages,
            "requests": world.requests.issued,
            "tokens_in": counts.tokens_in,
            "tokens_out": counts.tokens_out,
            "wall_s": round(self._reporter.elapsed_s(), 3),
            "provider": self._provider,
            "regenerative": True,
            "items_in": len(world.items),
            "items_out": world.items.finished,
            "items_failed": world.items.failed,
            "agents_failed": [name for name, _ in world.failures],
            "failures": [f"agent {name}: {reason}" for name, reason in world.failures],
            "seed": self._fleet.seed,
            "output": str(self._folder.path / folders.OUTPUT),
            "requests_failed": counts.requests_failed,
            "request_failure": counts.request_failure,
            "state": state,
            "reason": reason,
            "exit_code": code,
        }


def _how(status: int) -> str:
    if status >= 0:
        return f"left with exit status {status} in the middle of the run"
    name = signal.Signals(-status).name
    cause = " (by the kernel, probably for memory, or by a person)" if name == "SIGKILL" else ""
    return f"was killed by {name}{cause}"


def told(error: Exception) -> str:
    """An exception that nobody expected, in one line with its place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def main() -> int:
    """Entry of the supervisor process: one job on standard input, reports on standard output."""
    signals = Signals()
    reporter = Reporter(os.dup(1), signals)
    reporter.say("started", os.getpid())  # From now on a signal is counted, not fatal.
    job = Job.from_json(sys.stdin.buffer.readline().decode())
    try:
        return Supervisor(job, reporter, signals).run()
    except LockstepError as error:
        code, message = error.exit_code, str(error)
    except Exception as error:
        code, message = LockstepBug.exit_code, told(error)
    reporter.say("error", {"message": message, "exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main())
