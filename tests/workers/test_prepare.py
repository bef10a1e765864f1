"""Reading what a run is made from: every refusal is one error that names the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import fleets
import pytest

from lockstep.engine.errors import UsageError
from lockstep.workers import prepare
from lockstep.workers.prepare import Prepared


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare.prepare(
        fleets.fleet(tmp_path, fleets.CONVERSATION), fleets.items(tmp_path, 2), None
    )


def test_everything_is_read_once(prepared: Prepared) -> None:
    assert [agent.name for agent in prepared.fleet.agents] == ["ann", "ben", "cat"]
    assert prepared.modules[0] == (fleets.GUESTS / "talker.wasm").read_bytes()
    assert len(prepared.items) == 2 and prepared.fleet.models[0].path == str(fleets.MODEL)


def test_a_seed_takes_the_place_of_the_files(tmp_path: Path) -> None:
    path = fleets.fleet(tmp_path, fleets.ECHO)
    assert prepare.read_fleet(path, None)[0].seed == 0
    assert prepare.read_fleet(path, 99)[0].seed == 99


@pytest.mark.parametrize("kind", ["device", "fifo", "folder", "missing", "large"])
def test_what_is_no_ordinary_file_of_a_legal_size_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    match kind:
        case "device":
            path, message = Path("/dev/zero"), "not a regular file"
        case "fifo":
            os.mkfifo(path)
            message = "not a regular file"
        case "folder":
            path.mkdir()
            message = "not a regular file|Is a directory"
        case "missing":
            message = "cannot read the input: No such file"
        case _:
            path.write_bytes(bytes(11))
            message = "more than 10 bytes"
    with pytest.raises(UsageError, match=message):
        prepare.read_file(path, "input", 10)


def test_reading_takes_the_memory_of_the_file_not_of_the_largest_that_is_legal(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").write_bytes(b"few")
    tracemalloc.start()
    try:
        assert prepare.read_file(tmp_path / "x", "input", 2**31) == b"few"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_says_that_it_is_empty_is_read_to_its_end() -> None:
    assert prepare.read_file(Path("/proc/self/status"), "input", 1 << 16).startswith(b"Name:")
    with pytest.raises(UsageError, match="more than 10 bytes"):
        prepare.read_file(Path("/proc/self/status"), "input", 10)


def test_a_file_that_memory_does_not_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.truncate(path, 2**31)
    code = (
        "import resource, sys; from pathlib import Path; from lockstep.workers import prepare\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "try: prepare.read_file(Path(sys.argv[1]), 'input', 2**31)\n"
        "except prepare.UsageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}: there is not memory enough to read the input\n"


def test_an_unknown_model_name_is_refused(tmp_path: Path) -> None:
    path = fleets.fleet(tmp_path, fleets.CONVERSATION)
    with pytest.raises(UsageError, match="model 'other' is not in the fleet, only: default"):
        prepare.prepare(path, None, None, models_at={"other": "/x"})


def test_the_identity_is_json_and_has_no_path_and_no_version(prepared: Prepared) -> None:
    identity = prepare.identity(prepared, [{"model.onnx": "00"}])
    text = json.dumps(identity)
    assert json.loads(text) == identity
    assert str(fleets.TESTS) not in text and "50.0" not in text
    assert identity["fleet"]["models"][0]["path"] == {"model.onnx": "00"}


def test_each_thing_that_decides_a_bit_is_in_the_identity(prepared: Prepared) -> None:
    files = [{"model.onnx": "00"}]
    base = prepare.identity(prepared, files)
    fleet = prepared.fleet
    schedule = replace(fleet.schedule, lookahead=2)
    model = replace(fleet.models[0], intra_op_threads=7)
    changed = [
        prepare.identity(replace(prepared, fleet=replace(fleet, seed=1)), files),
        prepare.identity(replace(prepared, fleet=replace(fleet, schedule=schedule)), files),
        prepare.identity(replace(prepared, fleet=replace(fleet, models=(model,))), files),
        prepare.identity(replace(prepared, input_bytes=b"{}"), files),
        prepare.identity(replace(prepared, input_bytes=None), files),
        prepare.identity(replace(prepared, modules=(b"", b"", b"")), files),
        prepare.identity(prepared, [{"model.onnx": "01"}]),
    ]
    texts = [json.dumps(value) for value in (base, *changed)]
    assert len(set(texts)) == len(texts)


def test_the_environment_names_cpu_versions_and_what_ran(prepared: Prepared) -> None:
    environment = prepare.environment(prepared, [{"got": ["cpu"]}])
    assert environment["versions"]["wasmtime"] and environment["versions"]["python"]
    assert environment["cpu"] and environment["providers"] == [{"got": ["cpu"]}]
    assert environment["models"] == {"default": str(fleets.MODEL)}
