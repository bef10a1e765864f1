"""A simulated disk: `workers.storage.Storage` in memory, with faults and power cuts.

A `Machine` holds every file twice: as the kernel shows it, and as the disk has it. Syncs make the
second equal to the first; a power cut leaves the second, and as much of the difference as chance
wants. Every operation that can fail is counted, so that a test can let the Nth fail, for all N.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The machine is off: nothing of the program runs any more."""


@dataclass
class Node:
    """One file."""

    data: bytearray = field(default_factory=bytearray)  # As the kernel shows it.
    durable: bytes = b""  # As the disk has it.
    dirty: list[tuple[int, int]] = field(default_factory=list)  # What a sync would write.

    def sync(self) -> None:
        """The disk gets what is dirty, and the size."""
        made = bytearray(self.durable[: len(self.data)].ljust(len(self.data), b"\0"))
        for start, end in self.dirty:
            made[start:end] = self.data[start:end]
        self.durable, self.dirty = bytes(made[: len(self.data)]), []


@dataclass
class Faults:
    """What goes wrong, by the number of the operation of its kind, from 0; -1: never.

    Attributes:
        write: This write fails with `code`.
        short: Of its bytes so many are written first, at most.
        sync: This sync (of a file or of names) fails with EIO.
        make: This file cannot be made: there is no room.
        cut: At this operation, of any kind, the power goes.
    """

    write: int = -1
    code: int = errno.EIO
    short: int = 0
    sync: int = -1
    make: int = -1
    cut: int = -1


class Machine:
    """Files of several folders.

    Attributes:
        faults: To come.
        writes, syncs, makes, operations: So far.
        syncs_after_failure: Must stay 0.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.names: dict[tuple[str, str], Node] = {}
        self.durable_names: dict[tuple[str, str], Node] = {}
        self.handles: dict[int, Node] = {}
        self.writes = self.syncs = self.makes = self.operations = 0
        self.syncs_after_failure = 0
        self._failed: list[Node | str] = []

    def operation(self) -> None:
        """One more."""
        self.operations += 1
        if self.operations - 1 == self.faults.cut:
            raise PowerCut

    def sync(self, what: Node | str) -> None:
        """A sync begins."""
        self.operation()
        self.syncs_after_failure += any(each is what for each in self._failed)
        self.syncs += 1
        if self.syncs - 1 == self.faults.sync:
            self._failed.append(what)
            if isinstance(what, Node):
                what.dirty = []  # The kernel takes them for clean now, and shows them still.
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def after_power_cut(self, chance: random.Random, ordered: bool = True) -> Machine:
        """The machine when it is on again.

        Args:
            chance: What of the bytes that were not synced arrived.
            ordered: Sectors arrive from the front; otherwise any of them may be missing.
        """
        made = Machine()
        for key in sorted({**self.names, **self.durable_names}):
            node = self.names.get(key) or self.durable_names[key]
            if key in self.durable_names or chance.random() < 0.5:
                data = survivor(node, chance, ordered)
                made.names[key] = Node(bytearray(data), data)
        made.durable_names = dict(made.names)
        return made

    def after_crash(self) -> Machine:
        """The machine when only the program has ended."""
        made = Machine()
        made.names, made.durable_names = self.names, self.durable_names
        made._failed = self._failed
        return made


def survivor(node: Node, chance: random.Random, ordered: bool) -> bytes:
    """What of a file a power cut leaves."""
    known, shown = len(node.durable), bytes(node.data)
    if len(shown) <= known or shown[:known] != node.durable:
        return node.durable  # It was cut or written over: the new bytes did not arrive.
    size = chance.randint(known, len(shown))
    data = bytearray(shown[:size])
    first = -(-known // SECTOR_BYTES) * SECTOR_BYTES
    sectors = range(first, size, SECTOR_BYTES)
    lost = chance.randint(0, len(sectors))
    for number, sector in enumerate(sectors):
        if number >= lost if ordered else chance.random() < 0.3:
            part = data[sector : sector + SECTOR_BYTES]
            data[sector : sector + SECTOR_BYTES] = bytes(len(part))
    return bytes(data)


class SimDisk:
    """One folder of a machine: a `Storage`."""

    def __init__(self, machine: Machine, path: Path) -> None:
        self.path = path
        self.machine = machine

    def names(self) -> list[str]:
        return sorted(name for folder, name in self.machine.names if folder == str(self.path))

    def make(self, name: str) -> int:
        self.machine.operation()
        key = (str(self.path), name)
        if key in self.machine.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.machine.makes += 1
        if self.machine.makes - 1 == self.machine.faults.make:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.machine.names[key] = Node()
        return self.open(name)

    def open(self, name: str) -> int:
        handle = len(self.machine.handles)
        self.machine.handles[handle] = self.machine.names[(str(self.path), name)]
        return handle

    def close(self, handle: int) -> None:
        del self.machine.handles[handle]
        self.machine.handles[handle] = Node()  # Numbers are not given again.

    def read(self, name: str) -> bytes:
        return bytes(self.machine.names[(str(self.path), name)].data)

    def write(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        machine, node = self.machine, self.machine.handles[handle]
        machine.operation()
        machine.writes += 1
        faults, number = machine.faults, machine.writes - 1
        part = bytes(data)
        if number == faults.write:
            part = part[: faults.short]
            if not part:
                raise OSError(faults.code, os.strerror(faults.code))
            faults.write, faults.short = number + 1, 0  # The rest fails.
        assert offset <= len(node.data)
        node.data[offset : offset + len(part)] = part
        node.dirty.append((offset, offset + len(part)))
        return len(part)

    def truncate(self, handle: int, size: int) -> None:
        self.machine.operation()
        del self.machine.handles[handle].data[size:]

    def sync(self, handle: int) -> None:
        node = self.machine.handles[handle]
        self.machine.sync(node)
        node.sync()

    def sync_names(self) -> None:
        self.machine.sync(str(self.path))
        folder = str(self.path)
        durable = self.machine.durable_names
        for key in [key for key in durable if key[0] == folder]:
            del durable[key]
        durable.update({key: n for key, n in self.machine.names.items() if key[0] == folder})

    def allocate(self, name: str, size: int) -> None:
        self.machine.handles[self.make(name)].data[:] = bytes(size)

    def free(self) -> int:
        return 0

    def remove(self, name: str) -> None:
        self.machine.operation()
        self.machine.names.pop((str(self.path), name), None)
