"""The syntax tree of a chat template: what may be in it, and the rewriting before it is compiled.

Jinja2 compiles loops, comparisons, `~`, slices and macros to bare Python, which would cost nothing.
After `metered` each of them passes through a filter that spends steps. The names of those filters
are no identifiers, so no template can write them. Nothing deeper than the limits here reaches the
compiler.
"""

from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from lockstep.workers.inference.template_values import INT_MAX, refuse, words

BRACKETS_MAX = 24  # Open ones in an expression.
TREE_MAX = 80  # Depth of the syntax tree: far from where Python's own limits begin.
DEEP_SOURCE = f"nested deeper than {BRACKETS_MAX} brackets or {TREE_MAX} levels"

STATEMENTS = words(
    "Template Output TemplateData Name NSRef Const List Tuple Dict Pair Getattr Getitem Slice Call"
    " Keyword Filter Test Concat Compare Operand And Or Not Add Sub Mul Div FloorDiv Mod Pow Neg"
    " Pos CondExpr If For Assign AssignBlock Macro With Break Continue CallBlock FilterBlock Scope"
)


class Generation(Extension):
    """`{% generation %}`, by which Hugging Face's trainers know what the model itself said.

    Nothing but its body is written; what is set in it is not seen behind it, as there.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def metered(source: str, environment: jinja2.Environment) -> nodes.Template:
    """The tree of a template that has only what is allowed, ready to be compiled."""
    _check_brackets(source, environment)
    tree = environment.parse(source)
    _check_tree(tree)
    rewritten: nodes.Template = _Rewriter().visit(tree)
    return rewritten


def _check_brackets(source: str, environment: jinja2.Environment) -> None:
    depth = deepest = 0
    for _, kind, token in environment.lex(source):
        if kind == "operator":
            depth += (token in "([{") - (token in ")]}")
            deepest = max(deepest, depth)
    if deepest > BRACKETS_MAX:
        refuse(DEEP_SOURCE)


def _check_tree(tree: nodes.Template) -> None:
    todo: list[tuple[nodes.Node, int]] = [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        name = type(node).__name__
        if name not in STATEMENTS or (isinstance(node, nodes.For) and node.recursive):
            refuse(f"{name} is not allowed" + (f" (line {node.lineno})" if node.lineno else ""))
        if depth > TREE_MAX:
            refuse(DEEP_SOURCE)
        if isinstance(node, nodes.Const) and isinstance(node.value, (int, float)):
            if not -INT_MAX <= node.value <= INT_MAX and not isinstance(node.value, float):
                refuse(f"line {node.lineno}: a number beyond 64 bits")
            if abs(node.value) == float("inf"):
                refuse(f"line {node.lineno}: a number that is not finite")
        todo.extend((child, depth + 1) for child in node.iter_child_nodes())


class _Rewriter(NodeTransformer):
    """Puts calls of filters around what jinja2 compiles to bare Python."""

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        node.nodes = [
            nodes.Const(child.data, lineno=child.lineno)
            if isinstance(child, nodes.TemplateData)
            else child
            for child in node.nodes
        ]
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter("~", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        cut = node.arg
        if not isinstance(cut, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        return _filter("[:]", node.node, cut.start or none, cut.stop or none, cut.step or none)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter("{:}", node.key)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        if node.filter is None:
            node.filter = nodes.Filter(None, "string", [], [], None, None, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        weight = nodes.Const(_size(node), lineno=node.lineno)
        self.generic_visit(node)
        node.iter = _filter("for()", node.iter, weight)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = _filter("string", node.filter)  # It is written as it comes out.
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        weight = nodes.Const(_size(node), lineno=node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter("()", weight), lineno=node.lineno))
        return node

    visit_CallBlock = visit_Macro


def _filter(name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _compared(value: nodes.Expr) -> nodes.Expr:
    return value if isinstance(value, nodes.Const) else _filter("==", value)


def _size(node: nodes.Node) -> int:
    """Steps of what in a body spends none by itself."""
    return 1 + sum(1 for _ in node.find_all(nodes.Node)) // 16
