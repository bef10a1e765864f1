"""What an ONNX file says about itself, read without the `onnx` package.

A protobuf walker that knows just the fields in which a tensor, a graph or a name can hide. It
finds *every* file that the graph names, so that all of them are checked and hashed before ONNX
Runtime opens any. It trusts no length: each is compared with what is left, depth is bounded and
nothing is allocated by a number from the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.blob import Mapped

DEPTH_MAX = 64  # Messages inside messages; a subgraph costs three of them.
VARINT_BYTES_MAX = 10
NODES_MAX = 1 << 20  # A hundred times what a large model has; each costs some memory.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Which field of which message holds a message that can lead to a tensor (onnx.proto). "main" is
# the top graph and "weight" an initialiser of it: only their names and ports matter to us.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "main", 8: "opset", 20: "training", 25: "function"},
    "main": {1: "node", 5: "weight", 11: "input", 12: "output", 15: "sparse"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "weight": {13: "entry"},
    "tensor": {13: "entry"},
}
ELEMENT_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16",
}  # fmt: skip

ONNX_DOMAIN = "ai.onnx"  # The same as "".
ATTRIBUTE_INT = 2  # AttributeProto.INT


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the graph. A dimension is a number, or a name where it is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with the names of its tensors, "" for one that is left out.

    Attributes:
        numbers: Its attributes that are single whole numbers, by name.
    """

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, int]


@dataclass(frozen=True, slots=True)
class Graph:
    """What an ONNX file says about itself.

    Attributes:
        inputs, outputs: Of the top graph; initialisers are no inputs.
        files: Named anywhere in it, as they are written there.
        operators: Used anywhere in it.
        nodes: Of the top graph, of graphs inside of it and of functions, in file order.
        opsets: Domain to version; the ONNX domain is "".
        functions: There are functions in it: their names are not those of the graph.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    files: tuple[str, ...]
    operators: tuple[str, ...]
    nodes: tuple[Node, ...] = ()
    opsets: dict[str, int] = field(default_factory=dict)
    functions: bool = False


Field = tuple[int, int, int, int]  # number, wire type, start and stop (or value and 0) of it


class _Walker:
    def __init__(self, data: Mapped, name: str) -> None:
        self.data = data
        self.name = name
        self.ports: dict[str, list[Port]] = {"input": [], "output": []}
        self.weights: set[str] = set()
        self.files: set[str] = set()
        self.nodes: list[Node] = []
        self.opsets: dict[str, int] = {}
        self.functions = False

    def refuse(self, at: int, why: str) -> ModelRejected:
        return ModelRejected(f"{self.name}: byte {at} of {len(self.data)}: {why}")

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        for index in range(at, min(stop, at + VARINT_BYTES_MAX)):
            byte = self.data[index]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, index + 1
            shift += 7
        raise self.refuse(at, "a number does not end: the file is cut or not ONNX")

    def fields(self, at: int, stop: int) -> Iterator[Field]:
        while at < stop:
            here = at
            key, at = self.varint(at, stop)
            number, wire = key >> 3, key & 7
            if not number or key >> 32:  # Protobuf would drop the high bits and see another field.
                raise self.refuse(here, f"key {key} is not one of a field")
            if wire == VARINT:
                value, at = self.varint(at, stop)
                yield number, wire, value, 0
                continue
            if wire == BYTES:
                size, at = self.varint(at, stop)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise self.refuse(here, f"wire type {wire} does not occur in ONNX")
            if size > stop - at:
                raise self.refuse(here, f"field {number} of {size} bytes, {stop - at} are left")
            yield number, wire, at, at + size
            at += size

    def text(self, at: int, stop: int) -> str:
        try:
            return self.data[at:stop].decode()
        except UnicodeDecodeError:
            raise self.refuse(at, "a name is not UTF-8") from None

    def walk(self) -> None:
        stack = [("model", 0, len(self.data), 0)]
        while stack:
            kind, start, stop, depth = stack.pop()
            if depth > DEPTH_MAX:
                raise self.refuse(start, f"nested more than {DEPTH_MAX} deep")
            if kind == "entry":
                self.entry(start, stop)
            elif kind == "opset":
                self.opset(start, stop)
            elif kind in self.ports:
                self.ports[kind].append(self.port(start, stop))
            else:
                self.message(kind, start, stop, depth, stack)

    def message(
        self, kind: str, start: int, stop: int, depth: int, stack: list[tuple[str, int, int, int]]
    ) -> None:
        children = CHILDREN[kind]
        self.functions |= kind == "function"
        if kind == "node":
            self.nodes.append(self.node(start, stop))
        below = []
        for number, wire, at, end in self.fields(start, stop):
            if wire != BYTES:
                continue  # Protobuf takes a known field of another wire type for an unknown one.
            if number in children:
                below.append((children[number], at, end, depth + 1))
            elif kind == "weight" and number == 8:
                self.weights.add(self.text(at, end))
        if len(self.nodes) + len(stack) + len(below) > NODES_MAX:
            raise self.refuse(start, f"more than {NODES_MAX} operators and tensors")
        stack.extend(reversed(below))  # So that ports come out in file order.

    def entry(self, start: int, stop: int) -> None:
        """A key and value of `external_data`; the key "location" names a file."""
        key = value = ""
        for number, wire, at, end in self.fields(start, stop):
            if wire == BYTES and number == 1:
                key = self.text(at, end)
            elif wire == BYTES and number == 2:
                value = self.text(at, end)
        if key == "location":
            self.files.add(value)

    def opset(self, start: int, stop: int) -> None:
        domain, version = "", 0
        for number, wire, at, end in self.fields(start, stop):
            if number == 1 and wire == BYTES:
                domain = self.text(at, end)
            elif number == 2 and wire == VARINT:
                version = at
        self.opsets["" if domain == ONNX_DOMAIN else domain] = version

    def node(self, start: int, stop: int) -> Node:
        operator = domain = ""
        inputs, outputs = [], []
        numbers: dict[str, int] = {}
        for number, wire, at, end in self.fields(start, stop):
            if wire != BYTES:
                continue
            if number == 1:
                inputs.append(self.text(at, end))
            elif number == 2:
                outputs.append(self.text(at, end))
            elif number == 4:
                operator = self.text(at, end)
            elif number == 7:
                domain = self.text(at, end)
            elif number == 5:
                self.number(at, end, numbers)
        domain = "" if domain == ONNX_DOMAIN else domain
        return Node(operator, domain, tuple(inputs), tuple(outputs), numbers)

    def number(self, start: int, stop: int, numbers: dict[str, int]) -> None:
        """An attribute, where it is a single whole number."""
        name, kind, value = "", 0, 0
        for number, wire, at, end in self.fields(start, stop):
            if number == 1 and wire == BYTES:
                name = self.text(at, end)
            elif number == 3 and wire == VARINT:
                value = at - (1 << 64) if at >> 63 else at
            elif number == 20 and wire == VARINT:
                kind = at
        if kind == ATTRIBUTE_INT:
            numbers[name] = value

    def inner(self, start: int, stop: int, number: int) -> Iterator[tuple[int, int]]:
        for found, wire, at, end in self.fields(start, stop):
            if found == number and wire == BYTES:
                yield at, end

    def port(self, start: int, stop: int) -> Port:
        name, dtype = "", "unknown"
        shape: list[int | str] = []
        for at, end in self.inner(start, stop, 1):
            name = self.text(at, end)
        for type_at, type_end in self.inner(start, stop, 2):
            for at, end in self.inner(type_at, type_end, 1):
                for number, wire, value, _ in self.fields(at, end):
                    if number == 1 and wire == VARINT:
                        dtype = ELEMENT_TYPES.get(value, f"type {value}")
                for shape_at, shape_end in self.inner(at, end, 2):
                    dims = self.inner(shape_at, shape_end, 1)
                    shape.extend(self.dimension(*dim) for dim in dims)
        return Port(name, dtype, tuple(shape))

    def dimension(self, start: int, stop: int) -> int | str:
        result: int | str = "?"
        for number, wire, at, end in self.fields(start, stop):
            if number == 1 and wire == VARINT:
                result = at
            elif number == 2 and wire == BYTES:
                result = self.text(at, end)
        return result


def read_graph(data: Mapped, name: str) -> Graph:
    """The graph of an ONNX file.

    Args:
        data: The whole file.
        name: What to call it in messages.

    Raises:
        ModelRejected: not ONNX, cut, or nested too deep; the byte is named.
    """
    walker = _Walker(data, name)
    walker.walk()
    inputs = tuple(port for port in walker.ports["input"] if port.name not in walker.weights)
    return Graph(
        inputs,
        tuple(walker.ports["output"]),
        files=tuple(sorted(walker.files)),
        operators=tuple(sorted({node.operator for node in walker.nodes})),
        nodes=tuple(walker.nodes),
        opsets=walker.opsets,
        functions=walker.functions,
    )
