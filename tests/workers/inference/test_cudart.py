"""Copies on a device: the pieces that are asked for, with host memory in place of the device's."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lockstep.engine.errors import ProviderMissing
from lockstep.workers.inference import cudart
from lockstep.workers.inference.kv import KvSlab
from lockstep.workers.inference.model import ModelFolder


def pieces(to: Any, pitch: Any, source: Any, its: Any, width: Any, height: Any, kind: Any) -> int:
    """cudaMemcpy2D on host memory."""
    assert kind.value == 4
    for row in range(height.value):
        start = to.value + row * pitch.value
        ctypes.memmove(start, source.value + row * its.value, width.value)
    return 0


@pytest.mark.parametrize("pair", [(0, 2), (1, 3), (4, 0), (4, 3)])
def test_the_same_bytes_are_copied_as_on_the_cpu(
    fp32: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[int, int]
) -> None:
    waited: list[int] = []
    library = SimpleNamespace(
        cudaMemcpy2D=pieces, cudaDeviceSynchronize=lambda: waited.append(0) or 0
    )
    monkeypatch.setattr(cudart, "library", lambda: library)
    folder = ModelFolder.open(fp32)
    folder.close()
    here, there = (KvSlab(folder.facts, 3, 8, kept=2) for _ in range(2))
    rng = np.random.default_rng(1)
    for slot in range(5):
        view = here.tokens(slot, 0, 8)
        view[:] = rng.random(view.shape)
        there.tokens(slot, 0, 8)[:] = view
    here.copy(*pair, 2, 5)
    there._copy_on_device(*pair, 2, 5)
    for slot in range(5):
        same = here.tokens(slot, 0, 8).tobytes()
        assert there.tokens(slot, 0, 8).tobytes() == same
    assert waited


def test_a_machine_without_the_library_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudart, "NAMES", ("libcudart.so.none",))
    cudart.library.cache_clear()
    with pytest.raises(ProviderMissing, match=r"libcudart.so.none is loaded; set rows_kept = 0"):
        cudart.copy(0, 0, 0, 0, 0)


def test_what_the_library_refuses_is_told_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(cudaDeviceSynchronize=lambda: 700)
    monkeypatch.setattr(cudart, "library", lambda: library)
    with pytest.raises(ProviderMissing, match="cudart says error 700"):
        cudart.wait()
