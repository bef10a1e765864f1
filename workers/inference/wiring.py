"""What a graph does with its mask, keys and values: may past and present be one buffer?

`GroupQueryAttention` writes new keys behind the old ones in place, if past and present are the same
memory; it needs of the mask only how many tokens count and how wide the buffer is. The decoder
feeds it a mask that is right in these two ways and in no other (the number of tokens in column 0).
So a graph goes on the fixed slab only if it is seen here that every use of its mask is one of the
two, that each layer's keys and values go through that operator and nothing else, and that nothing
in it is known to mix the rows of a batch. Any other graph gets a true mask and keys of its own
length (`growing`).
"""

from collections import deque

from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.graph import Graph, Node
from lockstep.workers.inference.kv_names import at

ATTENTION = "GroupQueryAttention"
MICROSOFT = "com.microsoft"
# Places of tensors in the operator's lists.
PAST_KEY, PAST_VALUE, LENGTHS, WIDTH = 3, 4, 5, 6
PRESENT_KEY, PRESENT_VALUE = 1, 2
ONNX_INTEGERS = (6, 7)  # int32 and int64: what a number of tokens survives being cast to.

# What is known of a tensor that comes of the mask, and what an operator makes of it. The mask is
# `RAW`; the sum of its rows is a `COUNT`; its shape is a `ROOM`.
RAW, COUNT, ROOM = "mask", "sum of the mask", "shape of the mask"
SAME = ("Identity", "Cast")
MOVES = {
    **{(RAW, operator): RAW for operator in SAME},
    (RAW, "ReduceSum"): COUNT,
    (RAW, "Shape"): ROOM,
    **{(COUNT, operator): COUNT for operator in (*SAME, "Sub", "Add", "Squeeze", "Unsqueeze")},
    (COUNT, "Reshape"): COUNT,
    **{(ROOM, operator): ROOM for operator in (*SAME, "Gather", "Slice", "Squeeze", "Unsqueeze")},
    (ROOM, "Reshape"): ROOM,
}
Readers = dict[str, list[Node]]  # Tensor name to the operators that read it.
ENDS = {(COUNT, LENGTHS), (ROOM, WIDTH)}
# Where positions may go: to operators that treat each row by itself. A graph that chooses between
# rotary tables by the largest position of a batch would make a row depend on its neighbours.
POSITIONS = {
    (ATTENTION, MICROSOFT): 9,
    ("RotaryEmbedding", MICROSOFT): 1,
    ("RotaryEmbedding", ""): 3,
}
# Operators that scale all rows of a batch by the largest number in it, idle rows included.
MIXING = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
KEPT = (*SAME, "Reshape", "Squeeze", "Unsqueeze")


def why_not_slab(graph: Graph, facts: ModelFacts) -> str:
    """Why a graph cannot run on the fixed slab, for people; empty: it can."""
    if graph.functions:
        return "it has functions, and what they do with keys and values is not looked into"
    if not attention_nodes(graph):
        return f"no {ATTENTION} in it, so present is another tensor than past"
    mixing = next((node.operator for node in graph.nodes if node.operator in MIXING), "")
    if mixing:
        return f"{mixing} scales a whole batch by its largest value: rows would change each other"
    readers: Readers = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    for layer in range(facts.layers):
        why = _layer(readers, facts, layer)
        if why:
            return why
    if not facts.attention_mask:
        return "it has no attention_mask, which says how many tokens of a row count"
    return _mask(readers, facts.attention_mask) or _positions(readers, facts.position_ids)


def attention_nodes(graph: Graph) -> list[Node]:
    """The attention operators that can work in place, in file order."""
    return [n for n in graph.nodes if (n.operator, n.domain) == (ATTENTION, MICROSOFT)]


def _layer(readers: Readers, facts: ModelFacts, layer: int) -> str:
    """Keys and values of a layer go through one operator, and what it makes goes out."""
    past = [at(form, layer) for form in (facts.past_key, facts.past_value)]
    present = [at(form, layer) for form in (facts.present_key, facts.present_value)]
    users = [node for name in past for node in readers.get(name, ())]
    # One that reads present would see the whole buffer, not what is filled.
    others = [node for name in present for node in readers.get(name, ())]
    first = users[0] if users else None
    alone = first is not None and all(node is first for node in users) and not others
    if first is not None and alone and (first.operator, first.domain) == (ATTENTION, MICROSOFT):
        given = list(first.inputs[PAST_KEY : PAST_VALUE + 1])
        made = list(first.outputs[PRESENT_KEY : PRESENT_VALUE + 1])
        if given == past and made == present:
            return ""
    operators = ", ".join(sorted({node.operator for node in (*users, *others)})) or "nothing"
    return f"keys and values of layer {layer} go to {operators}, not only to its {ATTENTION}"


def _mask(readers: Readers, mask: str) -> str:
    """Follow the mask through the graph; the first use that is not allowed, for people."""
    seen = {mask}
    queue = deque([(mask, RAW)])
    while queue:
        name, kind = queue.popleft()
        for node in readers.get(name, ()):
            if (node.operator, node.domain) == (ATTENTION, MICROSOFT):
                if any(n == name and (kind, i) not in ENDS for i, n in enumerate(node.inputs)):
                    return f"its {ATTENTION} takes the {kind} as another input than its lengths"
                continue
            made = _made(node, name, kind)
            if not made:
                return f"the {kind} goes to {node.operator}, which needs a true mask"
            queue.extend((output, made) for output in node.outputs if output not in seen)
            seen.update(node.outputs)
    return ""


def _positions(readers: Readers, positions: str) -> str:
    """Follow the positions, if there are any; the first use that is not allowed, for people."""
    queue = deque([positions] if positions else [])
    seen = set(queue)
    while queue:
        name = queue.popleft()
        for node in readers.get(name, ()):
            place = POSITIONS.get((node.operator, node.domain), 0)
            if place and [i for i, each in enumerate(node.inputs) if each == name] == [place]:
                continue
            if node.domain or node.operator not in KEPT or node.inputs.count(name) != 1:
                return f"its positions go to {node.operator}, which may look at several rows"
            queue.extend(output for output in node.outputs if output not in seen)
            seen.update(node.outputs)
    return ""


def _made(node: Node, name: str, kind: str) -> str:
    """What a node's outputs are; empty: not known."""
    if node.domain or node.inputs[0] != name or node.inputs.count(name) != 1:
        return ""
    if node.operator == "Cast" and node.numbers.get("to") not in ONNX_INTEGERS:
        return ""
    return MOVES.get((kind, node.operator), "")
