"""Tokens equal to Hugging Face transformers in float32, for graphs of the exporters people use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.workers.inference.check import check
from lockstep.workers.inference.config import GROWING, SLAB

pytestmark = pytest.mark.torch
VARIABLE = "LOCKSTEP_EXPORT_{}"
PACKAGES = {
    "optimum": "torch optimum-onnx onnxruntime 'transformers<4.58'",
    "genai": "torch onnxruntime-genai onnx_ir 'transformers>=5,<6'",
}
MODULES = {"optimum": "optimum.exporters.onnx", "genai": "onnxruntime_genai.models.builder"}
PATHS = {"optimum": GROWING, "genai": SLAB}
SCRIPT = Path(__file__).parents[2] / "support" / "hf_export.py"
TOKENIZER = Path(__file__).parents[2] / "data" / "optimum-micro"
EXPORTS = [
    *((each, "genai") for each in ("Llama", "Qwen2", "Qwen3", "Phi3", "Gemma")),
    # Keys of every other layer in buffers that may be as small as its window.
    ("Gemma2", "genai"),
    *((each, "optimum") for each in ("Llama", "Qwen2", "Qwen3", "Phi3", "Gemma")),
    # Windows that the graph itself applies, by its mask.
    ("Mistral", "optimum"),
    ("Gemma3Text", "optimum"),
]


def exporter(tool: str) -> str:
    """An interpreter that has the tool, or a skip that says how to make one."""
    name = VARIABLE.format(tool.upper())
    python = os.environ.get(name, sys.executable)
    code = f"import torch, transformers, {MODULES[tool]}"
    done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(
            f"{python} cannot export: python3 -m venv X; X/bin/pip install {PACKAGES[tool]}; "
            f"then {name}=X/bin/python"
        )
    return python


@pytest.mark.parametrize(("architecture", "tool"), EXPORTS)
def test_tokens_are_those_of_transformers(tmp_path: Path, architecture: str, tool: str) -> None:
    python = exporter(tool)
    command = [python, str(SCRIPT), architecture, tool, str(TOKENIZER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = check(tmp_path / "model", "batch-invariant")
    assert report.facts["path_of_execution"] == PATHS[tool]
    assert report.ok and report.facts["expected"] == "equal", report.lines
