"""Requests to models that are no decoders: named tensors in and out, or texts to embed.

``{"inputs": {name: tensor}, "outputs": [names], "encoding": "list" | "base64"}`` runs the graph
once. ``{"input": text or texts, "dimensions": n, "encoding": ...}`` asks a text model for one
vector a text, with OpenAI's names. Besides: model, priority, timeout_steps, as any request.
"""

from dataclasses import dataclass
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.settings import nearest
from lockstep.workers.inference.fields import wrong
from lockstep.workers.inference.tensors import ENCODINGS

TEXTS_MAX = 2048  # Of one request, as OpenAI allows.
COMMON = ("model", "priority", "timeout_steps", "encoding")
TENSORS = ("inputs", "outputs")
EMBEDDING = ("input", "dimensions")


@dataclass(frozen=True, slots=True)
class TensorRequest:
    """A request for one run of a graph, or for vectors.

    Attributes:
        inputs: Tensors as they were written, by name; None: ``texts`` are to be embedded.
        outputs: Names; empty: all.
        texts: To embed, in order.
        dimensions: Leading ones of each vector; 0: all.
        encoding: Of the tensors in the answer.
    """

    inputs: Any = None
    outputs: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    dimensions: int = 0
    encoding: str = "list"


def parse_tensor_request(found: dict[str, Any]) -> TensorRequest:
    """The request in a JSON object; what all requests have in common was read before.

    Raises:
        RequestRejected: an unknown key, both forms or neither, a value of the wrong type.
    """
    known = (*COMMON, *TENSORS, *EMBEDDING)
    for key in found:
        if key not in known:
            raise RequestRejected(f"request: key {key!r:.80} is unknown{nearest(key[:80], known)}")
    tensors = [key for key in TENSORS if key in found]
    texts = [key for key in EMBEDDING if key in found]
    if ("inputs" in found) == ("input" in found) or (tensors and texts):
        raise RequestRejected("request: expected one of inputs (tensors) and input (texts)")
    encoding = found.get("encoding", "list")
    if encoding not in ENCODINGS:
        raise wrong("encoding: ", encoding, f", expected {' or '.join(ENCODINGS)}")
    if "inputs" in found:
        return TensorRequest(
            found["inputs"], outputs=_names(found.get("outputs", [])), encoding=encoding
        )
    dimensions = found.get("dimensions", 0)
    if type(dimensions) is not int or ("dimensions" in found and dimensions < 1):
        raise wrong("dimensions: ", dimensions, ", expected a whole number from 1")
    return TensorRequest(texts=_texts(found["input"]), dimensions=dimensions, encoding=encoding)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise wrong("outputs: ", value, ", expected a list of names")
    if len(set(value)) != len(value):
        raise RequestRejected("outputs: a name is there twice")
    return tuple(value)


def _texts(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 1 <= len(texts) <= TEXTS_MAX:
        raise wrong("input: ", value, f", expected a text or 1 to {TEXTS_MAX} of them")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise wrong(f"input[{number}]: ", text, ", expected text, not empty")
    return tuple(texts)
