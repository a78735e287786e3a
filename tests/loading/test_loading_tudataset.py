"""TUDataset's text files become the graphs that PyTorch Geometric reads; faults are told by file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import graph_files
import numpy as np
import pytest
import torch
from graph_files import random_graphs

from hessdiag.errors import DataError, HessdiagError, UsageError
from hessdiag.loading.datasets import load_data, tu_files, tudataset
from hessdiag.spec.data import TUDatasetData

GRAPHS = random_graphs(12)
read_tu_data = graph_files.torch_geometric.io.read_tu_data


def open_data(folder: Path, path: str = "data", **options: Any) -> Any:
    spec = TUDatasetData.model_validate({"format": "tudataset", "path": path, **options})
    return load_data(spec, lambda name: folder / name)


def whole(folder: Path, **options: Any) -> Any:
    (batch,) = open_data(folder, **options)
    return batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph_files.write(tmp_path / "data", GRAPHS)
    return tmp_path


def edit(folder: Path, part: str, change: Any) -> None:
    """Put other lines into a file; ``change`` gets the old ones."""
    path = folder / f"data/TINY_{part}.txt"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))


def fault(folder: Path, kind: type[HessdiagError] = DataError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        list(open_data(folder, **options))
    return str(caught.value)


# -- what is read ----------------------------------------------------------------------------------------------


def test_the_same_as_pytorch_geometric_reads(folder: Path) -> None:
    """Features, sorted edges, edge attributes and labels, with self-loops, doubled edges and gaps in labels."""
    edit(folder, "A", lambda lines: [*lines, lines[0], "1, 1"])
    for part in ("edge_labels", "edge_attributes"):
        edit(folder, part, lambda lines: [*lines, lines[3], lines[4]])
    edit(folder, "node_labels", lambda lines: [str(2 * int(line) + 5) for line in lines])
    batch = whole(folder)
    data, slices, _ = read_tu_data(str(folder / "data"), "TINY")
    edges = torch.zeros(12, dtype=torch.int64)  # its slices end before the last graph, which has no edges
    edges[: len(slices["edge_index"]) - 1] = slices["edge_index"].diff()
    nodes = slices["x"][:-1].repeat_interleave(edges)
    assert torch.equal(batch.x, data.x)
    assert batch.x.shape[1] == 2 + 7
    assert torch.equal(batch.edge_index, data.edge_index + nodes)
    assert torch.equal(batch.edge_attr, data.edge_attr)
    assert torch.equal(batch.y, data.y)


def test_graphs_in_their_order_the_last_batch_smaller(folder: Path) -> None:
    batches = list(open_data(folder, batch_size=5))
    assert [batch.num_graphs for batch in batches] == [5, 5, 2]
    read = [graph for batch in batches for graph in batch.to_data_list()]
    for graph, truth in zip(read, GRAPHS, strict=True):
        assert graph.num_nodes == truth.nodes
        assert np.array_equal(graph.edge_index.T.numpy(), truth.edges)
        assert np.array_equal(graph.x[:, :2].numpy(), truth.attributes)
    labels = np.array([graph.label for graph in GRAPHS])
    assert torch.cat([batch.y for batch in batches]).tolist() == np.unique(labels, return_inverse=True)[1].tolist()


def test_a_subset_takes_graphs(folder: Path) -> None:
    chosen = [graph for batch in open_data(folder, max_examples=5, batch_size=2) for graph in batch.to_data_list()]
    rows = [next(i for i, g in enumerate(GRAPHS) if np.array_equal(g.attributes, c.x[:, :2].numpy())) for c in chosen]
    assert rows == sorted(rows)
    assert len(set(rows)) == 5
    assert [graph.num_nodes for graph in chosen] == [GRAPHS[row].nodes for row in rows]
    again = open_data(folder, max_examples=5)
    assert torch.equal(next(iter(again)).x, torch.cat([graph.x for graph in chosen]))
    other = next(iter(open_data(folder, max_examples=5, seed=1)))
    assert other.x.shape != next(iter(again)).x.shape or not torch.equal(other.x, next(iter(again)).x)


def one_hot(numbers: Any, width: int) -> torch.Tensor:
    return torch.eye(width)[torch.as_tensor(np.asarray(numbers))]


def features() -> dict[str, torch.Tensor]:
    attributes = torch.from_numpy(np.concatenate([graph.attributes for graph in GRAPHS]))
    degrees = np.concatenate([graph.adjacency().sum(1) for graph in GRAPHS]).astype(int)
    labels = one_hot(np.concatenate([graph.labels for graph in GRAPHS]), 4)
    return {
        "attributes": attributes,
        "labels": labels,
        "degree": one_hot(degrees, max(degrees) + 1),
        "constant": torch.ones(len(degrees), 1),
        "auto": torch.cat([attributes, labels], 1),
    }


@pytest.mark.parametrize("kind", ["attributes", "labels", "degree", "constant", "auto"])
def test_features(folder: Path, kind: str) -> None:
    assert torch.equal(whole(folder, features=kind).x, features()[kind])


def test_the_columns_of_one_hot_features_are_those_of_the_whole_data(folder: Path) -> None:
    """Not of a batch, in which the largest degree need not occur."""
    widths = {batch.x.shape[1] for batch in open_data(folder, features="degree", batch_size=1, max_examples=4)}
    assert widths == {features()["degree"].shape[1]}


def test_auto_takes_what_there_is(tmp_path: Path) -> None:
    graph_files.write(tmp_path / "data", GRAPHS, without=["node_labels"])
    assert torch.equal(whole(tmp_path).x, features()["attributes"])
    graph_files.write(tmp_path / "bare", GRAPHS, without=["node_labels", "node_attributes", "edge_labels"])
    assert torch.equal(whole(tmp_path, path="bare").x, features()["degree"])


def test_targets_of_nodes_are_no_features(folder: Path) -> None:
    batch = whole(folder, task="node")
    assert batch.y.tolist() == np.concatenate([graph.labels for graph in GRAPHS]).tolist()
    assert torch.equal(batch.x, features()["attributes"])
    message = fault(folder, UsageError, task="node", features="labels")
    assert message == (
        "data.features: found labels, which are the targets of task: node, expected attributes, degree or constant"
    )


def test_graph_attributes_are_targets_where_there_are_no_labels(folder: Path) -> None:
    (folder / "data/TINY_graph_attributes.txt").write_text("".join(f"{i / 2}\n" for i in range(12)))
    assert whole(folder).y.dtype is torch.int64
    (folder / "data/TINY_graph_labels.txt").unlink()
    assert whole(folder).y.tolist() == [i / 2 for i in range(12)]
    (folder / "data/TINY_graph_attributes.txt").write_text("".join(f"{i / 2}, 1e-3\n" for i in range(12)))
    assert whole(folder).y.shape == (12, 2)


def test_inputs(folder: Path) -> None:
    batch = whole(folder)
    named = whole(folder, inputs="x")
    assert torch.equal(named.inputs, batch.x)
    listed = whole(folder, inputs=["x", "edge_index", "edge_attr", "batch"])
    assert all(map(torch.equal, listed.inputs, (batch.x, batch.edge_index, batch.edge_attr, batch.batch)))
    mapped = whole(folder, inputs={"nodes": "x", "edge_weight": "edge_attr"})
    assert set(mapped.inputs) == {"nodes", "edge_weight"}
    assert torch.equal(mapped.inputs["edge_weight"], batch.edge_attr)


def test_layouts(tmp_path: Path) -> None:
    """The folder itself, an unpacked archive, and PyTorch Geometric's root."""
    for place in ("flat", "unpacked/TINY", "raw_only/raw", "root/TINY/raw"):
        graph_files.write(tmp_path / place, GRAPHS)
    expected = whole(tmp_path, path="flat")
    for path in ("unpacked", "unpacked/TINY", "raw_only", "root", "root/TINY"):
        assert torch.equal(whole(tmp_path, path=path).x, expected.x)
    graph_files.write(tmp_path / "unpacked/OTHER", GRAPHS[:3], name="OTHER")
    assert whole(tmp_path, path="unpacked", name="OTHER").num_graphs == 3
    assert fault(tmp_path, UsageError, path="unpacked") == (
        "data.path: found several data sets in unpacked: OTHER, TINY: name one (data.name)"
    )


def test_no_edges_at_all(tmp_path: Path) -> None:
    alone = [graph_files.Graph(1, np.empty((0, 2), int), i % 3, np.ones((1, 2), "f4"), np.array([i])) for i in range(3)]
    graph_files.write(tmp_path / "data", alone)
    batch = whole(tmp_path)
    assert batch.edge_index.shape == (2, 0)
    assert batch.x.shape == (3, 2 + 3)


def test_spaces_blank_lines_and_other_line_ends(folder: Path) -> None:
    expected = whole(folder)
    edit(folder, "A", lambda lines: ["\r", *(f"  {line.replace(', ', ' ,')} \r" for line in lines), "", ""])
    assert torch.equal(whole(folder).edge_index, expected.edge_index)


# -- what is refused -------------------------------------------------------------------------------------------


def test_a_wrong_folder_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/notes.txt").write_text("")
    assert fault(tmp_path, UsageError) == (
        "data.path: found no NAME_A.txt in data, which has: notes.txt, sub/; expected the folder with TUDataset's text "
        "files, unzipped"
    )
    graph_files.write(tmp_path / "data", GRAPHS)
    assert fault(tmp_path, UsageError, name="MUTAG").startswith("data.name: found no MUTAG_A.txt in data, which has: ")
    (tmp_path / "data/TINY_graph_indicator.txt").unlink()
    assert fault(tmp_path) == "data has no TINY_graph_indicator.txt, expected it beside TINY_A.txt"


def test_what_the_files_lack_has_the_key_that_asks_for_it(tmp_path: Path) -> None:
    labels = ["graph_labels", "node_labels", "edge_labels", "edge_attributes"]
    graph_files.write(tmp_path / "data", GRAPHS, without=labels)
    assert fault(tmp_path, UsageError) == "data.task: found graph, but data has no TINY_graph_labels.txt"
    graph_files.write(tmp_path / "data", GRAPHS, without=["graph_labels", "node_attributes"])
    (tmp_path / "data/TINY_node_attributes.txt").unlink()
    assert fault(tmp_path, UsageError) == (
        "data.task: found graph, but data has no TINY_graph_labels.txt: task: node has its labels"
    )
    assert fault(tmp_path, UsageError, task="node", features="attributes") == (
        "data.features: found attributes, but data has no TINY_node_attributes.txt: take one of degree, constant"
    )
    bare = tmp_path / "bare"
    graph_files.write(bare, GRAPHS, without=["edge_labels", "edge_attributes", "node_labels"])
    assert fault(tmp_path, UsageError, path="bare", inputs=["x", "edge_attr"]) == (
        "data.inputs: found 'edge_attr' (TINY has no edge labels or attributes), expected some of x, edge_index, batch"
    )
    assert fault(tmp_path, UsageError, path="bare", inputs="y").startswith("data.inputs: found 'y', expected some of x")


def replaced(row: int, text: str) -> Any:
    return lambda lines: [*lines[:row], text, *lines[row + 1 :]]


WRONG_LINES = {
    "words": ("A", 4, "3, x", "found 'x', expected a whole number"),
    "reals": ("A", 4, "3, 1.5", "found '1.5', expected a whole number"),
    "a third": ("A", 4, "3, 1, 2", "found 3 numbers, expected 2 as above"),
    "too long": ("A", 4, "3, 99999999999999999999", "found '99999999999999999999', expected a whole number"),
    "node 0": ("A", 4, "3, 0", "found nodes 3 and 0, expected numbers from 1 to {nodes}, the count of nodes"),
    "no such node": ("A", 4, "3, 99999", "found nodes 3 and 99999, expected numbers from 1 to {nodes}, the count"),
    "two graphs": ("A", 4, "1, {nodes}", "found nodes 1 and {nodes} of two graphs, expected an edge within one graph"),
    "not sorted": ("graph_indicator", 20, "1", "found graph 1, expected graph 4 or 5: graphs count from 1, and nodes"),
    "graph 0": ("graph_indicator", 0, "0", "found graph 0, expected 1: graphs count from 1"),
    "a gap": ("graph_indicator", 20, "7", "found graph 7, expected graph 5: each has one node at least"),
    "huge graph": ("graph_indicator", 20, "7000000000000000000", "found graph 7000000000000000000, expected graph 5"),
    "NaN": ("node_attributes", 7, "1.0, nan", "found a number that is not finite, expected finite numbers"),
    "infinite": ("node_attributes", 7, "1e99, 0", "found a number that is not finite, expected finite numbers"),
    "bytes": ("node_attributes", 7, "1.0, \xff", "found '\ufffd\ufffd', expected a number"),
    "spaces": ("A", 4, "   ", "found '', expected a whole number"),
    "no number": ("node_attributes", 7, "1.0,", "found '', expected a number"),
}


@pytest.mark.parametrize("case", WRONG_LINES)
def test_a_wrong_line_is_told_with_its_place(folder: Path, case: str) -> None:
    nodes = sum(graph.nodes for graph in GRAPHS)
    part, row, text, words = WRONG_LINES[case]
    edit(folder, part, replaced(row, text.format(nodes=nodes)))
    message = fault(folder)
    assert message.startswith(f"data/TINY_{part}.txt:{row + 1}: {words.format(nodes=nodes)}"), message


def test_blank_lines_count_in_places(folder: Path) -> None:
    edit(folder, "A", lambda lines: ["", *replaced(4, "3, 0")(lines)])
    assert fault(folder).startswith("data/TINY_A.txt:6: found nodes 3 and 0")


@pytest.mark.parametrize(
    ("part", "unit", "by"),
    [
        ("node_labels", "node", "graph_indicator"),
        ("node_attributes", "node", "graph_indicator"),
        ("edge_labels", "edge", "A"),
        ("edge_attributes", "edge", "A"),
        ("graph_labels", "graph", "graph_indicator"),
    ],
)
def test_counts_that_differ(folder: Path, part: str, unit: str, by: str) -> None:
    count = len((folder / f"data/TINY_{part}.txt").read_text().splitlines())
    edit(folder, part, lambda lines: lines[:-1])
    assert fault(folder) == (
        f"data/TINY_{part}.txt: found {count - 1} lines, expected {count}: one for each {unit}, "
        f"as TINY_{by}.txt has them"
    )


def test_no_graphs(folder: Path) -> None:
    edit(folder, "graph_indicator", lambda lines: [])
    assert fault(folder) == (
        "data/TINY_graph_indicator.txt: found no lines, expected the number of its graph for each node"
    )


def test_labels_too_far_apart_are_not_made_columns(folder: Path) -> None:
    edit(folder, "node_labels", replaced(3, "900000000000"))
    assert fault(folder).startswith("data/TINY_node_labels.txt: found labels from 0 to 900000000000, which would make")
    edit(folder, "node_labels", replaced(3, "1"))
    edit(folder, "edge_labels", replaced(3, "-900000000000"))
    assert fault(folder).startswith("data/TINY_edge_labels.txt: found labels from -900000000000 to 2")


def test_a_node_with_too_many_edges_for_its_degree(tmp_path: Path) -> None:
    leaves = 1 << 16
    edges = np.stack([np.zeros(leaves, int), np.arange(1, leaves + 1)], 1)
    star = graph_files.Graph(leaves + 1, edges, 0, np.ones((leaves + 1, 1), "f4"), np.zeros(leaves + 1, int))
    without = ["node_labels", "node_attributes", "edge_labels", "edge_attributes"]
    graph_files.write(tmp_path / "data", [star], without=without)
    assert fault(tmp_path) == (
        "data.features: degree: found a node with 65536 edges, which would make as many columns, "
        "expected fewer than 65536: take features: constant"
    )
    assert whole(tmp_path, features="constant").x.shape == (leaves + 1, 1)


def test_a_batch_beyond_the_free_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(tudataset, "check_room", lambda nbytes, what, advice: asked.append((nbytes, what, advice)))
    nodes = sum(graph.nodes for graph in GRAPHS)
    whole(folder)
    assert asked[-1] == (
        nodes * 6 * 4,
        f"data: a batch of 12 graphs with {nodes} nodes of 6 features",
        "lower data.batch_size, or take other data.features",
    )


def test_files_beyond_the_free_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(tu_files, "check_room", lambda nbytes, what, advice: asked.append(nbytes))
    whole(folder)
    assert asked == [8 * sum(path.stat().st_size for path in (folder / "data").glob("TINY_*.txt"))]


def test_damaged_files_give_one_message(folder: Path) -> None:
    """Cut short, bytes changed, lines doubled or dropped: never anything but one of our errors, or other numbers."""
    random = np.random.default_rng(0)
    parts = [path for path in (folder / "data").iterdir() if path.name.startswith("TINY_")]
    good = {path: path.read_bytes() for path in parts}
    told = []
    for _ in range(150):
        path = parts[random.integers(len(parts))]
        content = bytearray(good[path])
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(content)))
            match random.integers(4):
                case 0:
                    content[place] ^= 1 << int(random.integers(8))
                case 1:
                    del content[place : place + int(random.integers(1, 40))]
                case 2:
                    content[place:place] = random.choice([b"9" * 30, b",", b"\n", b"-", b"\0", b"1e999", b"nan"])
                case 3:
                    content[place:place] = random.bytes(5)
            content = content or bytearray(b"1")
        path.write_bytes(content)
        try:
            list(open_data(folder))
        except HessdiagError as error:
            told.append(str(error))
        path.write_bytes(good[path])
    assert len(told) > 100
    assert [message for message in told if not re.fullmatch(r"data[./][^\n]+", message)] == []
