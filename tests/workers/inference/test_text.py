"""Tokenizer and chat template of the folder: exact ids, no clock, no thread, no runaway."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.workers.inference import text as text_module
from lockstep.workers.inference.model import ModelFolder
from lockstep.workers.inference.request import InferRequest, Message
from lockstep.workers.inference.text import Text

TURNS = (Message("system", "Be kind."), Message("user", "Hi <b>"))


def load(path: Path, date: str = text_module.FROZEN_DATE) -> Text:
    folder = ModelFolder.open(path)
    try:
        return Text(folder, date)
    finally:
        folder.close()


def with_template(copy: Path, source: str) -> Text:
    (copy / "chat_template.jinja").write_text(source)
    return load(copy)


def test_ids_are_those_of_expected_json(any_model: Path) -> None:
    text = load(any_model)
    for case in json.loads((any_model / "expected.json").read_text())["cases"]:
        assert text.encode(case["prompt_text"]) == case["prompt_ids"]
        assert text.decode(case["prompt_ids"]) == case["prompt_text"]


def test_special_tokens_are_left_out_and_broken_utf8_is_replaced(fp32: Path) -> None:
    text = load(fp32)
    assert text.decode([1, *text.encode("hello"), 2, 0]) == "hello"
    assert text.decode(text.encode("é")[:1]) == "\ufffd"
    assert text.decode([]) == ""


def test_the_names_of_tokens_joined_are_the_bytes_of_the_text(any_model: Path) -> None:
    text = load(any_model)
    said = " Grüße,\n\t𝄞 a  b"
    joined = b"".join(text.named(token).data for token in text.encode(said))
    assert joined.decode() == said
    assert text.named(text.encode("é")[0]) == ("\ufffd", b"\xc3")
    assert text.named(2).text.encode() == text.named(2).data != b""  # A special one, as written.
    assert text.named(1 << 20) == ("", b"")


@pytest.mark.parametrize(("decoder", "words"), [
    ({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}, {1: " the", 2: "é"}),
    ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, {1: " the", 2: "é"}),
], ids=["byte fallback", "metaspace"])  # fmt: skip
def test_a_token_is_named_as_it_stands_inside_a_text(
    copy: Path, decoder: dict[str, Any], words: dict[int, str]
) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocab = {"<unk>": 0, "▁the": 1, "é": 2} | {f"<0x{n:02X}>": n + 3 for n in range(256)}
    tokenizer |= {
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        "added_tokens": [], "pre_tokenizer": None, "post_processor": None, "decoder": decoder,
    }  # fmt: skip
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    text = load(copy)
    assert {token: text.named(token).text for token in words} == words
    falls_back = decoder["type"] == "Sequence"
    assert text.named(3 + 0xC3).data == (b"\xc3" if falls_back else b"<0xC3>")


def test_chat_is_rendered_with_the_folders_template(fp32: Path) -> None:
    chat = load(fp32).chat(TURNS)
    assert chat == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = load(fp32).prompt_ids(InferRequest(messages=TURNS))
    assert ids[0] == 1
    assert ids.count(2) == 2


def test_template_sees_the_frozen_date_and_the_special_tokens(copy: Path) -> None:
    source = "{{ bos_token }}{{ strftime_now('%Y-%m-%d') }}{{ messages | tojson }}"
    (copy / "chat_template.jinja").write_text(source)
    assert load(copy).chat(TURNS).startswith('<|endoftext|>2000-01-01[{"role": "system"')
    assert "2031-05-06" in load(copy, "2031-05-06T00:00:00Z").chat(TURNS)
    assert "Hi <b>" in load(copy).chat(TURNS)


def test_template_that_misbehaves_refuses_the_request(copy: Path) -> None:
    text = with_template(copy, "{{ raise_exception('no system here') }}")
    for _ in range(2):
        with pytest.raises(RequestRejected, match=r"^messages: chat template: no system here$"):
            text.chat(TURNS)
    with pytest.raises(RequestRejected, match="prints a method"):
        with_template(copy, "{{ messages[0].items }}").chat(TURNS)


def test_template_that_cannot_be_compiled_refuses_messages_alone(copy: Path) -> None:
    text = with_template(copy, "{% include 'x' %}")
    assert text.template_error == "Include is not allowed (line 1)"
    with pytest.raises(RequestRejected) as caught:
        text.prompt_ids(InferRequest(messages=TURNS))
    assert str(caught.value) == (
        "messages: the model's chat template cannot be used (Include is not allowed (line 1)), "
        "it takes only a prompt"
    )
    assert text.prompt_ids(InferRequest(prompt="a")) == [67]


def test_template_sees_no_documents_where_the_rules_of_the_run_know_them(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ documents is none }}")
    folder = ModelFolder.open(copy)
    assert [Text(folder, logic_flags=flags).chat(TURNS) for flags in (7, 15)] == ["False", "True"]
    folder.close()


def test_messages_without_a_template_are_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(RequestRejected, match="no chat template"):
        load(copy).prompt_ids(InferRequest(messages=TURNS))
    assert load(copy).prompt_ids(InferRequest(prompt="a")) == [67]


def test_prompt_without_tokens_is_refused(copy: Path) -> None:
    text = with_template(copy, "")
    with pytest.raises(RequestRejected, match="0 tokens, at least 1"):
        text.prompt_ids(InferRequest(messages=TURNS))


def test_id_beyond_the_model_is_refused(fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = load(fp32)
    monkeypatch.setattr(text, "_vocab", 300)
    with pytest.raises(RequestRejected, match="token id 337, the model has ids of 0 to 299"):
        text.encode("ate")


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"version": "1.0", "model": {}}'])
def test_malformed_tokenizer_refuses_the_model(copy: Path, content: str) -> None:
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(ModelRejected, match=r"tokenizer\.json: "):
        load(copy)


def test_random_tokenizer_refuses_the_model(
    copy: Path, edit_json: Callable[[Path, Callable[[Any], None]], None]
) -> None:
    edit_json(copy / "tokenizer.json", lambda c: c["model"].update(dropout=0.1))
    with pytest.raises(ModelRejected, match=r"dropout is 0\.1"):
        load(copy)


def test_settings_of_the_file_that_cut_or_pad_are_ignored(
    copy: Path, edit_json: Callable[[Path, Callable[[Any], None]], None]
) -> None:
    plain = load(copy).encode("Initiate the thing")

    def change(config: Any) -> None:
        config["truncation"] = {
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip

    edit_json(copy / "tokenizer.json", change)
    assert load(copy).encode("Initiate the thing") == plain


def test_encoding_and_decoding_start_no_thread(fp32: Path) -> None:
    text = load(fp32)
    before = len(list(Path("/proc/self/task").iterdir())), threading.active_count()
    ids = text.encode("some words of a long prompt " * 5000)
    text.decode(ids)
    assert (len(list(Path("/proc/self/task").iterdir())), threading.active_count()) == before
