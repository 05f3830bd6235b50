"""The admin port's client: model versions of a running service, sent and chosen from elsewhere."""

import tarfile
import time
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any
from urllib.parse import quote

import httpx

from service.client.http import read_error
from service.client.outcome import ConnectionFailed
from service.errors import BadRequest, DeadlinePassed
from service.versions.census import VersionState

TIMEOUT_S = 300.0  # a large version is hashed before the answer
POLL_S = 0.2
PIECE_BYTES = 1 << 18


class VersionsClient:
    """A context manager; every call raises ServiceError, ConnectionFailed among them."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)

    def __enter__(self) -> "VersionsClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def list(self) -> list[VersionState]:
        """Every version in the repository."""
        return [VersionState(**one) for one in self._ask("GET", "/v1/versions")["versions"]]

    def send(self, archive: IO[bytes]) -> VersionState:
        """Send an archive as it is read."""
        # Not the file itself: of a pipe the library takes the size to be 0.
        pieces = iter(lambda: archive.read(PIECE_BYTES), b"")
        return VersionState(**self._ask("POST", "/v1/versions", content=pieces))

    def push(self, path: Path) -> VersionState:
        """Send an archive, or the folder of one version."""
        if not path.is_dir():
            with path.open("rb") as file:
                return self.send(file)
        with TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for one in sorted(path.iterdir()):
                    if one.is_symlink() or not one.is_file():
                        raise BadRequest(f"{one}: a version's folder has regular files alone")
                    archive.add(one, one.name)
            file.seek(0)
            return self.send(file)

    def activate(self, name: str, version: int) -> VersionState:
        """Make that version what the bare name means."""
        path = f"/v1/models/{quote(name, safe='')}/default"
        return VersionState(**self._ask("PUT", path, json={"version": version}))

    def roll_back(self, name: str) -> VersionState:
        """Back to the version that the name meant before; returns it."""
        return VersionState(**self._ask("POST", f"/v1/models/{quote(name, safe='')}/rollback"))

    def remove(self, name: str, version: int) -> None:
        """Delete a version that nobody uses."""
        self._ask("DELETE", _locate(name, version))

    def wait(self, state: VersionState, timeout_s: float) -> VersionState:
        """Until a version that ought to be served is ready or refused; raises DeadlinePassed."""
        ends = time.monotonic() + timeout_s
        while state.is_wanted and state.state not in ("ready", "refused"):
            if time.monotonic() > ends:
                raise DeadlinePassed(f"{state.name}@{state.version} is not up after {timeout_s:.0f} s")
            time.sleep(POLL_S)
            state = VersionState(**self._ask("GET", _locate(state.name, state.version)))
        return state

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as err:
            raise ConnectionFailed(f"{self._http.base_url}: {err or type(err).__name__}") from err
        if not response.is_success:
            raise read_error(response)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer


def _locate(name: str, version: int) -> str:
    return f"/v1/versions/{quote(name, safe='')}/{version}"
