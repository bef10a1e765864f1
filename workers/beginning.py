"""Beginnings: how a run begins. Here: a new one; workers/resumption.py has those with a past.

A beginning makes the sequencer, and opens the folder and the ledger; from its first actions on,
every run is the same loop (workers/supervisor.py).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lockstep.engine import actions
from lockstep.engine.errors import JournalError, UsageError
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import Outside
from lockstep.engine.past import Past
from lockstep.engine.sequencer import Sequencer
from lockstep.workers import folder as folders
from lockstep.workers import prepare
from lockstep.workers.expectation import SINCE
from lockstep.workers.folder import RunFolder
from lockstep.workers.identity import check_identity, kept_records, read_journal, read_manifest
from lockstep.workers.job import Job
from lockstep.workers.ledger import Backend, Ledger, backend_of
from lockstep.workers.prepare import Prepared

Note = Callable[[str], None]
Object = dict[str, Any]


class Beginning(Protocol):
    """What the supervisor asks, in this order.

    Attributes:
        past: What was recorded before; None: nothing, the run is new.
    """

    past: Past | None

    @property
    def came(self) -> Sequence[Outside]:
        """Outside events in the past."""

    @property
    def seed(self) -> int | None:
        """Seed that the agents' guests draw by; None: the fleet's."""

    @property
    def files(self) -> tuple[dict[str, str], ...]:
        """Hashes of the models' files by name, as recorded; empty: nothing is."""

    @property
    def got(self) -> tuple[tuple[str, ...], ...]:
        """Providers of each model, as recorded; empty: nothing is."""

    @property
    def past_seeds(self) -> tuple[tuple[int, int], ...]:
        """(step, seed): that the steps below it were sampled with, where it was another one."""

    def prepare(self) -> Prepared:
        """Read and check what the run is made from."""

    def sequencer(self, prepared: Prepared) -> Sequencer:
        """The sequencer, as far as the record goes."""

    def models(self) -> Object | None:
        """What a process that loaded the models would have said; None: load them."""

    def open(
        self, prepared: Prepared, identity: Object, environment: Object, board: str, note: Note
    ) -> tuple[RunFolder, Ledger]:
        """The run folder, held, and its ledger."""

    def first(self) -> Iterable[actions.Action]:
        """What the sequencer wants done first."""


class New:
    """A run that was not there before; also one that repeats another (`Job.verify_of`)."""

    past: Past | None = None
    came: Sequence[Outside] = ()
    seed: int | None = None
    past_seeds: tuple[tuple[int, int], ...] = ()
    files: tuple[dict[str, str], ...] = ()
    got: tuple[tuple[str, ...], ...] = ()

    def __init__(self, job: Job, backend: Backend | None = None) -> None:
        """Nothing is read yet.

        Args:
            job: What to run.
            backend: What the ledger stands on; None: what is usual here.
        """
        self._job, self._backend = job, backend

    def prepare(self) -> Prepared:
        """As `Beginning`.

        Raises:
            UsageError: something is missing or in the way; nothing was made.
        """
        job = self._job
        wanted = Path(job.run_dir) if job.run_dir else None
        if wanted is not None:
            folders.check_free(wanted)
        if job.output:
            made_from = [Path(job.fleet), *([job.input_path] if job.input_path else [])]
            folders.check_output(Path(job.output), made_from)
        return prepare.of_job(job)

    def sequencer(self, prepared: Prepared) -> Sequencer:
        """As `Beginning`: it has not started."""
        recorded = None
        if self._job.verify_of:
            run = Path(self._job.verify_of)
            journal = read_journal(run)
            self._manifest = read_manifest(journal, run)
            recorded = kept_records(journal, run)
        self._sequencer = Sequencer(prepared.fleet, prepared.items, recorded)
        return self._sequencer

    def models(self) -> Object | None:
        """As `Beginning`."""
        return None

    def open(
        self, prepared: Prepared, identity: Object, environment: Object, board: str, note: Note
    ) -> tuple[RunFolder, Ledger]:
        """As `Beginning`: a folder of its own, filled.

        Raises:
            UsageError: it cannot be made or filled; nothing is left of it.
            Diverged, ModelRejected: it is not what is to be repeated.
        """
        run = self._job.verify_of
        if run:
            for line in check_identity(Path(run), self._manifest, identity, environment):
                note(SINCE + line)
        return make(self._job, prepared, identity, environment, board, backend=self._backend)

    def first(self) -> Iterable[actions.Action]:
        """As `Beginning`: everybody starts."""
        self._sequencer.start()
        return self._sequencer.pump()


def lacks_input(job: Job, fleet: Fleet, takes_input: bool) -> bool:
    """Whether some agent would be given items (``takes_input``), and there will be none."""
    streams = any(not source.to for source in fleet.sources)
    return job.input_path is None and not streams and takes_input


def make(
    job: Job,
    prepared: Prepared,
    identity: Object,
    environment: Object,
    board: str,
    tell: Callable[[Ledger], None] = lambda _: None,
    backend: Backend | None = None,
) -> tuple[RunFolder, Ledger]:
    """Make the folder of a run, with what it is made from, and begin its ledger.

    Args:
        job: Where, and how durable.
        prepared: What it is made from.
        identity: What it is.
        environment: What it runs on.
        board: Name of the board.
        tell: Tells the ledger what was recorded before.
        backend: What the ledger stands on; None: what is usual here.

    Raises:
        UsageError: it cannot be made or filled; nothing is left of it.
    """
    wanted = Path(job.run_dir) if job.run_dir else None
    folder = RunFolder.create(wanted, Path(job.base), prepared.fleet.name)
    try:
        backend = backend or backend_of(job.platform)
        ledger = _fill(
            folder, prepared, identity, {**environment, "durability": job.durability}, backend
        )
        tell(ledger)
        folder.write_json(folders.BOARD, {"name": board})
    except (OSError, JournalError) as error:
        folder.remove()
        raise UsageError(
            f"{folder.path}: cannot fill the run folder: {error}; it was removed"
        ) from None
    return folder, ledger


def _fill(
    folder: RunFolder, prepared: Prepared, identity: Object, environment: Object, backend: Backend
) -> Ledger:
    folder.write(folders.FLEET, prepared.fleet_bytes)
    folder.write(folders.INPUT, prepared.input_bytes or b"")
    for group, module in zip(prepared.fleet.groups, prepared.modules, strict=True):
        folder.write(f"modules/{group.name}.wasm", module)
    segment_bytes_max = prepared.fleet.recovery.segment_bytes_max
    durability = environment["durability"]
    ledger = Ledger.create(folder, durability, identity, environment, segment_bytes_max, backend)
    write_manifest(folder, ledger.run_id, identity, environment)
    return ledger


def write_manifest(folder: RunFolder, run_id: bytes, identity: Object, environment: Object) -> None:
    """What the run is and what it runs on, for people. Raises OSError."""
    value = {"run_id": run_id.hex(), "identity": identity, "environment": environment}
    folder.write_json(folders.MANIFEST, {**value, "durability": environment["durability"]})
