"""Data of every format: not there, damaged, of another kind, or not what the spec says of them."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from error_cases import of_data, provoke, write_files
from safetensors.torch import save_file

NPZ = "format: npz, path: data.npz, inputs: x, targets: y"
SAFETENSORS = NPZ.replace("npz", "safetensors")
X, Y = tiny.arrays().values()


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "data.npz", **{**tiny.arrays(), **arrays})


def npy(array: np.ndarray, **options: Any) -> bytes:
    raw = io.BytesIO()
    np.save(raw, array, **options)
    return raw.getvalue()


def npz_of(*records: tuple[str, bytes], **options: Any) -> dict[str, bytes]:
    raw = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(raw, "w", **options) as archive:
        warnings.simplefilter("ignore")  # of several records of one name
        for name, content in records:
            archive.writestr(name, content)
    return {"data.npz": raw.getvalue()}


def npy_header(shape: str, version: int = 1) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def arrays(title: str, data: str, files: Any, **about: Any) -> None:
    of_data(title, data, files, family="arrays", **about)


arrays("npz: no such array", NPZ.replace("inputs: x", "inputs: z"), npz())
arrays("npz: no archive", NPZ, {"data.npz": b"text"})
arrays("npz: empty", NPZ, {"data.npz": b""})
arrays("npz: a bare array", NPZ, {"data.npz": npy(X)})
arrays("npz: Python objects", NPZ, npz(y=np.array([{}] * 30, object)))
arrays("npz: texts", NPZ, npz(y=np.array(["a"] * 30)))
arrays("npz: records", NPZ, npz(y=np.zeros(30, [("é", "f4")])))
arrays("npz: a single number", NPZ, npz(x=np.float32(3)))
arrays("npz: several lengths", NPZ, npz(y=Y[:20]))
arrays("npz: no examples", NPZ, npz(x=X[:0], y=Y[:0]))
arrays("npz: a number beyond int64", NPZ, npz(y=np.full(30, 2**64 - 1, np.uint64)))
arrays("npz: several of one name", NPZ, npz_of(("x.npy", npy(X)), ("x.npy", npy(X)), ("y.npy", npy(Y))))
arrays("npz: cut short", NPZ, npz_of(("x.npy", npy(X)[:-4]), ("y.npy", npy(Y))))
arrays("npz: a shape that no file has", NPZ, npz_of(("x.npy", npy_header("(1000000000, 4000)")), ("y.npy", npy(Y))))
arrays("npz: a bomb", NPZ, lambda folder: write_bomb(folder / "data.npz"), varying=r"(?<=from )\d+(?= bytes)")
arrays("npy: no such array", "format: npz, path: sets, inputs: x, targets: y", {"sets/a.npy": npy(X)})
arrays(
    "npy: of another version",
    "format: npz, path: sets, inputs: x, targets: y",
    {"sets/x.npy": npy_header("(2,)", 3), "sets/y.npy": npy(Y)},
)
arrays(
    "npy: no array",
    "format: npz, path: sets, inputs: x, targets: y",
    {"sets/x.npy": b"text", "sets/y.npy": npy(Y)},
    varying=r"(?<=files \().*(?=\): it was)",
)
arrays(
    "safetensors: no such tensor",
    SAFETENSORS.replace("inputs: x", "inputs: z"),
    lambda folder: save_file({"x": torch.ones(3, 4)}, folder / "data.safetensors"),
)
arrays(
    "safetensors: cut short",
    SAFETENSORS,
    {"data.safetensors": struct.pack("<Q", 40) + b"{}"},
    varying=r"(?<=bytes \().*?(?=\): it was)",
)


def write_bomb(path: Path) -> None:
    """1.2 GB of zeros in a megabyte, as both headers say."""
    import zlib

    count = 300_000_000
    head = npy_header(f"({count // 4}, 4)")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH) + packer.flush()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", npy(Y))
        archive.writestr("x.npy", packed)
        begin = archive.getinfo("x.npy").header_offset
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    for place in (begin + 8, central + 10):
        struct.pack_into("<H", content, place, zipfile.ZIP_DEFLATED)
    for place in (begin + 22, central + 24):
        struct.pack_into("<I", content, place, len(head) + 4 * count)
    path.write_bytes(content)


# -- images ------------------------------------------------------------------------------------------------

IDX = "format: idx, split: test, path: sets"
IMAGES, LABELS = "sets/t10k-images-idx3-ubyte", "sets/t10k-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


PIXELS = np.zeros((6, 5, 4))
GOOD = {IMAGES: idx(PIXELS), LABELS: idx(np.zeros(6))}


def images(title: str, data: str, files: Any, **about: Any) -> None:
    of_data(title, data, files, family="images", **about)


images("idx: no files of the split", IDX, {"sets/train-images-idx3-ubyte": b"x"})
images("idx: no such file", f"{IDX}, inputs: images", GOOD)
images("idx: something else", IDX, {**GOOD, IMAGES: b"<html>"})
images("idx: cut in its header", IDX, {**GOOD, IMAGES: GOOD[IMAGES][:9]})
images("idx: cut short", IDX, {**GOOD, IMAGES: GOOD[IMAGES][:-1]})
images("idx: longer than it says", IDX, {f"{IMAGES}.gz": gzip.compress(GOOD[IMAGES] + b"x"), LABELS: GOOD[LABELS]})
images("idx: gzipped and cut short", IDX, {f"{IMAGES}.gz": gzip.compress(GOOD[IMAGES])[:-12], LABELS: GOOD[LABELS]})
images(
    "idx: gzipped, and no file could hold it",
    IDX,
    {f"{IMAGES}.gz": gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12), LABELS: GOOD[LABELS]},
    varying=r"(?<=at most )\d+",
)
images("idx: as many axes as labels have", IDX, {**GOOD, IMAGES: idx(np.zeros(6))})
images("idx: other numbers of images and labels", IDX, {**GOOD, LABELS: idx(np.zeros(5))})
images("idx: means of another number of channels", f"{IDX}, mean: [0.1, 0.2]", GOOD)

CIFAR = "format: cifar, split: test, path: sets"
RECORD = bytes(1 + 3072)


def batch(**changed: Any) -> dict[str, bytes]:
    content = {b"labels": [1, 2], b"data": np.zeros((2, 3072), np.uint8)}
    content |= {name.encode(): item for name, item in changed.items()}
    return {"sets/test_batch": pickle.dumps(content, 2)}


class Opens:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


def tarred(files: dict[str, bytes]) -> dict[str, bytes]:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"sets.tar.gz": gzip.compress(raw.getvalue())}


def twice() -> dict[str, bytes]:
    return tarred({"a/test_batch.bin": RECORD, "b/test_batch.bin": RECORD})


def large_member() -> dict[str, bytes]:
    member = tarfile.TarInfo("test_batch.bin")
    member.size = 10**9
    return {"sets.tar": member.tobuf() + bytes(1024)}


def swollen(folder: Path) -> None:
    """A tar file with a link's name of a gigabyte, gzipped."""
    member = tarfile.TarInfo("long")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 600 << 20
    zeros = gzip.compress(bytes(1 << 24), mtime=0)  # as many gzipped files in a row are one
    (folder / "sets.tar.gz").write_bytes(gzip.compress(member.tobuf(), mtime=0) + zeros * 38)


TAR = CIFAR.replace("sets", "sets.tar.gz")
images("cifar: no files", CIFAR, {"sets/readme.txt": b"x"})
images(
    "cifar: two sets in one folder",
    CIFAR,
    {"sets/cifar-10-batches-bin/test_batch.bin": RECORD, "sets/cifar-100-binary/test.bin": RECORD},
)
images("cifar: no archive", TAR, {"sets.tar.gz": b"text"}, varying=r"(?<=archive \().*(?=\): it was)")
images("cifar: an archive with two of a file", TAR, twice())
images("cifar: an archive with a file of 1 GB", CIFAR.replace("sets", "sets.tar"), large_member())
images("cifar: an archive that swells", TAR, swollen)
images("cifar: an archive of many files", TAR, tarred({f"{number}": b"" for number in range(1001)}))
images("cifar: a file cut short", CIFAR, {"sets/test_batch.bin": RECORD[:-1]})
images("cifar: a label beyond the classes", CIFAR, {"sets/test_batch.bin": b"\x0b" + RECORD[1:]})
images("cifar: labels that it has not", f"{CIFAR}, labels: coarse", {"sets/test_batch.bin": RECORD})
images("cifar: a payload", CIFAR, batch(evil=Opens()))
images("cifar: an opcode that builds objects", CIFAR, {"sets/test_batch": b"\x80\x02c__main__\nX\n)\x81."})
images(
    "cifar: a pickle that is garbled",
    CIFAR,
    {"sets/test_batch": b"\x80\x02}q"},
    varying=r"(?<=batch \().*(?=\): it is)",
)
images("cifar: a pickle of a list", CIFAR, {"sets/test_batch": pickle.dumps([1], 2)})
images("cifar: a pickle that numbers a billion objects", CIFAR, {"sets/test_batch": b"\x80\x02}r\xff\xff\xff\x3f."})
images("cifar: a pickle of tuples of tuples", CIFAR, {"sets/test_batch": b"\x80\x02" + b")" + b"\x85" * 30 + b"."})
images("cifar: a batch without pixels", CIFAR, batch(data=3))
images("cifar: a batch without labels", CIFAR, batch(labels="x"))
images("cifar: pixels of another type", CIFAR, batch(data=np.zeros((2, 3072))))
images(
    "cifar: pixels of another number",
    CIFAR,
    {
        "sets/test_batch": batch()["sets/test_batch"].replace(
            struct.pack("<BH", 0x4D, 3072), struct.pack("<BH", 0x4D, 3073)
        )
    },
)

FOLDER = "format: imagefolder, path: sets"


def picture(width: int = 4, height: int = 4) -> bytes:
    from PIL import Image

    raw = io.BytesIO()
    Image.new("RGB", (width, height)).save(raw, "png")
    return raw.getvalue()


def pictures(title: str, files: Callable[[], dict[str, Any]], data: str = FOLDER, **about: Any) -> None:
    def write(folder: Path) -> None:
        (folder / "sets").mkdir()
        for name, content in files().items():
            if callable(content):
                content(folder / "sets" / name)
            else:
                write_files(folder, {f"sets/{name}": content})

    of_data(f"imagefolder: {title}", data, write, family="pictures", needs="PIL", **about)


def made(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def pipe(path: Path) -> None:
    made(path.parent)
    os.mkfifo(path)


def huge(path: Path) -> None:
    """A header that says 60,000 x 60,000."""
    made(path.parent)
    content = bytearray(picture())
    struct.pack_into(">II", content, 16, 60_000, 60_000)
    import zlib

    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)


pictures("no folders", dict)
pictures("pictures, and no folders", lambda: {"a.png": picture()})
pictures("splits", lambda: {"train/a.png": picture(), "val/a.png": picture()})
pictures("no such split", lambda: {"train/cat/a.png": picture()}, f"{FOLDER}, split: val")
pictures("a folder without pictures", lambda: {"cat/a.png": picture(), "dog": made})
pictures("several sizes", lambda: {"cat/a.png": picture(), "cat/b.png": picture(5, 4)})
pictures("an empty file", lambda: {"cat/a.png": b""})
pictures("a Git LFS pointer", lambda: {"cat/a.png": b"version https://git-lfs.github.com/spec/v1\n"})
pictures("no picture", lambda: {"cat/a.png": b"<html></html>"})
pictures("a damaged picture", lambda: {"cat/a.png": picture()[:48]}, varying=r"(?<=picture \().*(?=\): copy)")
pictures("a picture of billions of pixels", lambda: {"cat/a.png": huge})
pictures("a pipe", lambda: {"cat/a.png": pipe})
pictures("a link to nowhere", lambda: {"cat/a.png": lambda path: (made(path.parent), path.symlink_to("none"))})
pictures(
    "resized to billions of pixels", lambda: {"cat/a.png": picture(40, 2)}, f"{FOLDER}, transform: {{resize: 90000}}"
)

# -- tables ------------------------------------------------------------------------------------------------

CSV = "format: csv, path: data.csv, targets: y"
HEAD = "a,b,c,d,y\n"
ROW = "1,2,3,4,0\n"


def table(title: str, text: str | bytes, data: str = CSV, **about: Any) -> None:
    of_data(f"csv: {title}", data, {"data.csv": text}, family="tables", **about)


table("empty", "")
table("no rows", HEAD)
table("not UTF-8", HEAD.encode() + b"\xff,2,3,4,0\n")
table("a row of another length", HEAD + "1,2,3,0\n")
table("a quote that is not closed", HEAD + '"1,2,3,4,0\n', varying=r"(?<=table \().*?(?=\): see)")
table("a line of many characters", HEAD + "1" * (2**24 + 1))
table("no number", HEAD + "1,2,x,4,0\n")
table("an empty cell", HEAD + "1,2,,4,0\n")
table("words without classes", HEAD + "1,2,3,4,cat\n1,2,3,4,dog\n")
table("a word that is no class", HEAD + "1,2,3,4,cat\n", f"{CSV}, classes: [dog, cow]")
table("no such column", HEAD + ROW, CSV.replace("targets: y", "targets: label"))
table("a column's name almost", HEAD + ROW, f"{CSV}, inputs: [a, bb]")
table("another delimiter", HEAD.replace(",", ";") + ROW.replace(",", ";"))
table("two columns of one name", "a,a,c,d,y\n" + ROW, f"{CSV}, inputs: a")
table("a column named twice", HEAD + ROW, f"{CSV}, inputs: [a, a]")
table("an index of pandas", "," + HEAD + "0," + ROW)
table("nothing but targets", "y\n0\n")


def parquet(
    title: str, columns: Callable[[], dict[str, Any]], data: str = "inputs: [a], targets: y", **about: Any
) -> None:
    def write(folder: Path) -> None:
        import pyarrow
        from pyarrow import parquet as library

        library.write_table(pyarrow.table(columns()), folder / "data.parquet")

    of_data(
        f"parquet: {title}",
        f"format: parquet, path: data.parquet, {data}",
        write,
        family="parquet",
        needs="pyarrow",
        **about,
    )


def two_files(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet as library

    (folder / "sets").mkdir()
    for name, kind in (("a", pyarrow.int64()), ("b", pyarrow.float32())):
        column = pyarrow.array([1, 2], kind)
        library.write_table(pyarrow.table({"a": column, "y": [0, 1]}), folder / "sets" / f"{name}.parquet")


SETS = "format: parquet, path: sets, inputs: [a], targets: y"
of_data("parquet: no files", SETS, lambda folder: (folder / "sets").mkdir(), family="parquet", needs="pyarrow")
of_data("parquet: files of several kinds", SETS, two_files, family="parquet", needs="pyarrow")
of_data(
    "parquet: no parquet",
    SETS.replace("sets", "data.parquet"),
    {"data.parquet": b"text"},
    family="parquet",
    needs="pyarrow",
    varying=r"(?<=file \().*(?=\): it was)",
)
parquet("no such column", lambda: {"b": [1.0], "y": [0]})
parquet("words in the inputs", lambda: {"a": ["x"], "y": [0]})
parquet("words in what is not named", lambda: {"a": ["x"], "y": [0]}, "targets: y")
parquet("dates as targets", lambda: {"a": [1.0], "y": np.array(["2020-01-01"], "M8[D]")})
parquet("words without classes", lambda: {"a": [1.0, 2.0], "y": ["cat", "dog"]})
parquet(
    "a word that is no class",
    lambda: {"a": [1.0, 2.0], "y": ["cat", "dog"]},
    "inputs: [a], targets: y, classes: [cat, cow]",
)
parquet("no value", lambda: {"a": [1.0, None], "y": [0, 1]})
parquet("not finite", lambda: {"a": [1.0, float("inf")], "y": [0, 1]})
parquet("lists of several lengths", lambda: {"a": [[1.0], [1.0, 2.0]], "y": [0, 1]})
parquet("a number beyond int64", lambda: {"a": [1.0], "y": np.array([2**63], np.uint64)})

# -- records -----------------------------------------------------------------------------------------------

JSONL = "format: jsonl, path: data.jsonl, inputs: x, targets: y"


def lines(*records: Any) -> str:
    return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)


def records(title: str, *content: Any, data: str = JSONL, **about: Any) -> None:
    text = content[0] if len(content) == 1 and isinstance(content[0], bytes) else lines(*content)
    of_data(f"jsonl: {title}", data, {"data.jsonl": text}, family="records", **about)


GOOD_RECORD = {"x": [1.0, 2.0, 3.0, 4.0], "y": 0}
TOKENS = "format: jsonl, path: data.jsonl, inputs: {input_ids: x}, targets: y"
records("empty", b"")
records("no JSON", GOOD_RECORD, "{x: 1}", varying=r"(?<=no JSON \().*(?=\), expected)")
records("not UTF-8", b"\xff\n")
records("brackets without end", "[" * 100_000)
records("a list", "[1, 2]")
records("a long line", b'{"x": "' + b"a" * 2**25)
records("no such field", GOOD_RECORD, data=JSONL.replace("inputs: x", "inputs: z"))
records("a field that is missing later", GOOD_RECORD, {"x": [1.0, 2.0, 3.0, 4.0]})
records("texts without a tokenizer", {"x": "a text", "y": 0})
records("words without classes", {"x": [1.0], "y": "cat"})
records("a word that is no class", {**GOOD_RECORD, "y": "cat"}, data=f"{JSONL}, classes: [dog, cow]")
records("nothing", {**GOOD_RECORD, "x": None})
records("ragged lists", {**GOOD_RECORD, "x": [[1], [1, 2]]})
records("not finite", {**GOOD_RECORD, "x": [1e400]})
records("other things in a list", {**GOOD_RECORD, "x": [1.0, "a"]})
records("a number of many digits", {**GOOD_RECORD, "y": 10**30})
records("another shape later", GOOD_RECORD, {**GOOD_RECORD, "x": [1.0]})
records("tokens that are no whole numbers", GOOD_RECORD, data=TOKENS)
records("tokens of several lengths without a mask", {"x": [1, 2], "y": 0}, {"x": [1], "y": 0}, data=TOKENS)
records("tokens without any", {"x": 3, "y": 0}, data=TOKENS)
records(
    "a mask of another length",
    {"x": [1, 2], "m": [1, 1], "y": 0},
    {"x": [1], "m": [1, 1, 1], "y": 0},
    data=TOKENS.replace("x}", "x, attention_mask: m}"),
)


def write_words(folder: Path, limit: int | None = None) -> None:
    """A tokenizer of two words, and two texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "cat": 2, "dog": 3}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder / "words")


def texts(title: str, *content: Any, words: Callable[[Path], Any] = write_words, more: str = "", **about: Any) -> None:
    def write(folder: Path) -> None:
        words(folder)
        write_files(folder, {"data.jsonl": lines(*content)})

    of_data(
        f"texts: {title}",
        f"{JSONL}, tokenizer: words{more}",
        write,
        family="texts",
        needs="transformers tokenizers",
        **about,
    )


def damaged_words(folder: Path) -> None:
    write_words(folder)
    (folder / "words" / "tokenizer.json").write_text("{")


TEXT = {"x": "cat dog", "y": 0}
texts("no tokenizer", TEXT, words=lambda folder: (folder / "words").mkdir())
texts("a damaged tokenizer", TEXT, words=damaged_words, varying=r"(?<=read \().*(?=\): save)")
texts("no text", {"x": 3, "y": 0})
texts("half a letter", '{"x": "\\ud800", "y": 0}')
texts("no room for a text", TEXT, more=", max_length: 1")

HF = "format: hf, path: sets, inputs: x, targets: y"


def hf(title: str, write: Callable[[Path], Any], data: str = HF, **about: Any) -> None:
    def prepare(folder: Path) -> None:
        (folder / "sets").mkdir()
        write(folder / "sets")

    of_data(f"hf: {title}", data, prepare, family="datasets", needs="datasets", **about)


def save_to_disk(folder: Path, **columns: Any) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns or {"x": X.tolist(), "y": Y.tolist()}).save_to_disk(folder)


def splits(folder: Path) -> None:
    for name in ("train", "test"):
        write_files(folder, {f"{name}.jsonl": lines(GOOD_RECORD)})


def changed(name: str, **content: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_to_disk(folder)
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | content))

    return write


def cut_arrow(folder: Path) -> None:
    save_to_disk(folder)
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:200])


def with_pictures(folder: Path) -> None:
    import datasets

    features = datasets.Features({"x": datasets.Image(), "y": datasets.Value("int64")})
    datasets.Dataset.from_dict({"x": [None], "y": [0]}, features=features).save_to_disk(folder)


hf("nothing", lambda folder: None)
hf("a file of another name", lambda folder: (folder / "data.txt").write_text("x"), HF.replace("sets", "sets/data.txt"))
hf("several splits", splits)
hf("no such split", splits, f"{HF}, split: validation")
hf("a split of what has none", save_to_disk, f"{HF}, split: validation")
hf("files of several kinds", lambda folder: write_files(folder, {"train-a.jsonl": "{}", "train-b.csv": "x"}))
hf("files that are compressed", lambda folder: (folder / "train.jsonl").write_bytes(gzip.compress(b"{}")))
hf(
    "a list of splits that leads outside",
    lambda folder: (folder / "dataset_dict.json").write_text('{"splits": ["../x"]}'),
)
hf("files outside", changed("state.json", _data_files=[{"filename": "../x.arrow"}]))
hf("a state that is no JSON", lambda folder: (folder / "state.json").write_text("{"))
hf("cut short", cut_arrow, varying=r"(?<=read \().*(?=\): it is)")
hf("pictures", with_pictures)

# -- graphs ------------------------------------------------------------------------------------------------

TU = "format: tudataset, path: sets"
GRAPHS = {
    "T_A.txt": "1, 2\n2, 1\n3, 4\n4, 3\n",
    "T_graph_indicator.txt": "1\n1\n2\n2\n",
    "T_graph_labels.txt": "1\n2\n",
    "T_node_labels.txt": "0\n1\n0\n1\n",
}


def graphs(title: str, data: str = TU, **files: str | None) -> None:
    content = {**GRAPHS, **{f"{name.replace('__', '/')}.txt": text for name, text in files.items()}}
    kept = {f"sets/{name}": text for name, text in content.items() if text is not None}
    of_data(f"tudataset: {title}", data, kept or {"sets/readme": "x"}, family="graphs", needs="torch_geometric")


graphs("no files", T_A=None)
graphs("no such name", f"{TU}, name: COLLAB")
graphs("two data sets", U_A="1, 2\n")
graphs("no indicator", T_graph_indicator=None)
graphs("an empty indicator", T_graph_indicator="")
graphs("graphs out of order", T_graph_indicator="1\n2\n1\n2\n")
graphs("graphs from 0", T_graph_indicator="0\n0\n1\n1\n")
graphs("a graph without nodes", T_graph_indicator="1\n1\n3\n3\n")
graphs("an edge to a node that is not there", T_A="1, 2\n2, 9\n")
graphs("an edge between graphs", T_A="1, 3\n")
graphs("an edge of three nodes", T_A="1, 2, 3\n")
graphs("no number", T_A="1, x\n")
graphs("lines of several lengths", T_A="1, 2\n1\n")
graphs("other than text", T_A="1, 2\n\u00ff\n")
graphs("labels of another number", T_graph_labels="1\n")
graphs("no labels", T_graph_labels=None)
graphs("two labels on a line", T_graph_labels="1, 1\n2, 2\n")
graphs("attributes that are not finite", T_node_attributes="1.0\nnan\n1.0\n1.0\n")
graphs("features that it has not", f"{TU}, features: attributes")
graphs("features that are the targets", f"{TU}, task: node, features: labels")
graphs("inputs that it has not", f"{TU}, inputs: [x, edge_attr]")
graphs("labels far apart", T_node_labels="0\n1\n0\n900000\n")

# -- a user's function -------------------------------------------------------------------------------------

PYTHON = "format: python, path: data.py:load"


def python(title: str, code: str, data: str = PYTHON, **about: Any) -> None:
    text = (
        f"import numpy as np\nimport torch\nfrom torch.utils.data import DataLoader, Dataset, TensorDataset\n{code}\n"
    )
    of_data(f"python: {title}", data, {"data.py": text}, family="functions", **about)


def returning(title: str, value: str, data: str = PYTHON, before: str = "", **about: Any) -> None:
    python(title, f"{before}\ndef load():\n    return {value}", data, **about)


def dataset(length: str, example: str) -> str:
    """The code of a class D."""
    methods = f"def __len__(self):\n        {length}\n    def __getitem__(self, row):\n        {example}"
    return f"class D(Dataset):\n    {methods}"


PAIR = "TensorDataset(torch.ones(6, 4), torch.zeros(6).long())"
python("no such function", "def lod():\n    pass")
python("a number", "load = 3")
python("it fails", "def load():\n    raise OSError('disk on fire')")
returning("nothing", "None")
returning("a generator", "(batch for batch in [])")
returning("arrays", "[torch.ones(3), torch.ones(3)]")
returning("a mapping", "{'x': 1}")
returning("a tensor", "torch.ones(3)")
returning("a number that it returns", "3")
returning(
    "a dataset without a length", "D()", before="class D(Dataset):\n    def __getitem__(self, row):\n        return 1"
)
returning(
    "a dataset whose length fails",
    "D()",
    before=dataset("raise KeyError('n')", "return 1"),
)
returning(
    "a dataset whose examples fail",
    "D()",
    before=dataset("return 3", "raise KeyError(row)"),
)
returning(
    "examples of several sizes",
    "D()",
    before=dataset("return 3", "return torch.ones(row + 1), 0"),
    varying=r"(?<=batch \().*(?=\): let)",
)
returning("a shuffled loader", f"DataLoader({PAIR}, shuffle=True)")
returning("a loader and a batch size", f"DataLoader({PAIR}, batch_size=2)", f"{PYTHON}, batch_size: 3")
returning("a loader and a subset", f"DataLoader({PAIR}, batch_size=2)", f"{PYTHON}, max_examples: 3")
provoke("functions", "python: no such file", lambda folder: of_nothing(folder))


def of_nothing(folder: Path) -> None:
    from error_cases import write_spec

    write_spec(folder, PYTHON)


# -- more than fits, or takes some work to make --------------------------------------------------------------


def plain_words(folder: Path) -> None:
    """A tokenizer that adds nothing."""
    write_words(folder)
    path = folder / "words" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))


def star(folder: Path) -> None:
    """A node with 70,000 edges."""
    nodes = 70_001
    edges = "".join(f"1, {node}\n" for node in range(2, nodes + 1))
    write_files(
        folder, {"sets/T_A.txt": edges, "sets/T_graph_indicator.txt": "1\n" * nodes, "sets/T_graph_labels.txt": "1\n"}
    )


def small_table(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet as library

    library.write_table(pyarrow.table({"a": [1.0] * 100, "y": [0] * 100}), folder / "data.parquet")


FREE = 300
texts("a text without a token", {"x": " ", "y": 0}, words=plain_words)
graphs("two graphs of a node", T_graph_indicator="1, 1\n1, 1\n2, 2\n2, 2\n")
of_data("tudataset: a node of many edges", f"{TU}, features: degree", star, family="graphs", needs="torch_geometric")
of_data(
    "arrays: a folder with a pipe in it",
    "format: npz, path: sets, inputs: x, targets: y",
    lambda folder: pipe(folder / "sets" / "x.npy"),
    family="arrays",
)
of_data(
    "gzip: a file and zeros",
    TAR,
    lambda folder: (folder / "sets.tar.gz").write_bytes(gzip.compress(b"x") + bytes(1 << 20)),
    family="arrays",
)
GRAPH_FILES = {f"sets/{name}": text for name, text in GRAPHS.items()}
LARGE = {"family": "memory", "needs": "PIL torch_geometric pyarrow"}
of_data("npz", NPZ, npz(), free=FREE, **LARGE)
of_data("idx, gzipped", IDX, {f"{IMAGES}.gz": gzip.compress(GOOD[IMAGES]), LABELS: GOOD[LABELS]}, free=100, **LARGE)
of_data("csv", CSV, {"data.csv": HEAD + ROW * 20}, free=FREE, **LARGE)
of_data("parquet", "format: parquet, path: data.parquet, targets: y", small_table, free=FREE, **LARGE)
of_data("pictures", FOLDER, lambda folder: write_files(folder, {"sets/cat/a.png": picture(30, 30)}), free=FREE, **LARGE)
of_data("graphs", TU, GRAPH_FILES, free=FREE, **LARGE)
of_data(
    "graphs in a batch", f"{TU}, features: degree", {**GRAPH_FILES, "sets/T_node_labels.txt": ""}, free=FREE, **LARGE
)
