"""Graphs of TUDataset's text files, as PyTorch Geometric reads them: no self-loops, each edge once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import DataError, UsageError
from hessdiag.loading.datasets.examples import Rows
from hessdiag.loading.datasets.room import check_room
from hessdiag.loading.datasets.tu_files import Table, TUFiles, find_files
from hessdiag.loading.extras import import_extra
from hessdiag.problem.graphs import GraphArguments
from hessdiag.spec.data import TUDatasetData

__all__ = ["GraphExamples", "read"]

_MOST_COLUMNS = 1 << 16
_PURPOSE = "data.format: tudataset"


def read(spec: TUDatasetData, resolve: Callable[[str], Path]) -> GraphExamples:
    """The graphs of a folder, as examples.

    Raises:
        UsageError: the folder has no such files, or lacks labels or attributes that the spec asks for.
        DataError: the files are damaged, or do not belong together.
        MissingExtraError: PyTorch Geometric is not installed.
    """
    geometric = import_extra("torch_geometric", _PURPOSE)
    try:
        files = find_files(resolve(spec.path), spec.name, spec.path)
        return GraphExamples(files, spec, geometric)
    except OSError as error:
        raise DataError(f"data.path: {spec.path} cannot be read: {error.strerror or error}") from None


class GraphExamples:
    """Graphs by number; a batch is PyTorch Geometric's, or those of its attributes that the model takes.

    What is one-hot is written out batch by batch: all of COLLAB's node degrees would take 0.7 GB.
    """

    def __init__(self, files: TUFiles, spec: TUDatasetData, geometric: Any) -> None:
        self._geometric, self._inputs = geometric, spec.inputs
        self._first_node = _starts(files.graph_of, files.graphs)
        self._target_by = "node" if spec.task == "node" else "graph"
        self._targets = _targets(files, spec.task)
        self._edge_index, self._edge_attr = _edges(files, geometric)
        self._first_edge = torch.searchsorted(self._edge_index[0].contiguous(), self._first_node)
        self._features = _Features(files, spec, self._edge_index[0])
        self._check_inputs(files)

    def __len__(self) -> int:
        return len(self._first_node) - 1

    def batch(self, rows: Rows) -> Any:
        """The graphs ``rows`` as one batch with its targets under ``y``."""
        nodes = int((self._first_node[rows + 1] - self._first_node[rows]).sum())
        check_room(
            nodes * self._features.width * 4,
            f"data: a batch of {len(rows)} graphs with {nodes} nodes of {self._features.width} features",
            "lower data.batch_size, or take other data.features",
        )
        batch = self._geometric.data.Batch.from_data_list([self._graph(int(row)) for row in rows])
        if self._inputs is None:
            return batch
        if isinstance(self._inputs, str):
            return GraphArguments(batch, batch[self._inputs])
        if isinstance(self._inputs, tuple):
            return GraphArguments(batch, tuple(batch[name] for name in self._inputs))
        return GraphArguments(batch, {argument: batch[name] for argument, name in self._inputs.items()})

    def _graph(self, row: int) -> Any:
        nodes = slice(int(self._first_node[row]), int(self._first_node[row + 1]))
        edges = slice(int(self._first_edge[row]), int(self._first_edge[row + 1]))
        held = {"edge_attr": self._edge_attr[edges]} if self._edge_attr is not None else {}
        return self._geometric.data.Data(
            x=self._features.of(nodes),
            edge_index=self._edge_index[:, edges] - nodes.start,
            y=self._targets[nodes if self._target_by == "node" else slice(row, row + 1)],
            **held,
        )

    def _check_inputs(self, files: TUFiles) -> None:
        has = ["x", "edge_index", *(["edge_attr"] if self._edge_attr is not None else []), "batch"]
        wanted = self._inputs or ()
        names = (wanted,) if isinstance(wanted, str) else wanted.values() if isinstance(wanted, dict) else wanted
        for name in names:
            if name not in has:
                lacks = f" ({files.name} has no edge labels or attributes)" if name == "edge_attr" else ""
                raise UsageError(f"found {name!r}{lacks}, expected some of {', '.join(has)}", "data.inputs")


class _Features:
    """The features of nodes: attributes, then each label or the degree as one-hot columns; or a constant 1."""

    def __init__(self, files: TUFiles, spec: TUDatasetData, sources: Tensor) -> None:
        nodes = len(files.graph_of)
        kinds = _kinds(files, spec)
        dense = (
            files.attributes("node_attributes") if "attributes" in kinds else np.ones((nodes, int("constant" in kinds)))
        )
        self._dense = torch.from_numpy(dense.astype(np.float32, copy=False))
        self._numbers: list[tuple[Tensor, int]] = []
        if "labels" in kinds:
            self._numbers += _one_hot_columns(files.labels("node_labels"))
        if "degree" in kinds:
            degrees = torch.bincount(sources, minlength=nodes)
            most = int(degrees.max())
            if most >= _MOST_COLUMNS:
                raise DataError(
                    f"data.features: degree: found a node with {most} edges, which would make as many columns, "
                    f"expected fewer than {_MOST_COLUMNS}: take features: constant"
                )
            self._numbers.append((degrees, most + 1))
        self.width = self._dense.shape[1] + sum(width for _, width in self._numbers)

    def of(self, nodes: slice) -> Tensor:
        """Of some nodes, (nodes, width), float32."""
        return torch.cat([self._dense[nodes], *(_one_hot(column[nodes], width) for column, width in self._numbers)], 1)


def _kinds(files: TUFiles, spec: TUDatasetData) -> set[str]:
    """Which features to take: those that the spec names, or what ``auto`` comes to."""
    if spec.task == "node" and spec.features == "labels":
        raise UsageError(
            "found labels, which are the targets of task: node, expected attributes, degree or constant",
            "data.features",
        )
    parts = ("attributes",) if spec.task == "node" else ("attributes", "labels")
    there = {kind for kind in parts if files.has(f"node_{kind}")}
    if spec.features == "auto":
        return there or {"degree"}
    if spec.features in ("attributes", "labels") and spec.features not in there:
        others = ", ".join([*sorted(there), "degree", "constant"])
        file = files.file(f"node_{spec.features}")
        raise UsageError(
            f"found {spec.features}, but {files.shown} has no {file}: take one of {others}", "data.features"
        )
    return {spec.features}


def _targets(files: TUFiles, task: str) -> Tensor:
    """Classes from 0 in the order of their labels; of graphs without labels, their attributes.

    Of nodes (nodes,), of graphs (graphs,), with several attributes (graphs, k).
    """
    part = "node_labels" if task == "node" else "graph_labels"
    if files.has(part):
        table = files.labels(part)
        if table.values.shape[1] != 1:
            raise table.fault(0, f"{table.values.shape[1]} labels", "one on each line")
        return torch.from_numpy(np.unique(table.values[:, 0], return_inverse=True)[1].astype(np.int64))
    if task == "graph" and files.has("graph_attributes"):
        values = torch.from_numpy(files.attributes("graph_attributes"))
        return values[:, 0] if values.shape[1] == 1 else values
    other = "node" if task == "graph" and files.has("node_labels") else "graph" if files.has("graph_labels") else None
    way = f": task: {other} has its labels" if other else ""
    raise UsageError(f"found {task}, but {files.shown} has no {files.file(part)}{way}", "data.task")


def _edges(files: TUFiles, geometric: Any) -> tuple[Tensor, Tensor | None]:
    """``edge_index`` (2, edges), sorted, and the attributes and one-hot labels of the edges where there are any."""
    index = torch.from_numpy(np.ascontiguousarray(files.edges.T))
    columns: list[Tensor] = []
    if files.has("edge_attributes"):
        columns.append(torch.from_numpy(files.attributes("edge_attributes")))
    if files.has("edge_labels"):
        hot = _one_hot_columns(files.labels("edge_labels"))
        width = sum(width for _, width in hot)
        check_room(
            index.shape[1] * width * 4,
            f"{files.file('edge_labels')}: {width} one-hot columns",
            "give its edges fewer labels",
        )
        columns += [_one_hot(column, width) for column, width in hot]
    attributes = torch.cat(columns, 1) if columns else None
    index, attributes = geometric.utils.remove_self_loops(index, attributes)
    return geometric.utils.coalesce(index, attributes, len(files.graph_of))  # type: ignore[no-any-return]


def _one_hot_columns(table: Table) -> list[tuple[Tensor, int]]:
    """Each column of labels from 0, with the count of its one-hot columns; labels that never occur have one too."""
    result = []
    for column in table.values.T if len(table) else ():
        low, high = int(column.min()), int(column.max())
        if high - low >= _MOST_COLUMNS:
            raise DataError(
                f"{table.shown}: found labels from {low} to {high}, which would make as many columns, "
                f"expected a range of fewer than {_MOST_COLUMNS}: number them without gaps"
            )
        result.append((torch.from_numpy(column - low), high - low + 1))
    return result


def _one_hot(column: Tensor, width: int) -> Tensor:
    return torch.zeros(len(column), width).scatter_(1, column[:, None], 1.0)


def _starts(graph_of: np.ndarray, graphs: int) -> Tensor:
    """The first node of each graph, and the count of all nodes, (graphs + 1,)."""
    return torch.from_numpy(np.searchsorted(graph_of, np.arange(graphs + 1)))
