"""Parameters: what of OpenAI's requests is served, and what becomes of it.

Every key of a request is in one of the tables here, or the request is refused and the key named.
What is served becomes a request as agents write them (docs/requests.md), checked by their rules.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep.engine.errors import RequestRejected
from lockstep.engine.settings import nearest
from lockstep.engine.strict_json import loads
from lockstep.workers.http.problems import Problem, bad
from lockstep.workers.inference.fields import shown
from lockstep.workers.inference.request import parse_infer
from lockstep.workers.inference.tensor_request import parse_tensor_request

SAMPLING = (
    "temperature", "top_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty",
    # vLLM's, and ours.
    "top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
    "defaults",
)  # fmt: skip
STREAM = ("stream", "stream_options")
CHAT = ("model", "messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs")
COMPLETION = ("model", "prompt", "max_tokens", "logprobs")
EMBEDDING = ("model", "input", "dimensions", "encoding_format")
# What cannot change an answer.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "parallel_tool_calls",
)  # fmt: skip
# What is not served, beside the one value that asks for nothing; null always does.
NEUTRAL: dict[str, Any] = {
    "response_format": {"type": "text"}, "logit_bias": {}, "tools": [], "tool_choice": "none",
    "functions": [], "function_call": "none", "modalities": ["text"],
    "echo": False, "best_of": 1, "suffix": "", "audio": None, "prediction": None,
    "reasoning_effort": None, "verbosity": None, "web_search_options": None, "moderation": None,
}  # fmt: skip
TEMPERATURE, COMPLETION_TOKENS = 1, 16  # OpenAI's defaults.
LENGTHS = ("prompt", "max_tokens", "min_tokens")  # What is refused of them may name `max_tokens`.
MESSAGE = ("role", "content")


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request.

    Attributes:
        model: Its name.
        request: For the model: the payload of INFER.
        stream: The answer is wanted in pieces.
        usage: And its usage in the last of them.
        floats: Of embeddings: vectors as numbers, not in base64.
        names: What the client calls parameters of ``request`` that have other names there.
    """

    model: str
    request: dict[str, Any]
    stream: bool = False
    usage: bool = False
    floats: bool = False
    names: Mapping[str, str] = field(default_factory=dict)


def chat(body: dict[str, Any]) -> Asked:
    """A request to /v1/chat/completions.

    Raises:
        Problem: it is not served; the parameter is named.
    """
    found = _known(body, (*CHAT, *SAMPLING, *STREAM))
    request = {key: found[key] for key in (*SAMPLING, "logprobs", "top_logprobs") if key in found}
    request["messages"] = messages(found)
    given = [key for key in ("max_tokens", "max_completion_tokens") if key in found]
    if len(given) == 2:
        raise bad("max_tokens and max_completion_tokens: expected one of them", "max_tokens")
    names = {"prompt": "messages"}
    for key in given:
        request["max_tokens"], names["max_tokens"] = found[key], key
    if "logprobs" in found and type(found["logprobs"]) is not bool:
        raise bad(f"logprobs: {shown(found['logprobs'])}, expected true or false", "logprobs")
    return _generation(found, request, names)


def completion(body: dict[str, Any]) -> Asked:
    """A request to /v1/completions. Errors as `chat`."""
    found = _known(body, (*COMPLETION, *SAMPLING, *STREAM))
    request = {key: found[key] for key in (*SAMPLING, "logprobs") if key in found}
    request["prompt"] = _prompt(found)
    request["max_tokens"] = found.get("max_tokens", COMPLETION_TOKENS)
    if "logprobs" in found and type(found["logprobs"]) is not int:
        raise bad(f"logprobs: {shown(found['logprobs'])}, expected a whole number", "logprobs")
    return _generation(found, request, {})


def embedding(body: dict[str, Any]) -> Asked:
    """A request to /v1/embeddings. Errors as `chat`."""
    found = _known(body, EMBEDDING)
    form = found.get("encoding_format", "float")
    if form not in ("float", "base64"):
        text = f"encoding_format: {shown(form)}, expected float or base64"
        raise bad(text, "encoding_format")
    if "input" not in found:
        raise bad("input: missing", "input")
    request: dict[str, Any] = {"input": found["input"], "encoding": "base64"}
    if "dimensions" in found:
        request["dimensions"] = found["dimensions"]
    _checked(lambda: parse_tensor_request(request), {})
    return Asked(_text(found, "model"), request, floats=form == "float")


def fleet(body: dict[str, Any]) -> Asked:
    """A chat with a fleet: ``request`` is the item. Errors as `chat`."""
    found = _known(body, ("model", "messages", "n", *STREAM))
    if found.get("n", 1) != 1:
        raise bad("n: a fleet has one answer to an item", "n")
    said = messages(found)
    last = said[-1]
    if last["role"] != "user":
        role = shown(last["role"], 40)
        raise bad(f"messages: the last one is of {role}, expected user: it is the item", "messages")
    stream, usage = _stream(found)
    return Asked(_text(found, "model"), item_of(said), stream, usage)


def item_of(said: list[dict[str, str]]) -> dict[str, Any]:
    """The item of a conversation: its last text is one, as JSON, or a text for the fleet."""
    text = said[-1]["content"]
    try:
        value = loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    return {"text": text, **({"messages": said} if len(said) > 1 else {})}


def messages(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation, each message with its role and its text.

    Raises:
        Problem: it is none, or has more than text.
    """
    given = found.get("messages")
    if not isinstance(given, list) or not given:
        raise bad("messages: expected a list of at least one", "messages")
    return [_message(each, f"messages[{number}]") for number, each in enumerate(given)]


def _message(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad(f"{where}: {shown(value)}, expected an object", where)
    # What other answers have in a message of theirs that a client sends back, empty.
    told = {key: part for key, part in value.items() if part is not None and part != []}
    for key in told:
        if key not in MESSAGE:
            raise bad(f"{where}: {shown(key, 40)} is not served, only role and content", where)
    role, content = told.get("role"), value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{n}]") for n, part in enumerate(content))
    if not isinstance(role, str) or not isinstance(content, str):
        raise bad(f"{where}: expected role and content, texts", where)
    return {"role": role, "content": content}


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or len(part) != 2:
        raise bad(f"{where}: {shown(part)}, expected a part of type text: nothing else is served",
                  where)  # fmt: skip
    return _text(part, "text")


def _prompt(found: Mapping[str, Any]) -> str:
    prompt = found.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise bad(f"prompt: {shown(prompt)}, expected one text: lists of prompts and of tokens are "
                  "not served", "prompt")  # fmt: skip
    return prompt


def _generation(
    found: Mapping[str, Any], request: dict[str, Any], names: Mapping[str, str]
) -> Asked:
    if "defaults" not in request:
        request.setdefault("temperature", TEMPERATURE)
    if "seed" in request:
        request["ordinal"] = 0  # Equal requests draw alike, whenever they are asked.
    _checked(lambda: parse_infer(json.dumps(request).encode(), raw=False), names)
    stream, usage = _stream(found)
    return Asked(_text(found, "model"), request, stream, usage, names=names)


def _stream(found: Mapping[str, Any]) -> tuple[bool, bool]:
    stream, options = found.get("stream", False), found.get("stream_options", {})
    if type(stream) is not bool:
        raise bad(f"stream: {shown(stream)}, expected true or false", "stream")
    if options and not stream:
        raise bad('stream_options: needs "stream": true', "stream_options")
    if not isinstance(options, dict) or any(type(each) is not bool for each in options.values()):
        text = f"stream_options: {shown(options)}, expected an object of flags"
        raise bad(text, "stream_options")
    for key, value in options.items():
        if key != "include_usage" and (key != "include_obfuscation" or value):
            raise bad(f"stream_options: {shown(key)} is not served", "stream_options")
    return stream, options.get("include_usage", False)


def _known(body: dict[str, Any], served: tuple[str, ...]) -> dict[str, Any]:
    """What a request says and asks for something; nothing that is not served.

    Raises:
        Problem: a key is unknown, or asks for what is not served.
    """
    found = {key: value for key, value in body.items() if value is not None}
    for key in body:
        if key in served or key in IGNORED:
            continue
        if key not in NEUTRAL and key not in (*CHAT, *COMPLETION, *SAMPLING, *STREAM, *EMBEDDING):
            known = [*served, *IGNORED]
            raise bad(f"{key[:80]}: unknown parameter{nearest(key[:80], known)}", key[:80],
                      "unknown_parameter")  # fmt: skip
        if key in found and (key not in NEUTRAL or found[key] != NEUTRAL[key]):
            raise bad(f"{key}: not served here", key, "unsupported_parameter")
    return {key: value for key, value in found.items() if key in served}


def _checked(parse: Any, names: Mapping[str, str]) -> None:
    try:
        parse()
    except RequestRejected as error:
        raise rejected(str(error), names) from None


def rejected(text: str, names: Mapping[str, str]) -> Problem:
    """What a model says of a request that it does not serve; it begins with the parameter.

    Args:
        text: As the model says it.
        names: As in `Asked`: the client hears of what it said itself.
    """
    head = text.partition(":")[0].partition("[")[0].partition(".")[0]
    param = head if head.replace("_", "").isalpha() and " " not in head else None
    too_long = "the model is set to at most" in text
    if param in LENGTHS:
        said = text.removeprefix(param).replace("max_tokens", names.get("max_tokens", "max_tokens"))
        param = names.get(param, param)
        text = f"{param}{said}"
    return bad(text, param, "context_length_exceeded" if too_long else None)


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str):
        raise bad(f"{key}: {shown(value)}, expected text", key)
    return value
