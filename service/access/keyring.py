"""The keys as this process knows them: read at start, read again when their file changes.

A file that turns out broken changes nothing: the keys read before stay, the log says why.
"""

import logging
from pathlib import Path

from service.access.keys import ApiKey, BadKeyFile, read_keys
from service.stamps import stamp_file

log = logging.getLogger("access")


def open_keyring(path: str) -> "Keyring | None":
    """The keys of SERVE_API_KEYS, None where that is empty; raises BadKeyFile."""
    return Keyring(Path(path)) if path else None


class Keyring:
    """`keys` by id; `is_current`: they are what the file says. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises BadKeyFile: nobody starts to serve without knowing whom."""
        self._path = path
        self._stamp = stamp_file(path)
        self.keys: dict[str, ApiKey] = read_keys(path)
        self.is_current = True

    def refresh(self) -> bool:
        """Read the file if it is another one than last time; returns whether it was looked at."""
        stamp = stamp_file(self._path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.keys = read_keys(self._path)
            self.is_current = True
            log.info("API keys read", extra={"fields": {"keys": len(self.keys)}})
        except BadKeyFile as err:
            self.is_current = False
            fields = {"reason": str(err), "keys": len(self.keys)}
            log.error("API keys not read, the old ones stay", extra={"fields": fields})
        return True
