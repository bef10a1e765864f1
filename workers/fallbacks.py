"""Fallbacks: models that go on on the CPU because their provider failed (`fallback = true`).

Live, a failure becomes an outside event before the next process of inference starts (rule 8). A
run that repeats another changes where the record does: no step from there on is granted until the
process was started anew. Both ways the new one makes the keys and values that the slots hold from
the record, on its own provider (workers/inference/relive.py), and computes what follows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from lockstep.engine.fallback import Fallback
from lockstep.engine.fleet import Fleet
from lockstep.engine.outside import What
from lockstep.engine.sequencer import Sequencer
from lockstep.workers.folder import MANIFEST, RunFolder
from lockstep.workers.inference.spec import InferenceSpec

CPU = "cpu"
_CLASSES = ("none", "run", "batch-invariant")  # As workers/inference/selftest.py has them.


class Bring(Protocol):
    """As `outside.gate.Gate.bring`."""

    def __call__(self, what: What, source: int, payload: bytes = b"") -> None:
        """An event arrived."""


class Fallbacks:
    """What of a run's models went on elsewhere, and what may.

    Args:
        fleet: That runs.
        sequencer: Knows the changes of the record, and is bound by those that are to come.
        bring: Takes an event in.
        live: The run is live; else it makes the changes of its record, and no others.
        got: Providers that each model had in the past; none: there was none.
        told: Called with each change that is made, as a line for people.

    Attributes:
        made: Changes so far, in order.
    """

    def __init__(
        self,
        fleet: Fleet,
        sequencer: Sequencer,
        bring: Bring,
        *,
        live: bool,
        got: Sequence[Sequence[str]] = (),
        told: Callable[[str], None],
    ) -> None:
        self._fleet, self._sequencer, self._bring = fleet, sequencer, bring
        self._live, self._told = live, told
        ahead = sequencer.horizon.next_change
        self.made = [
            each for each in sequencer.horizon.fallbacks if not ahead or each.step < ahead.step
        ]
        self._running = {number: providers[0] for number, providers in enumerate(got)}
        self._classes: list[str] = []

    def loaded(self, models: Sequence[dict[str, Any]]) -> None:
        """What a process of inference said of its models (`Loading.said`)."""
        self._running = {n: model["provider"]["got"][0] for n, model in enumerate(models)}
        found = [model.get("class", "") for model in models]
        self._classes = [_weaker(*pair) for pair in zip(self._classes or found, found, strict=True)]

    @property
    def due(self) -> bool:
        """Whether the record changes a provider at the step that comes next."""
        change = self._sequencer.horizon.next_change
        return change is not None and change.step <= self._sequencer.step + 1

    def repeat(self) -> None:
        """Make the changes that are `due`."""
        step = self._sequencer.step + 1
        for each in self._sequencer.horizon.fallbacks:
            if each.step == step:
                self._make(each)
        self._sequencer.horizon.changed(step)

    @property
    def allowed(self) -> list[int]:
        """Models that may fall back: not on the CPU yet, and the fleet says so."""
        there = {each.model for each in self.made}
        there.update(number for number, provider in self._running.items() if provider == CPU)
        models = enumerate(self._fleet.models) if self._live else ()
        return [number for number, model in models if model.fallback and number not in there]

    def failed(self, cause: str, model: int | None = None) -> bool:
        """A provider failed: take it in if the fleet allows it; whether it does.

        Args:
            cause: What was said of it.
            model: Whose; None: nobody knows, so it is that of every model which may fall back.
        """
        able = [number for number in self.allowed if model in (None, number)]
        for number in able:
            left = self._running.get(number, self._fleet.models[number].providers[0])
            found = Fallback(number, self._sequencer.step + 1, left, CPU, cause)
            self._bring(What.PROVIDER, number, found.payload())
            self._make(found)
        return bool(able)

    def _make(self, change: Fallback) -> None:
        self.made.append(change)
        self._told(self.line(change))

    def applied(self, spec: InferenceSpec) -> InferenceSpec:
        """What a process is given that goes on elsewhere."""
        models, got = list(spec.models), list(spec.got)
        since = list(spec.since) or [0] * len(models)
        for each in self.made:
            models[each.model] = replace(
                models[each.model], providers=(each.to,), require="", cuda_graphs="off"
            )
            since[each.model] = each.step
            if got:
                got[each.model] = (each.to,)
        return replace(spec, models=tuple(models), got=tuple(got), since=tuple(since))

    # -- for people -----------------------------------------------------------------------------

    def line(self, change: Fallback) -> str:
        """One change in one line."""
        name = self._fleet.models[change.model].name
        return (
            f"model {name} goes on on {change.to} from step {change.step} on, recorded as an "
            f"outside event: {change.left} failed: {change.cause}"
        )

    @property
    def moved(self) -> dict[str, str]:
        """Where models are now that have moved, by name."""
        return {row["model"]: row["to"] for row in self.table()}

    def book(self, folder: RunFolder, note: Callable[[str], None]) -> None:
        """Say in the manifest what its providers do not: where models went on, since when."""
        if not self.made:
            return
        try:
            folder.amend_json(MANIFEST, {"fallbacks": self.table()})
        except (OSError, ValueError) as error:
            note(f"{folder.path}: {MANIFEST} was not amended: {error}")

    def table(self) -> list[dict[str, Any]]:
        """Every change, for summary and manifest."""
        names = [model.name for model in self._fleet.models]
        return [
            {
                "model": names[each.model],
                "step": each.step,
                "from": each.left,
                "to": each.to,
                "cause": each.cause,
            }
            for each in self.made
        ]

    @property
    def providers(self) -> str:
        """Where the models ran: each in one piece, whatever they changed to."""
        ran = dict(self._running)
        ran.update((each.model, each.providers) for each in self.made)
        return ", ".join(dict.fromkeys(ran[number] for number in sorted(ran))) or "none"

    @property
    def classes(self) -> dict[str, str]:
        """What was proven of each model; of one that changed, what holds before and behind."""
        names = [model.name for model in self._fleet.models]
        return dict(zip(names, self._classes, strict=True))


def _weaker(one: str, other: str) -> str:
    """Of two classes; one that nobody named leaves the other."""
    known = [name for name in (one, other) if name in _CLASSES]
    return min(known, key=_CLASSES.index, default=one or other)
