"""Folders as the hub has them: which file is meant, what is read of it, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hubmodels
import onnx
import pytest
from onnx import TensorProto, helper

from lockstep.engine.errors import ModelRejected
from lockstep.engine.fleet_file import parse
from lockstep.workers.inference.check import check, inspect
from lockstep.workers.inference.config import GENAI, GROWING, HUGGING_FACE, SLAB
from lockstep.workers.inference.loaded import LoadedModel
from lockstep.workers.inference.model import ModelFolder

Edit = Callable[[Path, Callable[[Any], None]], None]
OPTIMUM = hubmodels.DATA / "optimum-micro"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return hubmodels.hub_folder(tmp_path / "hub")


@pytest.fixture
def optimum(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OPTIMUM, tmp_path / "optimum"))


def facts(path: Path, file: str = "") -> Any:
    folder = ModelFolder.open(path, file)
    folder.close()
    return folder.facts


def refuse(path: Path, match: str, file: str = "") -> None:
    with pytest.raises(ModelRejected, match=match):
        ModelFolder.open(path, file)


def test_folder_of_optimum_is_proven_and_as_expected() -> None:
    report = check(OPTIMUM, "batch-invariant")
    assert report.ok, report.lines
    assert report.facts["expected"] == "equal"
    found = facts(OPTIMUM)
    assert (found.layout, found.path, found.eos_from) == (
        HUGGING_FACE, GROWING, "generation_config.json")  # fmt: skip
    assert (found.layers, found.kv_heads, found.head_dim, found.vocab) == (2, 2, 16, 512)
    assert (found.context, found.eos, found.bos, found.kind) == (512, (2,), 0, "llama")


@pytest.mark.parametrize(
    ("source", "suffix"),
    [("genai-micro-fp32", ""), ("genai-micro-qwen2-fp32", "_fp16"), ("genai-micro-int4", "_q4")],
)
def test_folder_of_the_hub_runs_on_the_fixed_slab_as_expected(
    tmp_path: Path, source: str, suffix: str
) -> None:
    made = hubmodels.hub_folder(tmp_path, source, suffix)
    found = facts(made)
    assert (found.layout, found.path) == (HUGGING_FACE, SLAB)
    assert found.filename == f"onnx/model{suffix}.onnx"
    report = check(made, "batch-invariant")
    assert report.ok, report.lines
    assert f"onnx/model{suffix}.onnx_data" in report.facts["sha256"]


@pytest.mark.parametrize(
    "changes",
    [
        [hubmodels.with_position_ids],
        [hubmodels.with_logits_to_keep],
        [hubmodels.with_position_ids, lambda model: hubmodels.with_logits_to_keep(model, 1)],
    ],
    ids=["positions", "logits to keep", "both"],
)
def test_inputs_of_hub_exports_are_found_and_fed(hub: Path, changes: list[Any]) -> None:
    hubmodels.edit(hub / "onnx/model.onnx", *changes)
    found = facts(hub)
    assert found.path == SLAB
    report = check(hub, "batch-invariant")
    assert report.ok and report.facts["expected"] == "equal", report.lines


def test_logits_of_the_last_position_are_those_of_all_positions(hub: Path, decoder: Any) -> None:
    """Bit for bit but for the kernel: one row of the last matrix instead of many."""
    from lockstep.workers.inference.greedy import generate

    prompts = [tuple(range(3, 3 + size)) for size in (1, 6, 40)]
    every = generate(decoder(hub), prompts, 8)
    hubmodels.edit(hub / "onnx/model.onnx", hubmodels.with_logits_to_keep)
    last = generate(decoder(hub), prompts, 8)
    for a, b in zip(every, last, strict=True):
        assert a.tokens == b.tokens
        assert abs(a.logits - b.logits).max() < 1e-5


def test_several_files_are_refused_until_one_is_named(hub: Path) -> None:
    hubmodels.hub_folder(hub, "genai-micro-int4", "_q4")
    (hub / "onnx" / "decoder_model_merged.onnx").write_bytes(b"x")
    refuse(hub, r'onnx/model\.onnx, onnx/model_q4\.onnx; say which.*file = "onnx/model\.onnx"')
    assert facts(hub, "onnx/model_q4.onnx").filename == "onnx/model_q4.onnx"
    names = set(inspect(hub, "onnx/model_q4.onnx")["sha256"])
    assert names >= {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "config.json"}
    assert not names & {"onnx/model.onnx", "onnx/model.onnx_data"}


def test_a_fleet_names_the_file_and_its_identity_is_the_files(hub: Path) -> None:
    hubmodels.hub_folder(hub, "genai-micro-int4", "_q4")
    text = (
        f'[models.m]\npath = "{hub}"\nfile = "onnx/model_q4.onnx"\nproviders = ["cpu"]\n'
        '[agents.a]\nmodule = "a.wasm"\ninput = "deal"\n'
    )
    fleet = parse(text.encode(), "f.toml")
    loaded = LoadedModel(fleet.models[0], fleet.frozen_date)
    loaded.decoder.close()
    assert "onnx/model_q4.onnx" in loaded.identity
    # The hashed files say it: where the only file is meant, naming it changes no identity.
    other = parse(text.replace('file = "onnx/model_q4.onnx"\n', "").encode(), "f.toml")
    assert fleet.settings() == other.settings()


def test_genai_config_decides_unless_another_file_is_named(copy: Path) -> None:
    shutil.copy(OPTIMUM / "config.json", copy / "config.json")
    assert facts(copy).layout == facts(copy, "model.onnx").layout == GENAI
    shutil.copy(OPTIMUM / "model.onnx", copy / "other.onnx")
    found = facts(copy, "other.onnx")
    assert (found.layout, found.filename, found.path) == (HUGGING_FACE, "other.onnx", GROWING)
    folder = ModelFolder.open(copy, "other.onnx")
    assert "genai_config.json" not in folder.identity()
    folder.close()
    (copy / "config.json").unlink()
    refuse(copy, r"names model\.onnx, not 'other\.onnx', and config\.json is missing", "other.onnx")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("decoder_model_merged", "merged decoder .*text-generation-with-past"),
        ("decoder_model_merged_q4", "merged decoder .*text-generation-with-past"),
        ("decoder_with_past_model", "cannot begin without a past"),
        ("decoder_model", "takes no past"),
        ("encoder_model", "an encoder"),
    ],
)
def test_parts_of_models_are_refused_by_name(optimum: Path, name: str, match: str) -> None:
    (optimum / "model.onnx").rename(optimum / f"{name}.onnx")
    refuse(optimum, f"{name}.onnx: .*{match}")
    refuse(optimum, match, f"{name}.onnx")


def add_input(name: str, kind: int, shape: list[Any]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))

    return change


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("use_cache_branch", TensorProto.BOOL, "merged decoder .*text-generation-with-past"),
        ("inputs_embeds", TensorProto.FLOAT, "takes embeddings"),
        ("encoder_hidden_states", TensorProto.FLOAT, "an encoder"),
        ("past_conv.0", TensorProto.FLOAT, "states of convolutions"),
        ("pixel_values", TensorProto.FLOAT, "takes images"),
        ("temperature", TensorProto.FLOAT, "not supported"),
    ],
)
def test_foreign_inputs_are_refused_with_the_reason(
    optimum: Path, name: str, kind: int, match: str
) -> None:
    hubmodels.edit(optimum / "model.onnx", add_input(name, kind, [1]))
    refuse(optimum, rf"model\.onnx: input {name}: .*{match}")


def test_empty_folders_and_missing_files_are_named(optimum: Path) -> None:
    refuse(optimum, r"other\.onnx: missing", "other.onnx")
    refuse(optimum, "not inside the folder", "../model.onnx")
    refuse(optimum, "not inside the folder", "/etc/passwd")
    (optimum / "model.onnx").unlink()
    refuse(optimum, "no ONNX file in it")
    (optimum / "config.json").unlink()
    refuse(optimum, "config.json: missing, and config.json too")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("vocab_size", 500, "vocab_size is 500, expected 512, as in the graph"),
        ("num_hidden_layers", 1, r"keys of 2 layers, config\.json says that there are 1"),
        ("num_hidden_layers", "2", "num_hidden_layers is '2'"),
        ("max_position_embeddings", None, "max_position_embeddings is None"),
        ("max_position_embeddings", 10**9, "max_position_embeddings is 1000000000"),
        ("head_dim", 8, None),  # The graph is the truth about shapes.
        ("sliding_window", "x", "sliding_window is 'x'"),
        ("text_config", {}, "max_position_embeddings is None|num_hidden_layers is None"),
    ],
)
def test_wrong_configuration_is_named(
    optimum: Path, edit_json: Edit, key: str, value: Any, match: str | None
) -> None:
    edit_json(optimum / "config.json", lambda config: config.update({key: value}))
    if match is None:
        assert facts(optimum).head_dim == 16
    else:
        refuse(optimum, match)


def test_sizes_of_a_larger_model_lie_in_its_text_part(optimum: Path, edit_json: Edit) -> None:
    whole = json.loads((optimum / "config.json").read_text())
    (optimum / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": whole}))
    (optimum / "generation_config.json").unlink()
    found = facts(optimum)
    assert (found.kind, found.context, found.eos, found.eos_from) == (
        "gemma3", 512, (2,), "config.json")  # fmt: skip


@pytest.mark.parametrize(
    ("generation", "config", "eos", "origin"),
    [
        ({"eos_token_id": [5, 2]}, 7, (2, 5), "generation_config.json"),
        ({"eos_token_id": 5}, 7, (5,), "generation_config.json"),
        ({"eos_token_id": None}, [7, 8], (7, 8), "config.json"),
        ({}, 7, (7,), "config.json"),
        ({}, None, (), ""),
    ],
)
def test_ends_of_sequence_are_of_the_first_file_that_has_any(
    optimum: Path, edit_json: Edit, generation: Any, config: Any, eos: Any, origin: str
) -> None:
    (optimum / "generation_config.json").write_text(json.dumps(generation))
    edit_json(optimum / "config.json", lambda c: c.update(eos_token_id=config))
    found = facts(optimum)
    assert (found.eos, found.eos_from) == (eos, origin)
    said = any("which token ends a sequence" in note for note in inspect(optimum)["notes"])
    assert said == (not eos)


@pytest.mark.parametrize("value", [512, [2, -1], "2", [True]])
def test_ends_beyond_the_vocabulary_are_refused(optimum: Path, value: Any) -> None:
    (optimum / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    refuse(optimum, r"generation_config\.json: eos_token_id is .*ids of 0 to 511")


def test_external_data_lies_beside_the_graph_and_never_outside(hub: Path) -> None:
    (hub / "secret").write_bytes((hub / "onnx/model.onnx_data").read_bytes())
    for location, match in [
        ("../secret", "not inside the folder"),
        ("/etc/passwd", "not inside the folder"),
        ("none", "onnx/none: missing"),
        ("", "not inside the folder"),
    ]:

        def change(model: onnx.ModelProto, location: str = location) -> None:
            for entry in model.graph.initializer[0].external_data:
                if entry.key == "location":
                    entry.value = location

        hubmodels.edit(hub / "onnx/model.onnx", change)
        refuse(hub, match)
    hub.joinpath("onnx/model.onnx_data").unlink()
    (hub / "onnx/model.onnx_data").symlink_to("/etc/passwd")
    refuse(hub, "outside the folder|not inside the folder")


def test_every_cut_of_a_file_is_refused(hub: Path, decoder: Any) -> None:
    whole = (hub / "onnx/model.onnx").read_bytes()
    for size in range(0, len(whole), 64):
        (hub / "onnx/model.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelRejected, match=r"model\.onnx|onnxruntime refuses"):
            decoder(hub)


def test_every_cut_of_a_whole_optimum_file_is_refused(optimum: Path, decoder: Any) -> None:
    whole = (optimum / "model.onnx").read_bytes()
    for size in range(1, len(whole), len(whole) // 40):
        (optimum / "model.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelRejected, match=r"model\.onnx|onnxruntime refuses"):
            decoder(optimum)


def test_wrong_opset_is_refused_when_the_session_is_made(optimum: Path, decoder: Any) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 9999

    hubmodels.edit(optimum / "model.onnx", change)
    with pytest.raises(ModelRejected, match=r"onnxruntime refuses the model.*opset"):
        decoder(optimum)


def relabel(ports: str, name: str, axis: int, size: int) -> Callable[[onnx.ModelProto], None]:
    """What a port (or all "kv" ports) says of a dimension, whatever the graph makes."""

    def change(model: onnx.ModelProto) -> None:
        for port in getattr(model.graph, ports):
            dims = port.type.tensor_type.shape.dim
            if port.name == name or (name == "kv" and len(dims) == 4):
                dims[axis].dim_value = size

    return change


def test_ports_that_lie_are_refused_before_any_request(
    optimum: Path, decoder: Any, edit_json: Edit
) -> None:
    """The graph makes 512 logits and heads of 16; its ports and config.json say otherwise."""
    original = (optimum / "model.onnx").read_bytes()
    edit_json(optimum / "config.json", lambda c: c.update(vocab_size=600))
    hubmodels.edit(optimum / "model.onnx", relabel("output", "logits", 2, 600))
    with pytest.raises(ModelRejected, match=r"the first run fails|logits is|refuses the model"):
        decoder(optimum)
    edit_json(optimum / "config.json", lambda c: c.update(vocab_size=512))
    (optimum / "model.onnx").write_bytes(original)
    wrong = relabel("input", "kv", 3, 32), relabel("output", "kv", 3, 32)
    hubmodels.edit(optimum / "model.onnx", *wrong)
    with pytest.raises(ModelRejected, match=r"the first run fails|present|refuses the model"):
        decoder(optimum)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (relabel("input", "past_key_values.1.key", 3, 32), "keys and values of one size"),
        (relabel("input", "past_key_values.1.value", 1, 1), "keys and values of one size"),
        (relabel("input", "past_key_values.0.key", 2, 64), "is a length and has to be free"),
        (relabel("input", "input_ids", 1, 8), "is a length and has to be free"),
        (relabel("input", "input_ids", 0, 4), "made for batches of 4 only"),
        (relabel("output", "logits", 1, 8), "is a length and has to be free"),
    ],
)
def test_shapes_that_cannot_be_served_are_refused(
    optimum: Path, change: Callable[[onnx.ModelProto], None], match: str
) -> None:
    hubmodels.edit(optimum / "model.onnx", change)
    refuse(optimum, match)


def test_layers_that_are_missing_are_named(optimum: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for port in model.graph.input:
            port.name = port.name.replace("past_key_values.1.", "past_key_values.2.")

    hubmodels.edit(optimum / "model.onnx", change)
    refuse(optimum, r"layers \[0, 2\].*expected all layers from 0 on")


def test_graph_without_a_past_is_refused(optimum: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        kept = [port for port in model.graph.input if "past" not in port.name]
        del model.graph.input[:]
        model.graph.input.extend(kept)

    hubmodels.edit(optimum / "model.onnx", change)
    refuse(optimum, "inputs for keys and values are none")


def test_other_names_for_keys_and_values_are_found(optimum: Path, decoder: Any) -> None:
    def rename(name: str) -> str:
        for layer in (0, 1):
            for part in ("key", "value"):
                name = name.replace(f"past_key_values.{layer}.{part}", f"past_{part}_{layer}")
                name = name.replace(f"present.{layer}.{part}", f"out_{part}_{layer}")
        return name

    def change(model: onnx.ModelProto) -> None:
        for port in (*model.graph.input, *model.graph.output):
            port.name = rename(port.name)
        for node in model.graph.node:
            node.input[:] = [rename(name) for name in node.input]
            node.output[:] = [rename(name) for name in node.output]

    hubmodels.edit(optimum / "model.onnx", change)
    (optimum / "expected.json").write_bytes(_without_hashes(optimum))
    assert facts(optimum).past_key == "past_key_%d"
    report = check(optimum)
    assert report.facts["expected"] == "equal", report.lines


def _without_hashes(folder: Path) -> bytes:
    expected = json.loads((folder / "expected.json").read_text())
    return json.dumps(expected | {"sha256": {}}).encode()


def test_special_tokens_are_texts_or_objects_and_fall_back(optimum: Path, edit_json: Edit) -> None:
    config = optimum / "tokenizer_config.json"
    edit_json(config, lambda c: c.update(eos_token={"content": "<|im_end|>", "special": True}))
    edit_json(config, lambda c: c.pop("bos_token"))
    tokens = inspect(optimum)["special_tokens"]
    assert (tokens["bos_token"], tokens["eos_token"]) == ("<|endoftext|>", "<|im_end|>")
    edit_json(config, lambda c: c.update(bos_token=None))
    assert "bos_token" not in inspect(optimum)["special_tokens"]


def test_template_is_found_where_processors_keep_it(optimum: Path, edit_json: Edit) -> None:
    (optimum / "chat_template.json").write_text(json.dumps({"chat_template": "P"}))
    edit_json(optimum / "tokenizer_config.json", lambda c: c.update(chat_template="T"))
    for remove, found in [("", None), ("chat_template.jinja", "P"), ("chat_template.json", "T")]:
        if remove:
            (optimum / remove).unlink()
        folder = ModelFolder.open(optimum)
        assert folder.template == (found or (OPTIMUM / "chat_template.jinja").read_text())
        folder.close()
    (optimum / "chat_template.json").write_text(json.dumps({"chat_template": 5}))
    refuse(optimum, r"chat_template\.json: chat_template is 5")


def test_what_is_not_taken_of_a_folder_is_told(optimum: Path, edit_json: Edit) -> None:
    assert inspect(optimum)["notes"] == []
    (optimum / "additional_chat_templates").mkdir()
    (optimum / "additional_chat_templates" / "tool_use.jinja").write_text("X")
    added = {"600": {"content": "<extra>"}}
    edit_json(optimum / "tokenizer_config.json", lambda c: c["added_tokens_decoder"].update(added))
    edit_json(optimum / "generation_config.json", lambda c: c.update(temperature=0.6, top_k=20))
    begin = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    edit_json(optimum / "tokenizer.json", lambda c: c.update(post_processor={
        "type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<|endoftext|>": {
            "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }))  # fmt: skip
    found = inspect(optimum)
    notes = "\n".join(found["notes"])
    said = ["'<|endoftext|>' before a prompt", "such as '<extra>'", "not used: tool_use"]
    assert [part for part in said if part not in notes] == []
    values = found["generation_config"]["values"]
    assert (values["temperature"], values["top_k"]) == (0.6, 20)
