"""Graphviz's language, for those who have it: `durable graph o-1 --format dot | dot -Tpdf`."""

from __future__ import annotations

from durable.graphs.model import Edge, Graph, Kind, Node
from durable.graphs.palette import FAINT, FILLS, INK, LINE, STROKES

_SHAPES: dict[Kind, str] = {
    "start": "oval",
    "end": "oval",
    "branch": "diamond",
    "timer": "parallelogram",
    "wait": "parallelogram",
    "signal": "cds",
    "update": "cds",
    "cancel": "cds",
    "child": "component",
    "dag": "component",
}


def to_dot(graph: Graph) -> str:
    """The graph as a digraph. Every text is a quoted string with the two characters escaped that end it or begin an escape."""
    names = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    title = "\\n".join(escaped(text) for text in (graph.title, *graph.facts))
    lines = [
        f'digraph "{escaped(graph.title)}" {{',
        f'    graph [label="{title}", labelloc=t, fontname="Helvetica"];',
        f'    node [style=filled, shape=box, fontname="Helvetica", fontcolor="{INK}"];',
        f'    edge [color="{LINE}", fontcolor="{FAINT}", fontname="Helvetica"];',
    ]
    lines += [f"    {names[node.key]} [{_node(node)}];" for node in graph.nodes]
    lines += [
        f"    {names[edge.source]} -> {names[edge.target]} [{_edge(edge)}];" for edge in graph.edges
    ]
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: Node) -> str:
    text = "\\n".join(escaped(part) for part in (node.label or " ", *node.facts))
    said = [f'label="{text}"', f'fillcolor="{FILLS[node.state]}"', f'color="{STROKES[node.state]}"']
    if node.kind in _SHAPES:
        said.append(f"shape={_SHAPES[node.kind]}")
    if node.detail:
        said.append(f'tooltip="{escaped(node.detail)}"')
    return ", ".join(said)


def _edge(edge: Edge) -> str:
    said = [f'label="{escaped(edge.label)}"'] if edge.label else []
    said += ["style=dashed"] if edge.soft else []
    return ", ".join(said + (["penwidth=3"] if edge.critical else []))


def escaped(text: str) -> str:
    """For within quotes. Line breaks become spaces; a lone surrogate, which no encoding has, a question mark."""
    plain = " ".join(text.splitlines()).replace("\0", " ")
    return (
        plain.encode("utf-8", "replace").decode("utf-8").replace("\\", "\\\\").replace('"', '\\"')
    )
