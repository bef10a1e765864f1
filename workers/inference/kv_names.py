"""What a graph calls its keys and values, found by looking at its ports.

Exporters name them ``past_key_values.0.key`` and ``present.0.key``, or ``past_key_0``, or as they
like. A tensor of four dimensions whose name has a number and the word "key" or "value" in it is one
of a layer; the number is the layer.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.graph import Graph, Port

NUMBERED = re.compile(r"^([^0-9]*)([0-9]{1,4})([^0-9]*)$")


class KvNames(NamedTuple):
    """Names with ``%d`` for the layer, and how many layers there are."""

    past_key: str
    past_value: str
    present_key: str
    present_value: str
    layers: int


def find_kv(graph: Graph, file: str) -> KvNames:
    """The names of a graph's keys and values.

    Raises:
        ModelRejected: it has none, several sets, or layers are missing.
    """
    past_key, past_value, first = _pair(graph.inputs, "input", file)
    present_key, present_value, second = _pair(graph.outputs, "output", file)
    if first != second:
        raise ModelRejected(f"{file}: {first} layers of keys go in and {second} come out")
    return KvNames(past_key, past_value, present_key, present_value, first)


def at(form: str, layer: int) -> str:
    """The tensor name of a layer. The form comes with the model: no formatting operator."""
    return form.replace("%d", str(layer))


def _pair(ports: Sequence[Port], what: str, file: str) -> tuple[str, str, int]:
    """Form of the keys, form of the values, number of layers."""
    forms: dict[str, set[int]] = {}
    for port in ports:
        found = NUMBERED.match(port.name)
        if found and len(port.shape) == 4 and _part(port.name):
            forms.setdefault(f"{found[1]}%d{found[3]}", set()).add(int(found[2]))
    keys = sorted(form for form in forms if _part(form) == "key")
    values = sorted(form for form in forms if _part(form) == "value")
    if len(keys) != 1 or len(values) != 1:
        have = ", ".join(sorted(forms)) or "none"
        raise ModelRejected(
            f"{file}: {what}s for keys and values are {have:.300}; expected one for keys and one "
            f"for values, as of a decoder that was exported with its past"
        )
    layers = forms[keys[0]]
    if layers != forms[values[0]] or layers != set(range(len(layers))):
        raise ModelRejected(
            f"{file}: {what} {keys[0]} is there for layers {sorted(layers)}, {values[0]} for "
            f"{sorted(forms[values[0]])}; expected all layers from 0 on"
        )
    return keys[0], values[0], len(layers)


def _part(name: str) -> str:
    """ "key", "value" or "": the last of the words counts, as in past_key_values.0.key."""
    key, value = name.rfind("key"), name.rfind("value")
    return "" if key == value else "key" if key > value else "value"
