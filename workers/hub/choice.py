"""Which files of a repository make a model: a pure choice, by lists of what may come.

A repository is taken for one of two layouts. A folder with genai_config.json is a model as a whole
(onnxruntime-genai; a repository may have several such folders). Any other ONNX file is a model with
its weights beside it and its tokenizer in its folder or those above (optimum). What is on no list
is not taken: pickles, code and other formats never arrive.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from lockstep.engine.errors import UsageError
from lockstep.engine.settings import nearest
from lockstep.workers.hub.listing import Listing, RemoteFile, sized

GENAI = "genai_config.json"
SUPPORT = (
    *("config.json", "generation_config.json", GENAI),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
TEMPLATES = "additional_chat_templates"  # A folder of *.jinja, beside the tokenizer.
ONNX = ".onnx"
DATA = re.compile(r"(?P<graph>.+\.onnx)[._]data(?:[._]?\d+)?")  # As the exporters name weights.
# Not even if a graph calls them its weights.
NEVER = (
    *(".py", ".pyc", ".sh", ".so", ".dll", ".exe", ".js"),
    *(".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"),
)
SHOWN_MAX = 24  # Variants in one message.
SIZE_MAX = 1 << 50


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a repository.

    Attributes:
        name: Path of its ONNX file; of a genai folder, the folder ("." for the repository's own).
        folder: Folder that a fleet file names, relative to the repository.
        files: What it needs, small files first, weights last.
    """

    name: str
    folder: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def choose(listing: Listing, asked: str | None) -> Variant:
    """The one variant that was asked for, or that there is.

    Raises:
        UsageError: there is none, there are several and none was asked for, or no such one.
    """
    found = variants(listing.files.values())
    if not found:
        raise UsageError(f"{listing.name} has no ONNX model: no *.onnx among its files")
    if asked is None:
        if len(found) > 1:
            raise UsageError(
                f"{listing.name} has {len(found)} models, choose one with --file: {_listed(found)}"
            )
        return found[0]
    wanted = _normal(asked)
    for variant in found:
        if wanted in _names(variant):
            return variant
    known = [variant.name for variant in found]
    raise UsageError(f"{listing.name} has no model {asked!r}{nearest(asked, known)}")


def variants(files: Iterable[RemoteFile]) -> list[Variant]:
    """Every model of a repository, by name."""
    usable = {file.path: file for file in files if safe(file.path) and file.size <= SIZE_MAX}
    genai = sorted({_parent(path) for path in usable if PurePosixPath(path).name == GENAI})
    graphs = [path for path in usable if path.endswith(ONNX)]
    found = [_genai(folder, usable) for folder in genai]
    found += [_single(path, usable) for path in graphs if _parent(path) not in genai]
    return sorted(
        (v for v in found if any(file.path.endswith(ONNX) for file in v.files)),
        key=lambda variant: variant.name,
    )


def safe(path: str) -> bool:
    """Whether a path of the hub stays where it is put, and out of our own way."""
    parts = path.split("/")
    return path.isprintable() and not any(
        not part or part.startswith(".") or "\\" in part or len(part.encode()) > 255
        for part in parts
    )


def beside(graph: str, name: str) -> str | None:
    """The repository's path of weights that an ONNX file names; None: it leads elsewhere."""
    parts = [part for part in name.split("/") if part != "."]
    path = "/".join([*PurePosixPath(graph).parent.parts, *parts])
    return path if safe(path) and not path.lower().endswith(NEVER) else None


def _genai(folder: str, files: dict[str, RemoteFile]) -> Variant:
    """A genai folder may have several graphs; it is taken as a whole."""
    inside = sorted(path for path in files if _parent(path) == folder)
    graphs = [path for path in inside if path.endswith(ONNX)]
    names = [*_support([folder], files), *graphs, *_weights(graphs, files)]
    return Variant(folder, folder, tuple(files[name] for name in names))


def _single(graph: str, files: dict[str, RemoteFile]) -> Variant:
    """The tokenizer lies beside the graph or above it, so the model is the whole copy."""
    folders = [str(folder) for folder in PurePosixPath(graph).parents]
    names = [*_support(folders, files), graph, *_weights([graph], files)]
    return Variant(graph, ".", tuple(files[name] for name in names))


def _support(folders: list[str], files: dict[str, RemoteFile]) -> list[str]:
    """Configuration, tokenizer and chat templates in some folders."""
    templates = [str(PurePosixPath(folder) / TEMPLATES) for folder in folders]
    return sorted(
        path
        for path in files
        if (_parent(path) in folders and PurePosixPath(path).name in SUPPORT)
        or (_parent(path) in templates and path.endswith(".jinja"))
    )


def _weights(graphs: list[str], files: dict[str, RemoteFile]) -> list[str]:
    matches = ((path, DATA.fullmatch(path)) for path in sorted(files))
    return [path for path, match in matches if match and match["graph"] in graphs]


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _normal(asked: str) -> str:
    return str(PurePosixPath(asked))


def _names(variant: Variant) -> list[str]:
    """What ``--file`` may call it: its name, any graph of it, its genai_config.json."""
    inner = (file.path for file in variant.files)
    keys = (ONNX, GENAI) if variant.name == variant.folder else (ONNX,)
    return [variant.name, *(path for path in inner if path.endswith(keys))]


def _listed(found: list[Variant]) -> str:
    shown = ", ".join(f"{v.name} ({sized(v.size)})" for v in found[:SHOWN_MAX])
    left = len(found) - SHOWN_MAX
    return f"{shown} and {left} more" if left > 0 else shown
