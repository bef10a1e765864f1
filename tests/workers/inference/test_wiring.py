"""Which graphs may have past and present in one buffer: only those whose every use is known."""

import json
from collections.abc import Callable
from pathlib import Path

import hubmodels
import onnx
import pytest
from onnx import TensorProto, helper

from lockstep.engine.errors import UsageError
from lockstep.workers.inference.check import check, inspect
from lockstep.workers.inference.config import GROWING, SLAB, ModelFacts
from lockstep.workers.inference.model import ModelFolder

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return hubmodels.hub_folder(tmp_path / "hub")


def facts_of(hub: Path, *changes: Change) -> ModelFacts:
    hubmodels.edit(hub / "onnx/model.onnx", *changes)
    folder = ModelFolder.open(hub)
    folder.close()
    return folder.facts


def reader(operator: str, name: str, **attributes: int) -> Change:
    """One more operator that reads a tensor; nobody reads what it makes."""

    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node(operator, [name], [f"{name}/more"], **attributes)
        model.graph.node.insert(0, node)

    return change


def attention(change: Callable[[onnx.NodeProto], None]) -> Change:
    def edit(model: onnx.ModelProto) -> None:
        change(next(node for node in model.graph.node if node.op_type == "GroupQueryAttention"))

    return edit


def set_input(place: int, name: str) -> Change:
    def change(node: onnx.NodeProto) -> None:
        node.input[place] = name

    return attention(change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (reader("Not", "attention_mask"), "the mask goes to Not, which needs a true mask"),
        (reader("Cast", "attention_mask", to=TensorProto.BOOL), "the mask goes to Cast"),
        (reader("Cast", "attention_mask", to=TensorProto.FLOAT16), "the mask goes to Cast"),
        (set_input(10, "attention_mask"), "takes the mask as another input than its lengths"),
        (set_input(6, "/model/attn_mask_reformat/attn_mask_subgraph/Sub/Cast/output_0"),
         "takes the sum of the mask as another input"),
        (set_input(3, "past_key_values.1.key"), "layer 0 go to GroupQueryAttention, not only"),
        (reader("Identity", "past_key_values.1.value"), "layer 1 go to GroupQueryAttention, Id"),
        (reader("Identity", "present.1.value"), "layer 1 go to GroupQueryAttention, Id"),
    ],
)  # fmt: skip
def test_a_use_that_is_not_known_leads_to_the_growing_path(
    hub: Path, change: Change, why: str
) -> None:
    found = facts_of(hub, change)
    assert found.path == GROWING
    assert why in found.path_why


@pytest.mark.parametrize(
    "change",
    [
        reader("Identity", "attention_mask"),
        reader("Cast", "attention_mask", to=TensorProto.INT32),
        reader("Shape", "attention_mask"),
    ],
)
def test_uses_that_do_no_harm_stay_on_the_slab(hub: Path, change: Change) -> None:
    assert facts_of(hub, change).path == SLAB


def test_a_choice_by_the_largest_position_of_a_batch_is_seen(hub: Path) -> None:
    """Long rotary tables are chosen so: a row would depend on its neighbours."""
    chosen = reader("ReduceMax", "position_ids", keepdims=0)
    found = facts_of(hub, hubmodels.with_position_ids, chosen)
    assert found.path == GROWING
    assert "positions go to ReduceMax" in found.path_why
    report = check(hub, "batch-invariant")
    assert report.ok and report.facts["expected"] == "equal", report.lines


def test_a_graph_of_this_attention_grows_as_well_as_it_shares(hub: Path) -> None:
    """The growing path is right for any decoder: it feeds true masks and nothing else."""
    found = facts_of(hub, reader("Not", "attention_mask_bool"), reader("Cast", "attention_mask",
                     to=TensorProto.BOOL), _feed_not)  # fmt: skip
    assert found.path == GROWING
    report = check(hub, "batch-invariant")
    assert report.ok and report.facts["expected"] == "equal", report.lines


@pytest.mark.parametrize("path", [SLAB, GROWING])
def test_numbers_of_16_bits_are_served_on_both_paths(hub: Path, path: str) -> None:
    hubmodels.to_float16(hub)
    more = [] if path == SLAB else [reader("Size", "attention_mask")]
    found = facts_of(hub, *more)
    assert (found.dtype, found.path) == ("float16", path)
    report = check(hub, "batch-invariant")
    # Greedy tokens of 32 bits: the best logit is ahead by more than 16 bits lose.
    assert report.ok and report.facts["expected"] == "equal", report.lines


def test_numbers_that_are_quantised_by_the_batch_run_row_by_row(hub: Path) -> None:
    """On the slab this model's rows change each other: the class would be "run"."""
    hubmodels.to_int8(hub)
    found = facts_of(hub)
    assert found.path == GROWING
    assert "DynamicQuantizeLinear scales a whole batch" in found.path_why
    assert check(hub, "batch-invariant").proven == "batch-invariant"


def _feed_not(model: onnx.ModelProto) -> None:
    """The Not above reads the Cast above."""
    nodes = {node.op_type: node for node in model.graph.node if "more" in node.output[0]}
    nodes["Not"].input[0] = nodes["Cast"].output[0]
    order = [node for node in model.graph.node if node is not nodes["Not"]]
    at = next(n for n, node in enumerate(order) if node.output[0] == nodes["Cast"].output[0])
    order.insert(at + 1, nodes["Not"])
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    del model.graph.node[:]
    model.graph.node.extend(copied)


def test_functions_in_a_file_are_not_looked_into(hub: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        body = [helper.make_node("Identity", ["x"], ["y"])]
        opset = [helper.make_opsetid("", 22)]
        model.functions.append(helper.make_function("local", "f", ["x"], ["y"], body, opset))

    assert "has functions" in facts_of(hub, change).path_why


def window(tokens: int, **more: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "GroupQueryAttention":
                next(a for a in node.attribute if a.name == "local_window_size").i = tokens
                node.attribute.extend(helper.make_attribute(*item) for item in more.items())

    return change


def say_window(hub: Path, **more: object) -> None:
    config = json.loads((hub / "config.json").read_text())
    (hub / "config.json").write_text(json.dumps(config | {"sliding_window": 48} | more))


def test_a_window_that_the_attention_applies_costs_no_context(hub: Path) -> None:
    say_window(hub)
    found = facts_of(hub, window(48))
    assert (found.path, found.context, found.tokens_min) == (SLAB, 512, 4)
    assert inspect(hub)["windows"] == {"48": 2}
    assert check(hub, "batch-invariant").proven == "batch-invariant"


def test_a_window_that_the_graph_leaves_to_others_ends_the_context(
    hub: Path, decoder: object
) -> None:
    say_window(hub)
    found = facts_of(hub)
    assert (found.context, inspect(hub)["context_why"]) == (48, found.context_why)
    assert "window of 48 tokens" in found.context_why
    with pytest.raises(UsageError, match="tokens_max = 49, expected 4 to 48"):
        decoder(hub, tokens=49)  # type: ignore[operator]


@pytest.mark.parametrize(
    "more", [{"use_sliding_window": False}, {"layer_types": ["full_attention"] * 2},
             {"sliding_window": None}, {"sliding_window": 512}],
)  # fmt: skip
def test_a_window_that_is_not_used_costs_no_context(hub: Path, more: dict[str, object]) -> None:
    say_window(hub, **more)
    assert facts_of(hub).context == 512


def test_buffers_as_small_as_a_window_are_never_smaller(hub: Path, decoder: object) -> None:
    found = facts_of(hub, window(48, sliding_window_cache=1))
    assert (found.tokens_min, found.context) == (48, 512)
    with pytest.raises(UsageError, match="tokens_max = 40, expected 48 to 512"):
        decoder(hub, tokens=40)  # type: ignore[operator]
