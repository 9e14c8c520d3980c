"""Mermaid's flowchart: for Markdown files, and pages that draw it."""

from __future__ import annotations

import json

from durable.graphs.model import Edge, Graph, Kind, Node
from durable.graphs.palette import FILLS, INK, STROKES

_SHAPES: dict[Kind, tuple[str, str]] = {
    "start": ("([", "])"),
    "end": ("([", "])"),
    "branch": ("{", "}"),
    "timer": ("[/", "/]"),
    "wait": ("[/", "/]"),
    "signal": (">", "]"),
    "update": (">", "]"),
    "cancel": (">", "]"),
    "child": ("[[", "]]"),
    "dag": ("[[", "]]"),
}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:/+")


def to_mermaid(graph: Graph) -> str:
    """The graph as a flowchart. Any name is safe: whatever might have a meaning is written as a character reference."""
    names = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    title = ", ".join((graph.title, *graph.facts))
    lines = ["---", f"title: {json.dumps(title)}", "---", "flowchart TD"]
    lines += [f"    {_node(names[node.key], node)}" for node in graph.nodes]
    lines += [f"    {_edge(names, edge)}" for edge in graph.edges]
    lines += [
        f"    classDef {state} fill:{fill},stroke:{STROKES[state]},color:{INK}"
        for state, fill in FILLS.items()
    ]
    critical = [str(number) for number, edge in enumerate(graph.edges) if edge.critical]
    if critical:
        lines.append(f"    linkStyle {','.join(critical)} stroke-width:3px")
    return "\n".join(lines) + "\n"


def _node(name: str, node: Node) -> str:
    before, after = _SHAPES.get(node.kind, ("[", "]"))
    text = "<br/>".join(escaped(part) for part in (node.label or " ", *node.facts))
    return f'{name}{before}"{text}"{after}:::{node.state}'


def _edge(names: dict[str, str], edge: Edge) -> str:
    label = f'|"{escaped(edge.label)}"|' if edge.label else ""
    return f"{names[edge.source]} {'-.->' if edge.soft else '-->'}{label} {names[edge.target]}"


def escaped(text: str) -> str:
    """Letters and digits as they are, all else as `#number;`, which mermaid shows as the character."""
    return "".join(
        character if character in _PLAIN else f"#{ord(character)};" for character in text
    )
