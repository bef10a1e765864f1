"""Models of benchmarks: built on the spot from drawn weights, kept in the cache folder.

They say nothing sensible, and cost what a trained model of their shape costs. They say letters,
digits and spaces only: an answer has the length asked for (its end is never said), and a text
that contains it has its tokens again, so that a conversation can go on in text as it does with a
trained model.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.bench.groups import Tell
from lockstep.bench.peers import cache_folder
from lockstep.engine.errors import UsageError

DONE = "done.json"  # Written last: the folder is whole.
SPECIALS = ("<s>", "</s>", "<pad>")
VOCAB = len(SPECIALS) + 256  # One token per byte: a prompt's length in tokens is its bytes.
SEED = 1
SPOKEN = "".join(chr(code) for code in range(128) if chr(code).isalnum()) + " "
SPACE = "\u0120"  # How the byte-level alphabet writes one.
MUTE = 1e-3  # Factor of the output weights of all other tokens: their logits are about 0.
# About 5 M parameters: a decode step of some milliseconds on two cores.
SMALL: dict[str, Any] = {
    "layers": 6,
    "hidden": 256,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "intermediate": 768,
    "vocab": VOCAB,
    "context_tokens": 1024,
}
# The shape of a well-known model of 135 M parameters, the one that speed is quoted for.
LARGE: dict[str, Any] = {
    "layers": 30,
    "hidden": 576,
    "heads": 9,
    "kv_heads": 3,
    "head_dim": 64,
    "intermediate": 1536,
    "vocab": 49_152,
    "context_tokens": 2048,
    "tied_embeddings": True,
    "weight_bits": 4,
}
LARGE_FP32 = {**LARGE, "weight_bits": 32}
# For GPUs: attention over float32 keys and values has no kernel there (docs/gpu.md).
LARGE_HALF = {**LARGE, "float_bits": 16}
LARGE_FP16 = {**LARGE, "weight_bits": 16, "float_bits": 16}
END = 1  # Of SPECIALS.


def small(tell: Tell) -> Path:
    """The folder of the small model; built if it is not there.

    Raises:
        UsageError: the packages that build it are not there.
    """
    return _folder("small", SMALL, tell)


def large(tell: Tell) -> Path:
    """The folder of the model of 135 M parameters with four-bit weights. As `small`."""
    return _folder("large-int4", LARGE, tell)


def large_fp32(tell: Tell) -> Path:
    """The same with weights of 32 bits. As `small`."""
    return _folder("large-fp32", LARGE_FP32, tell)


def large_half(tell: Tell) -> Path:
    """With four-bit weights and float16 for all else. As `small`."""
    return _folder("large-int4-fp16", LARGE_HALF, tell)


def large_fp16(tell: Tell) -> Path:
    """With float16 for everything. As `small`."""
    return _folder("large-fp16", LARGE_FP16, tell)


def _folder(name: str, shape: dict[str, Any], tell: Tell) -> Path:
    folder = cache_folder() / "models" / name
    wanted = {"shape": shape, "seed": SEED, "spoken": SPOKEN}
    if _read(folder / DONE) == wanted:
        return folder
    tell(f"building a model in {folder}")
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UsageError(
            "a model has to be built, which needs onnx: pip install 'lockstep-runtime[bench]'"
        ) from None
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    _build(part, shape)
    (part / DONE).write_text(json.dumps(wanted), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def token_of(char: str) -> int:
    """The token of a character of `SPOKEN`."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return len(SPECIALS) + alphabet.index(SPACE if char == " " else char)


def token_ids(text: str) -> list[int]:
    """The tokens of a text of `SPOKEN` characters: one each."""
    table = {char: token_of(char) for char in SPOKEN}
    return [table[char] for char in text]


def _build(folder: Path, sizes: dict[str, Any]) -> None:
    from lockstep.bench.decoder_folder import SpecialTokens, write_folder
    from lockstep.bench.decoder_shape import EMBED, HEAD, DecoderShape, random_weights

    shape = DecoderShape(**sizes)
    weights = random_weights(shape, SEED)
    # The largest logit of those that are spoken is never below one that is about 0.
    mute = np.ones(shape.vocab, bool)
    mute[[token_of(char) for char in SPOKEN]] = False
    weights[EMBED if shape.tied_embeddings else HEAD][mute] *= np.float32(MUTE)
    write_folder(folder, shape, weights, SpecialTokens(0, END, 2))
    _write_tokenizer(folder, shape.vocab, shape.context_tokens)


def _write_tokenizer(folder: Path, vocab_size: int, context_tokens: int) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # No text is split into the rest, but a model may say it.
    rest = [f"({number})" for number in range(VOCAB, vocab_size)]
    vocab = {token: number for number, token in enumerate((*SPECIALS, *alphabet, *rest))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": SPECIALS[0],
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIALS[END],
        "model_max_length": context_tokens,
        "pad_token": SPECIALS[2],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
