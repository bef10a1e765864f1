"""The supervisor: one thread that forks everybody, feeds the sequencer and does what it says.

It decides nothing. Turns and step reports come in in any physical order, the sequencer makes one
history of them, and the loop here journals it, wakes agents, issues tickets and writes output.
"""

import lockstep.workers.hot  # noqa: F401 (first of all, as it says)

# isort: split
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lockstep.engine import actions
from lockstep.engine.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNFINISHED,
    LockstepBug,
    LockstepError,
    RunStopped,
)
from lockstep.engine.fleet import Fleet
from lockstep.engine.wire import ToEngine
from lockstep.shm import Platform
from lockstep.workers import folder as folders
from lockstep.workers import prepare, spawn
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.begin_inference import begin_inference, spec_of
from lockstep.workers.beginning import Beginning, lacks_input
from lockstep.workers.crew import Crew
from lockstep.workers.deaths import how, told
from lockstep.workers.engine_recovery import EngineRecovery
from lockstep.workers.fallbacks import Fallbacks
from lockstep.workers.job import Job
from lockstep.workers.loop import Loop
from lockstep.workers.outside.doors import Doors, stdin_of
from lockstep.workers.parent import Parent
from lockstep.workers.repetition import Repetition
from lockstep.workers.report import Reporter
from lockstep.workers.resumption import Played, begin
from lockstep.workers.signals import Signals
from lockstep.workers.spawner import platform_for
from lockstep.workers.specs import agent_specs
from lockstep.workers.stalls import Stalls
from lockstep.workers.summary import ending, figures, stopped_by, waits
from lockstep.workers.switchboard import Switchboard
from lockstep.workers.view import View


class Supervisor:
    """One run, from its job to its summary."""

    def __init__(self, job: Job, reporter: Reporter, signals: Signals) -> None:
        self._job = job
        self._reporter = reporter
        self._parent = Parent(signals)
        self._repetition = Repetition.of(Path(job.verify_of)) if job.verify_of else None

    def run(self) -> int:
        """Prepare, start, loop, finish. Returns the exit code; says everything to the parent.

        Raises:
            LockstepError: before the run folder exists: nothing was made.
        """
        job = self._job
        self._beginning = beginning = self._begin()
        prepared = beginning.prepare()
        self._fleet = fleet = prepared.fleet
        self._commands = prepared.commands
        platform = platform_for(job.platform, tools=bool(self._commands))
        self._stdin = stdin_of(fleet, job.stdin)
        self._began_s = time.monotonic()
        self._sequencer = beginning.sequencer(prepared)
        self._loop = Loop()
        live = not job.verify_of and job.mode != "replay"
        self._doors = Doors(
            self._loop, fleet, prepared.items, self._sequencer, live, beginning.came
        )
        self._fallbacks = Fallbacks(
            fleet,
            self._sequencer,
            self._doors.gate.bring,
            live=live,
            got=beginning.got,
            told=self._note,
        )
        if lacks_input(job, fleet, self._sequencer.world.desk.schedule.takes_input):
            self._note("no input was given (--input), so there are no items")
        self._crew = crew = self._make_crew(fleet, platform)
        try:
            codes = crew.compile(prepared, self._parent.look)
            self._said = said = beginning.models() or self._load_models()
            identity = prepare.identity(prepared, [m["files"] for m in said["models"]])
            providers = [m["provider"] for m in said["models"]]
            self._fallbacks.loaded(said["models"])
            environment = prepare.environment(prepared, providers, self._fallbacks.classes)
            self._folder, self._ledger = beginning.open(
                prepared, identity, environment, crew.board.name, self._note
            )
            self._reporter.say("run", str(self._folder.path))
            return self._live(agent_specs(fleet, codes, beginning.seed))
        finally:
            crew.end()

    # What another kind of supervisor does in another way (workers/profile/supervising.py).

    def _begin(self) -> Beginning:
        return begin(self._job)

    def _make_crew(self, fleet: Fleet, platform: Platform) -> Crew:
        return Crew(fleet, platform)

    def _first(self) -> None:
        self._perform(self._beginning.first())

    def _pass(self) -> None:
        self._take_in(self._wait())
        self._perform(self._pumped())

    def _load_models(self) -> dict[str, Any]:
        if not self._fleet.models:
            return {"models": [], "notes": []}
        spec = spec_of(self._job, self._fleet, self._beginning)
        self._spec, said = begin_inference(
            spec, self._crew, self._fallbacks, self._parent.look, self._note
        )
        for note in said["notes"]:
            self._note(note)
        return said

    # -- the loop -----------------------------------------------------------------------------

    def _live(self, specs: list[AgentSpec]) -> int:
        """From the first fork of an agent to the end of the run, which is always booked."""
        self._finish: actions.Finish | None = None
        names = [agent.name for agent in self._fleet.agents]
        self._stalls = Stalls(names, self._fleet.schedule.fuel_per_step)
        self._view = View(self._crew.board, self._crew.seats, self._sequencer, self._stalls)
        self._agents = Switchboard(
            crew=self._crew,
            sequencer=self._sequencer,
            loop=self._loop,
            fleet=self._fleet,
            board=self._view,
            stalls=self._stalls,
            read_back=self._ledger.read_back,
            note=self._note,
        )
        self._engine = self._engine_recovery()
        if self._job.mode != "replay":  # Else the way through the record counts.
            self._began_s = time.monotonic()
        stopped, code = "", EXIT_OK
        try:
            self._doors.start_tools(self._commands, self._child_ended)
            self._start_agents(specs)
            self._register()
            self._doors.listen(self._folder.path, self._stdin, self._note, self._job)
            self._first()
            while not self._over():
                self._refuse_starving()
                self._pass()
                if 0 < self._job.entries_max <= self._ledger.entries:
                    stopped = "as far as it was asked for"
                    break
        except KeyboardInterrupt:
            stopped, code = "interrupted", EXIT_INTERRUPTED
        except Exception as error:
            stopped, code = stopped_by(error)
        return self._close(stopped, code)

    def _pumped(self) -> list[actions.Action]:
        wanted = self._sequencer.pump()
        if self._doors.tokens.followed:  # Else a step is recorded with the next tag behind it.
            wanted += self._sequencer.settle()
        return wanted

    def _engine_recovery(self) -> EngineRecovery | None:
        if self._crew.engine is None:
            return None
        made = EngineRecovery(
            crew=self._crew,
            sequencer=self._sequencer,
            loop=self._loop,
            placement=self._agents.placement,
            fleet=self._fleet,
            spec=self._spec,
            said=self._said,
            read_back=self._ledger.read_back,
            note=self._note,
            fallbacks=self._fallbacks,
        )
        self._agents.overdue.watch(made.suspects)
        return made

    def _register(self) -> None:
        for descriptor in self._parent.descriptors:
            self._loop.watch(descriptor, lambda: None)  # `_take_in` asks, before all others.
        self._ledger.attach(self._loop)
        if self._engine is not None:
            self._engine.watch()

    def _start_agents(self, specs: list[AgentSpec]) -> None:
        beginning = self._beginning
        if not isinstance(beginning, Played):
            self._agents.start(specs, beginning.past, self._job.perturb)
            return
        self._agents.start(specs, beginning.past, only=beginning.agents())
        for line in beginning.trace() if self._job.trace else ():
            self._reporter.say("trace", line)

    def _over(self) -> bool:
        """Whether the run has come to its end; one that is played again, when everybody has."""
        if self._job.mode == "replay":
            return not self._agents.recovery.busy()
        return self._finish is not None

    def _wait(self) -> list[int]:
        """Block until something happened; the descriptors that say so."""
        # What came in while the last batch was revealed has not been pumped yet.
        at_once = self._doors.gate.unseen
        owed = self._view.timeout_s(), self._ledger.timeout_s()
        return self._loop.wait(0.0 if at_once else max(owed))  # Equal, or one is "for ever".

    def _take_in(self, ready: list[int]) -> None:
        """Take in what happened.

        Raises:
            KeyboardInterrupt: the parent says so. It goes before everything that came with it: a
                signal to the whole group ends our children, too.
        """
        if self._parent.heard(ready):
            raise KeyboardInterrupt
        self._loop.dispatch(ready)  # To the parent's, nothing is left to do.
        self._view.update()
        if self._reporter.progress_due():
            self._reporter.progress(self._progress())

    def _refuse_starving(self) -> None:
        """A second execution waits for nobody outside: what is not in the record never comes.

        Raises:
            RunStopped: nothing runs, nothing is asked of the model, and the run has not ended.
        """
        if not self._job.verify_of or self._sequencer.world.requests.open_count():
            return
        if not self._sequencer.waits_for():
            raise RunStopped("the record has nothing more that came from outside")

    def _child_ended(self, name: str, child: spawn.Child) -> None:
        raise RunStopped(f"{name} (process {child.pid}) {how(child.reap())}")

    def _perform(self, wanted: Iterable[actions.Action]) -> None:
        """Do what the sequencer says, in its order; then show what is promised."""
        engine = self._engine
        for action in wanted:
            match action:
                case actions.Append():
                    self._ledger.append(action.entry)
                    self._doors.tokens.appended(action.entry)
                    if self._repetition is not None:
                        self._repetition.take(action.entry.body)
                case actions.Keep():
                    self._ledger.keep(action.record)
                    self._doors.gate.kept(action.record)
                case actions.Wake():
                    self._doors.woken(action)
                    self._agents.wake(action)
                case actions.Issue() if engine is not None:
                    t = action.ticket
                    slot = (ToEngine.TICKET, t.agent, t.number, t.due, t.ordinal)
                    engine.send(slot, action.record)
                    self._doors.tokens.issued(t)
                case actions.Revoke() if engine is not None:
                    engine.send((ToEngine.CANCEL, 0, action.ticket, action.due, 0))
                case actions.Grant() if engine is not None:
                    engine.send((ToEngine.GRANT, 0, 0, action.limit, action.applied))
                case actions.Output():
                    self._ledger.output(action.line)
                case actions.Log():
                    self._ledger.log(self._fleet.agents[action.agent].name, action)
                case actions.CallTool() | actions.StopTool():
                    self._doors.later(action)
                case actions.Bury():
                    self._doors.ended(action.agent)
                    self._agents.recovery.buried(action.agent)
                case actions.Finish():
                    self._finish = action
        if engine is not None:
            engine.flush()
            self._agents.armed()
        self._ledger.reveal()
        self._doors.closed(self._sequencer.world.desk.book.take_closed())
        if self._doors.waiting:
            self._ledger.when_promised(self._doors.promised())
        self._doors.resume()
        held = self._stalls.look(self._sequencer.horizon.held_by(), self._sequencer.step)
        if held is not None:
            self._view.touch(held)

    # -- the end --------------------------------------------------------------------------------

    def _close(self, stopped: str, code: int) -> int:
        run_s = time.monotonic() - self._began_s
        self._doors.close()
        self._crew.end()
        self._reporter.progress(self._progress())
        folder = self._folder
        try:
            self._ledger.close()
            if self._job.output:
                folders.copy_output(folder.path, Path(self._job.output))
        except (LockstepError, OSError) as error:
            stopped, code = stopped or str(error), code or EXIT_UNFINISHED
        self._doors.end_orphans()  # The ledger's sync process is no orphan.
        self._fallbacks.book(folder, self._note)
        summary = self._summary(stopped, code, run_s)
        try:
            folder.write_json(folders.SUMMARY, summary | {"agents": self._view.table()})
            (folder.path / folders.BOARD).unlink()
        except OSError as error:
            self._note(f"{folder.path}: {folders.SUMMARY} was not written: {error}")
        folder.close()
        self._reporter.say("summary", summary)
        return int(summary["exit_code"])

    def _summary(self, stopped: str, code: int, run_s: float) -> dict[str, Any]:
        return {
            "run": str(self._folder.path),
            **figures(self._sequencer, self._ledger, self._fleet, self._doors.gate.counts),
            "wall_s": round(self._reporter.elapsed_s(), 3),
            **waits(self._stalls, run_s),
            "provider": self._fallbacks.providers,
            "fallbacks": self._fallbacks.table(),
            "classes": self._fallbacks.classes,
            "output": str(self._folder.path / folders.OUTPUT),
            "lines_refused": self._doors.refused,
            "restarts": self._restarts,
            **self._ending(stopped, code),
        }

    @property
    def _restarts(self) -> int:
        """Processes that were started again so far."""
        return self._agents.recovery.restarts + (self._engine.restarts if self._engine else 0)

    def _ending(self, stopped: str, code: int) -> dict[str, Any]:
        refused = bool(self._doors.refused)
        found = ending(self._sequencer, self._finish, stopped, code, refused)
        if self._job.mode != "replay" or stopped:
            return found
        # It came to where it was to come: that the run itself did not go well is no failure here.
        return {**found, "exit_code": EXIT_OK}

    def _progress(self) -> dict[str, Any]:
        """For the progress line; the agent it names is the one that holds the others up now."""
        value, holder = {**self._view.progress(), "restarts": self._restarts}, self._stalls.holder
        if holder is not None:
            name = self._fleet.agents[holder].name if holder >= 0 else ""
            value = {**value, "waits_for": name}
        if self._fallbacks.made:
            value = {**value, "moved": self._fallbacks.moved}
        return value

    def _note(self, text: str) -> None:
        if self._repetition is not None:
            self._repetition.noted(text)
        self._reporter.say("note", text)


def main(make: Callable[[Job, Reporter, Signals], Supervisor] = Supervisor) -> int:
    """Entry of the supervisor process: one job on standard input, reports on standard output.

    Args:
        make: Makes the supervisor of the job.
    """
    signals = Signals()
    reporter = Reporter(os.dup(1), signals)
    reporter.say("started", os.getpid())  # From now on a signal is counted, not fatal.
    job = Job.from_json(sys.stdin.buffer.readline().decode())
    try:
        return make(job, reporter, signals).run()
    except LockstepError as error:
        code, message = error.exit_code, str(error)
    except Exception as error:
        code, message = LockstepBug.exit_code, told(error)
    reporter.say("error", {"message": message, "exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main())
