"""Text to token ids and back, by the model folder's own tokenizer and chat template.

tokenizer.json is the truth; nothing is added to a prompt and nothing is cut from it. The template
sees no clock: dates come from the fleet's frozen date.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

# Before the import: the library starts a thread pool for batches unless it is told not to. One
# prompt at a time never uses it (tests/workers/inference/test_text.py looks at the threads).
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer

from lockstep.engine.errors import ModelRejected, RequestRejected
from lockstep.engine.version import LOGIC_FLAGS, WORDS
from lockstep.workers.inference.model import TOKENIZER, ModelFolder
from lockstep.workers.inference.request import InferRequest, Message
from lockstep.workers.inference.template import ChatTemplate
from lockstep.workers.inference.token_name import TokenName, byte_level

FROZEN_DATE = "2000-01-01T00:00:00Z"
NO_MESSAGES = "the chat template cannot be used, messages are refused and prompts are served"
BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Text:
    """Tokenizer and template of one model. Cheap to ask, holds no session.

    Attributes:
        template_error: Why there is a template and none that can be used; empty: it can, or there
            is none.
    """

    def __init__(
        self, folder: ModelFolder, frozen_date: str = FROZEN_DATE, logic_flags: int = LOGIC_FLAGS
    ) -> None:
        """Load both. A template that cannot be used refuses messages, prompts are served.

        Args:
            folder: Checked model; may be closed afterwards.
            frozen_date: ISO 8601; what `strftime_now` shows templates.
            logic_flags: Rules of the run (engine/version.py).

        Raises:
            ModelRejected: the tokenizer is malformed or random.
        """
        self._vocab = folder.facts.vocab
        self._tokenizer = _load_tokenizer(folder)
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = {token: str(each.content) for token, each in added.items()}
        self._silent = frozenset(token for token, each in added.items() if each.special)
        decoder = json.loads(folder.tokenizer).get("decoder")
        self._byte_fallback = _decodes_by(decoder, "ByteFallback")
        self._byte_level = _decodes_by(decoder, "ByteLevel")
        self._date = datetime.fromisoformat(frozen_date)
        self._special = {
            name: _token_text(folder.tokenizer_config.get(name)) for name in SPECIAL_TOKENS
        }
        self._old = not logic_flags & WORDS
        self.template_error = ""
        self._template = self._compile(folder.template)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a text, no special ones added.

        Raises:
            RequestRejected: an id is beyond the model's vocabulary.
        """
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        if ids and max(ids) >= self._vocab:
            raise RequestRejected(
                f"prompt: token id {max(ids)}, the model has ids of 0 to {self._vocab - 1}"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out; what is not UTF-8 becomes U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def silent(self, token: int) -> bool:
        """Whether `decode` leaves the token out: a special one, or one that has no text."""
        return token in self._silent or self._tokenizer.id_to_token(token) is None

    def byte(self, token: int) -> bool:
        """Whether the token is one byte of a run that is decoded as a whole (byte fallback)."""
        if not self._byte_fallback:
            return False
        return BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(token) or "") is not None

    def named(self, token: int) -> TokenName:
        """What a token is by itself; special ones as they are written, unknown ones empty."""
        written = self._tokenizer.id_to_token(token)
        if written is None:
            return TokenName("", b"")
        if token in self._added:
            return TokenName.of(self._added[token].encode())
        if self.byte(token):
            return TokenName.of(bytes([int(written[3:5], 16)]))
        data = byte_level(written) if self._byte_level else None
        if data is None:
            # Decoders treat what a text begins with in their own way: so behind itself.
            first, both = self.decode([token]), self.decode([token, token])
            data = both[len(first) :].encode()
        return TokenName.of(data)

    def chat(self, messages: Sequence[Message]) -> str:
        """A conversation as the prompt that the model was trained on.

        Raises:
            RequestRejected: there is no template, it raised, or it passed a limit.
        """
        if self._template is None:
            why = "the model has no chat template"
            if self.template_error:
                why = f"the model's chat template cannot be used ({self.template_error})"
            raise RequestRejected(f"messages: {why}, it takes only a prompt")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        variables = {"messages": turns, "add_generation_prompt": True, "tools": None}
        if not self._old:
            variables["documents"] = None
        return self._template.render(variables | self.special_tokens())

    def special_tokens(self) -> dict[str, str]:
        """The special tokens that templates see, by what they are called there."""
        return {name: text for name, text in self._special.items() if text is not None}

    def begins(self) -> str:
        """What the tokenizer by itself would put around a prompt; Lockstep does not."""
        return " ".join(self._tokenizer.encode("", add_special_tokens=True).tokens)

    def missing_tokens(self, config: Mapping[str, Any]) -> list[str]:
        """Tokens that tokenizer_config.json adds and tokenizer.json does not know, in order."""
        added = config.get("added_tokens_decoder")
        texts = [_token_text(each) for each in added.values()] if isinstance(added, dict) else []
        known = self._tokenizer.token_to_id
        return [text for text in texts if text is not None and known(text) is None]

    def prompt_ids(self, request: InferRequest) -> list[int]:
        """Token ids of a request, at least one.

        Raises:
            RequestRejected: as `chat` and `encode`, or there is nothing to begin with.
        """
        text = request.prompt
        if request.messages is not None:
            text = self.chat(request.messages)
        ids = self.encode(text or "")
        if not ids:
            raise RequestRejected("prompt: 0 tokens, at least 1 is needed")
        return ids

    def _compile(self, source: str | None) -> ChatTemplate | None:
        if source is None:
            return None
        try:
            return ChatTemplate(source, self._date, self._old)
        except ModelRejected as error:
            self.template_error = str(error)
            return None


def _load_tokenizer(folder: ModelFolder) -> Any:
    source = folder.tokenizer
    try:
        tokenizer = Tokenizer.from_str(source)
        dropout = (json.loads(source).get("model") or {}).get("dropout")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # A panic in Rust is not an Exception.
        raise ModelRejected(f"{folder.path / TOKENIZER}: {error!s:.300}") from None
    if dropout:
        raise ModelRejected(
            f"{folder.path / TOKENIZER}: dropout is {dropout}, so it gives other ids every time"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _decodes_by(decoder: Any, kind: str) -> bool:
    """Whether a decoder of tokenizer.json, or a part of it, is of this type."""
    if not isinstance(decoder, dict):
        return False
    if decoder.get("type") == kind:
        return True
    return any(_decodes_by(part, kind) for part in decoder.get("decoders") or ())


def _token_text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
