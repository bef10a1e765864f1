"""Names of keys and values, as graphs call them."""

import pytest

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.graph import Graph, Port
from lockstep.workers.inference.kv_names import KvNames, at, find_kv

SHAPE = ("batch", 2, "past", 16)


def graph(inputs: list[str], outputs: list[str]) -> Graph:
    ids = Port("input_ids", "int64", ("batch", "length"))
    ports = [tuple(Port(name, "float32", SHAPE) for name in names) for names in (inputs, outputs)]
    return Graph((ids, *ports[0]), ports[1], (), ())


def numbered(form: str, layers: int) -> list[str]:
    return [at(form.replace("P", part), n) for n in range(layers) for part in ("key", "value")]


@pytest.mark.parametrize(
    ("past", "present"),
    [
        ("past_key_values.%d.P", "present.%d.P"),
        ("past_P_%d", "present_P_%d"),
        ("past_key_values_%d_P", "present_key_values_%d_P"),
        ("P_cache.%d", "P_cache_out.%d"),
        ("layer%d/P", "layer%d/P/new"),
    ],
)
def test_names_are_found_whatever_their_form(past: str, present: str) -> None:
    found = find_kv(graph(numbered(past, 3), numbered(present, 3)), "m.onnx")
    forms = [form.replace("P", part) for form in (past, present) for part in ("key", "value")]
    assert found == KvNames(*forms, layers=3)


@pytest.mark.parametrize(
    ("inputs", "outputs", "match"),
    [
        ([], ["present.0.key", "present.0.value"], "inputs for keys and values are none"),
        (["past.0.key"], ["present.0.key", "present.0.value"], "expected one for keys and one"),
        (["past.0.key", "past.0.value"], ["out.0.key"], "outputs for keys and values are out.%d"),
        (["past.0.key", "past.0.value", "past.0.encoder.key", "past.0.encoder.value"],
         ["present.0.key", "present.0.value"], "past.%d.encoder.key"),
        (["past.1.key", "past.1.value"], ["present.0.key", "present.0.value"],
         r"layers \[1\].*expected all layers from 0 on"),
        (["past.0.key", "past.1.value"], ["present.0.key", "present.0.value"],
         r"layers \[0\], past.%d.value for \[1\]"),
        (numbered("past.%d.P", 2), numbered("present.%d.P", 1), "2 layers of keys go in"),
    ],
)  # fmt: skip
def test_what_is_missing_or_doubled_is_named(
    inputs: list[str], outputs: list[str], match: str
) -> None:
    with pytest.raises(ModelRejected, match=f"m.onnx: .*{match}"):
        find_kv(graph(inputs, outputs), "m.onnx")


def test_a_name_from_a_model_is_no_format() -> None:
    assert at("%s%d%n", 3) == "%s3%n"
