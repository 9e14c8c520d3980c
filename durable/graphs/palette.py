"""One set of colours for all pictures, with enough contrast for text on it."""

from __future__ import annotations

from collections.abc import Mapping

from durable.graphs.model import State

INK = "#1f2328"
FAINT = "#59636e"
LINE = "#8c959f"

FILLS: Mapping[State, str] = {
    "declared": "#ffffff",
    "pending": "#f6f8fa",
    "waiting": "#ddf4ff",
    "running": "#b6e3ff",
    "completed": "#dafbe1",
    "failed": "#ffdcd7",
    "cancelled": "#fff1c2",
    "skipped": "#eaeef2",
}
STROKES: Mapping[State, str] = {
    "declared": "#59636e",
    "pending": "#8c959f",
    "waiting": "#54aeff",
    "running": "#0969da",
    "completed": "#2da44e",
    "failed": "#cf222e",
    "cancelled": "#bf8700",
    "skipped": "#8c959f",
}
