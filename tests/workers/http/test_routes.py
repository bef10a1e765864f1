"""Routes of a real service: its models, its fleet, who is let in, what is refused."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from web import Web

SAID = [{"role": "user", "content": "x"}]
GREEDY = {"temperature": 0, "max_tokens": 6}


def said(reply: Any) -> str:
    """The text of a stream's pieces, joined."""
    deltas = [each["choices"][0]["delta"] for each in reply.events if each["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_what_is_offered_is_listed(web: Web) -> None:
    listed = web.get("/v1/models").json["data"]
    assert [model["id"] for model in listed] == ["small", "words", "fleet:web"]
    assert listed[0]["lockstep"]["tokens_max"] == 128
    assert web.get("/v1/models/fleet:web").json["id"] == "fleet:web"
    missing = web.get("/v1/models/smal")
    assert missing.status == 404 and "small" in missing.error["message"]


def test_a_chat_says_what_it_cost_and_where_it_is_recorded(web: Web) -> None:
    reply = web.chat("say 1", **GREEDY)
    assert reply.status == 200
    found = reply.json
    assert found["object"] == "chat.completion" and found["model"] == "small"
    (choice,) = found["choices"]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] in (
        "stop",
        "length",
    )
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 6
    place = found["lockstep"]
    assert place["run"] == "web-1" and place["sampling"]["max_tokens"] == 6
    assert (
        found["system_fingerprint"] == web.get("/v1/models/small").json["lockstep"]["fingerprint"]
    )
    line = web.ask(do="cancel", item=found["id"].removeprefix("chatcmpl-"))
    assert "finished already" in line["error"]  # The item is there, by the answer's id.


def test_a_stream_is_the_same_answer_in_pieces(web: Web) -> None:
    whole = web.chat("say 2", **GREEDY).json
    reply = web.chat("say 2", stream=True, stream_options={"include_usage": True}, **GREEDY)
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert said(reply) == whole["choices"][0]["message"]["content"]
    events = reply.events
    assert len(events) > 4  # Not one piece alone.
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert all(each["usage"] is None for each in events[:-1])
    assert len({each["id"] for each in events}) == 1


def test_a_stream_ends_before_its_stop_string(web: Web) -> None:
    whole = web.chat("say 3", temperature=0, max_tokens=12).json["choices"][0]["message"]["content"]
    stop = whole[len(whole) // 2 :][:3]
    cut = web.chat("say 3", temperature=0, max_tokens=12, stop=[stop, "never in it"], stream=True)
    assert said(cut) == whole[: whole.index(stop)]


def test_equal_requests_with_a_seed_draw_alike_and_without_one_they_do_not(web: Web) -> None:
    def answers(**more: Any) -> list[str]:
        replies = [web.chat("tell", max_tokens=12, temperature=2, **more) for _ in range(2)]
        return [reply.json["choices"][0]["message"]["content"] for reply in replies]

    first, second = answers(seed=11)
    assert first == second
    first, second = answers()
    assert first != second


def test_n_answers_of_one_prompt_come_with_their_indices(web: Web) -> None:
    found = web.chat("tell", n=3, max_tokens=5, temperature=2).json
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    reply = web.chat("tell", n=2, max_tokens=5, stream=True)
    ends = [each["choices"][0] for each in reply.events]
    assert [end["index"] for end in ends if end["finish_reason"]] == [0, 1]


def test_log_probabilities_are_of_each_token(web: Web) -> None:
    found = web.chat("say 4", logprobs=True, top_logprobs=2, **GREEDY).json
    content = found["choices"][0]["logprobs"]["content"]
    assert len(content) == found["usage"]["completion_tokens"]
    assert [len(each["top_logprobs"]) for each in content] == [2] * len(content)
    assert all(each["logprob"] <= 0 for each in content)
    body = {"model": "small", "prompt": "say 4", "logprobs": 2, **GREEDY}
    legacy = web.post("/v1/completions", body).json["choices"][0]["logprobs"]
    assert len(legacy["tokens"]) == len(legacy["token_logprobs"]) == len(legacy["text_offset"])


def test_a_completion_goes_on_with_its_prompt(web: Web) -> None:
    body = {"model": "small", "prompt": "The quick brown", **GREEDY}
    found = web.post("/v1/completions", body).json
    assert found["object"] == "text_completion"
    events = web.post("/v1/completions", {**body, "stream": True}).events
    assert "".join(each["choices"][0]["text"] for each in events) == found["choices"][0]["text"]


def test_embeddings_are_vectors_as_numbers_or_as_their_bytes(web: Web) -> None:
    body = {"model": "words", "input": ["the cat", "dog"]}
    found = web.post("/v1/embeddings", body).json
    vectors = [each["embedding"] for each in found["data"]]
    assert [len(vector) for vector in vectors] == [4, 4]
    packed = web.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json["data"]
    assert [list(struct.unpack("<4f", base64.b64decode(each["embedding"]))) for each in packed] == (
        vectors
    )
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_the_fleet_answers_as_a_model(web: Web) -> None:
    found = web.chat('{"n": 1}', "fleet:web").json
    item = json.loads(found["choices"][0]["message"]["content"])
    assert item["n"] == 1 and found["id"] == f"chatcmpl-{item['id']}"
    assert found["usage"] is None and found["lockstep"]["run"] == "web-1"
    text = json.loads(said(web.chat("why?", "fleet:web", stream=True)))
    assert text["text"] == "why?"
    once = [web.chat('{"id": "mine", "n": 2}', "fleet:web").json["lockstep"] for _ in range(2)]
    assert once[0] == once[1]  # One item, asked for twice.
    other = web.chat('{"id": "mine", "n": 3}', "fleet:web")
    assert other.status == 400 and other.error["code"] == "id_in_use"


def test_a_key_of_the_client_makes_one_item_of_two_requests(web: Web) -> None:
    body = {"model": "small", "prompt": "say 5", "temperature": 1}
    asked = [web.post("/v1/completions", body, Idempotency_Key="k1") for _ in range(2)]
    assert asked[0].json["lockstep"] == asked[1].json["lockstep"]
    other = web.post("/v1/completions", {**body, "prompt": "say 6"}, Idempotency_Key="k1")
    assert other.status == 400 and other.error["code"] == "id_in_use"
    assert web.post("/v1/completions", body, Idempotency_Key="k " * 3).status == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        ("chat/completions", {"model": "smal", "messages": SAID},
         404, "model", "model_not_found"),
        ("chat/completions", {"model": "fleet:other", "messages": SAID},
         404, "model", "model_not_found"),
        ("chat/completions", {"model": "words", "messages": SAID},
         400, "model", "model_not_supported"),
        ("embeddings", {"model": "small", "input": "x"}, 400, "model", "model_not_supported"),
        ("completions", {"model": "small", "prompt": "x", "max_tokens": 1000},
         400, "prompt", "context_length_exceeded"),
        ("completions", {"model": "small", "prompt": "x", "best_of": 2},
         400, "best_of", "unsupported_parameter"),
        ("completions", {"model": "small", "prompt": "x", "stop_token_ids": [99999]},
         400, "stop_token_ids", None),
        ("embeddings", {"model": "words", "input": "cat " * 20}, 400, "input", None),
        ("embeddings", {"model": "words", "input": "cat", "dimensions": 9},
         400, "dimensions", None),
    ],
)  # fmt: skip
def test_what_is_refused_names_its_parameter(
    web: Web, path: str, body: Any, status: int, param: str, code: str | None
) -> None:
    reply = web.post(f"/v1/{path}", body)
    assert reply.status == status
    assert (reply.error["param"], reply.error["code"]) == (param, code)
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_is_too_long_hears_of_what_it_said_itself(web: Web, stream: bool) -> None:
    reply = web.chat("hi", max_completion_tokens=1000, stream=stream)
    assert (reply.status, reply.error["param"]) == (400, "messages")
    assert "max_completion_tokens = 1000" in reply.error["message"]


def test_a_refused_stream_is_no_stream(web: Web) -> None:
    body = {"model": "small", "prompt": "x", "max_tokens": 1000, "stream": True}
    reply = web.post("/v1/completions", body)
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"


def test_what_is_no_request_is_refused(web: Web) -> None:
    post, path = web.request, "/v1/chat/completions"
    assert post("POST", path, b"{}", Content_Type="text/plain").status == 415
    assert post("POST", path, b"{", Content_Type="application/json").status == 400
    assert post("POST", path, b"[]", Content_Type="application/json").status == 400
    assert post("POST", path, b" " * (2 << 20), Content_Type="application/json").status == 413
    assert web.get(path).status == 405 and web.get(path).headers["Allow"] == "POST"
    assert web.get("/etc/passwd").status == 404
    assert web.get("/v1/../../etc/passwd").error["type"] == "invalid_request_error"


def test_a_name_that_is_not_ours_is_not_served(web: Web) -> None:
    for path in ("/v1/models", "/healthz", "/nowhere"):
        assert web.get(path, Host="evil.example").status == 421
    for name in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000", "192.0.2.7"):
        assert web.get("/healthz", Host=name).status == 200


def test_who_watches_hears_how_it_is(web: Web) -> None:
    assert web.get("/healthz").data == b"ok\n"
    ready = web.get("/readyz")
    assert ready.status == 200 and ready.data == b"ready\n"
    front = web.front
    assert front["state"] == "live" and front["restarts"] == 0
    assert json.loads((web.state / "service.json").read_text())["http"] == front["address"]


def test_an_item_that_its_client_can_ask_for_again_goes_on_without_it(web: Web) -> None:
    body = {"model": "small", "prompt": "go on", "ignore_eos": True, "max_tokens": 60}
    head = {"Content-Type": "application/json", "Idempotency-Key": "k2"}
    connection = web.connection()
    before = web.status()["accepted"]
    connection.request("POST", "/v1/completions", json.dumps(body), head)
    web.wait(lambda: web.status()["accepted"] > before)
    connection.close()
    again = web.post("/v1/completions", body, Idempotency_Key="k2")
    assert again.status == 200 and again.json["usage"]["completion_tokens"] == 60


def test_ids_cannot_be_foreseen_nor_taken_by_a_client(web: Web) -> None:
    first, second = (web.chat("hi", max_tokens=1).json["id"] for _ in range(2))
    known = len("chatcmpl-http-")
    assert first[:known] == second[:known] == "chatcmpl-http-"
    assert first[known : known + 8] != second[known : known + 8]
    for id in ("http-1", "key-k1"):
        refused = web.chat(json.dumps({"id": id}), "fleet:web")
        assert refused.status == 400 and "which is ours" in refused.error["message"]


def test_a_refusal_names_what_the_client_has_written(web: Web) -> None:
    refused = web.chat("hi", max_completion_tokens=0)
    assert refused.status == 400 and refused.error["param"] == "max_completion_tokens"
    assert refused.error["message"].startswith("max_completion_tokens")
    refused = web.post("/v1/completions", {"model": "fleet:web", "prompt": "hi"})
    assert refused.status == 400 and refused.error["code"] == "model_not_supported"
