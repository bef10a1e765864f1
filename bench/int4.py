"""Four-bit weights as onnxruntime's ``MatMulNBits`` takes them: blocks of 32 along the inputs.

Symmetric: a block's values are ``(q - 8) * scale`` with q from 0 to 15. The layout is that of the
operator's documentation (contrib operators of ONNX Runtime, MatMulNBits): two values per byte,
the lower half first.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

BITS = 4
BLOCK = 32
ZERO = 8  # The value that stands for 0 where no zero points are given.


def quantise(matrix: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Pack a matrix.

    Args:
        matrix: Of shape (out, in); ``in`` is a multiple of `BLOCK`.

    Returns:
        uint8 of shape (out, in / 32, 16) and float32 scales of shape (out, in / 32).

    Raises:
        ValueError: ``in`` is no multiple of `BLOCK`.
    """
    out, width = matrix.shape
    if width % BLOCK:
        raise ValueError(f"{width} inputs, expected a multiple of {BLOCK}")
    blocks = np.asarray(matrix, np.float32).reshape(out, width // BLOCK, BLOCK)
    scales = np.abs(blocks).max(axis=2) / np.float32(ZERO - 1)
    steps = np.where(scales > 0, scales, np.float32(1))[:, :, None]
    values = np.clip(np.rint(blocks / steps) + ZERO, 0, 2**BITS - 1).astype(np.uint8)
    return values[:, :, 0::2] | values[:, :, 1::2] << BITS, scales


def restore(packed: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """The float32 matrix of shape (out, in) that a packed one stands for."""
    values = np.stack((packed & 15, packed >> BITS), axis=-1).reshape(*packed.shape[:2], BLOCK)
    blocks = (values.astype(np.float32) - np.float32(ZERO)) * scales[:, :, None]
    return blocks.reshape(packed.shape[0], -1)
