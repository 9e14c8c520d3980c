"""Whatever the names are, what is written is well formed, says the names, and fits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import get_args
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from durable.graphs import Edge, Graph, Node, to_dot, to_mermaid, to_svg, to_text
from durable.graphs.layout import placed
from durable.graphs.model import MARKS, Kind, layers, one_line, with_critical_path

SVG = "{http://www.w3.org/2000/svg}"

hostile = st.text(max_size=30) | st.sampled_from(
    ['"', "\\", '\\"', "end", "]]>", "<script>", "a;b", "`x`", "#quot;", "%%{init}%%", "\0", "\ud800", "漢字", "\n", "é\u202eא"]
)  # fmt: skip
kinds = st.sampled_from(get_args(Kind))
times = st.none() | st.integers(0, 10_000_000)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any names, any states, edges that go forwards."""
    count = draw(st.integers(0, 12))
    nodes = [
        Node(
            draw(hostile) + f"/{number}",
            draw(hostile),
            draw(kinds),
            draw(st.sampled_from(sorted(MARKS))),
            tuple(draw(st.lists(hostile, max_size=2))),
            draw(hostile),
            draw(times),
            draw(times),
        )
        for number in range(count)
    ]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20, unique=True)) if pairs else []
    edges = [
        Edge(nodes[a].key, nodes[b].key, draw(hostile), draw(st.booleans())) for a, b in chosen
    ]
    graph = Graph(
        draw(hostile), tuple(nodes), tuple(edges), tuple(draw(st.lists(hostile, max_size=2)))
    )
    return with_critical_path(graph)


# -- mermaid ----------------------------------------------------------------------------------------------------------

TEXT = r"(?:[A-Za-z0-9 _\-.,:/+]|#\d+;|<br/>)*"
NODE = re.compile(
    rf'    n(\d+)(?:\[|\(\[|\{{|\[/|>|\[\[)"({TEXT})"(?:\]|\]\)|\}}|/\]|\]\])(?:)?:::([a-z]+)'
)
EDGE = re.compile(rf'    n(\d+) (?:-->|-\.->)(?:\|"{TEXT}"\|)? n(\d+)')
STYLE = re.compile(
    r"    classDef [a-z]+ fill:#\w+,stroke:#\w+,color:#\w+|    linkStyle [\d,]+ stroke-width:3px"
)


def shown(escaped: str) -> str:
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), escaped)


@given(graphs())
def test_mermaid_has_only_lines_that_its_grammar_knows(graph: Graph) -> None:
    first, title, last, kind, *lines = to_mermaid(graph).removesuffix("\n").split("\n")
    assert (first, last, kind) == ("---", "---", "flowchart TD")
    assert json.loads(title.removeprefix("title: ")) == ", ".join((graph.title, *graph.facts))
    nodes = [found for line in lines if (found := NODE.fullmatch(line))]
    edges = [found for line in lines if (found := EDGE.fullmatch(line))]
    rest = [
        it for it in lines if not (NODE.fullmatch(it) or EDGE.fullmatch(it) or STYLE.fullmatch(it))
    ]
    assert rest == []
    assert [shown(found[2].split("<br/>")[0]) for found in nodes] == [
        node.label or " " for node in graph.nodes
    ]
    assert len(edges) == len(graph.edges)


# -- dot --------------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|->|[A-Za-z_][\w]*|\d+|[\[\]{};,=])', re.DOTALL)


def tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text.rstrip()):
        found = TOKEN.match(text, at)
        assert found, text[at : at + 40]
        yield found[1]
        at = found.end()


def attributes(given: list[str]) -> dict[str, str]:
    """`[a=b, c="d"]`, from the front of the tokens, which are taken away."""
    found: dict[str, str] = {}
    assert given.pop(0) == "["
    while given[0] != "]":
        key, equals, value = given.pop(0), given.pop(0), given.pop(0)
        assert re.fullmatch(r"\w+", key)
        assert equals == "="
        found[key] = value
        if given[0] == ",":
            given.pop(0)
    assert (given.pop(0), given.pop(0)) == ("]", ";")
    return found


def read_dot(text: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str]]]:
    given = list(tokens(text))
    assert (given.pop(0), given.pop(0)[0], given.pop(0)) == ("digraph", '"', "{")
    nodes, edges = {}, []
    while given[0] != "}":
        name = given.pop(0)
        if given[0] == "->":
            given.pop(0)
            edges.append((name, given.pop(0)))
            attributes(given)
        else:
            nodes[name] = attributes(given)
    assert given == ["}"]
    return nodes, edges


@given(graphs())
def test_dot_is_read_back_with_every_name(graph: Graph) -> None:
    nodes, edges = read_dot(to_dot(graph))
    said = [nodes[f"n{number}"]["label"] for number in range(len(graph.nodes))]
    first_lines = [re.split(r"(?<!\\)(?:\\\\)*\\n", text[1:-1] + "\\n")[0] for text in said]
    for text, node in zip(first_lines, graph.nodes, strict=True):
        plain = " ".join((node.label or " ").splitlines()).replace("\0", " ")
        expected = plain.encode("utf-8", "replace").decode()
        assert text.replace('\\"', '"').replace("\\\\", "\\").startswith(expected.rstrip("\\"))
    assert len(edges) == len(graph.edges)


# -- svg --------------------------------------------------------------------------------------------------------------


@given(graphs())
def test_svg_is_xml_with_every_node_and_edge(graph: Graph) -> None:
    root = ET.fromstring(to_svg(graph))
    group = next(it for it in root.findall(f"{SVG}g"))
    assert len(group.findall(f"{SVG}g")) == len(graph.nodes)
    paths = [it for it in group.findall(f"{SVG}path") if it.get("marker-end")]
    assert len(paths) == len(graph.edges)
    assert {tag.tag for tag in root.iter()}.isdisjoint({f"{SVG}script", f"{SVG}image"})


@given(graphs())
@settings(max_examples=50)
def test_boxes_do_not_overlap_and_edges_lead_down(graph: Graph) -> None:
    sizes = {node.key: (40.0 + 7 * len(node.label), 30.0) for node in graph.nodes}
    layout = placed(graph, sizes)
    boxes = [(*layout.centres[key], *size) for key, size in sizes.items()]
    for index, (x, y, width, height) in enumerate(boxes):
        assert x - width / 2 >= -0.01
        assert x + width / 2 <= layout.width + 0.01
        for other_x, other_y, other_width, other_height in boxes[:index]:
            beside = abs(x - other_x) >= (width + other_width) / 2 - 0.01
            assert beside or abs(y - other_y) >= (height + other_height) / 2 - 0.01
    for way in layout.ways:
        assert all(upper[1] < lower[1] for upper, lower in pairwise(way))


def test_a_chain_of_ten_thousand_steps_has_a_layout() -> None:
    nodes = tuple(Node(str(number), "step", "activity") for number in range(10_000))
    edges = tuple(Edge(str(a), str(a + 1)) for a in range(9_999))
    graph = Graph("long", nodes, (*edges, Edge("0", "9999")))
    assert layers(graph)["9999"] == 9_999
    assert ET.fromstring(to_svg(graph)).get("width")


# -- text -------------------------------------------------------------------------------------------------------------


@given(graphs(), st.integers(40, 200))
def test_text_fits_the_width(graph: Graph, width: int) -> None:
    lines = to_text(graph, width).split("\n")
    assert len(lines) == len(graph.nodes) + len(graph.facts) + 3
    assert max(map(cell_len, lines)) <= width


@given(st.text())
def test_what_stands_in_a_picture_is_one_line_without_control_characters(text: str) -> None:
    said = one_line(text)
    assert said.isprintable()
    assert len(said) <= 120
