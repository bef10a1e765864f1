"""Offers: what a run serves over HTTP, from what its manifest says it is and runs on."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lockstep.engine.fleet import CALLS
from lockstep.workers import folder as folders

FINGERPRINT_CHARS = 16
RUNS = 8  # Whose offers are kept.


def offers(run: Path, moved: Mapping[str, str]) -> dict[str, Any]:
    """What a run serves; empty when it cannot be told.

    Args:
        run: Its folder.
        moved: Models that went on on another provider than the manifest says, and which.

    Returns:
        ``fleet`` (its name; empty: it takes no items), ``record_bytes_max``, ``models``: of each
        ``name``, ``kind``, ``path``, ``file``, ``tokens_max`` (of decoders), ``provider``,
        ``class`` and ``fingerprint``: one text for everything that decides the model's bits and is
        known before a request comes.
    """
    try:
        found = _offers(run)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}
    models = [_moved(model, moved.get(model["name"])) for model in found["models"]]
    return {**found, "models": models}


@lru_cache(RUNS)
def _offers(run: Path) -> dict[str, Any]:
    manifest = json.loads((run / folders.MANIFEST).read_bytes())
    identity, environment = manifest["identity"], manifest["environment"]
    fleet = identity["fleet"]
    groups = [group for group in fleet["groups"] if group["input"] != CALLS]
    takes = bool(groups) and (
        fleet["schedule"]["policy"] != "events" or any(group["input"] for group in groups)
    )
    models = [
        _model(model, provider, identity, environment)
        for model, provider in zip(fleet["models"], environment["providers"], strict=True)
    ]
    return {
        "fleet": fleet["name"] if takes else "",
        "record_bytes_max": fleet["record_bytes_max"],
        "models": models,
    }


def _moved(model: dict[str, Any], to: str | None) -> dict[str, Any]:
    if to is None:
        return model
    return {**model, "provider": [to], "fingerprint": _fingerprint([model["fingerprint"], to])}


def _fingerprint(of: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
    return f"fp_{digest[:FINGERPRINT_CHARS]}"


def _model(
    model: dict[str, Any],
    provider: dict[str, Any],
    identity: dict[str, Any],
    environment: dict[str, Any],
) -> dict[str, Any]:
    name = model["name"]
    proven = environment["classes"].get(name, "")
    kept = ("platform", "cpu", "versions")
    decides = [
        {**model, "name": ""},
        provider["got"],
        proven,
        identity["logic_flags"],
        {key: environment[key] for key in kept},
    ]
    decoder = model.get("kind", "decoder") == "decoder"
    return {
        "name": name,
        "kind": model.get("kind", "decoder"),
        "path": environment["models"][name],
        "file": next((file for file in model["path"] if file.endswith(".onnx")), ""),
        "tokens_max": model["tokens_max"] if decoder else None,
        "provider": provider["got"],
        "class": proven,
        "fingerprint": _fingerprint(decides),
    }
