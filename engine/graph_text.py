"""A topology as text for a terminal, and as Mermaid."""

from lockstep.engine.graph import MAY, Edge, Graph, Node

_SHAPES = {  # Mermaid's brackets by kind of node.
    "input": ("([", "])"),
    "output": ("([", "])"),
    "source": ("[/", "/]"),
    "model": ("[(", ")]"),
    "topic": ("{{", "}}"),
    "tool": ("[[", "]]"),
}


def text(graph: Graph) -> str:
    """Lines for people: each agent, what it waits for, and where an item goes from it."""
    count = f"{graph.agents} agent{'s' * (graph.agents != 1)}"
    lines = [f"{graph.name}: policy {graph.policy}, {count}", ""]
    leaving: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        leaving.setdefault(edge.start, []).append(edge)
    names = {node.id: node.name for node in graph.nodes}
    for node in graph.of_kind("input", "source", "agent", "topic"):
        lines += _node(node, leaving.get(node.id, []), names)
    for kind, head in (("model", "models"), ("tool", "tools")):
        if nodes := graph.of_kind(kind):
            lines.append(f"{head}: {', '.join(node.name for node in nodes)}")
    return "\n".join(lines).rstrip() + "\n"


def _node(node: Node, leaving: list[Edge], names: dict[str, str]) -> list[str]:
    label = _title(node) if node.kind == "agent" else f"{node.kind} {node.name}"
    head = "input" if node.kind == "input" else label
    lines = [f"{head}: {', '.join(node.notes)}" if node.notes else head]
    for edge in leaving:
        if edge.kind == "tool":
            continue
        how = f" ({_how(edge)})" if edge.kind in MAY else ""
        lines.append(f"  {'~~>' if edge.kind in MAY else '-->'} {names[edge.end]}{how}")
    tools = [names[edge.end] for edge in leaving if edge.kind == "tool"]
    lines += [f"  may call {', '.join(tools)}"] if tools else []
    return [*lines, ""]


def _how(edge: Edge) -> str:
    words = {"back": "back", "round": "next round", "answer": "if it is the first to emit"}
    return ", ".join(filter(None, (words.get(edge.kind, ""), edge.label)))


def _title(node: Node) -> str:
    return f"{node.name} x{node.replicas}" if node.replicas > 1 else node.name


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart; dotted arrows are ways that are taken only if an agent says so."""
    ids = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node in graph.nodes:
        left, right = _SHAPES.get(node.kind, ("[", "]"))
        label = "<br/>".join(_quoted(words) for words in (_title(node), *node.notes))
        lines.append(f'  {ids[node.id]}{left}"{label}"{right}')
    for edge in graph.edges:
        arrow = "-.->" if edge.kind in MAY else "-->" if edge.kind != "tool" else "---"
        label = "" if edge.kind in ("item", "tool") else f'|"{_quoted(_label(edge))}"|'
        lines.append(f"  {ids[edge.start]} {arrow}{label} {ids[edge.end]}")
    return "\n".join(lines) + "\n"


def _label(edge: Edge) -> str:
    return f"{edge.kind}, {edge.label}" if edge.label else edge.kind


def _quoted(label: str) -> str:
    """Mermaid's entities: ``#`` first, it begins them."""
    for sign, entity in (("#", "#35;"), ("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;")):
        label = label.replace(sign, entity)
    return label
