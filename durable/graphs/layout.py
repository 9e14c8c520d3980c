"""Where the boxes of a picture go: in layers, from top to bottom.

The usual three steps of a layered drawing, each in its simplest form. Every node stands one layer below the lowest that it waits for; an edge that
spans layers gets a bend in each of them; the order within a layer is that of the mean place of the neighbours, swept down and up a few times; and the
boxes are then moved towards their neighbours as far as those beside them allow. Everything is a loop over layers or edges, so a chain of ten thousand
steps is as flat as a short one. An edge over more than `LONGEST_BEND` layers is drawn straight: bends for all of them could outnumber the nodes by far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from durable.graphs.model import Graph, layers

GAP_X = 28.0
GAP_Y = 44.0
BEND_WIDTH = 12.0
LONGEST_BEND = 60
SWEEPS = 6
"""Few are enough: the pictures are small, or nobody can read them anyway."""

Point = tuple[float, float]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Placed:
    """The centre of each node, the points that each edge runs through (from the lower side of its source to the upper side of its target), and the size."""

    centres: Mapping[str, Point]
    ways: Sequence[Sequence[Point]]
    width: float
    height: float


def placed(graph: Graph, sizes: Mapping[str, Size]) -> Placed:
    """Place nodes of these sizes."""
    return _Layout(graph, sizes).placed()


class _Layout:
    """Nodes and bends are both numbers here; a bend is a thin node without height."""

    def __init__(self, graph: Graph, sizes: Mapping[str, Size]) -> None:
        self.keys = [node.key for node in graph.nodes]
        self.number = {key: number for number, key in enumerate(self.keys)}
        self.sizes = [sizes[key] for key in self.keys]
        rank = layers(graph)
        self.rank = [rank[key] for key in self.keys]
        self.above: list[list[int]] = [[] for _ in self.keys]
        self.below: list[list[int]] = [[] for _ in self.keys]
        self.chains = [
            self._chain(self.number[e.source], self.number[e.target]) for e in graph.edges
        ]
        self.layers: list[list[int]] = [[] for _ in range(max(self.rank, default=0) + 1)]
        for node, at in enumerate(self.rank):
            self.layers[at].append(node)

    def _chain(self, source: int, target: int) -> list[int]:
        """The nodes that an edge runs through."""
        span = self.rank[target] - self.rank[source]
        bends = range(self.rank[source] + 1, self.rank[target]) if span <= LONGEST_BEND else ()
        chain = [source, *(self._bend(at) for at in bends), target]
        for upper, lower in pairwise(chain):
            self.below[upper].append(lower)
            self.above[lower].append(upper)
        return chain

    def _bend(self, at: int) -> int:
        self.sizes.append((BEND_WIDTH, 0.0))
        self.rank.append(at)
        self.above.append([])
        self.below.append([])
        return len(self.sizes) - 1

    def placed(self) -> Placed:
        for sweep in range(SWEEPS):
            self._order(downwards=sweep % 2 == 0)
        x = self._across()
        y, height = self._down()
        left = min((x[n] - self.sizes[n][0] / 2 for n in range(len(x))), default=0.0)
        right = max((x[n] + self.sizes[n][0] / 2 for n in range(len(x))), default=0.0)
        x = [each - left for each in x]
        centres = {key: (x[number], y[number]) for number, key in enumerate(self.keys)}
        ways = [self._way(chain, x, y) for chain in self.chains]
        return Placed(centres, ways, right - left, height)

    def _order(self, *, downwards: bool) -> None:
        """Sort each layer by the mean place of the neighbours in the layer before it; those without keep their place."""
        neighbours = self.above if downwards else self.below
        place = [0.0] * len(self.sizes)
        for layer in self.layers if downwards else reversed(self.layers):
            wanted = {
                node: _mean([place[it] for it in neighbours[node]], position)
                for position, node in enumerate(layer)
            }
            layer.sort(key=wanted.__getitem__)
            for position, node in enumerate(layer):
                place[node] = float(position)

    def _across(self) -> list[float]:
        x = [0.0] * len(self.sizes)
        for layer in self.layers:
            edge = 0.0
            for node in layer:
                x[node] = edge + self.sizes[node][0] / 2
                edge += self.sizes[node][0] + GAP_X
        for sweep in range(2 * SWEEPS):
            downwards = sweep % 2 == 0
            neighbours = self.above if downwards else self.below
            for layer in self.layers if downwards else reversed(self.layers):
                wanted = [_mean([x[it] for it in neighbours[node]], x[node]) for node in layer]
                for node, at in zip(layer, self._apart(layer, wanted), strict=True):
                    x[node] = at
        return x

    def _apart(self, layer: Sequence[int], wanted: Sequence[float]) -> list[float]:
        """The wanted places, moved apart: the mean of pushing from the left and pushing from the right keeps the order and the gaps."""
        widths = [self.sizes[node][0] for node in layer]
        rightwards, leftwards = list(wanted), list(wanted)
        for n in range(1, len(layer)):
            least = rightwards[n - 1] + (widths[n - 1] + widths[n]) / 2 + GAP_X
            rightwards[n] = max(rightwards[n], least)
        for n in range(len(layer) - 2, -1, -1):
            most = leftwards[n + 1] - (widths[n + 1] + widths[n]) / 2 - GAP_X
            leftwards[n] = min(leftwards[n], most)
        return [(a + b) / 2 for a, b in zip(rightwards, leftwards, strict=True)]

    def _down(self) -> tuple[list[float], float]:
        y = [0.0] * len(self.sizes)
        edge = 0.0
        for layer in self.layers:
            height = max((self.sizes[node][1] for node in layer), default=0.0)
            for node in layer:
                y[node] = edge + height / 2
            edge += height + GAP_Y
        return y, max(0.0, edge - GAP_Y)

    def _way(self, chain: Sequence[int], x: Sequence[float], y: Sequence[float]) -> list[Point]:
        source, target = chain[0], chain[-1]
        points = [(x[node], y[node]) for node in chain[1:-1]]
        begin = (x[source], y[source] + self.sizes[source][1] / 2)
        end = (x[target], y[target] - self.sizes[target][1] / 2)
        return [begin, *points, end]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
