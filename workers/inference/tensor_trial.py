"""The self-test of a graph of tensors: does it give the same bits for the same inputs?

Twice in one session, for what a graph may remember (a generator of random numbers without a seed
goes on), and once in another one.

A graph says types and shapes of its inputs and not what they mean, so inputs are made: every free
dimension has 4, or 1, whichever the graph takes first; whole numbers and truth values are 0 and 1
in turn, which are places in any table; the rest is drawn from -1 to 1. What it refuses all the same
is not tried, and no class is claimed for it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lockstep.engine import keyed
from lockstep.engine.fleet import Model
from lockstep.workers.inference.graph import Port
from lockstep.workers.inference.proofs import Proof, Proofs, subject
from lockstep.workers.inference.provider import ProviderReport, open_session
from lockstep.workers.inference.selftest import NONE, RUN, limited
from lockstep.workers.inference.tensor_folder import TensorFolder
from lockstep.workers.inference.tensors import DTYPES, Array

FREE = (4, 1)  # Elements of a free dimension.
ELEMENTS_MAX = 1 << 20  # Of an input; a larger one is not tried.


def proven(
    folder: TensorFolder,
    model: Model,
    session: Any,
    report: ProviderReport,
    proofs: Proofs,
    limit_s: float,
) -> str:
    """The class of a graph: as it was proven before, or proven now; empty: it could not be tried.

    Args:
        folder: Open.
        model: Its providers.
        session: Of it. One more is opened and closed.
        report: Of that session.
        proofs: What was proven before.
        limit_s: Seconds that the runs may take; 0: any number.

    Raises:
        ModelRejected: it takes longer.
    """
    key = {**subject(folder.identity(), model), "kind": model.kind}
    found = proofs.find(key)
    if found is not None and found.got == report.got and found.proven in (NONE, RUN):
        return found.proven
    with limited(folder, limit_s) as options:
        tried = _tried(folder, model, session, options)
    if tried:
        proofs.keep(key, Proof(tried, report.got))
    return tried


def _tried(folder: TensorFolder, model: Model, session: Any, options: Any) -> str:
    for free in FREE:
        inputs = inputs_of(folder.graph.inputs, free)
        outputs = None if inputs is None else _outputs(session, inputs, options)
        if outputs is not None:
            other, _ = open_session(
                folder, model.providers, model.require or None, model.intra_op_threads
            )
            same = all(_outputs(each, inputs, options) == outputs for each in (session, other))
            return RUN if same else NONE
    return ""


def inputs_of(ports: Sequence[Port], free: int) -> dict[str, Array] | None:
    """Inputs for a graph, the same on every machine; None: one would be too large."""
    made = {}
    for port in ports:
        shape = tuple(free if isinstance(size, str) else size for size in port.shape)
        count = math.prod(shape)
        if count > ELEMENTS_MAX:
            return None
        dtype = DTYPES[port.dtype]
        values: Array = np.arange(count) % 2
        if dtype.kind == "f":
            stream = keyed.key(0, "tensor trial", port.name)
            words = np.frombuffer(keyed.fill(stream, 0, count * 4), "<i4")
            values = words.astype(np.float64) / float(1 << 31)
        made[port.name] = values.astype(dtype).reshape(shape)
    return made


def _outputs(session: Any, inputs: Any, options: Any) -> list[bytes] | None:
    """The bits of all outputs; None: the graph does not take these inputs."""
    try:
        return [output.tobytes() for output in session.run(None, inputs, options)]
    except Exception:  # Its exceptions have no common base below Exception.
        if options.terminate:
            raise
        return None
