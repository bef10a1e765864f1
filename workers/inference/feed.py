"""Int64 inputs of a graph in memory that never moves: bound once, written before each run."""

from typing import Any

import numpy as np

from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.ort import ort


class Feed:
    """An int64 input of fixed memory: an array to write to, and where the session reads it."""

    def __init__(self, rows: int, width: int, device: str) -> None:
        self.array = np.zeros((rows, width), np.int64)
        self._device = device
        self._copy: Any = None
        self._address = self.array.ctypes.data
        if device != "cpu":
            self._copy = ort.OrtValue.ortvalue_from_numpy(self.array, device, 0)
            self._address = int(self._copy.data_ptr())

    def bind(self, io: Any, name: str, rows: int, width: int) -> None:
        """Bind the first ``rows * width`` numbers as (rows, width)."""
        io.bind_input(name, self._device, 0, np.int64, [rows, width], self._address)

    def bind_number(self, io: Any, name: str, rank: int) -> None:
        """Bind a single number, as a scalar (``rank`` 0) or as a list of one."""
        io.bind_input(name, self._device, 0, np.int64, [1] * rank, self._address)

    def publish(self) -> None:
        """Copy to the device, where there is one."""
        if self._copy is not None:
            self._copy.update_inplace(self.array)


class Feeds:
    """What a decoder is fed besides keys and values; what a graph does not have is never bound.

    Args:
        facts: Of the model.
        devices: Input name to the device on which the session wants it.
        rows: Of a run, at most.
        tokens: Of a row, at most; a chunk may be as long.
    """

    def __init__(self, facts: ModelFacts, devices: dict[str, str], rows: int, tokens: int) -> None:
        self._facts = facts
        most = max(rows, tokens)
        self.ids = Feed(most, 1, devices[facts.input_ids])
        self.positions = Feed(most, 1, devices.get(facts.position_ids, "cpu"))
        self.mask = Feed(rows, tokens, devices.get(facts.attention_mask, "cpu"))
        self._keep = Feed(1, 1, devices.get(facts.logits_to_keep, "cpu"))
        self._keep.array[:] = 1
        self._keep.publish()

    def bind(self, io: Any, rows: int, length: int) -> None:
        """Bind ids and positions for ``length`` tokens of each of ``rows``."""
        self.ids.bind(io, self._facts.input_ids, rows, length)
        if self._facts.position_ids:
            self.positions.bind(io, self._facts.position_ids, rows, length)

    def bind_mask(self, io: Any, rows: int, width: int) -> None:
        """Bind the mask of past and new tokens."""
        if self._facts.attention_mask:
            self.mask.bind(io, self._facts.attention_mask, rows, width)

    def bind_keep(self, io: Any) -> None:
        """Bind how many positions the graph makes logits of: the last."""
        if self._facts.logits_to_keep:
            self._keep.bind_number(io, self._facts.logits_to_keep, self._facts.keep_rank)

    def publish(self) -> None:
        """Copy what was written to the device, where there is one."""
        self.ids.publish()
        self.mask.publish()
        self.positions.publish()
