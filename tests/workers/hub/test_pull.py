"""A model of a hub becomes a folder: whole, with its origin; or not at all, and goes on later."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubserver import COMMIT, LATER, TOKEN, Fault, Server, serving
from onnx import TensorProto, helper

from lockstep.engine.errors import UsageError
from lockstep.workers.hub.destination import STAGING, Destination
from lockstep.workers.hub.listing import PullStopped
from lockstep.workers.hub.pull import Pulled, pull
from lockstep.workers.hub.receipt import RECEIPT, read_receipt
from lockstep.workers.inference.model import ModelFolder

MODEL = Path(__file__).resolve().parents[2] / "data" / "genai-micro-fp32"
SMALL = {"config.json": b"{}", "tokenizer.json": b"{} ", "modeling.py": b"raise SystemExit\n"}


def model() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in MODEL.iterdir() if path.is_file()}
    return {**files, "pytorch_model.bin": b"pickle", "modeling.py": b"code", "README.md": b"# x"}


def graph(*locations: str) -> bytes:
    """An ONNX file whose weights lie in other files."""
    tensors = []
    for n, location in enumerate(locations):
        tensor = TensorProto(name=f"w{n}", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensors.append(tensor)
    made = helper.make_model(helper.make_graph([], "g", [], [], initializer=tensors))
    return bytes(made.SerializeToString())


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(model()) as found:
        yield found


@pytest.fixture
def several() -> Iterator[Server]:
    files = {
        **SMALL,
        "onnx/model.onnx": graph("model.onnx_data"),
        "onnx/model.onnx_data": b"all of it" * 1000,
        "onnx/model_q4.onnx": graph("model_q4.onnx_data", "odd.name"),
        "onnx/model_q4.onnx_data": b"less" * 1000,
        "onnx/odd.name": b"and this" * 1000,
    }
    with serving(files) as found:
        yield found


def bring(server: Server, to: Path, name: str = "acme/tiny", **more: Any) -> Pulled:
    return pull(name, to=to, endpoint=server.url, **more)


def tree(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_model_arrives_whole_with_its_origin_and_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    pulled = bring(server, tmp_path / "m")
    found = tree(tmp_path / "m")
    receipt = json.loads(found.pop(RECEIPT))
    never = ("pytorch_model.bin", "modeling.py", "README.md", "expected.json")
    assert found == {k: v for k, v in server.files.items() if k not in never}
    assert {one["file"]: one["sha256"] for one in receipt["files"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in found.items()
    }
    assert all(one["bytes"] == len(found[one["file"]]) for one in receipt["files"])
    assert (receipt["repository"], receipt["revision"]) == ("acme/tiny", "main")
    assert (receipt["commit"], receipt["endpoint"]) == (COMMIT, server.url)
    assert receipt["pulled"].endswith("+00:00")
    assert read_receipt(tmp_path / "m" / RECEIPT) == pulled.receipt
    assert pulled.fetched == sum(map(len, found.values()))
    assert not (tmp_path / "m" / STAGING).exists()


def test_what_arrived_is_a_model_that_opens(server: Server, tmp_path: Path) -> None:
    folder = ModelFolder.open(bring(server, tmp_path / "m").model)
    folder.close()
    assert RECEIPT not in folder.identity()


def test_a_nested_model_is_named_where_it_lies(tmp_path: Path) -> None:
    deep = "cpu_and_mobile/cpu-int4"
    with serving({f"{deep}/{name}": data for name, data in model().items()}) as server:
        pulled = bring(server, tmp_path / "m", file=deep)
    assert pulled.model == tmp_path / "m" / deep
    ModelFolder.open(pulled.model).close()


def test_one_of_several_models_comes_with_all_the_weights_that_its_graph_names(
    several: Server, tmp_path: Path
) -> None:
    pulled = bring(several, tmp_path / "m", file="onnx/model_q4.onnx")
    never = ("modeling.py", "onnx/model.onnx", "onnx/model.onnx_data")
    found = tree(tmp_path / "m")
    del found[RECEIPT]
    assert found == {k: v for k, v in several.files.items() if k not in never}
    assert pulled.model == tmp_path / "m"
    assert [taken.file for taken in pulled.receipt.files][-1] == "onnx/odd.name"


def test_several_models_and_no_choice_make_no_folder(several: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 models, choose one with --file"):
        bring(several, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["missing.data", "../weights", "/etc/passwd", "modeling.py"])
def test_weights_that_the_repository_has_not_are_named(tmp_path: Path, location: str) -> None:
    with (
        serving({**SMALL, "model.onnx": graph(location)}) as server,
        pytest.raises(PullStopped, match=f"names its weights '{location}': the repository has no"),
    ):
        bring(server, tmp_path / "m")
    assert set(tree(tmp_path / "m").keys()) == {
        f"{STAGING}/{name}"
        for name in (
            *("lock", "plan.json", "files/config.json", "files/tokenizer.json"),
            "files/model.onnx",
        )
    }


def test_a_file_that_is_no_graph_is_said_to_be_none(tmp_path: Path) -> None:
    with (
        serving({**SMALL, "model.onnx": b"<html>not here</html>"}) as server,
        pytest.raises(PullStopped, match=r"model\.onnx: byte .* cannot be loaded"),
    ):
        bring(server, tmp_path / "m")


# -- going on -------------------------------------------------------------------------------------


def stop(server: Server, to: Path) -> None:
    """A pull that ends early, in its weights."""
    path = "model.onnx.data"
    server.faults = [Fault("cut", 100_000, path), Fault("status", 404, path)]
    with pytest.raises(PullStopped, match=r"are kept in .* the same command goes on"):
        bring(server, to)
    server.faults = []
    server.asked.clear()


def test_a_pull_that_ended_early_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    stop(server, tmp_path / "m")
    pulled = bring(server, tmp_path / "m")
    ModelFolder.open(pulled.model).close()
    gets = [one.path.rsplit("/", 1)[1] for one in server.asked if one.host == "store"]
    assert gets == ["model.onnx.data"]
    assert server.gets("model.onnx.data") == ["bytes=100000-"]
    assert pulled.fetched == len(server.files["model.onnx.data"]) - 100_000


def test_a_folder_without_its_end_is_no_model(server: Server, tmp_path: Path) -> None:
    stop(server, tmp_path / "m")
    assert [path.name for path in (tmp_path / "m").iterdir()] == [STAGING]


def test_a_pull_goes_on_at_its_commit_when_the_branch_has_moved(
    server: Server, tmp_path: Path
) -> None:
    stop(server, tmp_path / "m")
    server.revisions["main"] = LATER
    receipt = bring(server, tmp_path / "m").receipt
    assert (receipt.revision, receipt.commit) == ("main", COMMIT)


def test_a_choice_that_was_made_needs_no_repetition(several: Server, tmp_path: Path) -> None:
    several.faults = [Fault("status", 404, "onnx/odd.name")]
    with pytest.raises(PullStopped):
        bring(several, tmp_path / "m", file="onnx/model_q4.onnx")
    assert bring(several, tmp_path / "m").receipt.chosen == "onnx/model_q4.onnx"


def test_a_pull_killed_while_it_moved_its_files_ends_them(server: Server, tmp_path: Path) -> None:
    stop(server, tmp_path / "m")
    parts = tmp_path / "m" / STAGING / "files"
    (parts / "genai_config.json").rename(tmp_path / "m" / "genai_config.json")
    bring(server, tmp_path / "m")
    assert server.gets("genai_config.json") == []
    found = tree(tmp_path / "m")
    assert found["genai_config.json"] == server.files["genai_config.json"]
    assert not any(name.startswith(STAGING) for name in found)


def test_a_pull_killed_before_it_cleaned_up_is_done(server: Server, tmp_path: Path) -> None:
    bring(server, tmp_path / "m")
    before = tree(tmp_path / "m")
    (tmp_path / "m" / STAGING).mkdir()
    (tmp_path / "m" / STAGING / "lock").touch()
    assert bring(server, tmp_path / "m").fetched == 0
    assert tree(tmp_path / "m") == before


def test_wrong_bytes_cost_that_file_only(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault("wrong", 77, "model.onnx")]
    with pytest.raises(PullStopped, match=r"model\.onnx: its 14392 bytes have sha256:.*expected"):
        bring(server, tmp_path / "m")
    server.asked.clear()
    bring(server, tmp_path / "m")
    assert server.gets("tokenizer.json") == [] and server.gets("model.onnx") == [""]


def test_a_hub_whose_digest_is_not_that_of_its_bytes_gives_no_model(
    server: Server, tmp_path: Path
) -> None:
    server.lies["tokenizer.json"] = "ab" * 32
    for _ in range(2):
        with pytest.raises(PullStopped, match=r"tokenizer\.json.*expected sha256:abab"):
            bring(server, tmp_path / "m")


# -- what is there already ------------------------------------------------------------------------


def test_a_second_pull_reads_everything_and_fetches_nothing(server: Server, tmp_path: Path) -> None:
    first = bring(server, tmp_path / "m")
    before = tree(tmp_path / "m")
    server.asked.clear()
    again = bring(server, tmp_path / "m")
    assert (again.fetched, again.receipt) == (0, first.receipt)
    assert tree(tmp_path / "m") == before
    assert [one.path for one in server.asked] == ["/api/models/acme/tiny/revision/main"]


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_model_that_was_changed_since_is_refused_and_left_alone(
    server: Server, tmp_path: Path, damage: str
) -> None:
    bring(server, tmp_path / "m")
    path = tmp_path / "m" / "model.onnx.data"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"mine" + path.read_bytes()[4:])
    before = tree(tmp_path / "m")
    with pytest.raises(UsageError, match=r"model\.onnx\.data: (missing|is not what was pulled)"):
        bring(server, tmp_path / "m")
    assert tree(tmp_path / "m") == before


def test_a_folder_with_other_files_is_refused_and_left_alone(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.tex").write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"has other files in it \(thesis\.tex\).*--to"):
        bring(server, tmp_path / "m")
    assert tree(tmp_path / "m") == {"thesis.tex": b"years of work"}
    assert server.asked == []


def test_a_file_in_the_way_of_a_pull_that_goes_on_is_refused_and_left_alone(
    server: Server, tmp_path: Path
) -> None:
    stop(server, tmp_path / "m")
    (tmp_path / "m" / "genai_config.json").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there with other bytes"):
        bring(server, tmp_path / "m")
    assert (tmp_path / "m" / "genai_config.json").read_bytes() == b"mine"


def test_an_empty_folder_is_filled(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert bring(server, tmp_path / "m").fetched > 0


def test_a_file_in_the_place_of_the_folder_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not a folder"):
        bring(server, tmp_path / "m")


@pytest.mark.parametrize("whole", [True, False])
def test_two_models_are_never_mixed(several: Server, tmp_path: Path, whole: bool) -> None:
    if not whole:
        several.faults = [Fault("status", 404, "onnx/model.onnx_data")]
    try:
        bring(several, tmp_path / "m", file="onnx/model.onnx")
    except PullStopped:
        assert not whole
    before = tree(tmp_path / "m")
    state = "has" if whole else "has the beginning of"
    with pytest.raises(UsageError, match=f"{state} onnx/model.onnx of acme/tiny at 0123456789ab"):
        bring(several, tmp_path / "m", file="onnx/model_q4.onnx")
    assert tree(tmp_path / "m") == before


def test_another_commit_is_another_model(server: Server, tmp_path: Path) -> None:
    bring(server, tmp_path / "m")
    server.revisions["main"] = LATER
    with pytest.raises(UsageError, match=r"at 0123456789ab, and .* at 89abcdef0123 was asked for"):
        bring(server, tmp_path / "m")
    assert bring(server, tmp_path / "m", "acme/tiny@v1").fetched == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "nonsense", '{"format": 1}'])
def test_a_receipt_that_is_none_is_refused(server: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / RECEIPT).write_text(text)
    with pytest.raises(UsageError, match="no record of a pull"):
        bring(server, tmp_path)


def test_two_pulls_do_not_write_to_one_folder(server: Server, tmp_path: Path) -> None:
    stop(server, tmp_path / "m")
    other = Destination(tmp_path / "m")
    assert other.begun is not None
    other.begin(other.begun)
    with pytest.raises(UsageError, match="another pull is writing to it"):
        bring(server, tmp_path / "m")
    other.close()
    assert bring(server, tmp_path / "m").fetched > 0


def test_too_little_room_is_told_in_numbers_before_anything_is_made(
    server: Server, tmp_path: Path
) -> None:
    server.sizes["model.onnx.data"] = 1 << 49
    with pytest.raises(UsageError, match=r"m: 512\.0 TiB are needed \(\d+ bytes\) and .* are free"):
        bring(server, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# -- who may, and what there is -------------------------------------------------------------------


def test_a_token_goes_to_the_hub_and_to_no_other_host(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.gated = server.private = True
    bring(server, tmp_path / "m")
    assert {one.token for one in server.asked if one.host == "hub"} == {f"Bearer {TOKEN}"}
    assert {one.token for one in server.asked if one.host == "store"} == {""}
    assert not any(TOKEN.encode() in data for data in tree(tmp_path / "m").values())


def test_the_hub_is_asked_for_the_list_and_for_files_and_for_nothing_else(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT", "somebody")  # The library would fetch a list of such programs.
    bring(server, tmp_path / "m")
    assert {one.path.split("/")[1] for one in server.asked} == {"api", "acme", "store"}
    assert [one.path for one in server.asked if "/api/" in one.path] == [
        "/api/models/acme/tiny/revision/main"
    ]
    assert not any("agent" in one.agent or "torch" in one.agent for one in server.asked)


def test_a_gated_model_names_the_cure_and_makes_no_folder(server: Server, tmp_path: Path) -> None:
    server.gated = True
    cure = f"acme/tiny is gated: accept its terms at {server.url}/acme/tiny, then set HF_TOKEN"
    with pytest.raises(UsageError, match=cure):
        bring(server, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_becomes_gated_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.faults = [Fault("status", 403, "model.onnx")]
    with pytest.raises(PullStopped, match=r"answers 403.*HF_TOKEN.*are kept"):
        bring(server, tmp_path / "m")


def test_a_token_that_is_not_accepted_is_named_but_not_shown(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretOfMine")
    with pytest.raises(UsageError, match=r"answers 401.*HF_TOKEN has to be") as caught:
        bring(server, tmp_path / "m")
    assert "secretOfMine" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme/nothing", "has no repository acme/nothing, or it is private: then HF_TOKEN"),
        ("acme/tiny@v9", "acme/tiny has no revision 'v9'"),
        ("tiny", "expected OWNER/NAME"),
    ],
)
def test_what_there_is_not_is_named_and_makes_no_folder(
    server: Server, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        bring(server, tmp_path / "m", name)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_without_sizes_is_refused(server: Server, tmp_path: Path) -> None:
    server.sizes["README.md"] = -1
    with pytest.raises(UsageError, match=r"does not answer as a hub does \(ValueError: file"):
        bring(server, tmp_path / "m")


def test_a_password_in_the_address_of_a_hub_is_shown_nowhere(
    server: Server, tmp_path: Path
) -> None:
    address = server.url.replace("http://", "http://me:myPassword@")
    receipt = pull("acme/tiny", to=tmp_path / "m", endpoint=address).receipt
    assert receipt.endpoint == server.url
    assert not any(b"myPassword" in data for data in tree(tmp_path / "m").values())
