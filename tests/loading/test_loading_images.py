"""Folders of pictures: classes by name, every kind of picture as RGB, damage told by name, nothing read ahead."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import hessdiag
from hessdiag.errors import DataError, HessdiagError, SpecError, UsageError
from hessdiag.loading.datasets import imagefolder, load_data, pictures, room
from hessdiag.loading.datasets.examples import Batches
from hessdiag.spec.data import ImageFolderData

SPEC = """\
model: {class_path: model.py:build}
data: {format: imagefolder, path: pics, transform: {resize: 8, crop: 8}, batch_size: 4}
"""
MODEL = """\
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
"""


def pixels(height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(path: Path, image: np.ndarray | Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels()) if image is None else image
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def two_classes(folder: Path, each: int = 3) -> Path:
    for place, name in enumerate(("cat", "dog")):
        for number in range(each):
            put(folder / name / f"{number}.png", pixels(seed=10 * place + number))
    return folder


def opened(folder: Path, **options: object) -> Batches:
    spec = ImageFolderData.model_validate({"format": "imagefolder", "path": "pics", **options})
    data = load_data(spec, lambda name: folder / name)
    assert isinstance(data, Batches)
    return data


def names(data: Batches) -> list[str]:
    assert isinstance(data.examples, imagefolder.PictureExamples)
    return data.examples._files


def whole(data: Batches) -> tuple[Tensor, Tensor]:
    images, labels = zip(*data, strict=True)
    return torch.cat(images), torch.cat(labels)


def complaint(folder: Path, kind: type[HessdiagError] = DataError, **options: object) -> str:
    with pytest.raises(kind) as caught:
        whole(opened(folder, **options))
    assert type(caught.value) is kind
    return str(caught.value)


def one(folder: Path, **transform: object) -> Tensor:
    (images, _), *others = opened(folder, transform=transform)
    assert not others
    assert len(images) == 1
    return images[0]


def test_pixels_from_zero_to_one_with_the_numbers_of_their_classes(tmp_path):
    two_classes(tmp_path / "pics")
    images, labels = whole(opened(tmp_path, batch_size=4))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert labels.dtype == torch.int64
    for image, seed in zip(images, (0, 1, 2, 10, 11, 12), strict=True):
        exact = pixels(seed=seed).transpose(2, 0, 1) / 255
        assert image.shape == (3, 8, 8)
        assert np.abs(image.numpy() - exact).max() < 1e-7


def test_mean_and_deviation_by_channel_or_for_all(tmp_path):
    put(tmp_path / "pics/a/1.png")
    raw = pixels().transpose(2, 0, 1) / 255
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    exact = (raw - mean[:, None, None]) / std[:, None, None]
    assert np.abs(one(tmp_path, mean=mean.tolist(), std=std.tolist()).numpy() - exact).max() < 1e-6
    assert np.abs(one(tmp_path, mean=[0.5], std=[0.25]).numpy() - (raw - 0.5) / 0.25).max() < 1e-6
    assert np.abs(one(tmp_path, std=[0.25]).numpy() - raw / 0.25).max() < 1e-6


def test_classes_and_files_are_sorted_by_name_folders_below_them_too(tmp_path):
    for name in ("b/10.png", "b/2.png", "B/x.PNG", "a/deep/er/1.bmp", "a/deep-1/z.png", "a/0.jpg"):
        put(tmp_path / "pics" / name)
    data = opened(tmp_path)
    assert names(data) == ["B/x.PNG", "a/0.jpg", "a/deep-1/z.png", "a/deep/er/1.bmp", "b/10.png", "b/2.png"]
    assert whole(data)[1].tolist() == [0, 1, 1, 1, 2, 2]


def test_what_is_no_picture_and_what_is_hidden_is_passed_over(tmp_path):
    two_classes(tmp_path / "pics", each=1)
    for name in (".DS_Store", "cat/.DS_Store", "cat/._0.png", "cat/notes.txt", "Thumbs.db", ".ipynb_checkpoints/x.png"):
        (tmp_path / "pics" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pics" / name).write_bytes(b"no picture")
    assert names(opened(tmp_path)) == ["cat/0.png", "dog/0.png"]


def test_a_split_is_a_folder_in_the_folder(tmp_path):
    two_classes(tmp_path / "pics/val", each=1)
    two_classes(tmp_path / "pics/train", each=2)
    assert names(opened(tmp_path, split="val")) == ["val/cat/0.png", "val/dog/0.png"]
    assert len(names(opened(tmp_path, split="train"))) == 4
    assert complaint(tmp_path, UsageError, split="test") == (
        "data.split: found no folder 'test' in pics, expected one of: train, val"
    )
    assert complaint(tmp_path, UsageError) == (
        "data.split: missing: pics holds train, val, which are splits, not classes: name one of them"
    )


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    put(tmp_path / "elsewhere/1.png")
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    put(tmp_path / "pics/b/2.png")
    (tmp_path / "pics/b/up").symlink_to(tmp_path / "pics/b", target_is_directory=True)
    assert names(opened(tmp_path)) == ["a/1.png", "b/2.png"]


def test_folders_without_pictures_would_shift_the_numbers(tmp_path):
    two_classes(tmp_path / "pics")
    (tmp_path / "pics/cow").mkdir()
    (tmp_path / "pics/cow/notes.txt").write_text("none yet")
    assert complaint(tmp_path).startswith(
        "data.path: of the 3 folders in pics, 1 without pictures (cow) would shift the numbers of the classes after"
    )


def test_no_classes(tmp_path):
    (tmp_path / "pics").mkdir()
    assert complaint(tmp_path) == "data.path: pics holds no folders, expected one folder of pictures for each class"
    put(tmp_path / "pics/1.png")
    assert complaint(tmp_path).startswith("data.path: pics holds pictures, but no folders, expected")


def test_a_folder_that_is_gone(tmp_path):
    assert complaint(tmp_path).endswith("could not be read: No such file or directory")


def _grey_with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([pixels()[..., 0], pixels()[..., 1]]), "LA")


KINDS = {
    "grey": lambda: Image.fromarray(pixels()[..., 0]),
    "rgba": lambda: Image.fromarray(pixels()).convert("RGBA"),
    "grey with alpha": _grey_with_alpha,
    "palette": lambda: Image.fromarray(pixels()).quantize(16),
    "black and white": lambda: Image.fromarray(pixels()).convert("1"),
    "16 bits": lambda: Image.fromarray(pixels()[..., 0].astype(np.uint16) * 4),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_is_read_as_rgb(tmp_path, kind):
    picture = KINDS[kind]()
    put(tmp_path / "pics/a/1.png", picture)
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1) / 255
    assert np.abs(one(tmp_path).numpy() - expected).max() < 1e-7


@pytest.mark.parametrize("extension", ["bmp", "gif", "jpeg", "png", "ppm", "tif", "webp"])
def test_every_format(tmp_path, extension):
    path = put(tmp_path / f"pics/a/1.{extension}")
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1) / 255
    assert np.abs(one(tmp_path).numpy() - expected).max() < 1e-7


def test_cmyk_and_an_orientation_that_exif_tells(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = put(tmp_path / "pics/a/1.jpg", Image.fromarray(pixels(8, 16)).convert("CMYK"), exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1) / 255
    assert expected.shape == (3, 8, 16)
    assert np.abs(one(tmp_path).numpy() - expected).max() < 1e-7


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (255, 0)]
    put(tmp_path / "pics/a/1.gif", frames[0], save_all=True, append_images=frames[1:])
    assert torch.all(one(tmp_path) == 1)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (7, 31), (16, 16), (5, 9)])
def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path, size):
    width, height = size
    put(tmp_path / "pics/a/1.png", pixels(height, width))
    whole_picture, cut = one(tmp_path, resize=12), one(tmp_path, resize=12, crop=9)
    resized = (12 * height // min(size), 12 * width // min(size))
    assert whole_picture.shape[1:] == resized
    top, left = (round((length - 9) / 2) for length in resized)
    assert torch.equal(cut, whole_picture[:, top : top + 9, left : left + 9])


def test_resizing_averages_over_what_it_leaves_out(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    put(tmp_path / "pics/a/1.png", stripes)
    assert (one(tmp_path, resize=8) - 0.5).abs().max() < 0.02  # without averaging: 0 or 1


def test_a_cut_larger_than_the_picture_is_filled_up_with_black(tmp_path):
    put(tmp_path / "pics/a/1.png", np.full((4, 6, 3), 255, np.uint8))
    cut = one(tmp_path, crop=9)
    assert cut.shape == (3, 9, 9)
    expected = np.zeros((9, 9))
    expected[2:6, 1:7] = 1
    assert np.array_equal(cut[0].numpy(), expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_several_sizes_are_told(tmp_path, batch_size):
    put(tmp_path / "pics/a/1.png", pixels(8, 10))
    put(tmp_path / "pics/a/2.png", pixels(9, 10))
    expected = (
        "data: found pictures of several sizes (pics/a/1.png 10 x 8, pics/a/2.png 10 x 9), expected one size for all: "
        "set data.transform.resize and data.transform.crop"
    )
    assert complaint(tmp_path, batch_size=batch_size) == expected
    images, _ = whole(opened(tmp_path, batch_size=batch_size, transform={"resize": 8, "crop": 8}))
    assert images.shape == (2, 3, 8, 8)


def test_only_the_pictures_of_a_batch_are_decoded(tmp_path, monkeypatch):
    two_classes(tmp_path / "pics")
    seen: list[str] = []

    def counted(path, shown, transform, read=pictures.read_picture):
        seen.append(shown)
        return read(path, shown, transform)

    monkeypatch.setattr(imagefolder, "read_picture", counted)
    batches = iter(opened(tmp_path, batch_size=2))
    assert seen == []
    next(batches)
    assert set(seen) == {"pics/cat/0.png", "pics/cat/1.png"}
    seen.clear()
    next(batches)
    assert sorted(seen) == ["pics/cat/2.png", "pics/dog/0.png"]


def test_a_subset_reads_its_own_pictures_alone(tmp_path):
    two_classes(tmp_path / "pics", each=5)
    data = opened(tmp_path, max_examples=4)
    for row in set(range(10)) - set(data.rows.tolist()):
        (tmp_path / "pics" / names(data)[row]).write_bytes(b"damaged")
    assert len(whole(data)[1]) == 4


def test_a_batch_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    two_classes(tmp_path / "pics")
    monkeypatch.setattr(room, "available_memory", lambda device: 4000)
    assert complaint(tmp_path) == (
        "data: a batch of 6 pictures of 8 x 8 takes 4.61e-06 GB in memory, of which 4e-06 GB are free: "
        "lower data.batch_size, or set data.transform.resize and data.transform.crop"
    )
    assert "has 10000 x 10000 pixels after unpacking, resizing and cutting" in complaint(
        tmp_path, transform={"crop": 10_000}
    )


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _of_many_pixels(path: Path, width: int = 100_000, height: int = 100_000) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


DAMAGES = {
    "cut short": (_cut_short, "is a damaged picture (image file is truncated"),
    "a flipped byte": (_flipped, "is a damaged picture ("),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes), expected a picture: copy it"),
    "other bytes": (
        lambda path: path.write_bytes(b"PK\3\4 and so on"),
        "is no picture that can be read (it begins with b'PK\\x03\\x04 and'), expected BMP,",
    ),
    "a program": (
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        "is no picture that can be read (it begins with b'%!PS-Ado')",
    ),
    "left behind": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "is a Git LFS pointer, expected the picture itself: run git lfs pull",
    ),
    "a bomb": (
        _of_many_pixels,
        "has 10000000000 pixels after unpacking, resizing and cutting, expected at most 89478485",
    ),
    "a smaller bomb": (lambda path: _of_many_pixels(path, 10_000), "has 1000000000 pixels"),
    "a bomb below Pillow's limit": (
        lambda path: _of_many_pixels(path, 1000),
        "has 1000 x 100000 pixels after unpacking",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), None),
    "a pipe": (_pipe, "is no file, expected a picture"),
    "a link to nothing": (_dangling, "could not be read: No such file or directory"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_with_the_name_of_the_file(tmp_path, damage):
    two_classes(tmp_path / "pics")
    harm, words = DAMAGES[damage]
    harm(tmp_path / "pics/dog/1.png")
    if words is None:  # a folder may be called what it likes
        assert len(names(opened(tmp_path))) == 5
        return
    assert complaint(tmp_path).startswith(f"data: pics/dog/1.png {words}")


def test_a_line_that_resizing_would_blow_up(tmp_path):
    put(tmp_path / "pics/a/1.png", np.zeros((1, 60_000, 3), np.uint8))
    assert "has 3360000 x 56 pixels after unpacking, resizing" in complaint(
        tmp_path, transform={"resize": 56, "crop": 8}
    )


def written(folder: Path) -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "audit.yaml").write_text(SPEC)
    return folder / "audit.yaml"


def test_the_loss_and_a_fingerprint_that_changes_with_the_names_of_classes(tmp_path):
    two_classes(tmp_path / "pics")
    spec = written(tmp_path)
    first, other = hessdiag.load(spec), hessdiag.load(spec, overrides=["data.batch_size=1"])
    assert first.data_info.fingerprint == other.data_info.fingerprint
    images, labels = whole(opened(tmp_path))
    expected = torch.nn.functional.cross_entropy(first.model(images).double(), labels).item()
    assert first.loss_value == pytest.approx(expected, rel=1e-6)
    (tmp_path / "pics/cat").rename(tmp_path / "pics/emu")
    assert hessdiag.load(spec).data_info.fingerprint != first.data_info.fingerprint


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "data.transform.mean=[0.1, 0.2]",
            "expected three numbers (pictures are read as RGB), or one for all channels",
        ),
        ("data.transform.std=[0]", "expected a finite number greater than 0"),
        ("data.transform.resize=0", "expected a whole number of at least 1"),
        ("data.transform.flip=true", "data.transform.flip"),
        ("data.path=model.py", "found the file 'model.py', expected a folder"),
    ],
)
def test_faults_of_the_spec(tmp_path, override, words):
    two_classes(tmp_path / "pics", each=1)
    with pytest.raises(SpecError) as caught:
        hessdiag.load(written(tmp_path), overrides=[override])
    assert words in str(caught.value)
