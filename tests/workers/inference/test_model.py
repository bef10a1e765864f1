"""Model folders: what is read, and every way in which one is refused by name."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import GROWING
from lockstep.workers.inference.model import ModelFolder

Edit = Callable[[Path, Callable[[Any], None]], None]
ALWAYS = (
    "genai_config.json",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
)


def refuse(path: Path, match: str) -> None:
    with pytest.raises(ModelRejected, match=match):
        ModelFolder.open(path)


def edit_onnx(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path / "model.onnx", load_external_data=False)
    change(model)
    (path / "model.onnx").write_bytes(model.SerializeToString())


def test_facts_and_template_are_read(any_model: Path) -> None:
    folder = ModelFolder.open(any_model)
    facts = folder.facts
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.vocab) == (2, 2, 16, 512)
    assert (facts.context, facts.eos, facts.bos, facts.dtype) == (512, (2,), 0, "float32")
    assert folder.template == (any_model / "chat_template.jinja").read_text()
    folder.close()
    folder.close()


def test_identity_has_the_sha256_of_every_file_that_can_change_a_bit(fp32: Path) -> None:
    folder = ModelFolder.open(fp32)
    names = sorted([*ALWAYS, "chat_template.jinja"])
    want = {name: hashlib.sha256((fp32 / name).read_bytes()).hexdigest() for name in names}
    assert folder.identity() == want
    assert list(folder.identity()) == names
    folder.close()
    assert folder.identity() == want


@pytest.mark.parametrize("name", ALWAYS)
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refuse(copy, f"{name}: missing")


def test_a_tokenizer_in_another_form_is_told_what_makes_it_this_one(copy: Path) -> None:
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    refuse(copy, r"tokenizer\.json: missing; transformers makes it of tokenizer\.model: AutoTok")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    refuse(tmp_path / "none", "none: no such folder")


@pytest.mark.parametrize("name", ["genai_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\udcff", "[" * 100_000])
def test_malformed_json_is_named(copy: Path, name: str, text: str) -> None:
    (copy / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    refuse(copy, f"^{copy}/{name}: ")


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, 14391])
def test_truncated_onnx_is_refused(copy: Path, cut: int) -> None:
    data = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(data[:cut])
    refuse(copy, f"^{copy}/model.onnx: ")


def test_truncated_weights_are_refused_when_the_session_is_made(copy: Path, decoder: Any) -> None:
    data = (copy / "model.onnx.data").read_bytes()
    for size in (0, 1000):
        (copy / "model.onnx.data").write_bytes(data[:size])
        with pytest.raises(ModelRejected, match="onnxruntime refuses the model"):
            decoder(copy)


def test_unknown_operator_is_refused_when_the_session_is_made(copy: Path, decoder: Any) -> None:
    def change(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Frobnicate"

    edit_onnx(copy, change)
    with pytest.raises(ModelRejected, match="Frobnicate"):
        decoder(copy)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/../../secret", "..", "", "C:\\x", "*/_ORT_MEM_ADDR_/*", "a\\b"],
)
def test_external_data_outside_the_folder_is_refused(copy: Path, location: str) -> None:
    (copy.parent / "secret").write_bytes(b"x" * 1_000_000)

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].external_data[0].value = location

    edit_onnx(copy, change)
    refuse(copy, "not inside the folder")


def test_external_data_hidden_in_a_subgraph_is_refused_too(copy: Path) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    inner = helper.make_graph([], "inner", [], [], [tensor])

    def change(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner))

    edit_onnx(copy, change)
    refuse(copy, r"'\.\./secret', which is not inside")


@pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json"])
def test_link_out_of_the_folder_is_refused_and_one_within_is_not(copy: Path, name: str) -> None:
    (copy / name).rename(copy / "real")
    (copy / name).symlink_to("real")
    ModelFolder.open(copy).close()
    (copy / "real").rename(copy.parent / "real")
    (copy / name).unlink()
    (copy / name).symlink_to("../real")
    refuse(copy, "outside the folder")


def test_pipe_in_place_of_a_file_is_refused_without_waiting(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    os.mkfifo(copy / "tokenizer.json")
    refuse(copy, "not a regular file")


@pytest.mark.parametrize(
    ("keys", "value", "match"),
    [
        (["model", "vocab_size"], 0, "model.vocab_size is 0, expected 2"),
        (["model", "vocab_size"], "512", "model.vocab_size is '512'"),
        (["model", "context_length"], True, "model.context_length is True"),
        (["model", "eos_token_id"], 512, "ids of 0 to 511"),
        (["model", "eos_token_id"], [2, -1], "ids of 0 to 511"),
        (["model", "decoder", "num_hidden_layers"], 10**9, "num_hidden_layers"),
        (["model", "decoder", "num_hidden_layers"], 3, "no input 'past_key_values.2.key'"),
        (["model", "decoder", "num_hidden_layers"], 1, "past_key_values.1.key.* not supported"),
        (["model", "decoder", "num_key_value_heads"], 4, r"float32\[batch_size, 2, .*expected"),
        (["model", "decoder", "inputs"], None, "decoder.inputs is None, expected an object"),
        (["model", "decoder", "inputs", "past_key_names"], "k", "a name with one %d"),
        (["model", "decoder", "inputs", "input_ids"], "ids", "no input 'ids'"),
        (["model", "decoder", "outputs", "logits"], "scores", "no output 'scores'"),
        (["model", "decoder", "filename"], "../m.onnx", "not inside the folder"),
        (["model", "decoder", "filename"], 5, "decoder.filename is 5"),
        (["model"], 5, "model is 5"),
    ],
)
def test_wrong_configuration_is_named(
    copy: Path, edit_json: Edit, keys: list[str], value: Any, match: str
) -> None:
    def change(config: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    edit_json(copy / "genai_config.json", change)
    refuse(copy, match)


def test_vocabulary_that_is_not_that_of_the_graph_is_refused(copy: Path, edit_json: Edit) -> None:
    edit_json(copy / "genai_config.json", lambda c: c["model"].update(vocab_size=500))
    refuse(copy, r"logits: float32\[batch_size, sequence_length, 512\], expected .*500")


def test_several_ends_of_sequence_are_kept_in_order(copy: Path, edit_json: Edit) -> None:
    edit_json(copy / "genai_config.json", lambda c: c["model"].update(eos_token_id=[5, 2, 5]))
    folder = ModelFolder.open(copy)
    assert folder.facts.eos == (2, 5)
    folder.close()


def test_keys_of_another_type_are_refused(copy: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for port in model.graph.input:
            if port.name.startswith("past"):
                port.type.tensor_type.elem_type = TensorProto.BFLOAT16

    edit_onnx(copy, change)
    refuse(copy, "bfloat16.*expected one of float32, float16")


def test_graph_whose_attention_works_otherwise_is_not_put_on_the_slab(copy: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "GroupQueryAttention":
                node.op_type = "MultiHeadAttention"

    edit_onnx(copy, change)
    folder = ModelFolder.open(copy)
    folder.close()
    assert folder.facts.path == GROWING
    assert "no GroupQueryAttention" in folder.facts.path_why


def test_template_is_found_in_both_places(copy: Path, edit_json: Edit) -> None:
    (copy / "chat_template.jinja").unlink()
    config = copy / "tokenizer_config.json"
    for value, found in [
        ("T", "T"),
        ([{"name": "tool", "template": "X"}, {"name": "default", "template": "D"}], "D"),
        ({"tool": "X", "default": "D"}, "D"),
        ([{"name": "tool", "template": "X"}], None),
        (None, None),
    ]:
        edit_json(config, lambda c, value=value: c.update(chat_template=value))
        folder = ModelFolder.open(copy)
        assert folder.template == found
        assert folder.templates_unused() == (["tool"] if isinstance(value, (list, dict)) else [])
        folder.close()
    edit_json(config, lambda c: c.update(chat_template=5))
    refuse(copy, "chat_template is 5")


def test_opening_loads_no_onnxruntime() -> None:
    code = (
        "import sys; from lockstep.workers.inference.model import ModelFolder; "
        f"ModelFolder.open({str(Path(__file__).parents[2] / 'data' / 'genai-micro-fp32')!r}); "
        "print('onnxruntime' in sys.modules, 'numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_expected_json_and_other_files_are_not_part_of_the_identity(copy: Path) -> None:
    (copy / "notes.txt").write_text("x")
    folder = ModelFolder.open(copy)
    assert not {"notes.txt", "expected.json"} & set(folder.identity())
    assert json.dumps(folder.identity())
    folder.close()
