"""Preparing a run: everything is read, checked and hashed before anything is made or started."""

import hashlib
import os
import platform
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lockstep.engine.errors import UsageError
from lockstep.engine.fleet import SEED_MAX, Fleet
from lockstep.engine.fleet_file import ORDERS, parse
from lockstep.engine.items import InputItem, parse_input
from lockstep.engine.overrides import overridden
from lockstep.engine.record import HEADER_BYTES
from lockstep.engine.strict_json import dumps, loads
from lockstep.engine.version import JOURNAL_FORMAT, LOGIC_FLAGS, VERSION
from lockstep.workers.agent.engine_config import code_generation
from lockstep.workers.job import Job
from lockstep.workers.outside import caller
from lockstep.workers.outside.commands import Command, find_commands
from lockstep.workers.outside.inlet import with_inlet
from lockstep.workers.outside.sources import check_sources

FLEET_BYTES_MAX = 16 << 20
PACKAGES = ("numpy", "onnxruntime-gpu", "onnxruntime", "wasmtime", "tokenizers", "jinja2")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A fleet with its bytes.

    Attributes:
        fleet: Parsed, with the run's seed; model paths are absolute.
        fleet_bytes: The file as it is.
        input_bytes: The input as it is; None without input.
        items: Parsed input.
        modules: Module bytes by group index.
        folder: Of the fleet file as a person wrote it: what commands are relative to.
        commands: Of the tools, by index; of a run that repeats another, none.
    """

    fleet: Fleet
    fleet_bytes: bytes
    input_bytes: bytes | None
    items: list[InputItem]
    modules: tuple[bytes, ...]
    folder: str
    commands: tuple[Command, ...] = ()


def read_fleet(
    path: Path,
    seed: int | None,
    order: str = "",
    logic_flags: int = LOGIC_FLAGS,
    serves: bool = False,
    settings: Sequence[str] = (),
    calls: bool = False,
) -> tuple[Fleet, bytes]:
    """Read and check a fleet file; ``seed`` and ``order`` take the place of the file's.

    ``logic_flags``: rules of the run that it is of (`engine.fleet_file.parse`); ``serves``: with
    the source by which a service hands in items, also in the bytes; so are ``settings``, which take
    the place of others in the file (`engine.overrides`); ``calls``: and with the agent that takes
    calls to models.

    Raises:
        UsageError: it cannot be read, or as `engine.fleet.parse`.
    """
    if seed is not None and (type(seed) is not int or not 0 <= seed <= SEED_MAX):
        raise UsageError(f"seed is {seed!r}, expected a whole number from 0 to {SEED_MAX}")
    if order not in ("", *ORDERS):
        raise UsageError(f"order is {order!r}, expected {' or '.join(ORDERS)}")
    data = read_file(path, "fleet file", FLEET_BYTES_MAX)
    if calls:  # First: a fleet of models alone has no other agent.
        data = caller.with_caller(data, str(path))
    fleet = parse(data, str(path), logic_flags)
    if settings:
        data = overridden(data, settings, str(path))
        fleet = parse(data, f"{path} with --set {' --set '.join(settings)}", logic_flags)
    if serves:
        data = with_inlet(data, fleet, str(path))
        fleet = parse(data, str(path), logic_flags)
    if seed is not None:
        fleet = replace(fleet, seed=seed)
    if order:
        fleet = replace(fleet, schedule=replace(fleet.schedule, order=order))
    return fleet, data


def prepare(
    fleet_path: Path,
    input_path: Path | None,
    seed: int | None,
    modules_at: Path | None = None,
    models_at: dict[str, str] | None = None,
    order: str = "",
    tools_at: Path | None = None,
    logic_flags: int = LOGIC_FLAGS,
    serves: bool = False,
    settings: Sequence[str] = (),
    calls: bool = False,
) -> Prepared:
    """Read everything a run is made from.

    Args:
        fleet_path: The fleet file.
        input_path: The input; None: there is none.
        seed: In place of the file's.
        modules_at: Folder of a run to repeat: modules are its ``<group>.wasm``, and no tool is
            looked for unless ``tools_at`` says where.
        models_at: Model folders by name, in place of the file's paths.
        order: In place of the file's; empty: the file's.
        tools_at: Folder that commands are relative to; None: that of the fleet file.
        logic_flags: Rules that the run is run under.
        serves, settings, calls: As `read_fleet`.

    Raises:
        UsageError: something is missing, unreadable, malformed or too large.
    """
    fleet, data = read_fleet(fleet_path, seed, order, logic_flags, serves, settings, calls)
    base = fleet_path.resolve().parent
    models_at = models_at or {}
    unknown = [name for name in models_at if name not in {m.name for m in fleet.models}]
    if unknown:
        known = ", ".join(m.name for m in fleet.models)
        raise UsageError(f"model {unknown[0]!r} is not in the fleet, only: {known}")
    models = tuple(replace(m, path=models_at.get(m.name, str(base / m.path))) for m in fleet.models)
    for model in models:
        if not model.path.isascii() and "\udc80" <= max(model.path) <= "\udcff":
            raise UsageError(f"{model.path!a}: the path of a model has to be UTF-8")
    fleet = replace(fleet, models=models)
    input_bytes, items = None, []
    if input_path is not None:
        input_bytes = read_file(input_path, "input", 2**31)
        items = parse_input(input_bytes, str(input_path), fleet.record_bytes_max - HEADER_BYTES)
    modules = []
    for group, path in zip(fleet.groups, module_paths(fleet_path, fleet), strict=True):
        if modules_at is not None:
            path = modules_at / f"{group.name}.wasm"
        modules.append(read_file(path, f"module of [agents.{group.name}]", fleet.module_bytes_max))
    check_sources(fleet, str(fleet_path))
    folder = base if tools_at is None else tools_at
    live = modules_at is None or tools_at is not None
    commands = find_commands(fleet, folder, str(fleet_path)) if live else ()
    return Prepared(fleet, data, input_bytes, items, tuple(modules), str(folder), commands)


def of_job(job: Job, tools_at: Path | None = None) -> Prepared:
    """As `prepare`, of what a job names."""
    modules_at = Path(job.modules_at) if job.modules_at else None
    return prepare(
        Path(job.fleet),
        job.input_path,
        job.seed,
        modules_at,
        job.models_at,
        job.order,
        tools_at,
        job.logic_flags,
        job.serves,
        job.settings,
        job.calls,
    )


def module_paths(fleet_path: Path, fleet: Fleet) -> list[Path]:
    """Where the modules of a fleet file lie, by group index."""
    base = fleet_path.resolve().parent
    modules = [group.module for group in fleet.groups]
    return [caller.PATH if module == caller.MODULE else base / module for module in modules]


def read_file(path: Path, what: str, bytes_max: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        UsageError: it cannot be read, is no file, or is too large.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{path}: the {what} is not a regular file")
            # So many bytes are allocated before any is read: as many as there are, not as may be.
            data = file.read(min(found.st_size, bytes_max) + 1)
            if found.st_size < len(data) <= bytes_max:  # It grows, or is one of the kernel's.
                data += file.read(bytes_max + 1 - len(data))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the {what}: {error.strerror}") from None
    except MemoryError:
        raise UsageError(f"{path}: there is not memory enough to read the {what}") from None
    if len(data) > bytes_max:
        raise UsageError(f"{path}: the {what} has more than {bytes_max} bytes")
    return data


def identity(prepared: Prepared, model_files: list[dict[str, str]]) -> dict[str, Any]:
    """What decides every bit of the run, JSON-able; hashed first into the digest (rule 7).

    Args:
        prepared: The fleet and its bytes.
        model_files: File name -> sha256 of each model, as the inference process loaded them.
    """
    settings = prepared.fleet.settings()
    hashes = {
        group.name: sha256(module)
        for group, module in zip(prepared.fleet.groups, prepared.modules, strict=True)
    }
    for group in settings["groups"]:
        group["module"] = hashes[group["name"]]
    for model, files in zip(settings["models"], model_files, strict=True):
        model["path"] = files  # What is there counts, not where.
    value = {
        "format": JOURNAL_FORMAT,
        "logic_flags": prepared.fleet.logic_flags,
        "order": prepared.fleet.schedule.order,
        "fleet": settings,
        "input": None if prepared.input_bytes is None else sha256(prepared.input_bytes),
        "code_generation": code_generation(),
    }
    # As a reader of the journal will see it: lists for tuples.
    as_read: dict[str, Any] = loads(dumps(value))
    return as_read


def environment(
    prepared: Prepared, providers: list[dict[str, Any]], classes: dict[str, str] | None = None
) -> dict[str, Any]:
    """What the run ran on: compared by `verify` beforehand, never hashed into the digest.

    Args:
        prepared: The fleet and its bytes.
        providers: Report of each model.
        classes: Model -> what its self-test has proven; empty: it was not made.

    With it go the paths that a second execution needs: the seed given, last known model folders,
    the folder that commands are relative to.
    """
    versions = {"lockstep": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": _cpu(),
        "versions": versions,
        "providers": providers,
        "classes": classes or {},
        "seed": prepared.fleet.seed,
        "folder": prepared.folder,
        "fleet_sha256": sha256(prepared.fleet_bytes),
        "has_input": prepared.input_bytes is not None,
        "models": {model.name: model.path for model in prepared.fleet.models},
    }


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _cpu() -> dict[str, str]:
    wanted = {"model name": "model", "flags": "features", "Features": "features"}
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"model": platform.processor()}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        name = wanted.get(key.strip())
        if name and name not in found:
            found[name] = " ".join(sorted(value.split())) if name == "features" else value.strip()
    return found
