"""huggingface_hub, imported in one place, and its errors as sentences.

It reads its environment (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, time limits) when it is
imported, so what must be off is set before: telemetry (with it, the list of agent programs that it
fetches) and xet, whose transfers cannot go on from a part of a file. It may start threads: only
`lockstep model pull` imports this, in a process that never forks.

Its own downloads are not used. Since 1.x they write to a file with a random name and remove it
when they end early, so nothing is left to go on from. Here the library finds the address, signs
the request and follows redirects (a token never goes to another host); the bytes come to us.
"""

import os

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # What matters, we say in one line.

from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import HfApi, close_session, constants, errors, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from lockstep.engine.errors import LockstepError, UsageError
from lockstep.engine.version import VERSION
from lockstep.workers.hub.listing import (
    COMMIT,
    Interruption,
    Listing,
    Name,
    PullStopped,
    RemoteFile,
    remote_file,
)

PASSING = (408, 425, 429, 500, 502, 503, 504)  # Statuses that may be another at the next try.
SAID_CHARS_MAX = 200  # Of a server's words, in a message.


class Hub:
    """One hub.

    Args:
        endpoint: Its address; None: that of the library (HF_ENDPOINT).
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self._address = endpoint or constants.ENDPOINT
        self.endpoint = _shown(self._address)

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_: object) -> None:
        close_session()

    def listing(self, name: Name) -> Listing:
        """Files of a repository, at the commit that its revision is now.

        Raises:
            UsageError: there is none, it is closed to us, or the hub cannot be reached.
        """
        try:
            api = HfApi(endpoint=self._address, library_name="lockstep", library_version=VERSION)
            info = api.model_info(
                name.repository,
                revision=name.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            if info.gated:  # Anybody may see the list, and not everybody the files.
                self._may_read(name)
            return Listing(name, _commit(info.sha), self.endpoint, _files(info.siblings))
        except Exception as error:  # A foreign library on a foreign answer: all of it is said.
            found = self._explained(error, name)
            raise UsageError(str(found)) from None

    def _may_read(self, name: Name) -> None:
        # As `HfApi.auth_check`, which would wait for ever for a silent server.
        answer = get_session().get(
            f"{self._address}/api/models/{name.repository}/auth-check",
            headers=_headers(),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        hf_raise_for_status(answer)

    def read(
        self, listing: Listing, file: RemoteFile, offset: int
    ) -> Generator[tuple[int, bytes], None, None]:
        """Bytes of a file, from a place on.

        Yields:
            Where a chunk belongs, and the chunk. A server that knows no ranges begins at 0.

        Raises:
            Interruption: it ended early, and may be tried again.
            PullStopped: the hub refuses.
        """
        url = hf_hub_url(
            listing.name.repository, file.path, revision=listing.commit, endpoint=self._address
        )
        headers = _headers()
        headers["Accept-Encoding"] = "identity"  # Places are those of the file itself.
        if offset:
            headers["Range"] = f"bytes={offset}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        try:
            with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
                hf_raise_for_status(response)
                at = _first(response)
                for chunk in response.iter_bytes():
                    yield at, chunk
                    at += len(chunk)
        except Exception as error:
            raise self._explained(error, listing.name) from None

    def _explained(self, error: Exception, name: Name) -> LockstepError | Interruption:
        """What to say of an error of the library."""
        where, repository = self.endpoint, name.repository
        match error:
            case LockstepError():
                return error
            case errors.OfflineModeIsEnabled():
                return PullStopped(f"{name}: HF_HUB_OFFLINE is set; unset it to reach {where}")
            case errors.GatedRepoError():
                return PullStopped(
                    f"{repository} is gated: accept its terms at {where}/{repository}, then set "
                    f"HF_TOKEN to a token of that account"
                )
            case errors.RevisionNotFoundError():
                return PullStopped(f"{repository} has no revision {name.revision!r} at {where}")
            case errors.RepositoryNotFoundError():
                return PullStopped(
                    f"{where} has no repository {repository}, or it is private: then HF_TOKEN has "
                    f"to be a token that may read it"
                )
            case errors.HfHubHTTPError():
                return self._status(error, name)
            case errors.HTTPError():
                return Interruption(f"{where} cannot be reached: {_words(error)}")
        return PullStopped(
            f"{where} does not answer as a hub does ({_words(error)}); is HF_ENDPOINT right?"
        )

    def _status(self, error: Any, name: Name) -> LockstepError | Interruption:
        """An answer with a status that is no other error. Its text holds signed addresses."""
        status = error.response.status_code
        said = str(error.response.headers.get("X-Error-Message", ""))[:SAID_CHARS_MAX]
        answer = f"{name}: {self.endpoint} answers {status}{': ' if said else ''}{said}"
        if status in PASSING:
            return Interruption(answer)
        if status in (401, 403):
            return PullStopped(f"{answer}; HF_TOKEN has to be a token that may read it")
        return PullStopped(answer)


def _headers() -> dict[str, str]:
    """Who asks: the token is in it."""
    headers: dict[str, str] = build_hf_headers(library_name="lockstep", library_version=VERSION)
    return headers


def _first(response: Any) -> int:
    """Where the bytes of an answer begin."""
    if response.status_code != 206:
        return 0
    return int(response.headers["Content-Range"].removeprefix("bytes").strip().split("-")[0])


def _commit(sha: object) -> str:
    if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
        raise ValueError(f"commit {sha!r:.80}")
    return sha


def _files(siblings: Any) -> dict[str, RemoteFile]:
    found = (
        remote_file(s.rfilename, s.size, s.lfs.sha256 if s.lfs else None, s.blob_id)
        for s in siblings or ()
    )
    return {file.path: file for file in found}


def _shown(address: str) -> str:
    """An address without the name and password that may be in it."""
    host = urlsplit(address).netloc.rpartition("@")[2]
    return address.replace(urlsplit(address).netloc, host, 1) if host else address


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")[:SAID_CHARS_MAX]
