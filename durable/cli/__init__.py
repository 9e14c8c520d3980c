"""The command `durable`. `durable --help` lists what it does, `durable.cli.exits` its exit codes.

Only what a command needs is imported when it runs, so that `durable --help` and completion are quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script. Expected errors are one line on stderr and an exit code, never a traceback."""
    from durable.cli.exits import INTERRUPTED, fail
    from durable.errors import DurableError

    try:
        from durable.cli.commands import app

        app()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except (DurableError, TimeoutError) as error:
        fail(error, in_json="--json" in sys.argv)
