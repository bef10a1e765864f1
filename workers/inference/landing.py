"""Landing: outputs that stay where they are computed, at one address, until somebody asks."""

from typing import Any

from lockstep.workers.inference.ort import ort


class Landing:
    """A buffer for one output of every run.

    Args:
        device: As ONNX Runtime's Python half calls it.
        size: Numbers of the largest run.
        kind: Their type.
    """

    def __init__(self, device: str, size: int, kind: Any) -> None:
        self._device, self._kind = device, kind
        self._buffer = ort.OrtValue.ortvalue_from_shape_and_type([size], kind, device, 0)

    def bind(self, io: Any, name: str, shape: list[int]) -> Any:
        """Bind the output ``name``; the value to fetch behind a run, valid until the next one."""
        address = int(self._buffer.data_ptr())
        io.bind_output(name, self._device, 0, self._kind, shape, address)
        return next(value for value in io.get_outputs() if int(value.data_ptr()) == address)
