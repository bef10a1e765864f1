"""Captured steps: what CUDA graphs ask of whoever binds and runs.

A captured run is repeated by the device with the addresses that it was captured with. So every
tensor of it lies on the device, at an address that never changes: keys and values do, ids and mask
are copied into place before a run (feed.py), and logits land in one buffer there and are fetched
behind it. Each slot range is a graph of its own, whose number follows from the range: so there are
only so many, and a range that is bound anew finds its graph, whose addresses are the same. A chunk
of prefill, whose length changes, is not captured.

The first run of a range is made more than once, to warm up and to capture. That is harmless: it
writes the same keys and values to the same places.
"""

from typing import Any

from lockstep.workers.inference.ort import ort

GRAPH_ID = "gpu_graph_id"  # Of a run's configuration; the number names a graph for ever.
NOT_CAPTURED = -1
FIRST_ID = 1  # 0 is what ONNX Runtime takes where nothing is said.


def graph_of(first: int, count: int, rows: int) -> int:
    """The graph of a slot range, among ``rows`` slots."""
    return FIRST_ID + first * rows + count - 1


def options(graph: int = NOT_CAPTURED, of: Any = None) -> Any:
    """Options of runs that are captured as a graph, or are not; ``of``: these, and that besides."""
    made = ort.RunOptions() if of is None else of
    made.add_run_config_entry(GRAPH_ID, str(graph))
    return made
