"""Networks of timm and torchvision by name, and pictures as torchvision reads them: the real packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import hessdiag
from hessdiag.cli.app import app
from hessdiag.errors import CheckpointError, HessdiagError
from hessdiag.loading.datasets import load_data
from hessdiag.spec.data import ImageFolderData

pytestmark = pytest.mark.vision

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLASSES = ("ant", "bee", "cow")
FACTORIES = {
    "timm": ("timm.create_model", {"model_name": "resnet10t", "num_classes": 3, "pretrained": False}),
    "torchvision": ("torchvision.models.resnet18", {"num_classes": 3}),
}
SPEC = """\
model: {{class_path: {factory}, init_args: {arguments}, checkpoint: {checkpoint}}}
data:
  format: imagefolder
  path: pics
  split: val
  transform: {{resize: 36, crop: 32, mean: {mean}, std: {std}}}
  batch_size: 4
parameters: {{include: ["*bn1.*", "fc.*"]}}
audit:
  eigenvalues: {{top: 1, bottom: 1, max_matvecs: 20}}
  trace: {{max_matvecs: 16, rtol: 0.5}}
  gap: {{sigma: [0.01], draws: 2}}
"""


def build(name: str) -> nn.Module:
    import timm
    import torchvision

    factory, arguments = FACTORIES[name]
    return (timm.create_model if factory.startswith("timm") else torchvision.models.resnet18)(**arguments)


def trained(name: str) -> nn.Module:
    """A network whose BatchNorm statistics are of pictures, not those of a fresh one."""
    torch.manual_seed(1)
    model = build(name).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 32, 32))
    return model


def write(folder: Path, name: str, checkpoint: str = "weights.safetensors") -> Path:
    random = np.random.default_rng(0)
    for place, label in enumerate(CLASSES):
        (folder / "pics/val" / label).mkdir(parents=True)
        for number in range(2):
            shade = random.integers(0, 256, (40 + 7 * number, 48, 3)) // (place + 1)
            Image.fromarray(shade.astype(np.uint8)).save(folder / f"pics/val/{label}/{number}.png")
    factory, arguments = FACTORIES[name]
    spec = folder / "audit.yaml"
    spec.write_text(
        SPEC.format(factory=factory, arguments=json.dumps(arguments), checkpoint=checkpoint, mean=MEAN, std=STD)
    )
    return spec


def reference_data(folder: Path) -> tuple[Tensor, Tensor]:
    """The pictures by torchvision's own folder and transforms."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.Resize(36), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    data = ImageFolder(folder / "pics/val", v2.Compose([*steps, v2.Normalize(MEAN, STD)]))
    assert data.classes == list(CLASSES)
    images, labels = zip(*data, strict=True)
    return torch.stack(images), torch.tensor(labels)


def product(model: nn.Module, names: list[str], data: tuple[Tensor, Tensor], v: Tensor) -> Tensor:
    """H v by double backward in float64, without anything of hessdiag."""
    model = model.double().eval()
    selected = [dict(model.named_parameters())[name] for name in names]
    loss = nn.functional.cross_entropy(model(data[0].double()), data[1])
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, selected, create_graph=True)])
    return torch.cat([g.flatten() for g in torch.autograd.grad(gradient @ v, selected)])


def as_safetensors(model: nn.Module, path: Path) -> None:
    save_file(model.state_dict(), path)


def as_state_dict(model: nn.Module, path: Path) -> None:
    torch.save(model.state_dict(), path)


@pytest.mark.parametrize(
    ("name", "checkpoint", "save"),
    [
        ("timm", "weights.safetensors", as_safetensors),
        ("timm", "weights.pth", as_state_dict),
        ("torchvision", "weights.safetensors", as_safetensors),
        ("torchvision", "weights.pth", as_state_dict),
    ],
)
def test_products_of_a_named_network_on_a_folder_of_pictures(
    tmp_path: Path, name: str, checkpoint: str, save: Callable[[nn.Module, Path], None]
) -> None:
    model = trained(name)
    save(model, tmp_path / checkpoint)
    problem = hessdiag.load(write(tmp_path, name, checkpoint), dtype="float64")
    H = hessdiag.HessianOperator(problem)
    v = torch.randn(H.shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    selected = [n for n, _ in model.named_parameters() if "bn1." in n or n.startswith("fc.")]
    exact = product(model, selected, reference_data(tmp_path), v)
    assert exact.norm() > 1e-3
    assert (H.matvec(v) - exact).norm() <= 1e-9 * exact.norm()


def command(*args: str) -> tuple[int, str, str]:
    result = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, list(args))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", FACTORIES)
def test_an_audit_from_the_command_line(tmp_path: Path, name: str) -> None:
    model = trained(name)
    as_safetensors(model, tmp_path / "weights.safetensors")
    code, out, err = command("audit", str(write(tmp_path, name)), "--json", "--out", str(tmp_path / "report.json"))
    assert code == 0, err
    report = json.loads(out)
    images, labels = reference_data(tmp_path)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model.eval()(images), labels).item()
    assert report["loss"] == pytest.approx(loss, rel=1e-5)
    assert report["data"]["examples"] == 6


@pytest.mark.parametrize("name", FACTORIES)
def test_without_a_checkpoint_the_network_is_the_same_every_time(tmp_path: Path, name: str) -> None:
    spec = write(tmp_path, name)
    values = [hessdiag.load(spec, overrides=["model.checkpoint=null"]).loss_value for _ in range(2)]
    assert values[0] == values[1]


def test_the_moving_average_of_a_checkpoint_that_timm_wrote(tmp_path: Path) -> None:
    from timm.utils import CheckpointSaver, ModelEmaV3

    model = trained("timm")
    ema = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    ema.update(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    (found,) = tmp_path.glob("checkpoint-0.pth.tar")
    spec = write(tmp_path, "timm", found.name)
    for which, expected in (("model", model), ("ema", ema.module)):
        problem = hessdiag.load(spec, overrides=[f"model.weights={which}"])
        weights = problem.model.state_dict()
        assert all(torch.equal(weights[key], item) for key, item in expected.state_dict().items())
    assert not torch.equal(model.fc.weight, ema.module.fc.weight)


def test_a_checkpoint_of_other_classes_is_told(tmp_path: Path) -> None:
    import torchvision

    as_safetensors(torchvision.models.resnet18(num_classes=5), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"fc\.weight is \(5, 512\), the model expects \(3, 512\)"):
        hessdiag.load(write(tmp_path, "torchvision"))


@pytest.mark.parametrize(
    ("name", "argument"), [("timm", "pretrained=true"), ("torchvision", "weights=DEFAULT")], ids=FACTORIES
)
def test_weights_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, argument: str
) -> None:
    import socket
    import time

    def no_network(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the attempts
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    overrides = ["model.checkpoint=null", "model.init_args.num_classes=1000", f"model.init_args.{argument}"]
    with pytest.raises(HessdiagError) as caught:
        hessdiag.load(write(tmp_path, name), overrides=overrides)
    assert caught.value.exit_code == 3
    assert str(caught.value).endswith("and name a file with them under model.checkpoint")


def test_names_that_timm_and_torchvision_lack(tmp_path: Path) -> None:
    spec = write(tmp_path, "timm")
    for override, words in (
        (
            "class_path=torchvision.models.resnet35",
            r"no 'resnet35' in torchvision\.models, expected one of: .*resnet34",
        ),
        ("class_path=torchvision.model.resnet34", r"no 'model' in torchvision, expected one of: models"),
        ("init_args.model_name=resnet1o", r"model\.class_path: timm\.create_model\(.*Unknown model"),
    ):
        with pytest.raises(HessdiagError, match=words):
            hessdiag.load(spec, overrides=["model.checkpoint=null", f"model.{override}"])


def _pixels(height: int, width: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_pictures_are_bit_for_bit_those_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    kinds = {
        "a/portrait.png": _pixels(61, 40, 0),
        "a/landscape.jpg": _pixels(33, 57, 1),
        "a-b/small.bmp": _pixels(9, 11, 2),
        "a/b/grey.png": _pixels(50, 50, 3).convert("L"),
        "a-b/alpha.png": _pixels(45, 52, 4).convert("RGBA"),
        "C/palette.png": _pixels(37, 71, 5).quantize(32),
        "C/cmyk.jpg": _pixels(64, 33, 6).convert("CMYK"),
        "C/sixteen.png": Image.fromarray(np.random.default_rng(7).integers(0, 999, (41, 43)).astype(np.uint16)),
        "10/wide.webp": _pixels(20, 200, 8),
        "9/page.tiff": _pixels(44, 43, 9),
    }
    for name, picture in kinds.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    for resize, crop in ((32, 32), (36, 31), (24, 33)):
        transform = {"resize": resize, "crop": crop, "mean": MEAN, "std": STD}
        spec = ImageFolderData.model_validate({"format": "imagefolder", "path": ".", "transform": transform})
        ((images, labels),) = load_data(spec, lambda _: tmp_path)
        steps = [v2.Resize(resize), v2.CenterCrop(crop), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        reference = ImageFolder(tmp_path, v2.Compose([*steps, v2.Normalize(MEAN, STD)]))
        assert labels.tolist() == reference.targets
        assert len(images) == len(kinds)
        for image, (expected, _), (path, _) in zip(images, reference, reference.samples, strict=True):
            assert torch.equal(image, expected), path


def test_transformers_works_beside_torchvision() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    tiny = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    assert BertForSequenceClassification(tiny)(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3)
