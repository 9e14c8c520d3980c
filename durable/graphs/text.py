"""The graph for a terminal: a line for each node, below what it waited for, with a bar for its time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from durable.graphs.model import MARKS, Edge, Graph, Node, layers, one_line

NARROWEST = 40
_BAR = 24
_DEEPEST = 8
"""Levels that are indented; what lies deeper stays there, or a long chain would leave the page."""


def to_text(graph: Graph, width: int = 100) -> str:
    """The graph in lines of at most `width` columns (at least 40), drawn with ASCII characters.

    `+` completed, `>` running, `~` waiting, `.` pending, `!` failed, `x` cancelled, `/` skipped, `-` only declared. In the bars `=` is the time
    under way, and `#` that of a node on the critical path: those that the length of the whole is due to.
    """
    width = max(NARROWEST, width)
    rank, into = layers(graph), graph.into()
    span = _span(graph)
    bar = _BAR if span is not None and width >= 72 else 0
    labels = [_label(node, rank[node.key]) for node in graph.nodes]
    widest = min(max(map(cell_len, labels), default=0), (width - bar) * 2 // 5)
    lines = [_cut(one_line(text), width) for text in (graph.title, *graph.facts)] + [""]
    names = {node.key: one_line(node.label) for node in graph.nodes}
    for node, label in zip(graph.nodes, labels, strict=True):
        room = width - widest - 2 - (bar + 1 if bar else 0)
        said = _said(node, into[node.key], names)
        line = f"{_cell(label, widest)}  {_cell(said, room)}"
        if bar and span is not None:
            line += f" {_drawn(node, span, bar)}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def _label(node: Node, level: int) -> str:
    return f"{'  ' * min(level, _DEEPEST)}{MARKS[node.state]} {one_line(node.label)}"


def _said(node: Node, into: Sequence[Edge], names: dict[str, str]) -> str:
    facts = one_line(", ".join(node.facts))
    after = ", ".join(
        names[edge.source] + (f" ({one_line(edge.label)})" if edge.label else "")
        for edge in into[:3]
    )
    if len(into) > 3:
        after += f" and {len(into) - 3} more"
    return "  ".join(filter(None, (facts, f"<- {after}" if after else "")))


def _span(graph: Graph) -> tuple[int, int] | None:
    """The time that the bars show: from the first beginning to the last end, or to now."""
    begins = [node.begin_us for node in graph.nodes if node.begin_us is not None]
    ends = [node.end_us for node in graph.nodes if node.end_us is not None]
    if graph.now_us is not None and any(
        node.begin_us is not None and node.end_us is None for node in graph.nodes
    ):
        ends.append(graph.now_us)
    if not begins or not ends or max(ends) <= min(begins):
        return None
    return min(begins), max(ends)


def _drawn(node: Node, span: tuple[int, int], width: int) -> str:
    first, last = span
    if node.begin_us is None:
        return f"|{' ' * (width - 2)}|"
    inner = width - 2
    scale = inner / (last - first)
    begin = min(inner - 1, max(0, int((node.begin_us - first) * scale)))
    until = node.end_us if node.end_us is not None else last
    end = min(inner, max(begin + 1, round((until - first) * scale)))
    sign = "." if node.kind in ("timer", "wait", "signal") and not node.critical else "="
    filled = ("#" if node.critical else sign) * (end - begin)
    return f"|{' ' * begin}{filled}{' ' * (inner - end)}|"


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 3).rstrip() + "..."


def _cell(text: str, width: int) -> str:
    return set_cell_size(_cut(text, width), width)
