"""`durable demo` is the sample `samples/checkout`; this finds it.

The wheel carries a copy of that folder as `durable.demo.checkout`, so that the demo works without a checkout and nothing
named `samples` is installed. A checkout, and an editable install of one, has it as `samples.checkout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from durable.errors import DurableError


def package() -> str:
    """The import name of the sample here. Raises DurableError when the installation lacks it."""
    for name in (f"{__name__}.checkout", "samples.checkout"):
        if _exists(name):
            return name
    raise DurableError(
        "this installation has no samples; reinstall durable, or run the demo in a checkout"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the command line's arguments; the exit code."""
    code: int = import_module(f"{package()}.demo").main(argv)
    return code


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False
