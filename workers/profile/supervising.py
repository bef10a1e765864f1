"""The supervisor of a profiled run: the usual one, with a look at the clock between its parts.

``python -m lockstep.workers.profile.supervising``, with a job on standard input as any supervisor
gets it. Every process of the run writes a track of its own (spans.py); nothing of that goes through
a ring, and nothing waits for it.
"""

import lockstep.workers.hot  # noqa: F401 (first of all, as in any supervisor)

# isort: split
import os
import select
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from lockstep.engine import actions
from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.wire import ToEngine
from lockstep.shm import Platform, RingError
from lockstep.workers import supervisor
from lockstep.workers.agent.spec import AgentSpec
from lockstep.workers.beginning import Beginning, New
from lockstep.workers.crew import Crew
from lockstep.workers.inference.spec import InferenceSpec
from lockstep.workers.job import Job
from lockstep.workers.loading import Loading
from lockstep.workers.outside.tool_process import children
from lockstep.workers.outside.tools import Tools
from lockstep.workers.overdue import cpu_ticks
from lockstep.workers.profile.agents import ProfiledAgent
from lockstep.workers.profile.disks import timed_backend
from lockstep.workers.profile.inference import ProfiledInference
from lockstep.workers.profile.place import Place
from lockstep.workers.profile.spans import HEADER_BYTES, Kind, Role, Spans, now
from lockstep.workers.profile.toolshop import timed_tools
from lockstep.workers.report import Reporter
from lockstep.workers.scratch import Scratch
from lockstep.workers.signals import Signals
from lockstep.workers.supervisor import Supervisor
from lockstep.workers.tasks import AgentTask, InferenceTask, Task

SUPERVISOR_BYTES_MAX = 256 << 20
AGENTS_BYTES_MAX = 512 << 20  # All of them together.
AGENT_BYTES_MAX = 32 << 20
NODES_S_MAX = 20.0  # To keep the nodes at the end of a run.
COUNT_NS = 20_000_000  # Between two looks at what waits.
_PASS = int(Kind.PASS)  # A member is looked up slowly, and packed slowly.


class ProfiledCrew(Crew):
    """A crew whose processes have tracks. Arguments as of `Crew`, the place of the tracks first."""

    def __init__(self, place: Place, nodes: bool, fleet: Fleet, platform: Platform) -> None:
        super().__init__(fleet, platform)
        self._place, self._nodes = place, nodes
        self._scratch: Scratch | None = None  # Where ONNX Runtime keeps what it notes.
        self._loading: Loading | None = None  # Of the inference process that there is.
        share = AGENTS_BYTES_MAX // max(len(fleet.agents), 1)
        self._agent_bytes = min(AGENT_BYTES_MAX, share) - HEADER_BYTES

    def placed(self) -> None:
        """The tracks have a place: let the inference process know, which is there already."""
        if self.engine is not None:
            self.engine_link.memory.engine_bell.ring()

    def fork_inference(self, spec: InferenceSpec) -> Loading:
        """As `Crew.fork_inference`."""
        self._loading = super().fork_inference(spec)
        return self._loading

    def end(self) -> None:
        """As `Crew.end`; first, the inference process keeps what ONNX Runtime noted."""
        try:
            if self._nodes and self._place.path is not None:
                self._keep_nodes()
        finally:
            super().end()
            scratch, self._scratch = self._scratch, None
            if scratch is not None:
                scratch.__exit__(None, None, None)

    def _keep_nodes(self) -> None:
        """Nothing, of a process that still loads its models or has written nonsense."""
        if self.engine is None or self._loading is None or self._loading.said is None:
            return
        with suppress(RingError):
            self.engine_link.send((ToEngine.STOP, 0, 0, 0, 0))
            self.engine_link.flush()
            poll = select.poll()
            poll.register(self.engine.descriptor, select.POLLIN)
            poll.poll(NODES_S_MAX * 1000)

    def _body(self, task: Task, first: int = 0) -> Task:
        if isinstance(task, AgentTask):
            return ProfiledAgent(task, self._place, self._agent_bytes, first)
        if isinstance(task, InferenceTask):
            if self._nodes and self._scratch is None:
                self._scratch = Scratch().__enter__()
            scratch = None if self._scratch is None else self._scratch.path
            return ProfiledInference(task, self._place, scratch)
        return task


class ProfiledSupervisor(Supervisor):
    """A supervisor with a track."""

    def __init__(self, job: Job, reporter: Reporter, signals: Signals) -> None:
        super().__init__(job, reporter, signals)
        self._place = Place()
        self._spans = Spans(self._place, Role.SUPERVISOR, 0, "supervisor", SUPERVISOR_BYTES_MAX)
        self._add = self._spans.add
        self._held: tuple[int, int] | None = None  # By whom, and the last step before.
        self._held_since = self._counted = 0
        Tools.body = staticmethod(partial(timed_tools, self._place))

    def _begin(self) -> Beginning:
        if self._job.mode != "run":
            raise UsageError(f"a {self._job.mode} is not profiled; nothing was started")
        return New(self._job, timed_backend(self._place, self._spans))

    def _make_crew(self, fleet: Fleet, platform: Platform) -> Crew:
        if not platform.forks:
            raise UsageError(
                f"profiles need a system that forks, and the platform is {platform.name!r}; "
                "nothing was started"
            )
        return ProfiledCrew(self._place, self._job.profile == "nodes", fleet, platform)

    def _live(self, specs: list[AgentSpec]) -> int:
        assert isinstance(self._crew, ProfiledCrew)
        self._crew.placed()
        return super()._live(specs)

    def _start_agents(self, specs: list[AgentSpec]) -> None:
        begun = now()
        self._spans.add(Kind.PREPARE, self._spans.began_ns, begun)
        super()._start_agents(specs)
        self._spans.add(Kind.START, begun, now())

    def _first(self) -> None:
        begun = now()
        super()._first()
        self._spans.add(_PASS, begun, now())

    # One function, with names that lie in its frame: the loop has slept, and each further one that
    # it calls, and each name of a module, is more memory to fetch.
    def _pass(self, now: Callable[[], int] = now, kind: int = _PASS) -> None:
        ready = self._wait()
        woke = now()
        self._take_in(ready)
        taken = now()
        wanted = self._pumped()
        decided = now()
        try:
            self._perform(wanted)
        finally:
            done = now()
            self._add(kind, woke, done, taken - woke, decided - taken)
        if self._engine is not None:
            self._ask(wanted, decided)
            self._look(done)
        if done - self._counted >= COUNT_NS:
            self._count(done)

    def _ask(self, wanted: Iterable[actions.Action], moment: int) -> None:
        for action in wanted:
            if isinstance(action, actions.Issue):
                ticket = action.ticket
                self._add(Kind.ASKED, moment, moment, ticket.number, 0, ticket.agent)

    def _look(self, moment: int) -> None:
        """Who holds the model back, after a pass."""
        holder = self._stalls.holder
        held = None if holder is None else (holder, self._sequencer.step)
        if held != self._held:
            self._hold(held, moment)

    def _hold(self, held: tuple[int, int] | None, moment: int) -> None:
        """Somebody else holds the model back from now on, or before another step, or nobody."""
        if self._held is not None:
            holder, step = self._held
            self._spans.add(Kind.HELD, self._held_since, moment, step + 1, 0, holder + 1)
        self._held, self._held_since = held, moment

    def _count(self, moment: int) -> None:
        world, waiting = self._sequencer.world, self._view.events_waiting()
        requests = world.requests.open_count()
        self._spans.add(Kind.COUNTED, moment, moment, world.counts.messages, waiting, requests)
        self._counted = moment

    def _close(self, stopped: str, code: int) -> int:
        begun = now()
        self._count(begun)
        self._hold(None, begun)
        for pid in children():
            self._use(pid, begun)
        code = super()._close(stopped, code)
        self._use(os.getpid(), now())
        self._spans.add(Kind.CLOSE, begun, now())
        return code

    def _use(self, pid: int, moment: int) -> None:
        """What a process has used so far, unless the system does not say."""
        ticks = cpu_ticks(pid)
        if ticks is not None:
            ns = ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
            self._spans.add(Kind.USED, moment, moment, pid, ns, _calls(pid))


def _calls(pid: int) -> int:
    """Reads and writes of a process; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(": ") for line in lines)
    return int(counts["syscr"]) + int(counts["syscw"])


if __name__ == "__main__":
    sys.exit(supervisor.main(ProfiledSupervisor))
