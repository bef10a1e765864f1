"""What a model folder is, in words and numbers: `lockstep model inspect`.

Whatever Lockstep takes from a folder is told here with where it comes from, and what it does not
take is told too: nothing of a model is left out in silence.
"""

from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import SLAB
from lockstep.workers.inference.embedder import Embedder
from lockstep.workers.inference.expected import INT4_OPERATOR, read_expected
from lockstep.workers.inference.generation import generation_facts
from lockstep.workers.inference.model import TOKENIZER, ModelFolder
from lockstep.workers.inference.tensor_folder import TensorFolder
from lockstep.workers.inference.text import Text
from lockstep.workers.inference.wiring import attention_nodes

TENSORS = "tensors"
COST = {
    True: "rows share one run per step; keys and values are written in place",
    False: "each row runs alone, and all its keys and values are copied in every step",
}


def describe(folder: ModelFolder) -> dict[str, Any]:
    """Everything that is known of an opened folder, JSON-able.

    Raises:
        ModelRejected: expected.json or tokenizer are malformed.
    """
    facts, graph = folder.facts, folder.graph
    expected = read_expected(folder.path, facts)
    text = Text(folder)
    return {
        "path": str(folder.path),
        "layout": facts.layout,
        "file": facts.filename,
        "kind": facts.kind,
        "layers": facts.layers,
        "kv_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "kv_bytes_per_token": _kv_bytes(folder),
        "vocab": facts.vocab,
        "context": facts.context,
        "context_why": facts.context_why,
        "eos": list(facts.eos),
        "eos_from": facts.eos_from,
        "bos": facts.bos,
        "dtype": facts.dtype,
        "int4": INT4_OPERATOR in graph.operators,
        "path_of_execution": facts.path,
        "path_why": facts.path_why,
        "cost": COST[facts.path == SLAB],
        "logits": "of the last position" if facts.last_logits else "of every position that is fed",
        "windows": windows(folder),
        "opsets": dict(sorted(graph.opsets.items())),
        "chat_template": folder.template is not None,
        "chat_template_error": text.template_error,
        "special_tokens": text.special_tokens(),
        "notes": notes(folder, text),
        "generation_config": generation_facts(folder.generation_config),
        "expected_cases": 0 if expected is None else len(expected.cases),
        "inputs": [str(port) for port in graph.inputs],
        "outputs": [str(port) for port in graph.outputs],
        "operators": list(graph.operators),
        "sha256": folder.identity(),
    }


def describe_tensors(folder: TensorFolder, why: str) -> dict[str, Any]:
    """Everything that is known of an opened folder that is no decoder's, JSON-able.

    Args:
        folder: Open.
        why: Why it is no decoder's.
    """
    graph = folder.graph
    embeds, embeds_not = "", f"the folder has no {TOKENIZER}"
    if folder.has(TOKENIZER):
        try:
            embedder = Embedder(folder)
            embeds = f"{embedder.output}, texts of at most {embedder.tokens_max} tokens"
        except ModelRejected as error:
            embeds_not = str(error)
    return {
        "path": str(folder.path),
        "layout": TENSORS,
        "file": folder.filename,
        "kind": TENSORS,
        "no_decoder": why,
        "embeds": embeds,
        "embeds_not": "" if embeds else embeds_not,
        "opsets": dict(sorted(graph.opsets.items())),
        "inputs": [str(port) for port in graph.inputs],
        "outputs": [str(port) for port in graph.outputs],
        "operators": list(graph.operators),
        "sha256": folder.identity(),
    }


def windows(folder: ModelFolder) -> dict[str, int]:
    """Sliding windows in tokens, and how many layers have each; without one nothing is listed.

    A window is applied by the attention operator; all tokens are kept all the same.
    """
    found: dict[str, int] = {}
    for node in attention_nodes(folder.graph):
        window = node.numbers.get("local_window_size", -1)
        if window > 0:
            found[str(window)] = found.get(str(window), 0) + 1
    return found


def notes(folder: ModelFolder, text: Text) -> list[str]:
    """What people who know other libraries would expect and Lockstep does not do."""
    said = []
    begins = text.begins()
    if begins:
        said.append(
            f"the tokenizer would put {begins!r} before a prompt; Lockstep puts nothing there: "
            f"write it where the model needs it (a chat template does)"
        )
    unknown = text.missing_tokens(folder.tokenizer_config)
    if unknown:
        said.append(
            f"tokenizer_config.json has {len(unknown)} tokens that tokenizer.json has not, such as "
            f"{unknown[0]!r}: they are text like any other"
        )
    unused = folder.templates_unused()
    if unused:
        said.append(f"chat templates that are not used: {', '.join(unused)}")
    if not folder.facts.eos:
        said.append("no file says which token ends a sequence: only limits and stops end an answer")
    return said


def _kv_bytes(folder: ModelFolder) -> int:
    facts = folder.facts
    return (
        facts.layers * 2 * facts.kv_heads * facts.head_dim * (4 if facts.dtype == "float32" else 2)
    )
