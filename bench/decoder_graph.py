"""Decoder graph: a Llama-shaped ONNX model from numpy weights, as onnxruntime-genai has it.

Benchmarks and examples need models of exact sizes on machines without torch, without a download
and without an exporter. This module writes the graph that the onnxruntime-genai builder writes
for a CPU (same names, same operators, same attributes), so what is measured on it is what users of
that builder get.

Invariant: same shape and same weights give the same bytes. Nothing here reads a clock, a path,
a library version or a dict order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from lockstep.bench.decoder_shape import EMBED, HEAD, DecoderShape, rotary_tables, weight_shapes
from lockstep.bench.int4 import BITS, BLOCK, quantise

Weights = Mapping[str, npt.NDArray[Any]]
Names = Sequence[str]

IR_VERSION = 10  # Both as the builder of onnxruntime-genai 0.18 writes them.
OPSET = 22
MICROSOFT = "com.microsoft"
# Bits -> their type in a graph, and in a file.
FLOATS: dict[int, tuple[int, str]] = {
    16: (TensorProto.FLOAT16, "<f2"),
    32: (TensorProto.FLOAT, "<f4"),
}
HEAD_NODE = "lm_head.MatMul.weight"  # The same matrix as HEAD, (hidden, vocab).
ROTARY_TABLES = ("cos_cache", "sin_cache")
MASK = "/model/attn_mask_reformat/attn_mask_subgraph"
SEQLENS = f"{MASK}/Sub/Cast/output_0"
TOTAL = f"{MASK}/Gather/Cast/output_0"


def build(shape: DecoderShape, weights: Weights) -> onnx.ModelProto:
    """Build the graph with all weights inside.

    Inputs: ``input_ids`` int64 (batch, length); ``attention_mask`` int64 (batch, width), of which
    only the row sums (tokens after this run) and the width count; ``past_key_values.N.key`` and
    ``.value`` (batch, kv_heads, past, head_dim), floats. Outputs: ``logits`` (batch, length,
    vocab), floats; ``present.N.key`` and ``.value``. Past and present may share one buffer.

    Args:
        shape: The sizes.
        weights: Hugging Face names to arrays, as `weight_shapes` lists them; cast.

    Returns:
        A model of its own: it shares no memory with ``weights``.

    Raises:
        ValueError: a weight is missing, unknown or of another shape.
    """
    _check(shape, weights)
    graph = _Graph(shape, weights)
    graph.add_mask()
    # Every norm but the first also adds the branch before it to the residual stream.
    residual, branch = graph.add_embedding(), ""
    for layer in range(shape.layers):
        residual, branch = graph.add_layer(layer, residual, branch)
    graph.add_head(residual, branch)
    return graph.model()


class _Graph:
    """The graph so far. Methods add nodes under the builder's names and return value names."""

    def __init__(self, shape: DecoderShape, weights: Weights) -> None:
        self.shape = shape
        self.weights = weights
        self.float, self.kind = FLOATS[shape.float_bits]
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def node(self, op: str, name: str, inputs: Names, outputs: Names = (), **attrs: Any) -> str:
        """Add a node and return its first output; the default is the name plus /output_0."""
        outputs = list(outputs) or [f"{name}/output_0"]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attrs))
        return outputs[0]

    def weight(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an initialiser of floats; its bytes are little-endian and row-major everywhere."""
        return self.initializer(name, self.float, np.ascontiguousarray(array, dtype=self.kind))

    def initializer(self, name: str, kind: int, array: npt.NDArray[Any]) -> str:
        """Add an initialiser of a type, its bytes as they are."""
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
        tensor.raw_data = array.tobytes()
        self.initializers.append(tensor)
        return name

    def one(self, name: str, dims: list[int]) -> str:
        """Add the int64 constant 1 as a scalar (dims []) or a vector (dims [1])."""
        value = TensorProto(data_type=TensorProto.INT64, dims=dims, raw_data=b"\x01" + bytes(7))
        path, output = f"/model/constant_nodes/INT64/{name}", f"/model/constants/INT64/{name}"
        return self.node("Constant", path, [], [output], value=value)

    def matmul(self, path: str, x: str, *parts: str) -> str:
        """Add ``x @ concatenated(parts).T``; parts are names in the state dict, (out, in)."""
        matrix = np.concatenate([self.weights[f"{part}.weight"] for part in parts])
        name = f"{path[1:].replace('/', '.')}.MatMul.weight"
        if self.shape.weight_bits == BITS:
            return self.matmul_int4(path, x, name, matrix)
        return self.node("MatMul", f"{path}/MatMul", [x, self.weight(name, matrix.T)])

    def matmul_int4(
        self, path: str, x: str, name: str, matrix: npt.NDArray[Any], outputs: Names = ()
    ) -> str:
        """Add ``x @ matrix.T`` with four-bit weights; accuracy_level 4: int8 activations."""
        packed, scales = quantise(matrix)
        weights = [
            self.initializer(f"{name}_Q4", TensorProto.UINT8, packed),
            self.weight(f"{name}_scales", scales),
        ]
        attrs = {"bits": BITS, "block_size": BLOCK, "accuracy_level": 4, "domain": MICROSOFT}
        sizes = {"K": matrix.shape[1], "N": matrix.shape[0]}
        node = f"{path}/MatMul_Q4"
        return self.node("MatMulNBits", node, [x, *weights], outputs, **attrs, **sizes)

    def add_mask(self) -> None:
        """Turn the mask into what the attention takes: last position per row, and the width."""
        one, index = self.one("[1]", [1]), self.one("1", [])
        mask = "attention_mask"
        row_sums = self.node("ReduceSum", f"{MASK}/ReduceSum", [mask, one], keepdims=0)
        last = self.node("Sub", f"{MASK}/Sub", [row_sums, one])
        self.node("Cast", f"{MASK}/Sub/Cast", [last], to=TensorProto.INT32)
        size = self.node("Shape", f"{MASK}/Shape", [mask])
        width = self.node("Gather", f"{MASK}/Gather", [size, index], axis=0)
        self.node("Cast", f"{MASK}/Gather/Cast", [width], to=TensorProto.INT32)

    def add_embedding(self) -> str:
        """Look the tokens up; a tied table is stored once, as the output matrix."""
        if self.shape.tied_embeddings and self.shape.weight_bits != BITS:
            matrix = self.weight(HEAD_NODE, self.weights[EMBED].T)
            table = self.node("Transpose", "/model/embed_tokens/Transpose", [matrix], perm=[1, 0])
        else:
            table = self.weight(EMBED, self.weights[EMBED])
        return self.node("Gather", "/model/embed_tokens/Gather", [table, "input_ids"])

    def norm(self, path: str, name: str, residual: str, branch: str) -> tuple[str, str]:
        """RMS norm of ``residual + branch``; returns the norm and that sum, the new residual."""
        scale = self.weight(f"{path[1:].replace('/', '.')}.weight", self.weights[f"{name}.weight"])
        normed, added, eps = f"{path}/output_0", f"{path}/output_3", self.shape.rms_eps
        if not branch:
            op, name, inputs = (
                "SimplifiedLayerNormalization",
                f"{path}/LayerNorm",
                [residual, scale],
            )
            self.node(op, name, inputs, [normed], epsilon=eps, axis=-1, stash_type=1)
            return normed, residual
        op, inputs = "SkipSimplifiedLayerNormalization", [residual, branch, scale]
        outputs = [normed] if path.endswith("final_norm_layernorm") else [normed, "", "", added]
        self.node(op, f"{path}/SkipLayerNorm", inputs, outputs, domain=MICROSOFT, epsilon=eps)
        return normed, added

    def add_layer(self, layer: int, residual: str, branch: str) -> tuple[str, str]:
        """Add one layer; returns the residual and a branch, which the next norm adds to it."""
        node, name = f"/model/layers.{layer}", f"model.layers.{layer}"
        before = "input_layernorm"
        x, residual = self.norm(f"{node}/{before}", f"{name}.{before}", residual, branch)
        branch = self.add_attention(layer, f"{node}/attn", f"{name}.self_attn", x)
        after = "post_attention_layernorm"
        x, residual = self.norm(f"{node}/{after}", f"{name}.{after}", residual, branch)
        node, name = f"{node}/mlp", f"{name}.mlp"
        gate = self.matmul(f"{node}/gate_proj", x, f"{name}.gate_proj")
        up = self.matmul(f"{node}/up_proj", x, f"{name}.up_proj")
        sigmoid = self.node("Sigmoid", f"{node}/act_fn/Sigmoid", [gate])
        swish = self.node("Mul", f"{node}/act_fn/Mul", [gate, sigmoid])
        product = self.node("Mul", f"{node}/Mul", [swish, up])
        return residual, self.matmul(f"{node}/down_proj", product, f"{name}.down_proj")

    def add_attention(self, layer: int, node: str, name: str, x: str) -> str:
        """Add one matrix for q, k and v, and the attention that rotates, caches and attends."""
        packed = self.matmul(f"{node}/qkv_proj", x, *(f"{name}.{part}_proj" for part in "qkv"))
        if layer == 0:  # One pair of tables serves all layers.
            for table, array in zip(ROTARY_TABLES, rotary_tables(self.shape), strict=True):
                self.weight(table, array)
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        attrs: dict[str, Any] = {"num_heads": self.shape.heads, "kv_num_heads": self.shape.kv_heads}
        attrs |= {"do_rotary": 1, "rotary_interleaved": 0, "local_window_size": -1, "softcap": 0.0}
        attrs |= {"scale": self.shape.head_dim**-0.5, "domain": MICROSOFT}
        name_attn = f"{node}/GroupQueryAttention"
        inputs = [packed, "", "", *past, SEQLENS, TOTAL, *ROTARY_TABLES, "", "", ""]
        outputs = [f"{name_attn}/output_0", *present]
        attended = self.node("GroupQueryAttention", name_attn, inputs, outputs, **attrs)
        return self.matmul(f"{node}/o_proj", attended, f"{name}.o_proj")

    def add_head(self, residual: str, branch: str) -> None:
        """Add the last norm and the output matrix."""
        path = f"/model/layers.{self.shape.layers}/final_norm_layernorm"
        normed, _ = self.norm(path, "model.norm", residual, branch)
        if self.shape.weight_bits == BITS:
            matrix = self.weights[EMBED if self.shape.tied_embeddings else HEAD]
            self.matmul_int4("/lm_head", normed, HEAD_NODE, matrix, ["logits"])
            return
        if not self.shape.tied_embeddings:
            self.weight(HEAD_NODE, self.weights[HEAD].T)
        self.node("MatMul", "/lm_head/MatMul", [normed, HEAD_NODE], ["logits"])

    def caches(self, stem: str, length: str) -> list[Any]:
        """Declare the KV inputs or outputs; as in the builder's files, keys before values."""
        dims = ["batch_size", self.shape.kv_heads, length, "kv_cache_dim"]
        layers = range(self.shape.layers)
        names = [f"{stem}.{layer}.{part}" for part in ("key", "value") for layer in layers]
        return [helper.make_tensor_value_info(name, self.float, dims) for name in names]

    def model(self) -> onnx.ModelProto:
        """Close the graph."""
        info, ids = helper.make_tensor_value_info, ["batch_size", "sequence_length"]
        mask = ["batch_size", "total_sequence_length"]
        inputs = [info("input_ids", TensorProto.INT64, ids)]
        inputs += [info("attention_mask", TensorProto.INT64, mask)]
        inputs += self.caches("past_key_values", "past_sequence_length")
        outputs = [info("logits", self.float, [*ids, self.shape.vocab])]
        outputs += self.caches("present", "total_sequence_length")
        graph = helper.make_graph(self.nodes, "main_graph", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="lockstep"
        )


def _check(shape: DecoderShape, weights: Weights) -> None:
    """Compare the weights with `weight_shapes`, name by name."""
    expected = weight_shapes(shape)
    for name in sorted(expected.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else None
        if found != expected.get(name):
            raise ValueError(f"weight {name} has shape {found}, expected {expected.get(name)}")
