"""What a step must read is what the model's file holds; the probe reads."""

from typing import Any

import pytest

pytest.importorskip("onnx")

from lockstep.bench.bandwidth import Probe, step_bytes
from lockstep.bench.decoder_graph import build
from lockstep.bench.decoder_shape import DecoderShape, random_weights

SIZES: dict[str, Any] = {
    "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate": 96,
    "vocab": 320, "context_tokens": 32,
}  # fmt: skip


@pytest.mark.parametrize("bits", [4, 32])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_step_reads_every_matrix_of_the_file_once(bits: int, tied: bool) -> None:
    sizes = SIZES | {"weight_bits": bits, "tied_embeddings": tied}
    shape = DecoderShape(**sizes)
    graph = build(shape, random_weights(shape, 0)).graph
    read = {name for node in graph.node if "MatMul" in node.op_type for name in node.input}
    held = sum(len(tensor.raw_data) for tensor in graph.initializer if tensor.name in read)
    assert step_bytes(sizes, 0) == held > 0


def test_a_step_reads_the_keys_and_values_of_what_was_said() -> None:
    kept = step_bytes(SIZES, 10) - step_bytes(SIZES, 0)
    assert kept == 10 * 2 * (2 * 2 * 16) * 4  # Layers, keys and values, heads, sizes, float32.


@pytest.mark.parametrize("threads", [1, 3])
def test_the_probe_reads_its_buffer_with_every_thread(threads: int) -> None:
    with Probe(threads, buffer_bytes=1 << 20) as probe:
        assert len(probe._parts) == threads
        assert sum(part.nbytes for part in probe._parts) == 1 << 20
        assert probe.bytes_per_s() > 0
