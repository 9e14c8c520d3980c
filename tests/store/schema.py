"""A schema as lines of text, from the catalogue, so that two databases can be compared and a difference read."""

from __future__ import annotations

from typing import Any

import psycopg

from durable.store.catalogue import READ


def describe(connection: psycopg.Connection[Any]) -> list[str]:
    """Every table, column, constraint, index, view, function, trigger and enum of schema `durable`, in order of its text."""
    return sorted(f"{name}: {definition}" for name, definition in connection.execute(READ))
