"""cudart: memory of a CUDA device copied by its runtime, through ctypes.

ONNX Runtime hands out addresses of device memory and copies whole tensors only; a part of a row's
keys and values is neither. Its own runtime library is in the process already, and is the one that
is used: a second one would know nothing of the first one's memory.
"""

import ctypes
import os
from functools import cache

from lockstep.engine.errors import ProviderMissing

NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_BY_ADDRESS = 4  # cudaMemcpyDefault: which side is host memory follows from the addresses.


def copy(to: int, source: int, pitch: int, width: int, height: int) -> None:
    """Copy ``height`` pieces of ``width`` bytes, ``pitch`` bytes apart on both sides.

    Whatever ONNX Runtime does with the memory must be over: its runs are when they return. The
    copy may be under way still when this returns: `wait` for it.

    Args:
        to: Address of the first piece, of the host or of the device.
        source: Likewise, where it comes from.
        pitch: Bytes from one piece to the next.
        width: Bytes of a piece.
        height: Pieces.

    Raises:
        ProviderMissing: no runtime library is loaded, or it refuses.
    """
    size = ctypes.c_size_t
    address = ctypes.c_void_p
    _check(
        library().cudaMemcpy2D(
            address(to), size(pitch), address(source), size(pitch), size(width), size(height),
            ctypes.c_int(_BY_ADDRESS),
        )
    )  # fmt: skip


def wait() -> None:
    """Until every copy is done: the streams of ONNX Runtime do not wait for them."""
    _check(library().cudaDeviceSynchronize())


@cache
def library() -> ctypes.CDLL:
    """The runtime library of this process.

    Raises:
        ProviderMissing: none is loaded.
    """
    for name in NAMES:
        try:
            # RTLD_NOLOAD: the one that ONNX Runtime has loaded, or none.
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    raise ProviderMissing(
        f"keys and values on the device cannot be copied: none of {', '.join(NAMES)} is loaded; "
        "set rows_kept = 0 and prefix_copies = false for this model"
    )


def _check(status: int) -> None:
    if status:
        raise ProviderMissing(f"keys and values on the device: cudart says error {status}")
