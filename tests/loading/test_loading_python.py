"""What a user's function returns: datasets, loaders and batches become the same problem; the rest is told."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from hessdiag.cli.app import app
from hessdiag.errors import DataError, HessdiagError, UsageError
from hessdiag.problem import Problem

DATA = """\
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Subset, TensorDataset
from torch.utils.data import WeightedRandomSampler
from torch._utils import ExceptionWrapper

arrays = np.load("{folder}/data.npz")
X, Y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])


class Pairs(Dataset):
    def __init__(self, form="tuple", bad=None):
        self.form, self.bad = form, bad

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        if row == self.bad:
            raise ValueError(f"no picture number {{row}}")
        if self.form == "dict":
            return {{"input": X[row], "labels": int(Y[row])}}
        if self.form == "arrays":
            return X[row].numpy().astype("float64"), np.int16(Y[row])
        return X[row], Y[row]


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y)


class Anew:
    batch = "not the method of a data set"

    def __len__(self):
        return 3

    def __iter__(self):
        return zip(X.split(12), Y.split(12))


class FailingWorker:
    def __iter__(self):
        yield X, Y
        try:
            Pairs(bad=17)[17]
        except ValueError:  # what torch sends from a worker; to wait for a real one to end takes torch 5 seconds
            error = ExceptionWrapper(where="in DataLoader worker process 0")
        error.reraise()


class Headless(Dataset):
    def __getitem__(self, row):
        return X[row], Y[row]


class Endless(Pairs):
    def __len__(self):
        raise NotImplementedError("how should I know")


def read_once():
    yield X, Y


def build(kind, **options):
    return {{
        "dataset": Pairs,
        "dicts": lambda: Pairs("dict"),
        "numpy": lambda: Pairs("arrays"),
        "tensors": lambda: TensorDataset(X, Y),
        "subset": lambda: Subset(Pairs(), range(30)),
        "loader": lambda **o: DataLoader(Pairs(), batch_size=7, **o),
        "stream": Stream,
        "list": lambda: list(zip(X.split(12), Y.split(12))),
        "object": Anew,
        "random": lambda: TensorDataset(torch.randn(30, 4), Y),
        "ragged": lambda: [(X, Y[:7])],
        "bad example": lambda: Pairs(bad=17),
        "bad in a worker": FailingWorker,
        "shuffled": lambda: DataLoader(Pairs(), shuffle=True),
        "weighted": lambda: DataLoader(Pairs(), sampler=WeightedRandomSampler(torch.ones(30), 30)),
        "batches at random": lambda: DataLoader(
            Pairs(), batch_sampler=torch.utils.data.BatchSampler(RandomSampler(Pairs()), 4, False)
        ),
        "augmented": lambda: Augmented(),
        "generator": read_once,
        "map": lambda: map(tuple, [(X, Y)]),
        "nothing": lambda: None,
        "pair": lambda: (X, Y),
        "dict of splits": lambda: {{"train": Pairs(), "test": Pairs()}},
        "tensor": lambda: X,
        "class": lambda: Pairs,
        "number": lambda: 3,
        "headless": Headless,
        "endless": Endless,
        "empty": lambda: TensorDataset(X[:0], Y[:0]),
        "no batches": lambda: [],
        "lengths": lambda: Lengths(),
        "words": lambda: [("a", "b")],
    }}[kind](**options)


class Lengths(Pairs):
    def __getitem__(self, row):
        return X[row][: row % 4 + 1], Y[row]


class Augmented(Pairs):
    def __getitem__(self, row):
        return X[row] + torch.randn(4), Y[row]


def needs(root, split="train"):
    return Pairs()


def fails():
    raise FileNotFoundError("no folder images")


constant = 3
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    tiny.write(tmp_path)
    (tmp_path / "data.py").write_text(DATA.format(folder=tmp_path))
    path = tmp_path / "python.yaml"
    path.write_text(
        "model: {class_path: 'model.py:build', checkpoint: weights.safetensors}\n"
        "data:\n  format: python\n  path: data.py:build\n"
        "audit: {eigenvalues: {top: 1, bottom: 1}, trace: {rtol: 0.5}, gap: {sigma: [0.01], draws: 2}}\n"
    )
    return path


def load(spec: Path, kind: str, *overrides: str) -> Problem:
    return tiny.load(spec, f"data.init_args={{kind: {kind}}}", *overrides, dtype="float64")


def refused(kind: type[HessdiagError], spec: Path, *overrides: str) -> str:
    with pytest.raises(kind) as caught:
        tiny.load(spec, *overrides)
    return str(caught.value)


SAME = {
    "dataset": 1,
    "dicts": 1,
    "numpy": 1,
    "tensors": 1,
    "subset": 1,
    "loader": 5,
    "stream": 1,
    "list": 3,
    "object": 3,
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_problem_whatever_is_returned(spec: Path, kind: str) -> None:
    expected = tiny.load(spec.parent / "audit.yaml", dtype="float64")
    problem = load(spec, kind)
    assert problem.loss_value == pytest.approx(expected.loss_value, rel=1e-14)
    assert problem.data_info.batches == SAME[kind]
    assert problem.examples == tiny.EXAMPLES
    same_form = kind not in ("dicts", "numpy")  # another name, or another type
    assert (problem.data_info.fingerprint == expected.data_info.fingerprint) == same_form


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_the_spec_says_the_batch_size_of_examples(spec: Path, kind: str) -> None:
    assert load(spec, kind, "data.batch_size=12").data_info.batches == 3


def test_a_subset_is_that_of_other_formats(spec: Path) -> None:
    chosen = ["data.max_examples=9", "data.seed=2"]
    expected = tiny.load(spec.parent / "audit.yaml", *chosen)
    problem = load(spec, "dataset", *chosen)
    assert problem.examples == 9
    assert problem.data_info.fingerprint == expected.data_info.fingerprint


def test_what_is_random_in_the_function_is_the_same_every_time(spec: Path) -> None:
    torch.manual_seed(1)
    first = load(spec, "random").data_info.fingerprint
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert load(spec, "random").data_info.fingerprint == first
    assert torch.equal(torch.get_rng_state(), before)


def test_an_audit_on_the_command_line(spec: Path) -> None:
    args = ["audit", str(spec), "--set", "data.init_args={kind: loader}", "--json", "--quiet"]
    result = CliRunner().invoke(app, [*args, "--out", str(spec.parent / "report.json")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["data"]["batches"] == 5


# -- workers ---------------------------------------------------------------------------------------------------

forking = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")


@pytest.mark.parametrize("start", ["spawn", pytest.param("fork", marks=forking)])
def test_workers(spec: Path, start: str) -> None:
    """Those that start anew cannot import the user's file, and are done without."""
    options = f"num_workers: 2, timeout: 60, multiprocessing_context: {start}"
    problem = tiny.load(spec, f"data.init_args={{kind: loader, {options}}}", dtype="float64")
    assert problem.loss_value == pytest.approx(load(spec, "loader").loss_value, rel=1e-14)


def test_an_error_in_a_worker_is_one_line(spec: Path) -> None:
    message = refused(DataError, spec, "data.init_args={kind: bad in a worker}")
    told = "ValueError: no picture number 17 (in a DataLoader's worker)"
    assert message == f"the data could not be read, at batch 0 or the next: {told}"


# -- what is refused -------------------------------------------------------------------------------------------

EXPECTED = "expected a Dataset, a DataLoader, or batches that can be read again (a list of them)"
RETURNED = {
    "generator": f"a generator, which can be read once, {EXPECTED}: put the batches in a list, or give an object with",
    "map": f"a map, which can be read once, {EXPECTED}",
    "nothing": f"nothing, {EXPECTED}: see that it ends in a return",
    "pair": f"a tuple of arrays, {EXPECTED}: return torch.utils.data.TensorDataset(inputs, targets)",
    "dict of splits": f"a dict with train, test, {EXPECTED}: return one of them",
    "tensor": f"a Tensor, {EXPECTED}",
    "class": f"a type, {EXPECTED}",
    "number": f"a int, {EXPECTED}",
    "headless": f"a Headless without __len__, {EXPECTED}: give it one",
    "shuffled": "a DataLoader that takes its examples at random (RandomSampler), expected the same order on every pass",
    "weighted": "a DataLoader that takes its examples at random (WeightedRandomSampler), expected the same order",
    "batches at random": "a DataLoader that takes its examples at random (RandomSampler)",
}


@pytest.mark.parametrize("kind", RETURNED)
def test_what_holds_no_data_that_can_be_measured(spec: Path, kind: str) -> None:
    message = refused(UsageError, spec, f"data.init_args={{kind: {kind}}}")
    assert message.startswith(f"data.path: data.py:build returned {RETURNED[kind]}"), message


FAILING = {
    "bad example": "data.path: data.py:build: example 17 failed: ValueError: no picture number 17",
    "endless": "data.path: data.py:build: its length is not known: NotImplementedError: how should I know",
    "empty": "data: data.py:build holds no examples, expected at least one",
    "no batches": "the data hold no examples, expected at least one",
    "lengths": "data.path: data.py:build: its examples cannot be put together as a batch (RuntimeError: stack expects",
    "words": "batch 0: found no tensor in it to count its examples by",
    "augmented": "the data change from one pass to the next",
}


@pytest.mark.parametrize("kind", FAILING)
def test_data_that_fail(spec: Path, kind: str) -> None:
    message = refused(DataError, spec, f"data.init_args={{kind: {kind}}}")
    assert message.startswith(FAILING[kind]), message


def test_functions_that_fail(spec: Path) -> None:
    message = refused(HessdiagError, spec, "data.path=data.py:fails")
    assert message == "data.path: data.py:fails() failed: FileNotFoundError: no folder images"
    message = refused(HessdiagError, spec, "data.path=data.py:needs")
    assert "data.py:needs() failed: TypeError: needs() missing 1 required positional argument: 'root'" in message
    message = refused(UsageError, spec, "data.path=data.py:constant")
    assert message.startswith("data.path: data.py:constant is a int, expected a function that returns a Dataset")
    message = refused(UsageError, spec, "data.path=data.py:bild")
    assert message.startswith("data.path: found no 'bild' in data.py, expected one of: build")


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("loader", "a DataLoader of batch size 7"), ("list", "a list"), ("object", "a Anew")],
)
def test_a_size_or_a_subset_of_what_comes_in_batches(spec: Path, kind: str, shown: str) -> None:
    chosen = f"data.init_args={{kind: {kind}}}"
    assert refused(UsageError, spec, chosen, "data.batch_size=8") == (
        f"data.batch_size: found 8 with a function that returns {shown}, which is batched already: leave it out, "
        "or let the function take it (data.init_args)"
    )
    message = refused(UsageError, spec, chosen, "data.max_examples=8")
    assert message.startswith("data.max_examples: found with a function that returns batches")


def test_the_place_of_a_fault_on_the_command_line(spec: Path) -> None:
    result = CliRunner().invoke(app, ["audit", str(spec), "--set", "data.init_args={kind: shuffled}"])
    assert result.exit_code == 2
    assert "python.yaml:4:9: data.path: data.py:build returned a DataLoader that takes" in " ".join(
        result.stderr.split()
    )


# -- other libraries' datasets ---------------------------------------------------------------------------------


def test_a_hugging_face_dataset(spec: Path) -> None:
    """Of its lists of numbers, as a tokenizer gives them, tensors (B, T)."""
    pytest.importorskip("datasets", reason="datasets is not installed (extra: hf)")
    code = """\
import datasets
from data import X, Y

def build(count=30):
    return datasets.Dataset.from_dict({"input": X[:count].tolist(), "labels": Y[:count].tolist()})

def splits():
    return datasets.DatasetDict(train=build(), test=build())
"""
    (spec.parent / "hf.py").write_text(code)
    problem = tiny.load(spec, "data.path=hf.py:build", "data.batch_size=8", dtype="float64")
    assert problem.loss_value == pytest.approx(load(spec, "dataset").loss_value, rel=1e-12)
    assert problem.data_info.batches == 4
    message = refused(UsageError, spec, "data.path=hf.py:splits")
    assert message.startswith("data.path: hf.py:splits returned a DatasetDict with train, test, expected a Dataset")


GRAPHS = """\
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = GCNConv(2, 3), nn.Linear(3, 2)

    def forward(self, data):
        return self.head(global_mean_pool(torch.tanh(self.convolution(data.x, data.edge_index)), data.batch))


class Graphs(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, row):
        x = torch.arange(2.0 * row + 4).reshape(-1, 2).sin()
        edges = torch.tensor([[0, 1], [1, 0]])
        return Data(x=x, edge_index=edges, y=torch.tensor([row % 2]))


def objects():
    dataset = Graphs()
    return [dataset[row] for row in range(len(dataset))]


def loader():
    return DataLoader(Graphs(), batch_size=4)
"""


def test_graphs_of_pytorch_geometric(spec: Path) -> None:
    """A dataset of graphs, a list of them and PyTorch Geometric's own loader."""
    pytest.importorskip("graph_files")
    (spec.parent / "graphs.py").write_text(GRAPHS)
    model = ["model.class_path=graphs.py:Network", "model.checkpoint=null"]
    problems = [
        tiny.load(spec, *model, "data.path=graphs.py:Graphs", "data.batch_size=4", dtype="float64"),
        tiny.load(spec, *model, "data.path=graphs.py:objects", "data.batch_size=5", dtype="float64"),
        tiny.load(spec, *model, "data.path=graphs.py:loader", dtype="float64"),
    ]
    assert {problem.examples for problem in problems} == {6}
    assert {problem.data_info.batches for problem in problems} == {2}
    assert len({problem.data_info.fingerprint for problem in problems}) == 1
    assert [problem.loss_value for problem in problems] == pytest.approx([problems[0].loss_value] * 3, rel=1e-14)
    subset = tiny.load(spec, *model, "data.path=graphs.py:objects", "data.max_examples=3")
    assert subset.examples == 3
