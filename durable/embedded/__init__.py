"""A PostgreSQL of one's own in a folder, for `durable dev`, the demo and tests.

The problem: a first command that needs an installed, configured, running server is a first command that fails. Packages with
PostgreSQL inside exist, but their own launchers change permissions of folders that they did not make (every parent of the data
folder, `/root` included), create system users, keep lists of process ids that a SIGKILL makes lie, or turn fsync off.

The solution: take only the *binaries* from such a package, or from a system installation, and start them ourselves.

- One cluster per folder, with a unix socket and no TCP: whoever may enter the data folder (mode 0700) may connect, nobody else.
- One lock file (`flock`, freed by the kernel whatever kills us) orders starts; whether a server runs is asked of the server itself
  by connecting, since process ids are reused and zombies look alive. A second start attaches to the first one's server.
- `initdb` fills a folder beside the data folder, renamed when complete, so a kill in the middle leaves nothing half made.
- PostgreSQL refuses to run as root, so root's server runs as an existing user: the one behind sudo, `postgres` or `nobody`.
  That user often may not enter the folder (`/root/project`) or the virtual environment. Permissions are not ours to change.
  Instead the binaries are copied to where they can be run, and the data folder is handed over as an open descriptor.
- The server dies with the process that started it, also after SIGKILL (Linux: the kernel signals it).

What can still fail: on Linux the kernel's signal is tied to the *thread* that started the server, so it is armed only when `start`
is called in the main thread; on macOS there is none. In both cases a server whose owner was killed goes on, and the next start
attaches to it. When an owner stops, processes that attached lose their connections. Windows is not supported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from durable.embedded.binaries import Binaries, binaries
from durable.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from durable.embedded.launcher import EmbeddedServer

__all__ = ["Binaries", "EmbeddedPostgresError", "EmbeddedServer", "binaries", "start"]


def start(
    folder: str | Path,
    *,
    settings: Mapping[str, str | int | bool] | None = None,
    timeout_s: float = 30.0,
) -> EmbeddedServer:
    """Start the PostgreSQL that lives in `folder`, or attach to it when it already runs.

    `folder` is made when missing; the data stays in it between runs. `settings` are server settings such as
    `{"max_connections": 300}`; they are not applied when a running server is attached to. Durability is not negotiable by default:
    fsync is on. `timeout_s` bounds starting, crash recovery included.

    Raises EmbeddedPostgresError, which names the remedy, when there are no binaries, when the folder belongs to somebody else, or
    when the server does not come up.
    """
    if sys.platform == "win32":
        msg = "the embedded PostgreSQL needs a POSIX system; set DURABLE_DATABASE_URL to a server"
        raise EmbeddedPostgresError(msg)
    from durable.embedded.launcher import launch

    return launch(Path(folder), settings or {}, timeout_s)


def __getattr__(name: str) -> object:
    if name == "EmbeddedServer":  # imported late: its module needs POSIX
        from durable.embedded.launcher import EmbeddedServer

        return EmbeddedServer
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
