"""Tensor models and embeddings, on graphs built here and ONNX Runtime itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorfolders
from onnx import TensorProto

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.engine.fleet import Model
from lockstep.workers.inference.tensor_folder import TensorFolder
from lockstep.workers.inference.tensor_model import TensorModel
from lockstep.workers.inference.tensor_request import TensorRequest, parse_tensor_request

Open = Callable[[Path], TensorModel]


@pytest.fixture
def opened() -> Iterator[Open]:
    made: list[TensorModel] = []

    def make(folder: Path) -> TensorModel:
        model = Model("m", str(folder), ("cpu",), "", 1, 4, 64, 64, 1)
        made.append(TensorModel(model))
        return made[-1]

    yield make
    for model in made:
        model.close()


def asked(model: TensorModel, **keys: Any) -> dict[str, Any]:
    request = parse_tensor_request(keys)
    return model.answer(request, model.prepare(request))


def test_a_graph_is_run_on_named_tensors(opened: Open, tmp_path: Path) -> None:
    model = opened(tensorfolders.arithmetic(tmp_path))
    inputs = {"a": {"data": [[4, 9]]}, "b": {"data": [[1, 2.5]]}}
    found = asked(model, inputs=inputs)["outputs"]
    assert found["sum"]["data"] == [[5.0, 11.5]] and found["root"]["data"] == [[2.0, 3.0]]
    assert list(asked(model, inputs=inputs, outputs=["root"])["outputs"]) == ["root"]
    assert model.identity == TensorFolder.open(tmp_path).identity()


def test_a_request_that_the_graph_cannot_take_is_refused(opened: Open, tmp_path: Path) -> None:
    model = opened(tensorfolders.arithmetic(tmp_path))
    good = {"data": [[1, 2]]}
    for keys, message in (
        ({"inputs": {"a": good}}, "b: float32.* is missing"),
        ({"inputs": {"a": good, "b": good}, "outputs": ["y"]}, '"y" is no output, only: sum, root'),
        ({"input": "text"}, "the model embeds no texts: the folder has no tokenizer.json"),
        (
            {"inputs": {"a": {"data": [[-1, 1]]}, "b": good}},
            "root has a NaN or Inf",
        ),
    ):
        with pytest.raises(RequestRejected, match=message):
            asked(model, **keys)


@pytest.mark.parametrize(
    ("element", "data"),
    [
        (TensorProto.FLOAT16, [[1.5, -2.0]]),
        (TensorProto.DOUBLE, [[0.1, 1e300]]),
        (TensorProto.INT8, [[-128, 127]]),
        (TensorProto.UINT8, [[0, 255]]),
        (TensorProto.INT16, [[-(2**15), 2**15 - 1]]),
        (TensorProto.UINT16, [[0, 2**16 - 1]]),
        (TensorProto.INT32, [[-(2**31), 2**31 - 1]]),
        (TensorProto.UINT32, [[0, 2**32 - 1]]),
        (TensorProto.INT64, [[-(2**63), 2**63 - 1]]),
        (TensorProto.UINT64, [[0, 2**64 - 1]]),
        (TensorProto.BOOL, [[True, False]]),
    ],
)
def test_every_type_goes_through_a_graph(
    opened: Open, tmp_path: Path, element: int, data: Any
) -> None:
    model = opened(tensorfolders.identity(tmp_path, element))
    assert asked(model, inputs={"x": {"data": data}})["outputs"]["y"]["data"] == data


def test_a_graph_of_a_type_that_no_request_can_have_is_refused(tmp_path: Path) -> None:
    tensorfolders.identity(tmp_path, TensorProto.STRING)
    with pytest.raises(ModelRejected, match=r"x: string\[r, c\] is not supported"):
        TensorFolder.open(tmp_path)


def test_a_folder_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="name its `file`"):
        TensorFolder.open(tmp_path)
    with pytest.raises(ModelRejected, match="no such folder"):
        TensorFolder.open(tmp_path / "not")


def test_texts_become_vectors_of_length_1(opened: Open, tmp_path: Path) -> None:
    model = opened(tensorfolders.embedding(tmp_path))
    found = asked(model, input=["the cat", "dog"])
    table = tensorfolders.table().astype(np.float64)
    mean = (table[1] + table[2]) / 2
    expected = [mean / np.linalg.norm(mean), table[7] / np.linalg.norm(table[7])]
    got = [vector["data"] for vector in found["embeddings"]]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert found["usage"] == {"prompt_tokens": 3}
    assert asked(model, input="dog")["embeddings"] == found["embeddings"][1:]


def test_a_vector_does_not_depend_on_what_it_was_asked_for_with(
    opened: Open, tmp_path: Path
) -> None:
    model = opened(tensorfolders.embedding(tmp_path))
    texts = ["a mat", "the cat sat on a mat", "dog", "on"]
    together = asked(model, input=texts)["embeddings"]
    assert together == [asked(model, input=text)["embeddings"][0] for text in texts]


def test_pooling_is_what_the_folder_says(opened: Open, tmp_path: Path) -> None:
    first = tensorfolders.embedding(tmp_path / "a", "pooling_mode_cls_token", unit=False)
    found = asked(opened(first), input="cat dog", dimensions=2)["embeddings"][0]
    assert found["data"] == tensorfolders.table()[2][:2].tolist() and found["shape"] == [2]
    strange = tensorfolders.embedding(tmp_path / "b", "pooling_mode_lasttoken")
    with pytest.raises(RequestRejected, match=r"embeds no texts: 1_Pooling.*lasttoken"):
        asked(opened(strange), input="cat")


def test_a_text_that_does_not_fit_is_refused_and_never_cut(opened: Open, tmp_path: Path) -> None:
    model = opened(tensorfolders.embedding(tmp_path, tokens_max=3))
    with pytest.raises(RequestRejected, match="input: 4 tokens, expected 1 to 3"):
        asked(model, input="the cat sat on")
    with pytest.raises(RequestRejected, match="input: 0 tokens"):
        asked(model, input=" ")
    with pytest.raises(RequestRejected, match="dimensions: 9, the model has 4"):
        asked(model, input="cat", dimensions=9)


def test_malformed_modules_are_told(opened: Open, tmp_path: Path) -> None:
    folder = tensorfolders.embedding(tmp_path)
    for text, message in (
        ("[", "malformed"),
        (json.dumps([{"type": "x.Dense"}]), "'Dense' is not supported"),
    ):
        (folder / "modules.json").write_text(text)
        with pytest.raises(RequestRejected, match=message):
            asked(opened(folder), input="cat")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected one of inputs"),
        ({"inputs": {}, "input": "x"}, "expected one of inputs"),
        ({"inputs": {}, "dimensions": 3}, "expected one of inputs"),
        ({"inputs": {}, "temprature": 3}, "key 'temprature' is unknown"),
        ({"inputs": {}, "ouputs": []}, "did you mean 'outputs'"),
        ({"inputs": {}, "outputs": "y"}, "expected a list of names"),
        ({"inputs": {}, "outputs": ["y", "y"]}, "twice"),
        ({"inputs": {}, "encoding": "hex"}, "expected list or base64"),
        ({"input": []}, "1 to 2048"),
        ({"input": ["a", ""]}, r'input\[1\]: "", expected text'),
        ({"input": "a", "dimensions": 0}, "expected a whole number from 1"),
        ({"input": "a", "dimensions": True}, "expected a whole number from 1"),
    ],
)
def test_a_request_that_is_none_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestRejected, match=message):
        parse_tensor_request(keys)


def test_a_request_is_read_as_it_was_written() -> None:
    found = parse_tensor_request({"input": "a", "dimensions": 2, "encoding": "base64"})
    assert found == TensorRequest(texts=("a",), dimensions=2, encoding="base64")
