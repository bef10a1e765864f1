"""The streaming detokeniser: its pieces are the text of the whole, for every kind of tokenizer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.workers.inference.detokenizer import Detokenizer
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.text import Text

DATA = Path(__file__).parents[2] / "data"
RUN = [0xE6 + 3, 0x97 + 3, 0xA5 + 3]  # 日, in tokens of one byte.
WORDS = ["▁", "▁hello", "▁wor", "ld", "▁▁", ".", "▁a", "é", "▁日", "!"]

relaxed = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def text_of(path: Path) -> Text:
    folder = ModelFolder.open(path)
    try:
        return Text(folder)
    finally:
        folder.close()


def metaspace() -> dict[str, Any]:
    """As SentencePiece's Llama tokenizers are exported: metaspace, bytes for what is unknown."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    special = [
        {"id": n, "content": pieces[n], "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for n in range(3)
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False, "vocab": {piece: n for n, piece in enumerate(pieces)},
            "merges": [],
        },
    }  # fmt: skip


Make = Callable[[str], Text]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, Text] = {}

    def make(kind: str) -> Text:
        if kind not in made:
            path = DATA / f"genai-micro-{kind}"
            if kind in ("metaspace", "metaspace first", "wordpiece"):
                path = tmp_path_factory.mktemp("model") / "model"
                shutil.copytree(DATA / "genai-micro-fp32", path)
                config = metaspace()
                if kind == "metaspace first":
                    config["decoder"] = {
                        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                        "split": False,
                    }  # fmt: skip
                if kind == "wordpiece":
                    config["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
                (path / "tokenizer.json").write_text(json.dumps(config))
            made[kind] = text_of(path)
        return made[kind]

    return make


def pieces_of(text: Text, ids: list[int]) -> list[str]:
    reader = Detokenizer(text)
    return [*(reader.push(token) for token in ids), reader.finish()]


@relaxed
@pytest.mark.parametrize("kind", ["fp32", "qwen2-fp32"])
@given(ids=st.lists(st.integers(0, 530), max_size=40))
def test_pieces_of_any_byte_level_ids_are_the_text_of_the_whole(
    texts: Make, kind: str, ids: list[int]
) -> None:
    text = texts(kind)
    assert "".join(pieces_of(text, ids)) == text.decode(ids)


@relaxed
@pytest.mark.parametrize("kind", ["metaspace", "metaspace first", "wordpiece"])
@given(
    ids=st.lists(st.integers(0, 275) | st.sampled_from(RUN) | st.integers(259, 268), max_size=30)
)
def test_pieces_of_any_metaspace_ids_are_the_text_of_the_whole(
    texts: Make, kind: str, ids: list[int]
) -> None:
    text = texts(kind)
    assert "".join(pieces_of(text, ids)) == text.decode(ids)


@relaxed
@pytest.mark.parametrize("kind", ["fp32", "metaspace"])
@given(words=st.text(st.sampled_from("ab .é日🙂\n"), max_size=20))
def test_what_is_settled_is_a_beginning_of_every_later_text(
    texts: Make, kind: str, words: str
) -> None:
    text = texts(kind)
    ids = text.encode(words)
    settled = ""
    for n, piece in enumerate(pieces_of(text, ids)[:-1], 1):
        settled += piece
        assert text.decode(ids).startswith(settled)
        assert "\ufffd" not in settled
        assert text.decode(ids[:n]).startswith(settled)


def test_a_character_comes_with_its_last_byte_and_not_before(texts: Make) -> None:
    text = texts("fp32")
    ids = text.encode("é!")
    assert len(ids) == 3 and pieces_of(text, ids) == ["", "é", "!", ""]
    assert pieces_of(text, ids[:1]) == ["", "\ufffd"]


def test_a_run_of_byte_tokens_comes_with_its_end(texts: Make) -> None:
    text = texts("metaspace")
    assert pieces_of(text, [*RUN, 260]) == ["", "", "", "日 hello", ""]
    assert pieces_of(text, [*RUN, 0xFF + 3, 260])[-2] == "\ufffd" * 4 + " hello"
    # Special tokens are left out before runs are joined, so they do not end one.
    assert pieces_of(text, [RUN[0], 2, *RUN[1:], 264]) == ["", "", "", "", "日.", ""]
