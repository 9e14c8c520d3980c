"""A picture without graphviz: boxes in layers, curves between them, colours for states."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from rich.cells import cell_len

from durable.graphs.layout import Placed, Point, Size, placed
from durable.graphs.model import Edge, Graph, Kind, Node
from durable.graphs.palette import FAINT, FILLS, INK, LINE, STROKES

CHARACTER = 7.4
"""The width of an average character of the label in pixels, generously; of a fact it is less."""
FACT = 6.2
LABEL_LINE = 18.0
FACT_LINE = 15.0
PADDING = 12.0
MARGIN = 24.0
HEAD = 44.0
FONT = 'font-family="Helvetica, Arial, sans-serif"'

_ROUND: frozenset[Kind] = frozenset({"start", "end"})
_OUTSIDE: frozenset[Kind] = frozenset({"signal", "update", "cancel"})
_DOUBLE: frozenset[Kind] = frozenset({"child", "dag"})


def to_svg(graph: Graph) -> str:
    """The graph as one SVG document, with nothing to load. Any text is safe: escaped, and without what XML has no way to write."""
    sizes = {node.key: _size(node) for node in graph.nodes}
    layout = placed(graph, sizes)
    title = _xml(graph.title)
    facts = _xml(" · ".join(graph.facts))
    across = max(layout.width, CHARACTER * cell_len(graph.title) * 1.25, FACT * cell_len(facts))
    width, height = across + 2 * MARGIN, layout.height + 2 * MARGIN + HEAD
    shift = MARGIN + (across - layout.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" {FONT}>',
        f"<title>{title}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _marker("arrow", LINE),
        _marker("critical", INK),
        f'<text x="{MARGIN}" y="{MARGIN + 8}" font-size="16" font-weight="bold" fill="{INK}">{title}</text>',
        f'<text x="{MARGIN}" y="{MARGIN + 26}" font-size="11" fill="{FAINT}">{facts}</text>',
        f'<g transform="translate({shift:.1f} {MARGIN + HEAD:.1f})">',
    ]
    ways = sorted(zip(graph.edges, layout.ways, strict=True), key=lambda it: it[0].critical)
    parts += [_edge(edge, way) for edge, way in ways]
    parts += [_node(node, layout, sizes[node.key]) for node in graph.nodes]
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _size(node: Node) -> Size:
    label = CHARACTER * cell_len(node.label)
    facts = [FACT * cell_len(fact) for fact in node.facts]
    more = 14.0 if node.kind in _DOUBLE | _OUTSIDE else 0.0
    height = PADDING * 1.5 + LABEL_LINE + FACT_LINE * len(facts)
    return max([70.0, label, *facts]) + 2 * PADDING + more, height


def _marker(name: str, colour: str) -> str:
    return (
        f'<defs><marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker></defs>'
    )


def _edge(edge: Edge, way: Sequence[Point]) -> str:
    dashes = ' stroke-dasharray="5 4"' if edge.soft else ""
    colour, thick = (INK, "2.2") if edge.critical else (LINE, "1.3")
    marker = "critical" if edge.critical else "arrow"
    path = f'<path d="{_curve(way)}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashes} marker-end="url(#{marker})"/>'
    if not edge.label:
        return path
    (x, y), (to_x, to_y) = way[0], way[1]
    return path + (
        f'<text x="{(x + to_x) / 2:.1f}" y="{(y + to_y) / 2:.1f}" font-size="11" text-anchor="middle" fill="{FAINT}" '
        f'stroke="#ffffff" stroke-width="4" paint-order="stroke">{_xml(edge.label)}</text>'
    )


def _curve(way: Sequence[Point]) -> str:
    """Leaves and arrives vertically at every point."""
    said = [f"M{way[0][0]:.1f} {way[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in pairwise(way):
        middle = (y + to_y) / 2
        said.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
    return " ".join(said)


def _node(node: Node, layout: Placed, size: Size) -> str:
    x, y = layout.centres[node.key]
    width, height = size
    left, top = x - width / 2, y - height / 2
    said = [f"<g><title>{_xml(': '.join(filter(None, (node.label, node.detail))))}</title>"]
    said.append(_box(node, left, top, width, height))
    baseline = top + PADDING * 0.75 + 13
    said.append(
        f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="13" font-weight="bold" text-anchor="middle" fill="{INK}">{_xml(node.label)}</text>'
    )
    for number, fact in enumerate(node.facts, 1):
        said.append(
            f'<text x="{x:.1f}" y="{baseline + 2 + FACT_LINE * number:.1f}" font-size="11" text-anchor="middle" fill="{FAINT}">{_xml(fact)}</text>'
        )
    return "".join(said) + "</g>"


def _box(node: Node, left: float, top: float, width: float, height: float) -> str:
    """Rounded ends for start and end, an arrow's tail for what comes from outside, a double side for another workflow, a slant for waiting."""
    stroke = f'fill={quoteattr(FILLS[node.state])} stroke={quoteattr(STROKES[node.state])} stroke-width="{2.4 if node.critical else 1.3}"'
    right, bottom, middle = left + width, top + height, top + height / 2
    if node.kind in _OUTSIDE:
        points = [
            (left, top), (right, top), (right, bottom), (left, bottom), (left + 9, middle),
        ]  # fmt: skip
    elif node.kind == "branch":
        points = [
            (left + 9, top), (right - 9, top), (right, middle), (right - 9, bottom),
            (left + 9, bottom), (left, middle),
        ]  # fmt: skip
    elif node.kind in ("timer", "wait"):
        points = [(left + 9, top), (right, top), (right - 9, bottom), (left, bottom)]
    else:
        radius = height / 2 if node.kind in _ROUND else 6
        box = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}" {stroke}/>'
        sides = [left + 5, right - 5] if node.kind in _DOUBLE else []
        return box + "".join(
            f'<path d="M{side:.1f} {top:.1f} V{bottom:.1f}" stroke="{STROKES[node.state]}"/>'
            for side in sides
        )
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{corners}" stroke-linejoin="round" {stroke}/>'


def _xml(text: str) -> str:
    """Escaped, without the characters that XML 1.0 has no way to write."""
    return escape("".join(it if _may_stand_in_xml(it) else "\ufffd" for it in text))


def _may_stand_in_xml(character: str) -> bool:
    code = ord(character)
    return (
        code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code > 0xFFFF
    )
