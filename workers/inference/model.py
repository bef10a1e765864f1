"""A model folder, read and checked as a whole before anything of it runs.

Two layouts (`layout`): genai_config.json or config.json, an ONNX file with the files it names,
tokenizer.json, tokenizer_config.json and a chat template. Importing this loads no onnxruntime, so
the supervisor may hash and check models.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.blob import Blob, Mapped, placed
from lockstep.workers.inference.config import (
    CONFIG,
    GENAI,
    ModelFacts,
    read_config,
    read_json,
)
from lockstep.workers.inference.graph import Graph, read_graph
from lockstep.workers.inference.hf_config import GENERATION_CONFIG, read_hf_config
from lockstep.workers.inference.layout import HF_CONFIG, find_layout
from lockstep.workers.inference.signature import check_signature

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Tokenizers in forms that are not read.
TOKENIZERS_OTHER = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
)  # fmt: skip
TEMPLATE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"  # As processors keep it.
TEMPLATES_MORE = "additional_chat_templates"  # Folder of named ones; none of them is used.
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
# Named in the identity where they are.
OPTIONAL = (TEMPLATE, TEMPLATE_JSON, SPECIAL_TOKENS_MAP, GENERATION_CONFIG)
FILES_MAX = 256  # External data files that one graph may name.
TEXT_BYTES_MAX = 256 << 20
GRAPH_BYTES_MAX = 1 << 31  # Of protobuf itself.


class ModelFolder:
    """An opened model folder. Made by `open`; `close` lets go of the mapped weights.

    Attributes:
        path: Real path of the folder.
        facts: What the decoder needs to know.
        graph: Ports, files and operators of the ONNX file.
        tokenizer_config: tokenizer_config.json as parsed.
    """

    def __init__(self, path: Path, file: str = "") -> None:
        self.path = path
        self._file = file
        self._blobs: dict[str, Blob] = {}
        try:
            with placed(path):
                self._read()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | Path, file: str = "") -> "ModelFolder":
        """Read and check a folder.

        Args:
            path: The folder.
            file: Which of its ONNX files, relative to it; empty: the one that is there.

        Raises:
            ModelRejected: a file is missing, malformed, outside the folder, or the graph's names,
                types or shapes are not what the configuration says. The file is named. Or there
                are several models in it and ``file`` does not say which.
        """
        root = Path(path)
        if not root.is_dir():
            raise ModelRejected(f"{root}: no such folder")
        return cls(root.resolve(), file)

    def _read(self) -> None:
        facts = self._genai_facts()
        layout = find_layout(self.path, self._file, facts.filename if facts else "")
        if facts is not None and layout.kind != GENAI:
            self._blobs.pop(CONFIG).close()  # It is about another file.
            facts = None
        self._refuse_other_tokenizers()
        for name in (TOKENIZER, TOKENIZER_CONFIG):
            self._add(name)
        for name in OPTIONAL:
            if self._has(name):
                self._add(name)
        self.graph: Graph = self._read_graph(facts.filename if facts else layout.filename)
        if facts is None:
            facts = self._hf_facts(layout.filename)
        self.facts: ModelFacts = check_signature(self.graph, facts)
        for name in self.graph.files:
            self._add(self._beside(name))
        self.tokenizer_config: dict[str, Any] = self._object(TOKENIZER_CONFIG)
        if SPECIAL_TOKENS_MAP in self._blobs:  # For what the other file does not say.
            self.tokenizer_config = self._object(SPECIAL_TOKENS_MAP) | self.tokenizer_config
        self._tokenizer = self._bytes(TOKENIZER)
        self._template = self._find_template()
        has_generation = GENERATION_CONFIG in self._blobs
        self._generation = self._bytes(GENERATION_CONFIG) if has_generation else None

    def _has(self, name: str) -> bool:
        """Whether there is something of that name: a dangling link is refused later, not missed."""
        return (self.path / name).is_symlink() or (self.path / name).exists()

    def _refuse_other_tokenizers(self) -> None:
        """Say what to do where there is a tokenizer, in another form than the one that is read."""
        other = next((name for name in TOKENIZERS_OTHER if self._has(name)), "")
        if other and not self._has(TOKENIZER):
            raise ModelRejected(
                f"{self.path / TOKENIZER}: missing; transformers makes it of {other}: "
                f"AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )

    def _genai_facts(self) -> ModelFacts | None:
        return read_config(self._bytes(CONFIG)) if self._has(CONFIG) else None

    def _hf_facts(self, filename: str) -> ModelFacts:
        generation = GENERATION_CONFIG in self._blobs
        return read_hf_config(
            self._bytes(HF_CONFIG),
            self._bytes(GENERATION_CONFIG) if generation else None,
            self.graph,
            filename,
        )

    def _read_graph(self, filename: str) -> Graph:
        graph = read_graph(self._sized(filename, GRAPH_BYTES_MAX), filename)
        if len(graph.files) > FILES_MAX:
            raise ModelRejected(f"{filename}: names {len(graph.files)} files, at most {FILES_MAX}")
        return graph

    def _beside(self, name: str) -> str:
        """A file that the graph names, relative to the folder: the graph means beside itself."""
        if not name:
            return name  # Refused, like all names that are not inside.
        return str(PurePosixPath(self.facts.filename).parent / name)

    def _object(self, name: str) -> dict[str, Any]:
        return read_json(self._bytes(name), name)

    def _add(self, name: str) -> Blob:
        if name not in self._blobs:
            self._blobs[name] = Blob(self.path, name)
        return self._blobs[name]

    def _sized(self, name: str, size_max: int) -> Mapped:
        """A file as it is mapped, not copied: a graph may have two gigabytes of weights in it."""
        data = self._add(name).data
        if len(data) > size_max:
            raise ModelRejected(f"{self.path / name}: {len(data)} bytes, at most {size_max}")
        return data

    def _bytes(self, name: str, size_max: int = TEXT_BYTES_MAX) -> bytes:
        return bytes(self._sized(name, size_max))

    def _find_template(self) -> str | None:
        """chat_template.jinja, else chat_template.json, else that of tokenizer_config.json."""
        if TEMPLATE in self._blobs:
            try:
                return self._bytes(TEMPLATE).decode()
            except UnicodeDecodeError as error:
                raise ModelRejected(f"{TEMPLATE}: not UTF-8 at byte {error.start}") from None
        source = TEMPLATE_JSON if TEMPLATE_JSON in self._blobs else TOKENIZER_CONFIG
        found = self._object(source).get("chat_template")
        if isinstance(found, (list, dict)):  # "default" is the one for chat.
            found = _named_templates(found).get("default")
        if found is None or isinstance(found, str):
            return found
        raise ModelRejected(f"{source}: chat_template is {found!r:.80}, expected text")

    @property
    def tokenizer(self) -> str:
        """The text of tokenizer.json."""
        try:
            return self._tokenizer.decode()
        except UnicodeDecodeError as error:
            raise ModelRejected(
                f"{self.path / TOKENIZER}: not UTF-8 at byte {error.start}"
            ) from None

    @property
    def template(self) -> str | None:
        """The chat template's source, or None: such a model takes prompts only."""
        return self._template

    @property
    def generation_config(self) -> bytes | None:
        """generation_config.json, or None: there is none."""
        return self._generation

    def identity(self) -> dict[str, str]:
        """File name to sha256, sorted, of every file that can change a bit."""
        return {name: self._blobs[name].sha256 for name in sorted(self._blobs)}

    def weights(self) -> tuple[bytes, list[str], list[Any], list[int]]:
        """The ONNX file and what it names: names, mapped contents, sizes. Valid until `close`."""
        names = list(self.graph.files)
        mapped = [self._blobs[self._beside(name)].data for name in names]
        graph = self._bytes(self.facts.filename, GRAPH_BYTES_MAX)
        return graph, names, mapped, [len(data) for data in mapped]

    def templates_unused(self) -> list[str]:
        """Names of further chat templates; only the one without a name is used."""
        found = self.tokenizer_config.get("chat_template")
        files = {path.stem for path in (self.path / TEMPLATES_MORE).glob("*.jinja")}
        return sorted({*_named_templates(found), *files} - {"default"})

    def size_bytes(self) -> int:
        """Of all its files, while it is open."""
        return sum(len(blob.data) for blob in self._blobs.values())

    def unchanged(self) -> None:
        """Raise ModelRejected when a file was written to since it was opened."""
        for blob in self._blobs.values():
            blob.unchanged()

    def close(self) -> None:
        """Unmap and close all files; hashes that were computed stay. Twice is harmless."""
        for blob in self._blobs.values():
            blob.close()


def _named_templates(found: Any) -> dict[str, Any]:
    """Several templates by their names, as a list of pairs or as an object."""
    if isinstance(found, list):
        pairs = [item for item in found if isinstance(item, dict)]
        return {str(pair.get("name")): pair.get("template") for pair in pairs}
    return found if isinstance(found, dict) else {}
