"""Graphs of declared workflows and of what runs really did: a value made from data, and four texts made from the value.

`dag_graph` and `run_graph` make a `Graph`; `to_mermaid`, `to_dot`, `to_svg` and `to_text` write it. Everything here is pure: no database, no clock, no
program such as graphviz. `durable graph` is the same on the command line.
"""

from durable.graphs.dags import dag_graph
from durable.graphs.dot import to_dot
from durable.graphs.mermaid import to_mermaid
from durable.graphs.model import Edge, Graph, Node
from durable.graphs.runs import Standing, run_graph
from durable.graphs.svg import to_svg
from durable.graphs.text import to_text

__all__ = [
    "Edge",
    "Graph",
    "Node",
    "Standing",
    "dag_graph",
    "run_graph",
    "to_dot",
    "to_mermaid",
    "to_svg",
    "to_text",
]
