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

from lockstep.engine.errors import UsageError
from lockstep.workers.inference.ort import ort

GRAPH_ID = "gpu_graph_id"  # Of a run's configuration; the number names a graph for ever.
NOT_CAPTURED = "-1"
FIRST_ID = 1  # 0 is what ONNX Runtime takes where nothing is said.


class Captured:
    """Numbers of graphs, and where logits land.

    Args:
        device: As ONNX Runtime's Python half calls it; "cpu" works and captures nothing.
        size: Logits of the largest step.
        kind: Their type.
        last_only: Logits are of the last position alone: those of a chunk would not fit.
    """

    def __init__(self, device: str, size: int, kind: Any, last_only: bool) -> None:
        if not last_only:
            raise UsageError(
                "CUDA graphs need a model whose end is recognised, so that its logits are those of "
                "the last position: `lockstep model inspect` shows its shape"
            )
        self._device, self._kind = device, kind
        self._buffer = ort.OrtValue.ortvalue_from_shape_and_type([size], kind, device, 0)
        self._next = FIRST_ID

    def options(self, captured: bool) -> Any:
        """Options of the runs of one binding: the next graph, or none."""
        options = ort.RunOptions()
        number = NOT_CAPTURED
        if captured:
            number, self._next = str(self._next), self._next + 1
        options.add_run_config_entry(GRAPH_ID, number)
        return options

    def land(self, io: Any, name: str, shape: list[int]) -> Any:
        """Bind the output ``name`` to the buffer; the value to fetch after a run."""
        address = int(self._buffer.data_ptr())
        io.bind_output(name, self._device, 0, self._kind, shape, address)
        return next(value for value in io.get_outputs() if int(value.data_ptr()) == address)
