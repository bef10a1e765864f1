"""An int64 input of a graph in memory that never moves: bound once, written before each run."""

from typing import Any

import numpy as np

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
