"""A fallback: a model goes on on another provider from a step on (rule 8, "change of provider").

An outside event like any other: numbered, with a tag where history shows it, kept before anything
follows from it. What it changes is decided by its step alone, the first that the new provider
computes: the steps before it were all reported when it was made, none behind it had begun. Pure.
"""

from collections.abc import Iterable
from typing import NamedTuple

from lockstep.engine.errors import ProtocolError
from lockstep.engine.outside import Outside, What
from lockstep.engine.strict_json import dumps, loads

CAUSE_CHARS_MAX = 400


class Fallback(NamedTuple):
    """One change.

    Attributes:
        model: Index of the model.
        step: The first that is computed on the other provider.
        left: The provider that failed, by its short name.
        to: Where the model goes on, likewise.
        cause: What was said of the failure, for people.
    """

    model: int
    step: int
    left: str
    to: str
    cause: str

    def payload(self) -> bytes:
        """What the event carries; `model` is its source."""
        said = self.cause.encode("utf-8", "replace").decode()  # Drivers say things in any bytes.
        cause = " ".join(said.split())[:CAUSE_CHARS_MAX]
        return dumps({"step": self.step, "from": self.left, "to": self.to, "cause": cause})

    @property
    def providers(self) -> str:
        """Where the model ran, and since when, for people."""
        return f"{self.left}, from step {self.step} on {self.to}"


def from_outside(event: Outside) -> Fallback:
    """The change that an event of kind `What.PROVIDER` is.

    Raises:
        ProtocolError: it carries none.
    """
    try:
        value = loads(event.payload)
        step, texts = value["step"], [value[key] for key in ("from", "to", "cause")]
        good = type(step) is int and step >= 0 and all(isinstance(text, str) for text in texts)
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise ProtocolError(f"OUTSIDE {event.number}: is no change of a provider")
    return Fallback(event.source, step, *texts)


def fallbacks(events: Iterable[Outside]) -> tuple[Fallback, ...]:
    """All changes of provider among outside events, in order of their steps. Raises ProtocolError.

    That need not be the order of their numbers: after a death the run may go on from an earlier
    step, and find there that the provider is gone, too.
    """
    found = (from_outside(event) for event in events if event.what == What.PROVIDER)
    return tuple(sorted(found, key=lambda each: each.step))
