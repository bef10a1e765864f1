"""generation_config.json: what a model's makers would sample it with. Never taken silently.

It counts for requests that say ``"defaults": "model"``, and only for what they do not say
themselves. Read as transformers reads it: without ``do_sample`` a model is greedy, whatever else
stands there; with it and without a temperature, that is 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.strict_json import loads
from lockstep.workers.inference.fields import Fields
from lockstep.workers.inference.sampling import Sampling, read_sampling

FILE = "generation_config.json"
TAKEN = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
SHOWN = ("do_sample", *TAKEN)


@dataclass(frozen=True, slots=True)
class Generation:
    """What the file says.

    Attributes:
        values: Those of its values that requests can ask for, checked: `TAKEN` by name.
        shown: As they stand there, for people: `SHOWN`.
        error: Why the values cannot be taken; empty: they can.
        old: As runs of older rules say that.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    old: str = ""

    def over(self, sampling: Sampling) -> Sampling:
        """A request's parameters, the rest from the file.

        Raises:
            RequestRejected: there is no such file, or a value in it is out of range.
        """
        if self.error:
            why = 'defaults: "model", but '
            raise RequestRejected(why + self.error, why + (self.old or self.error))
        return sampling.over(self.values)


def read_generation(data: bytes | None) -> Generation:
    """The file as read; what is wrong with it is kept for those who ask for its values.

    Args:
        data: Its bytes; None: the folder has none.
    """
    if data is None:
        return Generation(error=f"the model has no {FILE}")
    try:
        found = loads(data)
    except ValueError as error:
        return Generation(error=f"its {FILE} is not valid JSON: {error}")
    if not isinstance(found, dict):
        return Generation(error=f"its {FILE} is no JSON object")
    shown = {name: found[name] for name in SHOWN if found.get(name) is not None}
    try:
        return Generation(_values(shown), shown)
    except RequestRejected as error:
        where = f"in its {FILE} "
        return Generation(shown=shown, error=f"{where}{error}", old=f"{where}{error.old}")


def generation_facts(data: bytes | None) -> dict[str, Any]:
    """What `lockstep model inspect` says of the file, JSON-able.

    ``values`` are there and not taken, unless a request asks for them; ``error`` is why it cannot.
    """
    read = read_generation(data)
    return {"values": dict(read.shown), "error": read.error}


def _values(shown: dict[str, Any]) -> dict[str, float]:
    fields = Fields(shown)
    read = read_sampling(fields)
    if not fields.flag("do_sample"):
        return {"temperature": 0.0, **_penalty(read, shown)}
    values = {name: getattr(read, name) for name in TAKEN if name in shown}
    return {"temperature": 1.0} | values


def _penalty(read: Sampling, shown: dict[str, Any]) -> dict[str, float]:
    """Greedy tokens depend on it, too."""
    name = "repetition_penalty"
    return {name: read.repetition_penalty} if name in shown else {}
