"""`lockstep model pull`: a model of a hub becomes a folder here, whole, or goes on later.

The order: look, choose, refuse what cannot work, then fetch small files, graphs, weights. A
graph names its weights itself, so it is read before they are fetched.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.engine.errors import ModelRejected, UsageError
from lockstep.workers.hub.choice import ONNX, Variant, beside, choose
from lockstep.workers.hub.destination import Destination
from lockstep.workers.hub.listing import (
    Listing,
    Name,
    PullInterrupted,
    PullStopped,
    RemoteFile,
    parse_name,
    sized,
)
from lockstep.workers.hub.receipt import Receipt, Taken
from lockstep.workers.hub.transfer import Part, fetch, proven
from lockstep.workers.inference.graph import read_graph

if TYPE_CHECKING:
    from lockstep.workers.hub.library import Hub

GRAPH_BYTES_MAX = 1 << 31  # Of protobuf itself.

Listener = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is here.

    Attributes:
        folder: What it was pulled into.
        receipt: Its origin and its files.
        fetched: Bytes that came over the network this time.
    """

    folder: Path
    receipt: Receipt
    fetched: int

    @property
    def model(self) -> Path:
        """The folder that a fleet file names."""
        return self.folder / self.receipt.model


def pull(
    text: str,
    *,
    file: str | None = None,
    to: Path | None = None,
    endpoint: str | None = None,
    listen: Listener | None = None,
) -> Pulled:
    """Fetch a model, or what is missing of it.

    Args:
        text: OWNER/NAME or OWNER/NAME@REVISION.
        file: Which of several models: an ONNX file, or a folder with genai_config.json.
        to: The folder; None: NAME in the current one.
        endpoint: The hub; None: as the environment says.
        listen: Called with ``("plan", ...)``, ``("file", ...)`` and ``("progress", ...)``.

    Raises:
        UsageError: refused; nothing was made or changed.
        PullStopped: ended early; the same call goes on.
    """
    name = parse_name(text)
    root = to if to is not None else Path(name.repository.partition("/")[2])
    destination = Destination(root)
    there = destination.done or destination.begun
    if there is not None and there.repository == name.repository:
        file = file or there.chosen
    with _hub(endpoint) as hub:
        listing = hub.listing(_pinned(name, destination.begun))
        variant = choose(listing, file)
        plan = _plan(name, listing, variant)
        destination.expect(plan)
        work = _Work(hub, listing, destination, listen or _unheard)
        if destination.done:
            receipt = work.compare(destination.done)
            destination.sweep()
            return Pulled(root, receipt, 0)
        return work.bring(plan, variant)


def _hub(endpoint: str | None) -> "Hub":
    """The library, imported by who pulls only."""
    try:
        from lockstep.workers.hub.library import Hub

        return Hub(endpoint)
    except ImportError as error:
        raise UsageError(
            f"`lockstep model pull` needs huggingface_hub ({error}); install it with "
            f"`pip install 'lockstep-runtime[hub]'`"
        ) from None
    except ValueError as error:
        raise UsageError(
            f"huggingface_hub cannot be loaded: {error}; an HF_* variable has a value it cannot use"
        ) from None


def _pinned(name: Name, begun: Receipt | None) -> Name:
    """A pull that was begun goes on at its commit, also if its branch has moved since."""
    if begun and (begun.repository, begun.revision) == (name.repository, name.revision):
        return Name(name.repository, begun.commit)
    return name


def _plan(name: Name, listing: Listing, variant: Variant) -> Receipt:
    return Receipt(
        repository=name.repository,
        revision=name.revision,
        commit=listing.commit,
        endpoint=listing.endpoint,
        chosen=variant.name,
        model=variant.folder,
        pulled="",
        files=tuple(Taken(f.path, f.size, "", f.digest) for f in variant.files),
    )


def _unheard(_what: str, _value: Any) -> None:
    pass


class _Work:
    """One pull under way."""

    def __init__(
        self, hub: "Hub", listing: Listing, destination: Destination, listen: Listener
    ) -> None:
        self.hub = hub
        self.listing = listing
        self.destination = destination
        self.listen = listen
        self.fetched = 0
        self._done = self._all = 0

    def compare(self, receipt: Receipt) -> Receipt:
        """A pull that came to its end earlier: every byte is read again.

        Raises:
            UsageError: a file is missing or has other bytes than the receipt says.
        """
        root = self.destination.root
        self._all = sum(taken.bytes for taken in receipt.files)
        for taken in receipt.files:
            file = RemoteFile(taken.file, taken.bytes, f"sha256:{taken.sha256}")
            path = root / taken.file
            if not path.is_file():
                raise UsageError(
                    f"{path}: missing; nothing was changed; remove {root} to begin anew"
                )
            if proven(path, file, self._teller(file, "compare")) is None:
                raise UsageError(
                    f"{path}: is not what was pulled (sha256 {taken.sha256}); nothing was "
                    f"changed; remove {root} to begin anew, or choose another folder with --to"
                )
            self._done += taken.bytes
        return receipt

    def bring(self, plan: Receipt, variant: Variant) -> Pulled:
        """Fetch everything, prove it, and let the folder be whole."""
        there = sum(self.destination.present(file) for file in variant.files)
        self._all = variant.size
        free = self.destination.room(variant.size - there)
        self.listen("plan", {"plan": plan, "bytes": variant.size, "there": there, "free": free})
        self.destination.begin(plan)
        try:
            taken = self._all_files(list(variant.files))
            when = datetime.now(UTC).isoformat(timespec="seconds")
            receipt = replace(plan, files=tuple(taken), pulled=when)
            self.destination.finish(receipt)
        except PullStopped as error:
            raise PullStopped(f"{error}; {self._kept(variant)}") from None
        except OSError as error:
            why = f"{error.filename or self.destination.root}: {error.strerror or error}"
            raise PullStopped(f"{why}; {self._kept(variant)}") from None
        except KeyboardInterrupt:
            raise PullInterrupted(f"interrupted; {self._kept(variant)}") from None
        finally:
            self.destination.close()
        return Pulled(self.destination.root, receipt, self.fetched)

    def _kept(self, variant: Variant) -> str:
        there = sum(self.destination.present(file) for file in variant.files)
        return (
            f"{sized(there)} of {sized(self._all)} are kept in {self.destination.root}, and the "
            f"same command goes on from there"
        )

    def _all_files(self, files: list[RemoteFile]) -> list[Taken]:
        """In order; a graph may add files to the end."""
        taken: list[Taken] = []
        for file in files:
            taken.append(self._one(file))
            self._done += file.size
            self.listen("file", taken[-1])
            if file.path.endswith(ONNX):
                files += self._named(file, files)
        return taken

    def _one(self, file: RemoteFile) -> Taken:
        moved = self.destination.place(file)
        if moved is not None:
            sha256 = proven(moved, file, self._teller(file, "compare"))
            if sha256 is None:
                raise UsageError(
                    f"{moved}: is there with other bytes than {file.digest}, and nothing is "
                    f"overwritten; choose another folder with --to"
                )
            return Taken(file.path, file.size, sha256, file.digest)
        with Part(self.destination.part(file), file) as part:
            part.recall(self._teller(file, "compare"))
            before = part.size
            try:
                fetch(
                    part,
                    lambda offset: self.hub.read(self.listing, file, offset),
                    self._teller(file, "fetch"),
                )
            finally:
                self.fetched += max(part.size - before, 0)
            return Taken(file.path, file.size, part.prove(), file.digest)

    def _named(self, graph: RemoteFile, files: list[RemoteFile]) -> list[RemoteFile]:
        """Files that an ONNX file names and its name alone did not tell.

        Raises:
            PullStopped: the repository has no such file.
        """
        path = self.destination.place(graph) or self.destination.part(graph)
        if graph.size > GRAPH_BYTES_MAX:
            return []
        try:
            names = read_graph(path.read_bytes(), graph.path).files
        except ModelRejected as error:
            raise PullStopped(f"{error}; it is as the hub has it, and cannot be loaded") from None
        found: list[RemoteFile] = []
        for name in names:
            inside = beside(graph.path, name)
            file = self.listing.files.get(inside) if inside else None
            if file is None:
                raise PullStopped(
                    f"{graph.path} names its weights {name!r}: the repository has no such file "
                    f"of weights, so it cannot be loaded"
                )
            if file not in files and file not in found:
                found.append(file)
        added = sum(file.size - self.destination.present(file) for file in found)
        self.destination.room(added)
        self._all += sum(file.size for file in found)
        return found

    def _teller(self, file: RemoteFile, what: str) -> Callable[[int], None]:
        def told(size: int) -> None:
            self.listen(
                "progress",
                {"what": what, "file": file.path, "done": self._done + size, "all": self._all},
            )

        return told
