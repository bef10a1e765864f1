"""Resumption: beginnings with a past: a run that goes on, a fork, one that is played again.

The sequencer is replayed from the record and compared with it, entry by entry; agents and the
inference process are brought to the same moment by the supervisor, as after an accident. From
there on the run is live; of one that is only played again, it is the end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lockstep.engine import actions
from lockstep.engine.changes import change
from lockstep.engine.errors import UsageError
from lockstep.engine.fallback import fallbacks
from lockstep.engine.fleet import Fleet
from lockstep.engine.history import Entry
from lockstep.engine.outside import Outside
from lockstep.engine.past import Past
from lockstep.engine.replay import Replay
from lockstep.engine.sequencer import Sequencer
from lockstep.engine.tag import Tag
from lockstep.engine.trace import Trace
from lockstep.workers import folder as folders
from lockstep.workers import lineage, prepare
from lockstep.workers.beginning import Beginning, New, Note, Object, make, write_manifest
from lockstep.workers.expectation import SINCE
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import check_identity
from lockstep.workers.job import Job
from lockstep.workers.ledger import Ledger, backend_of
from lockstep.workers.prepare import Prepared


def begin(job: Job) -> Beginning:
    """What a job asks for."""
    match job.mode:
        case "resume":
            return Resumed(job)
        case "replay":
            return Played(job)
        case "fork":
            return Forked(job)
    return New(job)


class _WithPast:
    """What the three have in common: the record, and the sequencer brought to its end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._run = Path(job.past)
        self._lineage = lineage.read(self._run)
        self._entries: list[Entry] = []
        self._shown: list[actions.Output | actions.Log] = []
        self._first: list[actions.Action] = []
        self._changes: list[tuple[int, Fleet]] = []
        self.past: Past | None = self._lineage.past

    @property
    def came(self) -> Sequence[Outside]:
        """As `Beginning`."""
        assert self.past is not None
        return self.past.outside

    def models(self) -> Object | None:
        """As `Beginning`."""
        return None

    @property
    def files(self) -> tuple[dict[str, str], ...]:
        """As `Beginning`."""
        return tuple(model["path"] for model in self._lineage.identity["fleet"]["models"])

    @property
    def got(self) -> tuple[tuple[str, ...], ...]:
        """As `Beginning`."""
        reports = self._lineage.environment.get("providers", [])
        return tuple(tuple(report["got"]) for report in reports)

    @property
    def seed(self) -> int | None:
        """As `Beginning`: of the run that it all began with."""
        return self._job.seed

    @property
    def past_seeds(self) -> tuple[tuple[int, int], ...]:
        """As `Beginning`."""
        before = [self._born, *(fleet for _, fleet in self._changes)]
        return tuple(
            (step, fleet.seed) for (step, _), fleet in zip(self._changes, before, strict=False)
        )

    def prepare(self) -> Prepared:
        """As `Beginning`, from the run folder; with what forks have changed since."""
        prepared = prepare.of_job(self._job, self._tools_at())
        self._born = fleet = prepared.fleet
        for cut in self._lineage.cuts:
            fleet, _ = change(fleet, cut.changes)
            self._changes.append((cut.step, fleet))
        return replace(prepared, fleet=fleet)

    def _tools_at(self) -> Path | None:
        """Folder that commands of tools are relative to; None: none is looked for."""
        return Path(str(self._lineage.first.get("folder", "")))

    def sequencer(self, prepared: Prepared) -> Sequencer:
        """As `Beginning`: at the end of the record.

        Raises:
            Diverged: it makes another history than the one that is recorded.
        """
        assert self.past is not None
        sequencer = Sequencer(self._born, prepared.items, self.past.kept)
        replay = Replay(sequencer, self.past, changes=self._changes, live=not self._job.verify_of)
        for action in replay.run():
            match action:
                case actions.Append():
                    self._entries.append(action.entry)
                case actions.Output() | actions.Log():
                    self._shown.append(action)
                case actions.Finish():
                    self._first.append(action)
        self._first += [*replay.open_calls(), *replay.beyond]
        return sequencer

    def first(self) -> Iterable[actions.Action]:
        """As `Beginning`: what the record leads to and does not have any more."""
        return self._first

    def _as_recorded(self, identity: Object) -> Object:
        """The identity, with the fork that the run is."""
        fork = self._lineage.identity.get(lineage.FORK)
        return identity if fork is None else {**identity, lineage.FORK: fork}

    def _tell(self, ledger: Ledger, fleet: Fleet) -> None:
        """Let the ledger know what is recorded, and what it had shown."""
        for entry in self._entries:
            ledger.recorded(entry)
        for action in self._shown:
            if isinstance(action, actions.Output):
                ledger.output(action.line)
            else:
                ledger.log(fleet.agents[action.agent].name, action)
        self._entries, self._shown = [], []


class Resumed(_WithPast):
    """A run that goes on in its own folder."""

    def __init__(self, job: Job) -> None:
        """Hold the folder and read it.

        Raises:
            UsageError: no run, or somebody holds it.
            JournalCorrupt, JournalVersion, Diverged: it cannot go on; nothing was changed.
        """
        self._folder = RunFolder.reopen(Path(job.past))
        super().__init__(job)

    def open(
        self, prepared: Prepared, identity: Object, environment: Object, board: str, note: Note
    ) -> tuple[RunFolder, Ledger]:
        """As `Beginning`: the ledger goes on where the record ends.

        Raises:
            Diverged, ModelRejected: what is on disk is not what was run.
        """
        identity = self._as_recorded(identity)
        for line in check_identity(self._run, self._lineage.manifest, identity, environment):
            note(f"since the run began: {line}")
        most = prepared.fleet.recovery.segment_bytes_max
        backend = backend_of(self._job.platform)
        ledger = Ledger.resume(self._folder, self._job.durability, most, backend)
        ledger.shared = self._lineage.shared
        if ledger.cut:
            note(f"{self._run}: {ledger.cut}")
        try:
            self._tell(ledger, prepared.fleet)
            lost = ledger.cut_output() if self._depends_on_outside(prepared.fleet) else 0
            if not (self._run / folders.MANIFEST).exists():  # Killed before it was written.
                recorded = {"durability": self._job.durability, **self._lineage.environment}
                write_manifest(self._folder, ledger.run_id, self._lineage.identity, recorded)
            self._folder.write_json(folders.BOARD, {"name": board})
        except OSError as error:
            raise UsageError(f"{self._run}: cannot go on: {error}") from None
        if lost:
            note(
                f"{self._run}: {lost} lines of the output had been shown and were not recorded; "
                "what came from outside then is lost, so they were cut"
            )
        return self._folder, ledger

    def _depends_on_outside(self, fleet: Fleet) -> bool:
        """Whether the run may come out in another way behind its record than it did before."""
        arrival = fleet.schedule.order == "arrival"
        return arrival or bool(fleet.tools or fleet.sources or self.came)


class Forked(_WithPast):
    """A new run with the past of another one, and something changed from a step on.

    Also the repetition of such a run (`Job.verify_of`): the past is compared as it is repeated,
    what follows is executed again.
    """

    def prepare(self) -> Prepared:
        """As `Beginning`.

        Raises:
            UsageError: something is missing or in the way, or cannot be changed; nothing was made.
        """
        job = self._job
        if job.run_dir:
            folders.check_free(Path(job.run_dir))
        prepared = super().prepare()
        shared, self._fork = self._lineage.fork(job.at, job.changes)
        if job.verify_of:  # What was kept for later is known, too.
            self._repeated = lineage.read(Path(job.verify_of))
            shared = Past(shared.entries, self._repeated.past.kept)
        self.past = shared
        # What forks of the past changed behind this cut is no part of it.
        self._changes = [(step, each) for step, each in self._changes if step <= job.at]
        fleet, _ = change(self._changes[-1][1] if self._changes else self._born, job.changes)
        self._changes.append((job.at, fleet))
        return replace(prepared, fleet=fleet)

    def open(
        self, prepared: Prepared, identity: Object, environment: Object, board: str, note: Note
    ) -> tuple[RunFolder, Ledger]:
        """As `Beginning`: a folder of its own, whose journal begins at the cut.

        Raises:
            UsageError: it cannot be made or filled; nothing is left of it.
        """
        run = self._job.verify_of
        identity = {**identity, lineage.FORK: self._fork}
        if run:
            manifest = self._repeated.manifest
            for line in check_identity(Path(run), manifest, identity, environment):
                note(SINCE + line)
        environment = {
            **environment,
            "seed": self._born.seed,
            "folder": self._lineage.first.get("folder", ""),
            lineage.PARENT: str(self._run.resolve()),
        }
        if self.past is not None and fallbacks(self.past.outside):
            # What it began on, as those who fork it before the change need it.
            environment["providers"] = self._lineage.environment["providers"]

        def tell(ledger: Ledger) -> None:
            assert self.past is not None
            ledger.shared = self.past
            self._tell(ledger, prepared.fleet)

        return make(self._job, prepared, identity, environment, board, tell)


class Played(_WithPast):
    """A run that is played again from its record, without the model, into a folder of no use."""

    def prepare(self) -> Prepared:
        """As `Beginning`: what is behind ``until`` is left out."""
        if self._job.until:
            until = self._until()
            self.past = self._lineage.past.before(until)
        prepared = super().prepare()
        if self._job.until:
            self._changes = [(step, each) for step, each in self._changes if (step, 0) < until]
        return prepared

    def _tools_at(self) -> Path | None:
        return None

    def _until(self) -> Tag:
        step, _, micro = self._job.until.partition(".")
        return int(step), int(micro or 0)

    def agents(self) -> list[int]:
        """Who is executed, by index."""
        names = [agent.name for agent in self._born.agents]
        return [names.index(self._job.only)] if self._job.only else list(range(len(names)))

    def trace(self) -> Iterator[str]:
        """Every turn of theirs as text, in the order in which they began."""
        assert self.past is not None
        text = Trace(self._born)
        turns = [
            (turn.tag, agent, turn) for agent in self.agents() for turn in self.past.turns(agent)
        ]
        for _, agent, turn in sorted(turns, key=lambda each: each[:2]):
            yield from text.turn(agent, turn)

    def models(self) -> Object | None:
        """As `Beginning`: as they are recorded."""
        recorded = self._lineage.identity["fleet"]["models"]
        providers = self._lineage.environment.get("providers", [])
        classes = self._lineage.environment.get("classes", {})
        pairs = zip(recorded, providers, strict=True)
        return {
            "models": [
                {"files": m["path"], "provider": p, "class": classes.get(m["name"], "")}
                for m, p in pairs
            ],
            "notes": [],
        }

    def open(
        self, prepared: Prepared, identity: Object, environment: Object, board: str, note: Note
    ) -> tuple[RunFolder, Ledger]:
        """As `Beginning`.

        Raises:
            Diverged: what is on disk is not what was run.
        """
        identity = self._as_recorded(identity)
        check_identity(self._run, self._lineage.manifest, identity, environment)
        tell = partial(self._tell, fleet=prepared.fleet)
        return make(self._job, prepared, identity, environment, board, tell)
