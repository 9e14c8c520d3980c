"""Loads named SQL from the `.sql` files beside this module; Python code holds no SQL of its own.

A statement begins with a line `-- name: verb_noun`; the comment lines that follow it are its documentation.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load_queries(filename: str) -> dict[str, LiteralString]:
    """Return the statements of one file by name.

    The text ships with the package and never contains input, hence the cast that psycopg's typing asks for.
    """
    text = files("durable.store").joinpath(filename).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {
        name: cast("LiteralString", body.strip().rstrip(";"))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
