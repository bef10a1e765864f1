"""What a graph does with its mask, keys and values: may past and present be one buffer?

`GroupQueryAttention` writes new keys behind the old ones in place, if past and present are the same
memory; it needs of the mask only how many tokens count and how wide the buffer is. The decoder
feeds it a mask that is right in these two ways and in no other (the number of tokens in column 0).
So a graph goes on the fixed slab only if it is seen here that every use of its mask is one of the
two, and that each layer's keys and values go through that operator and nothing else. Any other
graph gets a true mask and keys of its own length (`growing`).
"""

from collections import deque

from lockstep.workers.inference.config import ModelFacts
from lockstep.workers.inference.graph import Graph, Node

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
ENDS = {(COUNT, LENGTHS), (ROOM, WIDTH)}
# Where positions may go: to operators that treat each row by itself. A graph that chooses between
# rotary tables by the largest position of a batch would make a row depend on its neighbours.
POSITIONS = {
    (ATTENTION, MICROSOFT): 9,
    ("RotaryEmbedding", MICROSOFT): 1,
    ("RotaryEmbedding", ""): 3,
}
KEPT = (*SAME, "Reshape", "Squeeze", "Unsqueeze")


def why_not_slab(graph: Graph, facts: ModelFacts) -> str:
    """Why a graph cannot run on the fixed slab, for people; empty: it can."""
    if graph.functions:
        return "it has functions, and what they do with keys and values is not looked into"
    if not any(node.operator == ATTENTION for node in graph.nodes):
        return f"no {ATTENTION} in it, so present is another tensor than past"
    for layer in range(facts.layers):
        why = _layer(graph, facts, layer)
        if why:
            return why
    if not facts.attention_mask:
        return "it has no attention_mask, which says how many tokens of a row count"
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    return _mask(readers, facts.attention_mask) or _positions(readers, facts.position_ids)


def attention_nodes(graph: Graph) -> list[Node]:
    """The attention operators that can work in place, in file order."""
    return [n for n in graph.nodes if (n.operator, n.domain) == (ATTENTION, MICROSOFT)]


def _layer(graph: Graph, facts: ModelFacts, layer: int) -> str:
    past = [form.replace("%d", str(layer)) for form in (facts.past_key, facts.past_value)]
    present = [form.replace("%d", str(layer)) for form in (facts.present_key, facts.present_value)]
    users = [node for node in graph.nodes if set(past) & set(node.inputs)]
    if len(users) == 1 and (users[0].operator, users[0].domain) == (ATTENTION, MICROSOFT):
        node = users[0]
        given = list(node.inputs[PAST_KEY : PAST_VALUE + 1])
        made = list(node.outputs[PRESENT_KEY : PRESENT_VALUE + 1])
        if given == past and made == present and not _again(graph, present):
            return ""
    operators = ", ".join(sorted({node.operator for node in users})) or "nothing"
    return f"keys and values of layer {layer} go to {operators}, not only to its {ATTENTION}"


def _again(graph: Graph, present: list[str]) -> bool:
    """Whether a later layer reads these: it would see the whole buffer, not what is filled."""
    return any(set(present) & set(node.inputs) for node in graph.nodes)


def _mask(readers: dict[str, list[Node]], mask: str) -> str:
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


def _positions(readers: dict[str, list[Node]], positions: str) -> str:
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
