"""hf_export.py ARCHITECTURE TOOL TOKENIZER OUT: a random model, exported, with what it answers.

Run by an interpreter that has torch, transformers and the exporter: optimum-onnx ("optimum"), or
onnxruntime-genai ("genai"). Makes OUT/hf, exports it to OUT/model and writes expected.json beside
it from transformers itself in float32: greedy tokens of prompts whose best logit is ahead of the
second by enough that no correct float32 program takes another one.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # Threads that wait for each other on a busy machine spin.

import torch
import transformers

MARGIN_MIN = 0.01
TOKENS = 24
LENGTHS = (1, 5, 17, 40)
TRIES_MAX = 2000
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MORE: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": False},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {"head_dim": 32},
    "Mistral": {"sliding_window": 16},
    "Phi3": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "original_max_position_embeddings": 256},
    "Gemma": {"head_dim": 32},
    "Gemma2": {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32},
    "Gemma3Text": {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32},
}
CAUSAL = {"Gemma3Text": "Gemma3ForCausalLM"}


def build(architecture: str) -> Any:
    """A model of random weights whose logits are spread by about 1."""
    config = getattr(transformers, f"{architecture}Config")(**SIZES, **MORE[architecture])
    config._attn_implementation = "eager"
    kind = getattr(transformers, CAUSAL.get(architecture, f"{architecture}ForCausalLM"))
    torch.manual_seed(1)
    model = kind(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.normal_(0.0 if "Gemma" in architecture else 1.0, 0.1)
            elif weight.ndim > 1 and ("embed" in name or "lm_head" in name):
                weight.normal_(0.0, weight.shape[1] ** -0.5)
            elif weight.ndim > 1:
                weight.normal_(0.0, 1.2 * weight.shape[1] ** -0.5)
            else:
                weight.normal_(0.0, 0.3)
    return model.eval().float()


def answer(model: Any, prompt: list[int]) -> dict[str, Any] | None:
    """A case of expected.json, or None where the best logits are too near to each other."""
    ids, greedy, top = list(prompt), [], []
    for step in range(TOKENS):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 5)
        if best.values[0] - best.values[1] < MARGIN_MIN:
            return None
        if step == 0:
            top = [
                {"id": int(i), "logit": float(v)}
                for i, v in zip(best.indices, best.values, strict=True)
            ]
        greedy.append(int(best.indices[0]))
        ids.append(greedy[-1])
    return {"name": f"len{len(prompt)}", "prompt_ids": prompt, "greedy_ids": greedy,
            "first_top5": top}  # fmt: skip


def cases(model: Any) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for length in LENGTHS:
        for _ in range(TRIES_MAX):
            prompt = torch.randint(3, SIZES["vocab_size"], (length,), generator=generator).tolist()
            case = answer(model, prompt)
            if case is not None:
                found.append(case)
                break
        else:
            raise SystemExit(f"no prompt of {length} tokens has a margin of {MARGIN_MIN}")
    return found


def export(tool: str, source: Path, target: Path) -> None:
    command = {
        "optimum": ["optimum.exporters.onnx", "--model", str(source), "--task",
                    "text-generation-with-past", str(target)],
        "genai": ["onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target),
                  "-p", "fp32", "-e", "cpu", "-c", str(target / "cache")],
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", *command[tool]], check=True)


def main(architecture: str, tool: str, tokenizer: str, out: str) -> None:
    source, target = Path(out) / "hf", Path(out) / "model"
    model = build(architecture)
    model.save_pretrained(source)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(Path(tokenizer) / name, source / name)
    found = cases(model)
    export(tool, source, target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tokenizer) / name, target / name)
    (target / "expected.json").write_text(json.dumps({"cases": found, "sha256": {}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
