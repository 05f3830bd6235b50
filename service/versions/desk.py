"""What an operator does with model versions while the service runs; the supervisor sees it in the repository.

Sent versions go to the last folder of SERVE_MODEL_REPOSITORY, and so does the choice of what is served. No
worker hears of it from here: the rollout loads, tests, switches and retires as for a folder that was copied.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from models.integrity import BadVersion
from models.publication import admit_version, remove_version
from models.repository import (
    ModelRepository,
    ModelVersion,
    VersionExists,
    read_card,
    read_previous,
    write_default,
)
from models.repository import UnknownModel as NoSuchModel
from service.classifier import Classifier
from service.errors import Conflict, NotFound, TooLarge, UnusableVersion
from service.jobs.body import BodyPipe
from service.jobs.folder import JobFolder
from service.settings import Settings
from service.versions.census import VersionState, describe_versions, read_inventory
from service.versions.unpacking import repository_errors, unpack_version

UPLOADS = ".uploads"  # in the repository, so that a finished version moves to its place by a rename


class VersionDesk:
    """One for each frontend; versions appear and vanish by a rename, so that several may work at once."""

    def __init__(self, settings: Settings, classifier: Classifier) -> None:
        folders = [Path(one).absolute() for one in settings.model_repository.split(":") if one]
        self._settings, self._classifier = settings, classifier
        self._repository = ModelRepository(folders)
        self._home = folders[-1]
        self._wanted = frozenset(one.strip() for one in settings.models.split(",") if one.strip())
        self._changing = asyncio.Lock()

    async def list(self) -> list[VersionState]:
        """Every version in the repository, by name and number."""
        inventory = await asyncio.to_thread(read_inventory, self._repository)
        return describe_versions(inventory, self._wanted, self._classifier.list_models())

    async def find(self, name: str, version: int) -> VersionState:
        """One of them; raises NotFound."""
        for state in await self.list():
            if (state.name, state.version) == (name, version):
                return state
        raise NotFound(f"there is no {name[:64]}@{version} in the repository")

    async def push(self, body: AsyncIterator[bytes], declared_bytes: int) -> VersionState:
        """Take an archive, check what is in it, and move it to its place; raises ServiceError.

        The same version again, byte for byte, is as good as taken.
        """
        if declared_bytes > self._settings.max_version_bytes:
            limit = f"the limit is {self._settings.max_version_bytes} bytes (SERVE_MAX_VERSION_BYTES)"
            raise TooLarge(f"the archive has {declared_bytes} bytes, {limit}")
        folder = await asyncio.to_thread(self._open_folder)
        pipe = BodyPipe()
        limit_bytes = self._settings.max_version_bytes
        unpacking = asyncio.create_task(asyncio.to_thread(unpack_version, pipe, folder.path, limit_bytes))
        try:
            staged = await self._unpack(body, pipe, unpacking)
            version = await asyncio.to_thread(self._admit, staged)
        finally:
            pipe.fail()
            await asyncio.wait([unpacking])
            unpacking.exception()  # told already, or nobody is left to tell
            await asyncio.to_thread(folder.remove)
        return await self.find(version.card.name, version.card.version)

    async def activate(self, name: str, version: int) -> VersionState:
        """Make that version what the bare name means; raises NotFound, Conflict."""
        async with self._changing:
            found = await self.find(name, version)
            if found.reason:
                raise Conflict(f"{name}@{version} was refused: {found.reason}")
            if not found.is_default:
                current = await self._find_default(name)
                await asyncio.to_thread(self._write_default, name, version, current)
        return await self.find(name, version)

    async def roll_back(self, name: str) -> VersionState:
        """Back to what the bare name meant before, else to the version below; raises NotFound, Conflict."""
        current = await self._find_default(name)
        if current is None:
            raise NotFound(f"no version of {name[:64]!r} is in the repository")
        usable = [one.version for one in await self.list() if one.name == name and not one.reason]
        previous = await asyncio.to_thread(read_previous, self._home, name)
        if previous not in usable:
            previous = max((version for version in usable if version < current), default=None)
        if previous is None:
            raise Conflict(f"there is no usable version of {name} before {current} to go back to")
        return await self.activate(name, previous)

    async def remove(self, name: str, version: int) -> None:
        """Delete a version that nobody uses; raises NotFound, Conflict."""
        async with self._changing:
            found = await self.find(name, version)
            if found.use is not None:
                raise Conflict(f"{name}@{version} {found.use}")
            try:
                with repository_errors():
                    await asyncio.to_thread(remove_version, self._home, name, version)
            except NoSuchModel as err:
                raise Conflict(f"{name}@{version} is not in the folder that is written here") from err

    def _open_folder(self) -> JobFolder:
        uploads = self._home / UPLOADS
        with repository_errors():
            uploads.mkdir(parents=True, exist_ok=True)
            for left in uploads.iterdir():  # a killed process's: nobody holds its lock
                unlocked = JobFolder.open_unlocked(left)
                if unlocked is not None:
                    unlocked.remove()
            return JobFolder.create(uploads)

    async def _unpack(
        self, body: AsyncIterator[bytes], pipe: BodyPipe, unpacking: "asyncio.Task[Path]"
    ) -> Path:
        size_bytes = 0
        async for chunk in body:
            size_bytes += len(chunk)
            if unpacking.done():  # it has found a reason to refuse
                break
            await pipe.feed(chunk)
        pipe.finish()
        return await asyncio.shield(unpacking)

    def _admit(self, staged: Path) -> ModelVersion:
        try:
            card, text = read_card(staged)
            digest = hashlib.sha256(text).hexdigest()
            for version in self._repository.list():
                if (version.card.name, version.card.version) == (card.name, card.version):
                    if version.digest == digest:
                        return version
                    raise VersionExists(f"{version.reference} exists already; versions never change")
            with repository_errors():
                return admit_version(self._home, staged)
        except BadVersion as err:
            raise UnusableVersion(str(err)) from err
        except VersionExists as err:
            raise Conflict(str(err)) from err

    async def _find_default(self, name: str) -> int | None:
        return next((one.version for one in await self.list() if one.name == name and one.is_default), None)

    def _write_default(self, name: str, version: int, previous: int | None) -> None:
        with repository_errors():
            write_default(self._home, name, version, previous)
