"""A payload store in a directory. The one in PostgreSQL is `durable.store.payload_store`."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

from durable.errors import InvalidOption

_KEY = re.compile("[0-9a-f]{64}")


class DirectoryStore:
    """Keeps large payloads as files of a directory that every worker and client can reach (a shared or mounted one). Written whole or not at all."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        try:
            os.utime(path)  # it is as good as new
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="new-")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def delete_unused(self, used: frozenset[str], older_than_s: float) -> int:
        deleted = 0
        before = time.time() - older_than_s
        for path in self._folder.glob("??/*"):
            if path.name not in used and path.stat().st_mtime < before:
                with contextlib.suppress(FileNotFoundError):  # another collection was faster
                    path.unlink()
                    deleted += 1
        return deleted

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise InvalidOption(f"{key[:80]!r} is no key of a payload")
        return self._folder / key[:2] / key
