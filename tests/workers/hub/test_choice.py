"""Which files of a repository make a model, and which never come."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.engine.errors import UsageError
from lockstep.workers.hub.choice import beside, choose, safe
from lockstep.workers.hub.listing import Listing, Name, RemoteFile, parse_name, remote_file, sized

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def listing(*paths: str, size: int = 1) -> Listing:
    files = {path: RemoteFile(path, size, "git:" + "0" * 40) for path in paths}
    return Listing(Name("acme/tiny"), "0" * 40, "http://hub", files)


def chosen(*paths: str, asked: str | None = None) -> list[str]:
    return [file.path for file in choose(listing(*paths), asked).files]


def test_a_genai_folder_comes_as_a_whole_small_files_first_weights_last() -> None:
    paths = ("model.onnx.data", "model.onnx", "genai_config.json", *TOKENIZER, "merges.txt")
    assert chosen(*paths) == [
        "genai_config.json",
        "merges.txt",
        *TOKENIZER,
        "model.onnx",
        "model.onnx.data",
    ]


@given(st.permutations(["b.onnx", "a.onnx", "a.onnx.data", "b.onnx_data", "genai_config.json"]))
def test_the_order_in_which_a_hub_lists_its_files_changes_nothing(paths: list[str]) -> None:
    assert chosen(*paths) == [
        *("genai_config.json", "a.onnx", "b.onnx", "a.onnx.data", "b.onnx_data")
    ]


def test_pickles_code_and_other_formats_never_come() -> None:
    never = (
        *("pytorch_model.bin", "model.safetensors", "modeling_x.py", "training_args.bin"),
        *("x.pkl", "x.pt", "model.gguf", "README.md", "onnx/setup.py", ".gitattributes"),
        *("additional_chat_templates/x.py", "run.sh", "tokenizer.json.bak"),
    )
    assert chosen(*never, "config.json", "onnx/model.onnx") == ["config.json", "onnx/model.onnx"]


def test_an_optimum_variant_comes_with_its_own_weights_and_the_tokenizer_above_it() -> None:
    paths = (
        *("config.json", "generation_config.json", "onnx/tokenizer.json", "tokenizer.json"),
        *("chat_template.jinja", "additional_chat_templates/tools.jinja"),
        *("onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_1"),
        *("onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "other/config.json"),
    )
    variant = choose(listing(*paths), "onnx/model.onnx")
    assert variant.folder == "."
    assert [file.path for file in variant.files] == [
        *("additional_chat_templates/tools.jinja", "chat_template.jinja", "config.json"),
        *("generation_config.json", "onnx/tokenizer.json", "tokenizer.json"),
        *("onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_1"),
    ]


def test_a_nested_genai_folder_is_a_model_of_its_own() -> None:
    cpu, gpu = "cpu_and_mobile/cpu-int4", "cuda/cuda-fp16"
    paths = [
        f"{folder}/{name}"
        for folder in (cpu, gpu)
        for name in ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json")
    ]
    for asked in (cpu, f"{cpu}/", f"./{cpu}", f"{cpu}/genai_config.json", f"{cpu}/model.onnx"):
        variant = choose(listing(*paths, "config.json", "tokenizer.json"), asked)
        assert (variant.name, variant.folder) == (cpu, cpu)
        assert all(file.path.startswith(f"{cpu}/") for file in variant.files)
        assert len(variant.files) == 4


def test_several_models_are_told_with_their_sizes_and_none_is_taken_silently() -> None:
    found = listing("onnx/model.onnx", "onnx/model_q4.onnx", "config.json", size=1536)
    with pytest.raises(UsageError, match=r"has 2 models.*--file") as caught:
        choose(found, None)
    assert "onnx/model.onnx (3.0 KiB), onnx/model_q4.onnx (3.0 KiB)" in str(caught.value)


def test_a_list_of_very_many_models_is_cut_and_counted() -> None:
    found = listing(*(f"onnx/model_{n:03}.onnx" for n in range(100)))
    with pytest.raises(UsageError, match=r"has 100 models.*model_023\.onnx \(1 B\) and 76 more"):
        choose(found, None)


def test_a_model_that_is_not_there_names_the_nearest() -> None:
    found = listing("onnx/model.onnx", "onnx/model_q4.onnx")
    with pytest.raises(UsageError, match=r"no model 'onnx/model_q5.onnx'.*'onnx/model_q4.onnx'"):
        choose(found, "onnx/model_q5.onnx")


@pytest.mark.parametrize("paths", [(), ("config.json",), ("genai_config.json", "model.bin")])
def test_a_repository_without_an_onnx_file_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="has no ONNX model"):
        choose(listing(*paths), None)


HOSTILE = (
    *("../config.json", "/config.json", "a/../../config.json", "./config.json", "a//config.json"),
    *("a\\config.json", "config.json/", "a\x00/config.json", "a\n/config.json"),
    *(".lockstep-pull/config.json", "..", "\u202e/config.json", "x" * 256 + "/config.json"),
)


@pytest.mark.parametrize("path", HOSTILE)
def test_a_name_that_leaves_its_folder_is_never_chosen(path: str) -> None:
    onnx = path.replace("config.json", "evil.onnx")
    assert chosen(path, onnx, "model.onnx", "tokenizer.json") == ["tokenizer.json", "model.onnx"]


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n .é"), max_size=12))
def test_a_safe_path_stays_inside_and_means_one_place(path: str) -> None:
    if safe(path):
        root = Path("/nowhere/models")
        assert (root / path).is_relative_to(root) and ".." not in Path(path).parts
        assert str(Path(path)) == path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weights.bin", "onnx/weights.bin"),
        ("./weights.bin", "onnx/weights.bin"),
        ("a/b", "onnx/a/b"),
        ("../weights.bin", None),
        ("modeling.PY", None),
        ("weights.pkl", None),
        ("/etc/passwd", None),
        ("", None),
    ],
)
def test_a_file_that_a_graph_names_lies_beside_it(name: str, expected: str | None) -> None:
    assert beside("onnx/model.onnx", name) == expected


def test_a_name_has_an_owner_and_may_have_a_revision() -> None:
    assert parse_name("acme/tiny-0.5B") == Name("acme/tiny-0.5B", "main")
    assert parse_name("acme/tiny@refs/pr/1") == Name("acme/tiny", "refs/pr/1")


@pytest.mark.parametrize(
    "text",
    [
        *("", "tiny", "a/b/c", "a/", "/b", "a/..", "../b", "-a/b", "a/b@", "a/b@x y", "a b/c"),
        *(
            "https://huggingface.co/acme/tiny",
            "a/b?c",
            "a/b#c",
            "a/\u00e4",
            "a/b\n",
            "a/.b",
            "x/y.",
        ),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected OWNER/NAME"):
        parse_name(text)


def test_a_file_without_size_or_digest_is_refused() -> None:
    assert remote_file("a", 1, "0" * 64, "1" * 40).digest == "sha256:" + "0" * 64
    assert remote_file("a", 1, None, "1" * 40).digest == "git:" + "1" * 40
    for size, sha256, blob in [
        *((None, None, "1" * 40), (-1, None, "1" * 40), (True, None, "1" * 40)),
        *((1, None, None), (1, "0" * 63, "1" * 40), (1, None, "../" + "1" * 37)),
    ]:
        with pytest.raises(ValueError, match="file 'a' has"):
            remote_file("a", size, sha256, blob)


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    told = [sized(n) for n in (0, 1023, 1024, 1 << 20, 3 << 29, 1 << 40, 1 << 52)]
    assert told == ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB", "1.0 TiB", "4096.0 TiB"]
