"""Which layout a model folder has and which ONNX file in it is meant: never chosen silently.

Two layouts: that of onnxruntime-genai's model builder (genai_config.json names the file), and that
of optimum and of the onnx-community on the hub (config.json, and ``model.onnx`` or siblings of it,
such as ``onnx/model_q4.onnx``). Of several files none is better for everyone, and another one gives
other tokens: a person says which.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lockstep.engine.errors import ModelRejected
from lockstep.workers.inference.config import CONFIG, GENAI, HUGGING_FACE

HF_CONFIG = "config.json"
FOLDERS = ("", "onnx/")  # Where files of the second layout lie.
SHOWN_MAX = 20
# Parts of models that are no decoder of their own, and what to use instead.
EXPORT = "export it with `optimum-cli export onnx --task text-generation-with-past`"
PARTS = {
    "decoder_model_merged": f"a merged decoder with two graphs in one is not executed; {EXPORT}, "
    "or take a folder that has model.onnx",
    "decoder_with_past_model": f"it cannot begin without a past; {EXPORT}",
    "decoder_model": f"it takes no past; {EXPORT}",
    "encoder_model": "an encoder is no text model",
    "embed_tokens": "one part of a model in several files",
    "vision_encoder": "one part of a model in several files",
    "audio_encoder": "one part of a model in several files",
}


class Layout(NamedTuple):
    """Layout of a folder.

    Attributes:
        kind: `GENAI` or `HUGGING_FACE`.
        filename: The ONNX file; empty: genai_config.json names it.
    """

    kind: str
    filename: str = ""


def find_layout(root: Path, file: str, genai_file: str = "") -> Layout:
    """The layout of a folder.

    Args:
        root: Real path of the folder.
        file: The ONNX file that a person asks for; empty: the only one.
        genai_file: The one that genai_config.json names; empty: there is no such file.

    Raises:
        ModelRejected: it has neither layout, or there are several files to choose from; they are
            named. Or the file is a part of a model.
    """
    if genai_file and file in ("", genai_file):
        return Layout(GENAI)
    if not (root / HF_CONFIG).exists():
        if genai_file:
            raise ModelRejected(
                f"{root}: {CONFIG} names {genai_file}, not {file!r}, and {HF_CONFIG} is missing"
            )
        raise ModelRejected(
            f"{root / CONFIG}: missing, and {HF_CONFIG} too; expected a folder made by "
            f"onnxruntime-genai's model builder or by optimum"
        )
    return Layout(HUGGING_FACE, _asked(root, file) if file else _only(root))


def onnx_files(root: Path) -> list[str]:
    """ONNX files of a folder of the second layout, relative to it, sorted."""
    found = []
    for folder in FOLDERS:
        if (root / folder).is_dir():
            found += [f"{folder}{path.name}" for path in (root / folder).glob("*.onnx")]
    return sorted(found)


def part_of(file: str) -> str:
    """Why a file is no whole decoder, by its name; empty: it may be one."""
    stem = PurePosixPath(file).stem
    return next((why for part, why in PARTS.items() if stem.startswith(part)), "")


def _asked(root: Path, file: str) -> str:
    why = part_of(file)
    if why:
        raise ModelRejected(f"{root / file}: {why}")
    return file


def _only(root: Path) -> str:
    files = onnx_files(root)
    whole = [file for file in files if not part_of(file)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise ModelRejected(
            f"{root}: there are several models in it: {', '.join(whole[:SHOWN_MAX])}; say which: "
            f'[models.NAME] file = "{whole[0]}" in a fleet, --file for `lockstep model`'
        )
    if files:
        raise ModelRejected(f"{root / files[0]}: {part_of(files[0])}")
    raise ModelRejected(f"{root}: no ONNX file in it or in {root / 'onnx'}")
