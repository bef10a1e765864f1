"""Folders as the onnx-community keeps them on the hub, made of the committed micro models.

The graphs are those of onnxruntime-genai's builder, taken apart where hub exports differ: rotary
embeddings as operators of their own that take ``position_ids``, and ``num_logits_to_keep`` in
front of the last matrix. The numbers stay the same, so expected.json of the source holds.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATA = Path(__file__).parents[1] / "data"
KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MICROSOFT = "com.microsoft"
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16


def hub_folder(target: Path, source: str = "genai-micro-fp32", suffix: str = "") -> Path:
    """``onnx/model{suffix}.onnx`` with its data beside it, config.json above; as pulled."""
    origin = DATA / source
    (target / "onnx").mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(origin / name, target / name)
    for name in ("config.json", "generation_config.json"):
        shutil.copy(DATA / "optimum-micro" / name, target / name)
    expected = json.loads((origin / "expected.json").read_text())
    expected["sha256"] = {}
    (target / "expected.json").write_text(json.dumps(expected))
    model = onnx.load(origin / "model.onnx")
    data = f"model{suffix}.onnx_data"
    onnx.save(model, target / "onnx" / f"model{suffix}.onnx", save_as_external_data=True,
              location=data, size_threshold=1024)  # fmt: skip
    return target


def edit(path: Path, *changes: object) -> None:
    """Apply changes to an ONNX file, its external data left where it is."""
    model = onnx.load(path, load_external_data=False)
    for change in changes:
        change(model)  # type: ignore[operator]
    path.write_bytes(model.SerializeToString())


def with_position_ids(model: onnx.ModelProto) -> None:
    """Rotary embeddings outside of the attention, as exports for a browser have them."""
    graph = model.graph
    shape = ["batch_size", "sequence_length"]
    graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, shape))
    sizes = [HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM]
    graph.initializer.append(numpy_helper.from_array(np.array(sizes), "qkv_sizes"))
    for node in [node for node in graph.node if node.op_type == "GroupQueryAttention"]:
        stem = node.name
        parts = [f"{stem}/q", f"{stem}/k", f"{stem}/v"]
        made = [helper.make_node("Split", [node.input[0], "qkv_sizes"], parts, axis=-1)]
        for part, heads in ((parts[0], HEADS), (parts[1], KV_HEADS)):
            feeds = [part, "position_ids", "cos_cache", "sin_cache"]
            made.append(helper.make_node(
                "RotaryEmbedding", feeds, [f"{part}/rotated"], domain=MICROSOFT,
                num_heads=heads, rotary_embedding_dim=HEAD_DIM, interleaved=0,
            ))  # fmt: skip
        node.input[0], node.input[1] = f"{parts[0]}/rotated", f"{parts[1]}/rotated"
        node.input[2], node.input[7], node.input[8] = parts[2], "", ""
        next(each for each in node.attribute if each.name == "do_rotary").i = 0
        place = list(graph.node).index(node)
        for each in reversed(made):
            graph.node.insert(place, each)


def with_logits_to_keep(model: onnx.ModelProto, rank: int = 0) -> None:
    """Logits of the last positions only, as many as an input says."""
    graph = model.graph
    port = helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, [1] * rank)
    graph.input.append(port)
    head = next(node for node in graph.node if "logits" in node.output)
    for name, values in (("keep/shape", [1]), ("keep/axes", [1]), ("keep/end", [2**62])):
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [1], values))
    made = [
        helper.make_node("Neg", ["num_logits_to_keep"], ["keep/negative"]),
        helper.make_node("Reshape", ["keep/negative", "keep/shape"], ["keep/start"]),
        helper.make_node(
            "Slice", [head.input[0], "keep/start", "keep/end", "keep/axes"], ["keep/hidden"]
        ),
    ]
    head.input[0] = "keep/hidden"
    place = list(graph.node).index(head)
    for each in reversed(made):
        graph.node.insert(place, each)
    output = next(port for port in graph.output if port.name == "logits")
    output.type.tensor_type.shape.dim[1].dim_param = "num_logits_to_keep"


def to_float16(folder: Path, file: str = "model.onnx") -> None:
    """Weights, keys, values and logits of a folder's graph in 16 bits."""
    path = folder / "onnx" / file
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for port in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if port.type.tensor_type.elem_type == TensorProto.FLOAT:
            port.type.tensor_type.elem_type = TensorProto.FLOAT16
    (folder / "onnx" / f"{file}_data").unlink()
    path.write_bytes(model.SerializeToString())


def to_int8(folder: Path, file: str = "model.onnx") -> None:
    """Weights in 8 bits and numbers quantised on the way, as model_int8.onnx and its like."""
    importlib.import_module("lockstep.workers.inference.ort")  # Turns telemetry off; first.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / "onnx" / file
    quantize_dynamic(path, path.with_suffix(".int8"), weight_type=QuantType.QInt8)
    (folder / "onnx" / f"{file}_data").unlink()
    path.with_suffix(".int8").rename(path)
