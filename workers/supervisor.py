"""The supervisor: one thread that forks everybody, feeds the sequencer and does what it says.

It decides nothing. Turns and step reports come in in any physical order, the sequencer makes one
history of them, and the loop here journals it, wakes agents, issues tickets and writes output.
"""

import hashlib
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from lockstep.engine import actions
from lockstep.engine import tag as tags
from lockstep.engine.digest import Digest, identity_record
from lockstep.engine.effects import LOG_LEVELS, Turn
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
from lockstep.engine.journal import JournalWriter
from lockstep.engine.journal import format as journal_format
from lockstep.engine.record import (
    HEADER,
    Kind,
    Outcome,
    aligned,
    decode_at,
    decode_end,
    encode,
    encode_wake,
)
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.strict_json import dumps
from lockstep.engine.wire import StepAssembler, ToEngine
from lockstep.shm import RingError
from lockstep.workers import folder as folders
from lockstep.workers import prepare
from lockstep.workers.agent.process import AgentSpec
from lockstep.workers.crew import AgentProcess, Crew
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import check_identity
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.job import Job
from lockstep.workers.journal_file import JournalFile, write_all
from lockstep.workers.report import Reporter

BOARD_S = 0.02  # An observer sees the board at most this late.
STARTING, RUNNING, IDLE, GONE = 0, 1, 2, 3  # Agent states on the board.


class Signals:
    """Handlers only count; the loop looks."""

    def __init__(self) -> None:
        self.count = 0
        reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.descriptor = reading
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: object) -> None:
        self.count += 1

    def clear(self) -> None:
        """Empty the wake-up pipe."""
        try:
            while os.read(self.descriptor, 512):
                pass
        except BlockingIOError:
            pass


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
        prepared = prepare.prepare(
            Path(job.fleet),
            job.input_path,
            job.seed,
            Path(job.modules_at) if job.modules_at else None,
            job.models_at,
        )
        wanted = Path(job.run_dir) if job.run_dir else None
        if wanted is not None:
            folders.check_free(wanted)
        if job.output:
            _check_output(Path(job.output))
        fleet = prepared.fleet
        self._fleet = fleet
        self._sequencer = Sequencer(fleet, prepared.items)
        self._crew = crew = Crew(fleet)
        try:
            codes = crew.compile(prepared)
            said = self._load_models()
            identity = prepare.identity(prepared, [m["files"] for m in said["models"]])
            providers = [m["provider"] for m in said["models"]]
            environment = prepare.environment(providers)
            if job.verify_of:
                for line in check_identity(Path(job.verify_of), identity, environment):
                    self._reporter.say("note", f"since the run: {line}")
            self._provider = ", ".join(dict.fromkeys(p["got"][0] for p in providers)) or "none"
            self._folder = RunFolder.create(wanted, Path(job.base), fleet.name)
            try:
                self._open_run(prepared, identity, environment)
            except (OSError, JournalError) as error:
                self._folder.remove()
                raise UsageError(
                    f"{self._folder.path}: cannot fill the run folder: {error}; it was removed"
                ) from None
            self._reporter.say("run", str(self._folder.path))
            specs = [self._agent_spec(n, codes) for n in range(len(fleet.agents))]
            crew.start_agents(specs, job.perturb)
            return self._live()
        finally:
            crew.end()

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
        said = self._crew.start_inference(spec, lambda: self._signals.count > 0)
        for note in said["notes"]:
            self._reporter.say("note", note)
        return said

    def _open_run(
        self, prepared: prepare.Prepared, identity: dict[str, Any], environment: dict[str, Any]
    ) -> None:
        folder, job = self._folder, self._job
        folder.write(folders.FLEET, prepared.fleet_bytes)
        folder.write(folders.INPUT, prepared.input_bytes or b"")
        for group, module in zip(self._fleet.groups, prepared.modules, strict=True):
            folder.write(f"modules/{group.name}.wasm", module)
        record = identity_record(identity)
        self._digest = Digest(record)
        environment = environment | {
            "seed": self._fleet.seed,
            "has_input": prepared.input_bytes is not None,
            "models": {model.name: model.path for model in self._fleet.models},
        }
        run_id = os.urandom(16)  # Physical: tells two journals apart, decides nothing.
        self._file = JournalFile(folder.path / folders.JOURNAL, job.durability)
        self._journal = JournalWriter(self._file, run_id)
        self._journal.append(journal_format.IDENTITY, record)
        body = encode(Kind.ENVIRONMENT, dumps(environment))
        self._journal.append(journal_format.ENVIRONMENT, body)
        self._file.reveal()
        folder.write_json(
            folders.MANIFEST,
            {"run_id": run_id.hex(), "identity": identity, "environment": environment,
             "durability": job.durability},
        )  # fmt: skip
        folder.write_json(folders.BOARD, {"name": self._crew.board.name})
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._output = os.open(folder.path / folders.OUTPUT, flags, 0o600)

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

    def _live(self) -> int:
        """From the first turn to the end of the run."""
        self._finish: actions.Finish | None = None
        self._assembler = StepAssembler()
        self._dirty = dict.fromkeys(range(len(self._crew.agents)))
        self._board_s = 0.0
        self._states = [STARTING] * len(self._crew.agents)
        self._show_supervisor()
        self._register()
        stopped = ""
        code = EXIT_OK
        try:
            self._sequencer.start()
            self._perform()
            while self._finish is None:
                self._wait()
                if self._signals.count or self._orphaned:
                    raise KeyboardInterrupt
                self._perform()
        except KeyboardInterrupt:
            stopped, code = "interrupted", EXIT_INTERRUPTED
        except LockstepBug as error:
            stopped, code = f"a bug in Lockstep: {error}", error.exit_code
        except (LockstepError, RingError, OSError) as error:
            stopped, code = str(error), EXIT_UNFINISHED
        return self._close(stopped, code)

    def _register(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Any] = {}
        self._watch(self._signals.descriptor, self._signals.clear)
        self._watch(0, self._parent_spoke)
        if self._crew.engine is not None:
            self._watch(self._crew.engine.pidfd, self._engine_ended)
            self._watch(self._crew.engine_link.memory.supervisor_bell.fileno(), self._from_engine)
        for index, process in enumerate(self._crew.agents):
            bell = process.link.pair.supervisor_bell
            self._watch(bell.fileno(), lambda i=index: self._from_agent(i))
            if process.child is not None:
                self._watch(process.child.pidfd, lambda i=index: self._agent_ended(i))

    def _watch(self, descriptor: int, handler: Any) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.EPOLLIN)

    def _wait(self) -> None:
        # The time-out serves the board and the progress line only; a run without observers' debts
        # blocks until something happens.
        timeout_s = BOARD_S if self._dirty else -1
        for descriptor, _ in self._poll.poll(timeout_s):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler()
        self._update_board()
        if self._reporter.progress_due():
            self._reporter.progress(self._progress())

    def _parent_spoke(self) -> None:
        if not os.read(0, 4096):
            self._orphaned = True

    def _from_agent(self, index: int) -> None:
        process = self._crew.agents[index]
        data = process.link.drain()
        offset = 0
        while offset < len(data):
            size, kind = HEADER.unpack_from(data, offset)[:2]
            after = offset + aligned(size)
            if kind < Kind.END:
                process.records += data[offset:after]
                process.count += 1
            else:
                self._control(index, process, data[offset:after])
            offset = after

    def _control(self, index: int, process: AgentProcess, data: bytes) -> None:
        record, _ = decode_at(data, 0)
        if record.kind == Kind.READY:
            process.ready = True
            self._set_state(index, RUNNING)
        elif record.kind == Kind.ACCIDENT:
            reason = record.payload.decode("utf-8", "replace")
            raise RunStopped(f"agent {process.name}: accident: {reason}")
        elif record.kind == Kind.END:
            end = decode_end(record)
            records, count = process.records, process.count
            process.records, process.count = b"", 0
            if end.count != count or end.digest != hashlib.sha256(records).digest():
                raise RunStopped(
                    f"agent {process.name}: turn {end.turn} arrived with {count} records, its end "
                    f"says {end.count}, or their hash differs; the turn does not count"
                )
            process.ended = end.outcome != Outcome.BLOCKED
            turn = Turn(end.turn, end.fuel, end.outcome, end.reason, records)
            self._sequencer.turn_ended(index, turn)
            self._set_state(index, IDLE)
        else:
            raise RunStopped(f"agent {process.name}: sent a record of kind {record.kind}")

    def _from_engine(self) -> None:
        slots, records = self._crew.engine_link.drain()
        for report in self._assembler.feed(slots, records):
            self._sequencer.step_reported(report)

    def _agent_ended(self, index: int) -> None:
        process = self._crew.agents[index]
        assert process.child is not None
        self._from_agent(index)  # What it published before it died counts.
        child, process.child = process.child, None
        self._forget(child.pidfd)
        status = child.reap()
        self._dirty[index] = None
        if not process.ended:
            raise RunStopped(f"agent {process.name} (process {child.pid}) {_how(status)}")

    def _engine_ended(self) -> None:
        assert self._crew.engine is not None
        child, self._crew.engine = self._crew.engine, None
        self._forget(child.pidfd)
        raise RunStopped(f"the inference process (process {child.pid}) {_how(child.reap())}")

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._handlers[descriptor]

    # -- doing what the sequencer says ----------------------------------------------------------

    def _perform(self) -> None:
        lines: list[bytes] = []
        engine = self._crew.engine_link
        for action in self._sequencer.pump():
            match action:
                case actions.Append():
                    self._digest.add(action.entry)
                    self._journal.append(journal_format.HISTORY, action.entry.body)
                case actions.Wake():
                    step, micro = action.tag
                    data = encode_wake(action.turn, step, micro, action.events, action.count)
                    self._crew.agents[action.agent].link.send(data)
                    self._set_state(action.agent, RUNNING)
                case actions.Issue():
                    t = action.ticket
                    slot = (ToEngine.TICKET, t.agent, t.number, t.due, t.ordinal)
                    engine.send(slot, action.record)
                case actions.Revoke():
                    engine.send((ToEngine.CANCEL, 0, action.ticket, action.due, 0))
                case actions.Grant():
                    engine.send((ToEngine.GRANT, 0, 0, action.limit, action.applied))
                case actions.Output():
                    lines.append(action.line + b"\n")
                case actions.Log():
                    self._log(action)
                case actions.Bury():
                    self._bury(action.agent)
                case actions.Finish():
                    self._finish = action
        if self._crew.engine is not None:
            engine.flush()
        self._file.reveal()
        if lines:
            write_all(self._output, b"".join(lines))
        self._folder.flush_logs()

    def _log(self, log: actions.Log) -> None:
        stream = ("log", "stdout", "stderr")[log.stream]
        text = log.text.decode("utf-8", "replace")
        # Control characters would run in the terminal of whoever reads the file.
        safe = "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)
        name = self._fleet.agents[log.agent].name
        level = LOG_LEVELS[log.level]
        self._folder.log(name, f"{tags.text(log.tag)} {level} {stream}: {safe}\n")

    def _bury(self, index: int) -> None:
        process = self._crew.agents[index]
        if process.child is not None and not process.ended:
            process.ended = True  # It waits for events that will never come.
            process.child.kill()
        self._set_state(index, GONE)

    # -- what observers and the parent see ------------------------------------------------------

    def _set_state(self, index: int, state: int) -> None:
        if self._states[index] != GONE:
            self._states[index] = state
        self._dirty[index] = None

    def _show_supervisor(self) -> None:
        self._crew.board.supervisor.update(pid=os.getpid(), state=RUNNING)

    def _update_board(self) -> None:
        now = time.monotonic()
        if not self._dirty or now - self._board_s < BOARD_S:
            return
        self._board_s = now
        step, micro = max(self._sequencer.tag, tags.ORIGIN)
        for index in self._dirty:
            process = self._crew.agents[index]
            self._crew.board.agent(index).update(
                name=process.name,
                state=self._states[index],
                pid=process.child.pid if process.child is not None else 0,
                step=step,
                micro=micro,
                turns=self._sequencer.world.agents[index].turn,
            )
        self._dirty = {}

    def _progress(self) -> dict[str, Any]:
        world = self._sequencer.world
        waits = self._sequencer.waits_for()
        return {
            "items_done": world.items.finished + world.items.failed,
            "items": len(world.items),
            "tokens": world.counts.tokens_out,
            "steps": world.counts.steps,
            "turns": world.counts.turns,
            "rows": self._sequencer.rows,
            "requests_open": world.requests.open_count(),
            "waits_for": self._fleet.agents[waits[0]].name if waits else "",
            "elapsed_s": round(self._reporter.elapsed_s(), 3),
        }

    # -- the end --------------------------------------------------------------------------------

    def _close(self, stopped: str, code: int) -> int:
        agents = self._agent_table()
        self._crew.end()
        self._reporter.progress(self._progress())
        try:
            self._file.close()
            self._folder.flush_logs()
        except (LockstepError, OSError) as error:
            stopped, code = stopped or str(error), code or EXIT_UNFINISHED
        os.close(self._output)
        summary = self._summary(stopped, code)
        if self._job.output:
            _copy_output(self._folder.path / folders.OUTPUT, Path(self._job.output))
        self._folder.write_json(folders.SUMMARY, summary | {"agents": agents})
        (self._folder.path / folders.BOARD).unlink()
        self._folder.close()
        self._reporter.say("summary", summary)
        return int(summary["exit_code"])

    def _agent_table(self) -> list[dict[str, Any]]:
        names = ("starting", "running", "idle", "gone")
        step = max(self._sequencer.tag[0], 0)
        return [
            {"name": p.name, "index": n, "pid": None, "state": names[self._states[n]],
             "step": step, "turns": self._sequencer.world.agents[n].turn}
            for n, p in enumerate(self._crew.agents)
        ]  # fmt: skip

    def _summary(self, stopped: str, code: int) -> dict[str, Any]:
        world, counts = self._sequencer.world, self._sequencer.world.counts
        state, reason = "stopped", stopped
        if not stopped and self._finish is not None:
            state, reason = self._finish.state, self._finish.reason
        if not code and (state == "stopped" or world.items.failed or world.failures):
            code = EXIT_UNFINISHED
        return {
            "run": str(self._folder.path),
            "digest": self._digest.digest,
            "digest_text": self._digest.digest_text,
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


def _check_output(path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: cannot write the output there")


def _copy_output(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.part")
    temporary.write_bytes(source.read_bytes())
    temporary.replace(target)


def main() -> int:
    """Entry of the supervisor process: one job on standard input, reports on standard output."""
    reporter = Reporter(os.dup(1))
    signals = Signals()
    reporter.say("started", os.getpid())  # From now on a signal is counted, not fatal.
    job = Job.from_json(sys.stdin.buffer.readline().decode())
    try:
        return Supervisor(job, reporter, signals).run()
    except LockstepError as error:
        code = EXIT_INTERRUPTED if signals.count else error.exit_code
        message = str(error)
    except Exception as error:
        code = LockstepBug.exit_code
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    reporter.say("error", {"message": message, "exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main())
