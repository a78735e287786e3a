"""The same 23 examples in every form that data come in; the target of each is its number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import texts
import torch
from torch.utils.data import Dataset, TensorDataset

from hessdiag.loading.datasets import load_data
from hessdiag.loading.datasets.arrays import ArrayExamples
from hessdiag.loading.datasets.examples import Batches
from hessdiag.loading.datasets.python import DatasetExamples
from hessdiag.problem.batches import Batch, Fingerprint
from hessdiag.spec import data as specs

EXAMPLES = 23
READ_BY = 5  # the batch size of the data's own section
X = torch.randn(EXAMPLES, 4, generator=torch.Generator().manual_seed(3))
Y = torch.arange(EXAMPLES)


def examples(count: int = EXAMPLES, rows: np.ndarray | None = None) -> Batches:
    """Of two inputs each; the target is the number."""
    numbers = torch.arange(count)
    return Batches(ArrayExamples(torch.stack([numbers, -numbers], 1).float(), numbers), rows, READ_BY)


def numbers_in(batch: Batch) -> list[int]:
    return [int(number) for number in batch.targets]


def fingerprint(batch: Batch) -> str:
    """Of what a batch holds, whatever it was put together with."""
    found = Fingerprint()
    found.add(batch)
    return found.digest()


def _load(folder: Path, kind: type[specs.CommonData], **options: Any) -> Any:
    return load_data(kind.model_validate({"batch_size": READ_BY, **options}), lambda name: folder / name)


def _arrays(folder: Path, inputs: Any, **options: Any) -> Any:
    np.savez(folder / "data.npz", x=X.numpy(), z=X[:, :1].numpy(), y=Y.numpy())
    return _load(folder, specs.NpzData, format="npz", path="data.npz", inputs=inputs, targets="y", **options)


def _mapped(folder: Path) -> Any:
    (folder / "arrays").mkdir()
    np.save(folder / "arrays/x.npy", X.numpy())
    np.save(folder / "arrays/y.npy", Y.numpy())
    return _load(folder, specs.NpzData, format="npz", path="arrays", inputs="x", targets="y")


def _table() -> dict[str, Any]:
    return {**dict(zip("abcd", X.T.tolist(), strict=True)), "y": Y.tolist()}


def _csv(folder: Path) -> Any:
    rows = [",".join(map(str, row)) for row in zip(*_table().values(), strict=True)]
    (folder / "data.csv").write_text("\n".join(["a,b,c,d,y", *rows]))
    return _load(folder, specs.CsvData, format="csv", path="data.csv", targets="y")


def _parquet(folder: Path) -> Any:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pq.write_table(pa.table(_table()), folder / "data.parquet", row_group_size=4)
    return _load(folder, specs.ParquetData, format="parquet", path="data.parquet", targets="y")


def _numbers(folder: Path) -> Any:
    texts.write_lines(folder / "data.jsonl", [{"x": x.tolist(), "y": int(y)} for x, y in zip(X, Y, strict=True)])
    return _load(folder, specs.JsonlData, format="jsonl", path="data.jsonl", inputs="x", targets="y")


def _tokens(folder: Path) -> Any:
    """Texts of 1 to 7 tokens, padded to the longest of a batch."""
    lengths = [1 + number * 5 % 7 for number in range(EXAMPLES)]
    records = [{"t": [*range(1, n + 1)], "m": [1] * n, "y": number} for number, n in enumerate(lengths)]
    texts.write_lines(folder / "data.jsonl", records)
    inputs = {"input_ids": "t", "attention_mask": "m"}
    return _load(folder, specs.JsonlData, format="jsonl", path="data.jsonl", inputs=inputs, targets="y")


def _hugging_face(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()}).save_to_disk(str(folder / "hf"))
    return _load(folder, specs.HfData, format="hf", path="hf", inputs="x", targets="y")


def _pictures(folder: Path) -> Any:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    random = np.random.default_rng(0)
    for number in range(EXAMPLES):
        (folder / f"pictures/{number:02}").mkdir(parents=True)
        pixels = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        image.fromarray(pixels).save(folder / f"pictures/{number:02}/picture.png")
    return _load(folder, specs.ImageFolderData, format="imagefolder", path="pictures")


def _graphs(folder: Path, **options: Any) -> Any:
    import graph_files

    graphs = graph_files.random_graphs(EXAMPLES)
    for number, graph in enumerate(graphs):
        graph.label = number
    graph_files.write(folder / "graphs", graphs)
    return _load(folder, specs.TUDatasetData, format="tudataset", path="graphs", **options)


class _Mappings(Dataset[Any]):
    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input": X[row], "labels": int(Y[row])}


def _dataset(dataset: Any) -> Batches:
    return Batches(DatasetExamples(dataset, "data.py:build"), None, READ_BY)


FORMS: dict[str, Callable[[Path], Any]] = {
    "tensor": lambda folder: _arrays(folder, "x"),
    "tuple": lambda folder: _arrays(folder, ["x", "z"]),
    "mapping": lambda folder: _arrays(folder, {"one": "x", "two": "z"}),
    "subset": lambda folder: _arrays(folder, "x", max_examples=17, seed=4),
    "mapped": _mapped,
    "csv": _csv,
    "parquet": _parquet,
    "jsonl": _numbers,
    "tokens": _tokens,
    "hf": _hugging_face,
    "pictures": _pictures,
    "graphs": _graphs,
    "attributes of graphs": lambda folder: _graphs(folder, inputs={"x": "x", "index": "batch"}),
    "dataset": lambda _: _dataset(TensorDataset(X, Y)),
    "dataset of mappings": lambda _: _dataset(_Mappings()),
}
"""By form, what ``load_data`` makes of it in an empty folder."""
