"""Captured steps: what CUDA graphs ask of whoever binds and runs.

A captured run is repeated by the device with the addresses that it was captured with. So every
tensor of it lies on the device, at an address that never changes: keys and values do, ids and mask
are copied into place before a run (feed.py), and logits land in one buffer there and are fetched
behind it. Each slot range is a graph of its own, by number; a chunk of prefill, whose length
changes, is not captured.

The first run of a range is made more than once, to warm up and to capture. That is harmless: it
writes the same keys and values to the same places.
"""

from typing import Any

from lockstep.workers.inference.ort import ort

GRAPH_ID = "gpu_graph_id"  # Of a run's configuration; the number names a graph for ever.
NOT_CAPTURED = "-1"
FIRST_ID = 1  # 0 is what ONNX Runtime takes where nothing is said.


class Captured:
    """Numbers of graphs. Where no device captures, they do nothing."""

    def __init__(self) -> None:
        self._next = FIRST_ID

    def options(self, captured: bool) -> Any:
        """Options of the runs of one binding: the next graph, or none."""
        options = ort.RunOptions()
        number = NOT_CAPTURED
        if captured:
            number, self._next = str(self._next), self._next + 1
        options.add_run_config_entry(GRAPH_ID, number)
        return options
