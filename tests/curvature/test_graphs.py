"""Graph networks of PyTorch Geometric on TUDataset's files, against a dense network written with plain matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graph_files
import numpy as np
import pytest
import torch
from graph_files import Graph, random_graphs
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import hessdiag
from hessdiag import HessianOperator, Problem
from hessdiag.cli.app import app
from hessdiag.curvature import dense_hessian

HIDDEN = 3
SIZES = (1, 3, 7, 256)
FEATURES = {"graph": 6, "node": 2}  # two attributes and, where they are no targets, four labels
CLASSES = {"graph": 3, "node": 4}

MODEL = """\
import torch
from torch import nn
from torch_geometric.nn import GCNConv, GINEConv, TransformerConv, global_add_pool, global_mean_pool


class GCN(nn.Module):
    def __init__(self, features, hidden, classes, pooled):
        super().__init__()
        self.first, self.second = GCNConv(features, hidden), GCNConv(hidden, hidden)
        self.head, self.pooled = nn.Linear(hidden, classes), pooled

    def forward(self, x, edge_index, batch):
        x = torch.tanh(self.first(x, edge_index))
        x = torch.tanh(self.second(x, edge_index))
        return self.head(global_mean_pool(x, batch) if self.pooled else x)


class OfABatch(GCN):
    def forward(self, data):
        data.x = 2 * data.x  # its own batch object, as users do
        return super().forward(data.x / 2, data.edge_index, data.batch)


class WithEdges(nn.Module):
    def __init__(self, features, edge_features, kind):
        super().__init__()
        self.into = nn.Linear(features, 3)
        if kind == "GINE":
            self.convolution = GINEConv(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), edge_dim=edge_features)
        else:
            self.convolution = TransformerConv(3, 3, edge_dim=edge_features)
        self.head = nn.Linear(3, 3)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.head(global_add_pool(self.convolution(self.into(x), edge_index, edge_attr), batch))


def build(kind="GCN", **sizes):
    torch.manual_seed(3)
    return {"GCN": GCN, "OfABatch": OfABatch}[kind](**sizes) if "pooled" in sizes else WithEdges(kind=kind, **sizes)
"""


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return random_graphs(12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, graphs: list[Graph]) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    graph_files.write(folder / "TINY", graphs)
    (folder / "model.py").write_text(MODEL)
    return folder


def spec(folder: Path, task: str, kind: str = "GCN") -> Path:
    path = folder / f"{task}-{kind}.yaml"
    inputs = "" if kind == "OfABatch" else "  inputs: [x, edge_index, batch]\n"
    path.write_text(
        "model:\n"
        "  class_path: model.py:build\n"
        f"  init_args: {{kind: {kind}, features: {FEATURES[task]}, hidden: {HIDDEN}, classes: {CLASSES[task]}, "
        f"pooled: {str(task == 'graph').lower()}}}\n"
        f"data:\n  format: tudataset\n  path: TINY\n  task: {task}\n{inputs}"
        "audit: {eigenvalues: {top: 2, bottom: 1}, trace: {rtol: 0.5}, gap: {sigma: [0.01], draws: 2}}\n"
    )
    return path


def load(path: Path, *overrides: str) -> Problem:
    return hessdiag.load(path, overrides=overrides, device="cpu", dtype="float64")


def relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


# -- the same network with dense matrices ----------------------------------------------------------------------


def dense_loss(flat: Tensor, graphs: list[Graph], task: str) -> Tensor:
    """The mean cross-entropy of tanh(P tanh(P X W1 + b1) W2 + b2), P = D^(-1/2) (A + I) D^(-1/2), D its row sums."""
    f, h, c = FEATURES[task], HIDDEN, CLASSES[task]
    b1, w1, b2, w2, w3, b3 = torch.split(flat, [h, h * f, h, h * h, c * h, c])
    logits, targets = [], []
    for graph in graphs:
        with_loops = torch.from_numpy(graph.adjacency()) + torch.eye(graph.nodes, dtype=torch.float64)
        scale = with_loops.sum(1).rsqrt()
        P = scale[:, None] * with_loops * scale
        one_hot = np.eye(4)[graph.labels] if task == "graph" else np.empty((graph.nodes, 0))
        X = torch.from_numpy(np.hstack([graph.attributes.astype(np.float64), one_hot]))
        X = torch.tanh(P @ X @ w1.reshape(h, f).T + b1)
        X = torch.tanh(P @ X @ w2.reshape(h, h).T + b2)
        logits.append((X.mean(0, keepdim=True) if task == "graph" else X) @ w3.reshape(c, h).T + b3)
        targets += [graph.label] if task == "graph" else graph.labels.tolist()
    return F.cross_entropy(torch.cat(logits), torch.tensor(targets))


@pytest.mark.parametrize("kind", ["GCN", "OfABatch"])
@pytest.mark.parametrize("task", ["graph", "node"])
def test_products_are_those_of_dense_matrices(folder: Path, graphs: list[Graph], task: str, kind: str) -> None:
    problem = load(spec(folder, task, kind))
    names = [group.name for group in problem.groups]
    assert names == ["first.bias", "first.lin.weight", "second.bias", "second.lin.weight", "head.weight", "head.bias"]
    flat = torch.cat([parameter.detach().flatten() for parameter in problem.parameters.values()])
    hessian = torch.func.hessian(lambda w: dense_loss(w, graphs, task))(flat)
    V = torch.randn(problem.n, 4, dtype=torch.float64)
    assert problem.loss_value == pytest.approx(float(dense_loss(flat, graphs, task)), rel=1e-12)
    assert relative(HessianOperator(problem).matmat(V), hessian @ V) < 1e-8
    assert relative(dense_hessian(problem), hessian) < 1e-8
    assert problem.examples == len(graphs)
    assert problem.weight == (len(graphs) if task == "graph" else sum(graph.nodes for graph in graphs))


@pytest.mark.parametrize("kind", ["GCN", "OfABatch"])
@pytest.mark.parametrize("task", ["graph", "node"])
def test_rebatching_changes_nothing(folder: Path, task: str, kind: str) -> None:
    path = spec(folder, task, kind)
    problems = [load(path, f"data.batch_size={size}") for size in SIZES]
    v = torch.randn(problems[0].n, dtype=torch.float64)
    product = HessianOperator(problems[-1]).matvec(v)
    assert [problem.data_info.batches for problem in problems] == [12, 4, 2, 1]
    assert len({problem.data_info.fingerprint for problem in problems}) == 1
    for problem in problems[:-1]:
        assert abs(problem.loss_value - problems[-1].loss_value) < 1e-10
        assert relative(HessianOperator(problem).matvec(v), product) < 1e-10


def test_how_the_model_takes_a_batch_changes_nothing(folder: Path) -> None:
    """A list, a mapping, and the batch itself: the same numbers of the same data."""
    named = "data.inputs={x: x, edge_index: edge_index, batch: batch}"
    problems = [
        load(spec(folder, "graph")),
        load(spec(folder, "graph"), named),
        load(spec(folder, "graph", "OfABatch")),
    ]
    assert len({problem.data_info.fingerprint for problem in problems}) == 1
    assert problems[0].loss_value == problems[1].loss_value
    assert problems[0].loss_value == pytest.approx(problems[2].loss_value, rel=1e-14)


def test_a_loss_that_is_one_number_is_the_mean_over_its_nodes(folder: Path) -> None:
    """So that batches of graphs of several sizes have their shares."""
    (folder / "loss.py").write_text("from torch.nn.functional import cross_entropy as mean\n")
    path = spec(folder, "node")
    expected = load(path).loss_value
    for size in SIZES:
        problem = load(path, "loss={name: 'loss.py:mean'}", f"data.batch_size={size}")
        assert problem.loss_value == pytest.approx(expected, rel=1e-12)
        assert problem.examples == 12


@pytest.mark.parametrize("kind", ["GINE", "Transformer"])
def test_edge_attributes_against_finite_differences(folder: Path, kind: str) -> None:
    """Features 6: attributes and labels of nodes; 5: two attributes and three labels of edges."""
    path = folder / f"{kind}.yaml"
    path.write_text(
        f"model: {{class_path: 'model.py:build', init_args: {{kind: {kind}, features: 6, edge_features: 5}}}}\n"
        "data: {format: tudataset, path: TINY, batch_size: 5, inputs: "
        "{x: x, edge_index: edge_index, edge_attr: edge_attr, batch: batch}}\n"
    )
    problem = load(path)
    v = torch.randn(problem.n, dtype=torch.float64)
    v /= torch.linalg.vector_norm(v)
    step, gradients = 1e-5, []
    with problem.displacing() as displace:
        for side in (step, -step):
            displace(problem.unflatten(v), side)
            gradients.append(sum(problem.batch_gradient(batch) for batch in problem.batches()) / problem.weight)
    difference = (gradients[0] - gradients[1]) / (2 * step)
    assert relative(HessianOperator(problem).matvec(v), difference) < 1e-6
    other = load(path, "data.batch_size=1")
    assert relative(HessianOperator(other).matvec(v), HessianOperator(problem).matvec(v)) < 1e-10


@pytest.mark.parametrize("task", ["graph", "node"])
def test_an_audit_on_the_command_line(folder: Path, task: str) -> None:
    path = spec(folder, task, "OfABatch")
    result = CliRunner().invoke(app, ["audit", str(path), "--json", "--out", str(folder / "report.json"), "--quiet"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    problem = load(path)
    eigenvalues = torch.linalg.eigvalsh(dense_hessian(problem))
    assert report["data"]["examples"] == 12
    assert report["data"]["weight"] == problem.weight
    assert report["loss"] == pytest.approx(problem.loss_value, rel=1e-5)
    assert report["eigenvalues"]["largest"][0]["value"] == pytest.approx(float(eigenvalues[-1]), rel=1e-2)


# -- live batches of PyTorch Geometric -------------------------------------------------------------------------


def data_objects(graphs: list[Graph], **changed: Any) -> list[Any]:
    data = graph_files.torch_geometric.data.Data
    return [
        data(
            x=torch.from_numpy(graph.attributes),
            edge_index=torch.from_numpy(graph.edges.T.copy()),
            y=torch.tensor([graph.label], dtype=torch.int32),
            **changed,
        )
        for graph in graphs
    ]


def batched(objects: list[Any], size: int) -> list[Any]:
    join = graph_files.torch_geometric.data.Batch.from_data_list
    return [join(objects[start : start + size]) for start in range(0, len(objects), size)]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = graph_files.torch_geometric.nn.GCNConv(2, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, data: Any) -> Tensor:
        adjacency = data.adj_t if "adj_t" in data else data.edge_index
        data.x = torch.tanh(self.convolution(data.x, adjacency))
        return self.head(graph_files.torch_geometric.nn.global_mean_pool(data.x, data.batch))


def fingerprint(objects: list[Any], size: int = 5) -> str:
    return Problem(Network(), "cross_entropy", batched(objects, size)).data_info.fingerprint


def test_batches_are_left_as_they_were(graphs: list[Graph]) -> None:
    """Cast to float64 and int64 for the model, whose forward puts other features into its batch."""
    batches = batched(data_objects(graphs), 5)
    held = [dict(batch.to_dict()) for batch in batches]
    contents = [{name: tensor.clone() for name, tensor in one.items()} for one in held]
    problem = Problem(Network().double(), "cross_entropy", batches)
    HessianOperator(problem).matvec(torch.ones(problem.n, dtype=torch.float64))
    for batch, tensors, content in zip(batches, held, contents, strict=True):
        assert set(batch.to_dict()) == set(tensors)
        for name, tensor in batch.to_dict().items():
            assert tensor is tensors[name]
            assert tensor.dtype is content[name].dtype
            assert torch.equal(tensor, content[name])


def test_the_fingerprint_of_graphs(graphs: list[Graph]) -> None:
    """It sees every value, edge, node and target, and the order; it does not see the split."""
    assert len({fingerprint(data_objects(graphs), size) for size in (1, 2, 5, 12)}) == 1
    changed = [data_objects(graphs) for _ in range(6)]
    changed[1][3].x = changed[1][3].x.nextafter(torch.tensor(9.0))
    changed[2][3].edge_index = changed[2][3].edge_index.flip(1)
    changed[3][3].y = (changed[3][3].y + 1) % 3
    changed[4][3], changed[4][4] = changed[4][4], changed[4][3]
    changed[5] = data_objects(graphs, weight=torch.ones(1))
    moved = data_objects(graphs)  # the isolated node goes over to the next graph
    row = moved[4].x[-1:]
    moved[4].x, moved[5].x = moved[4].x[:-1], torch.cat([row, moved[5].x])
    moved[5].edge_index = moved[5].edge_index + 1
    assert len({fingerprint(objects) for objects in [*changed, moved]}) == 7


def test_the_fingerprint_sees_what_was_added_to_a_batch(graphs: list[Graph]) -> None:
    prints = []
    for value in (0.0, 1.0):
        batches = batched(data_objects(graphs), 5)
        for batch in batches:
            batch.weight = torch.full((batch.num_graphs,), value)
        prints.append(Problem(Network(), "cross_entropy", batches).data_info.fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:Converting sparse tensor:UserWarning")
def test_sparse_adjacencies(graphs: list[Graph], layout: torch.layout) -> None:
    """torch's sparse matrices in place of lists of edges: the same numbers, and fingerprints that see them."""
    problems = {}
    for size in (1, 5, 12):
        objects = data_objects(graphs)
        for item, graph in zip(objects, graphs, strict=True):
            del item.edge_index
            item.adj_t = torch.from_numpy(graph.adjacency()).float().to_sparse(layout=layout)
        torch.manual_seed(1)
        problems[size] = Problem(Network().double(), "cross_entropy", batched(objects, size))
    torch.manual_seed(1)
    expected = Problem(Network().double(), "cross_entropy", batched(data_objects(graphs), 5))
    v = torch.randn(expected.n, dtype=torch.float64)
    product = HessianOperator(expected).matvec(v)
    for problem in problems.values():
        assert problem.loss_value == pytest.approx(expected.loss_value, rel=1e-12)
        assert relative(HessianOperator(problem).matvec(v), product) < 1e-10
    assert len({problem.data_info.fingerprint for problem in problems.values()}) == 1
    objects[3].adj_t = (objects[3].adj_t.to_dense() * 2).to_sparse(layout=layout)
    assert fingerprint(objects) != problems[1].data_info.fingerprint


def test_the_fingerprint_of_graphs_with_several_kinds_of_nodes() -> None:
    def paper_and_author(value: int) -> Any:
        data = graph_files.torch_geometric.data.HeteroData()
        data["paper"].x, data["author"].x = torch.full((2, 2), float(value)), torch.ones(3, 2)
        data["author", "writes", "paper"].edge_index = torch.tensor([[0, 2], [1, 1]])
        data.y = torch.tensor([int(value) % 3])
        return data

    class Papers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, data: Any) -> Tensor:
            return self.head(data["paper"].x.reshape(-1, 2, 2).mean(1))

    objects = [paper_and_author(value) for value in range(5)]
    problems = [Problem(Papers().double(), "cross_entropy", batched(objects, size)) for size in (1, 2, 5)]
    assert len({problem.data_info.fingerprint for problem in problems}) == 1
    objects[3]["author", "writes", "paper"].edge_index[1, 0] = 0
    other = Problem(Papers().double(), "cross_entropy", batched(objects, 5))
    assert other.data_info.fingerprint != problems[0].data_info.fingerprint


def test_one_graph_without_a_batch(graphs: list[Graph]) -> None:
    """A node classifier on a single graph, as Cora."""

    class Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = graph_files.torch_geometric.nn.GCNConv(2, 4)

        def forward(self, data: Any) -> Tensor:
            return self.convolution(data.x, data.edge_index)

    graph = graphs[0]
    (item,) = data_objects([graph])
    item.y = torch.from_numpy(graph.labels)
    model = Nodes()
    problem = Problem(model, "cross_entropy", [item])
    assert problem.loss_value == pytest.approx(F.cross_entropy(model(item), item.y).item(), rel=1e-6)


class Dropping(Network):
    def forward(self, data: Any) -> Tensor:
        return F.dropout(super().forward(data), 0.5, training=True)


def test_a_random_graph_network_is_refused(graphs: list[Graph]) -> None:
    with pytest.raises(hessdiag.errors.MeasurementError, match="the model is random in the model"):
        Problem(Dropping(), "cross_entropy", batched(data_objects(graphs), 5))
