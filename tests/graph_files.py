"""Small data sets of graphs, in memory and in TUDataset's text format."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it compiles its classes by a function that torch calls deprecated
    torch_geometric = pytest.importorskip("torch_geometric", reason="torch_geometric is not installed (extra: graph)")


@dataclass
class Graph:
    """One graph: edges (E, 2) in both directions, nodes numbered from 0."""

    nodes: int
    edges: np.ndarray
    label: int
    attributes: np.ndarray  # of nodes
    labels: np.ndarray  # of nodes
    edge_labels: np.ndarray = field(init=False)
    edge_attributes: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        # The same in both directions, as in a molecule.
        self.edge_labels = (self.edges.sum(1) + self.edges.prod(1)) % 3
        self.edge_attributes = np.stack([self.edges.sum(1) / 8, np.sin(self.edges.prod(1))], 1).astype(np.float32)

    def adjacency(self) -> np.ndarray:
        matrix = np.zeros((self.nodes, self.nodes))
        matrix[self.edges[:, 0], self.edges[:, 1]] = 1
        return matrix


def random_graphs(count: int = 12, seed: int = 0) -> list[Graph]:
    """The third has no edges, the fifth a node of its own, the last is one node."""
    random = np.random.default_rng(seed)
    graphs = []
    for number in range(count):
        nodes = 1 if number == count - 1 else int(random.integers(3, 8))
        matrix = np.triu(random.random((nodes, nodes)) < 0.5, 1)
        if number == 2:
            matrix[:] = False
        if number == 4:
            matrix[-1], matrix[:, -1] = False, False
        graphs.append(
            Graph(
                nodes,
                np.argwhere(matrix | matrix.T),
                label=int(random.integers(0, 3)),
                attributes=random.normal(size=(nodes, 2)).astype(np.float32),
                labels=random.integers(0, 4, nodes),
            )
        )
    return graphs


def lines(rows: Iterable[Any]) -> str:
    return "".join(", ".join(map(str, np.atleast_1d(row).tolist())) + "\n" for row in rows)


def write(folder: Path, graphs: Sequence[Graph], name: str = "TINY", without: Sequence[str] = ()) -> Path:
    """TUDataset's files; graph labels are 3, 5, 7, which are no class numbers."""
    starts = np.cumsum([0, *(graph.nodes for graph in graphs)])
    parts = {
        "A": [row + start + 1 for graph, start in zip(graphs, starts, strict=False) for row in graph.edges],
        "graph_indicator": [number for number, graph in enumerate(graphs, 1) for _ in range(graph.nodes)],
        "graph_labels": [3 + 2 * graph.label for graph in graphs],
        "node_labels": [label for graph in graphs for label in graph.labels],
        "node_attributes": [row for graph in graphs for row in graph.attributes],
        "edge_labels": [label for graph in graphs for label in graph.edge_labels],
        "edge_attributes": [row for graph in graphs for row in graph.edge_attributes],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        if part not in without:
            (folder / f"{name}_{part}.txt").write_text(lines(rows))
    (folder / "README.txt").write_text("A data set of tiny graphs.\n")
    return folder
