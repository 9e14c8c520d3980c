"""Whom the server runs as, and what that user may reach.

PostgreSQL refuses to run as root. Root's server therefore runs as a user that exists already; the switch happens between fork and
exec, so neither su nor useradd is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from durable.embedded.binaries import Binaries
from durable.errors import EmbeddedPostgresError

TEMPORARY = Path("/tmp")  # noqa: S108 - not TMPDIR: two processes must agree on the place whatever their environment
"""Where things go that do not fit into the folder; what is found there is used only if it is ours."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the server's processes. `uid` is None for "whoever we are", the case whenever that is not root."""

    name: str
    uid: int | None = None
    gid: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        return None if self.uid is None else []

    @property
    def effective_uid(self) -> int:
        return os.geteuid() if self.uid is None else self.uid

    def may_enter(self, folder: Path) -> bool:
        if self.uid is None:
            return True
        return self.runs(["/bin/sh", "-c", 'test -x "$0"', str(folder)])

    def runs(self, command: Sequence[str]) -> bool:
        with contextlib.suppress(OSError):
            return not subprocess.run(
                command,
                capture_output=True,
                check=False,
                cwd="/",
                user=self.uid,
                group=self.gid,
                extra_groups=self.extra_groups,
            ).returncode
        return False

    def own(self, folder: Path) -> None:
        """Make `folder` for the server alone, or accept it if it is so already. What is there is never changed: it may be planted."""
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if self.uid is not None and self.gid is not None:
                os.chown(folder, self.uid, self.gid)
        self.check_owned(folder)

    def check_owned(self, folder: Path) -> None:
        """Raises EmbeddedPostgresError unless `folder` is a real folder, not a link, of this account."""
        if folder.is_symlink() or not folder.is_dir():
            msg = f"{folder} is not a folder but a link or a file, so it is not trusted; remove it or choose another folder"
            raise EmbeddedPostgresError(msg)
        if (owner := folder.stat().st_uid) != self.effective_uid:
            msg = (
                f"{folder} belongs to {_user_name(owner)}, but the server would run as {self.name}; "
                f"start it as {_user_name(owner)}, or choose another folder"
            )
            raise EmbeddedPostgresError(msg)


def server_account() -> Account:
    """Ourselves; or, when we are root, the user behind sudo, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return Account(_user_name(os.geteuid()))
    for name in filter(None, (os.environ.get("SUDO_USER"), "postgres", "nobody")):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            if user.pw_uid != 0:
                return Account(name, user.pw_uid, user.pw_gid)
    msg = "PostgreSQL refuses to run as root and there is no user 'postgres' or 'nobody'; run as an ordinary user"
    raise EmbeddedPostgresError(msg)


def runnable(found: Binaries, account: Account, home: Path) -> Path:
    """The folder of `found` if the account can run it, else of a copy: a virtual environment below /root is closed to others."""
    if _works(found.folder, account):
        return found.folder
    if found.package is None:
        msg = f"{account.name} cannot run {found}; make it accessible, or name other binaries in DURABLE_PG_BIN"
        raise EmbeddedPostgresError(msg)
    place = home if account.may_enter(home) else TEMPORARY
    copied = _copied(found.package, found.folder, place)
    if not _works(copied, account):
        msg = (
            f"{account.name} cannot run {found.folder}, nor its copy {copied}: remove the copy and try again; "
            f"if it is refused again, {place} may be mounted noexec: install PostgreSQL and name it in DURABLE_PG_BIN"
        )
        raise EmbeddedPostgresError(msg)
    return copied


def _works(folder: Path, account: Account) -> bool:
    return all(account.runs([str(folder / program), "-V"]) for program in ("initdb", "postgres"))


def _copied(package: Path, folder: Path, place: Path) -> Path:
    """Copy a package's installation and its libraries into `place`, once; the name tells versions apart."""
    stamp = (folder / "postgres").stat()
    digest = hashlib.sha256(f"{folder}\0{stamp.st_mtime_ns}\0{stamp.st_size}".encode()).hexdigest()
    target = place / f"durable-binaries-{digest[:12]}"
    if not target.exists():
        _copy_whole(package, folder.parent, target)
    Account("root").check_owned(target)
    return target / folder.relative_to(package.parent)


def _copy_whole(package: Path, prefix: Path, target: Path) -> None:
    """Copied under another name and renamed, so that `target` is complete or absent."""
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        # The programs find their libraries at $ORIGIN/../../../<package>.libs, so this layout is kept.
        for part in (package.with_name(f"{package.name}.libs"), prefix):
            if part.is_dir():
                shutil.copytree(part, staging / part.relative_to(package.parent), symlinks=True)
        _open_for_reading(staging)
        with contextlib.suppress(
            FileExistsError
        ):  # somebody else was quicker; theirs is checked by the caller
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open_for_reading(copy: Path) -> None:
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
