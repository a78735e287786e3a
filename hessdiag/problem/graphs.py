"""Batches of graphs: called by some of their attributes, and fingerprinted graph by graph."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.problem.structure import plain_leaves

__all__ = ["GraphArguments", "by_graph"]


@dataclass(frozen=True)
class GraphArguments:
    """Attributes of a graph batch, for a model that takes them in place of the batch.

    The batch goes along: its graphs are counted and fingerprinted, and it holds the targets.
    """

    graphs: Any
    inputs: Any


def by_graph(item: Any) -> Any:
    """A batch of graphs as one hash for each, (graphs, 32) uint8, beside what it holds apart from them.

    Within its graph a node bears the same number whatever the batch, so that the split does not show.
    """
    if isinstance(item, dict):
        return {name: by_graph(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return tuple(by_graph(value) for value in item)
    graphs = _separated(item)
    if not graphs:
        return item
    # Of the batch and not of a graph: where its graphs begin, and what was put into it afterwards.
    counts = {"batch", "ptr", *(f"{name}_{of}" for name in graphs[0] for of in ("batch", "ptr"))}
    added = {str(name): value for name, value in item.to_dict().items() if name not in {*graphs[0], *counts}}
    hashes = bytearray(b"".join(_hash(graph) for graph in graphs))
    return {**added, "graphs": torch.frombuffer(hashes, dtype=torch.uint8).reshape(-1, 32)}


def _separated(item: Any) -> list[dict[str, Any]] | None:
    """What each graph of a PyTorch Geometric batch holds; None for anything else."""
    if not hasattr(item, "to_data_list"):
        return None
    ptr = getattr(item, "ptr", None)
    nodes = ptr.tolist() if isinstance(ptr, Tensor) else []  # none where there are several kinds of nodes
    matrices = {name: value for name, value in item.to_dict().items() if nodes and _is_adjacency(value, nodes[-1])}
    rest = copy.copy(item)
    for name in matrices:  # torch's sparse matrices are joined by Batch.from_data_list, and not parted again
        delattr(rest, name)
    try:
        graphs = [dict(graph.to_dict()) for graph in rest.to_data_list()]
    except (RuntimeError, ValueError):  # put together by other means than Batch.from_data_list, or inseparable
        return None
    for name, matrix in matrices.items():
        for graph, block in zip(graphs, _blocks(matrix, nodes), strict=True):
            graph[name] = block
    for graph, start, end in zip(graphs, nodes, nodes[1:], strict=False):
        graph["num_nodes"] = end - start
    return graphs


def _is_adjacency(value: Any, nodes: int) -> bool:
    return isinstance(value, Tensor) and value.layout is not torch.strided and value.shape == (nodes, nodes)


def _blocks(matrix: Tensor, nodes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The indices and values of each graph's block on the diagonal."""
    entries = matrix.detach().cpu().to_sparse().coalesce()
    indices, values = entries.indices(), entries.values()
    edges = torch.searchsorted(indices[0].contiguous(), torch.tensor(nodes)).tolist()
    for start, first, last in zip(nodes, edges, edges[1:], strict=False):
        yield indices[:, first:last] - start, values[first:last]


def _hash(graph: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256()
    for path, leaf in plain_leaves(graph):
        if isinstance(leaf, Tensor):
            tensor = leaf.detach().to_dense().cpu().contiguous()
            digest.update(json.dumps([path, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps([path, type(leaf).__name__, repr(leaf)]).encode())
    return digest.digest()
