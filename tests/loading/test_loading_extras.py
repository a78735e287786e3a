"""A package of an extra that is missing, or broken: exit 3, and the command that installs it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from hessdiag.cli.app import app
from hessdiag.errors import HessdiagError
from hessdiag.loading.datasets import load_data
from hessdiag.loading.extras import EXTRAS, MissingExtraError, explain_failure, explain_import, import_extra
from hessdiag.loading.references import call_reference, import_reference
from hessdiag.spec.data import ImageFolderData

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NEEDS = "needs the package {0}, which is not installed: pip install 'hessdiag[{1}]'"


class Without:
    """As if packages were not installed, whether they are or not."""

    def __init__(self, *packages: str) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def hide(*packages: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Without(*packages), *sys.meta_path])

    return hide


@pytest.mark.parametrize("package", EXTRAS)
def test_each_missing_package_is_told_with_its_extra(without, package):
    without(package)
    with pytest.raises(MissingExtraError) as caught:
        import_extra(package, "data.format: x")
    assert str(caught.value) == f"data.format: x: {NEEDS.format(package, EXTRAS[package])}"
    assert caught.value.exit_code == 3


def test_a_module_in_a_missing_package(without):
    without("torchvision")
    with pytest.raises(MissingExtraError, match=r"needs the package torchvision, .*'hessdiag\[vision\]'"):
        import_extra("torchvision.models.resnet", "model.class_path")


def test_a_package_that_lacks_one_of_its_own(without):
    error = ModuleNotFoundError("No module named 'dill'", name="dill")
    assert str(explain_import(error, "datasets", "data.format: hf")) == (
        "data.format: hf: datasets is installed but cannot be imported (ModuleNotFoundError: No module named 'dill'): "
        "pip install 'hessdiag[hf]'"
    )
    error = ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
    assert "needs the package pyarrow" in str(explain_import(error, "datasets", "data.format: hf"))


def test_what_has_nothing_to_do_with_an_extra():
    assert explain_failure(ValueError("x"), "here") is None
    assert explain_failure(ModuleNotFoundError("No module named 'yaml'", name="yaml"), "here") is None
    fallback = ValueError("a fault in what was to stand in for timm")
    fallback.__context__ = ModuleNotFoundError("No module named 'timm'", name="timm")
    assert explain_failure(fallback, "here") is None


def named(folder: Path, reference: str) -> object:
    return import_reference(reference, lambda name: folder / name, "model.class_path")


@pytest.mark.parametrize(
    ("reference", "package"),
    [
        ("timm.create_model", "timm"),
        ("torchvision.models.resnet34", "torchvision"),
        ("transformers.AutoModel.from_config", "transformers"),
        ("torch_geometric.nn.GCN", "torch_geometric"),
    ],
)
def test_a_factory_of_a_missing_package(without, tmp_path, reference, package):
    without(package)
    with pytest.raises(MissingExtraError) as caught:
        named(tmp_path, reference)
    assert str(caught.value) == f"model.class_path: {reference}: {NEEDS.format(package, EXTRAS[package])}"


@pytest.mark.parametrize("code", ["import timm\ndef build(): pass", "def build():\n    import timm"])
def test_a_users_file_that_needs_a_missing_package(without, tmp_path, code):
    without("timm")
    (tmp_path / "model_of_test.py").write_text(code)
    with pytest.raises(MissingExtraError, match=r"model_of_test\.py.*: needs the package timm.*'hessdiag\[vision\]'"):
        call_reference(
            "model.class_path",
            "model_of_test.py:build",
            named(tmp_path, "model_of_test.py:build"),
            lambda name: tmp_path / name,
        )


def test_pictures_without_pillow(without, tmp_path):
    without("PIL")
    (tmp_path / "pics/a").mkdir(parents=True)
    with pytest.raises(MissingExtraError) as caught:
        load_data(ImageFolderData(format="imagefolder", path="pics"), lambda name: tmp_path / name)
    assert str(caught.value) == f"data.format: imagefolder: {NEEDS.format('PIL', 'vision')}"


def test_the_command_line_ends_with_3_and_no_advice_to_look_at_a_traceback(without, tmp_path):
    without("timm")
    spec = str(tiny.write(tmp_path))
    result = CliRunner().invoke(app, ["audit", spec, "--set", "model.class_path=timm.create_model"])
    assert result.exit_code == 3
    assert result.stderr == f"error: model.class_path: timm.create_model: {NEEDS.format('timm', 'vision')}\n"


BROKEN_TORCHVISION = """\
import torch

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    pass
"""
LIKE_TRANSFORMERS = """\
def __getattr__(name):
    if name != "BertModel":
        raise AttributeError(name)
    try:
        import torchvision
    except Exception as error:
        raise ModuleNotFoundError(f"Could not import module {name!r}. Are this object's requirements defined "
                                  "correctly?") from error
"""
OTHER_PROCESS = """\
import sys
import hessdiag.loading.problems
from hessdiag.errors import HessdiagError
from hessdiag.loading.extras import EXTRAS, import_extra
print(sorted(EXTRAS.keys() & sys.modules.keys()))
sys.path.insert(0, ".")
from hessdiag.loading.references import import_reference
for reference in ("torchvision.models.resnet34", "timm.create_model", "transformers.BertModel"):
    try:
        import_reference(reference, None, "model.class_path")
    except HessdiagError as error:
        print(type(error).__name__, error)
try:
    import_extra("torchvision", "data")
except HessdiagError as error:
    print(type(error).__name__, error)
"""


def test_a_torchvision_without_its_operators_and_what_it_takes_down_with_it(tmp_path):
    """Stand-ins that fail as the real packages do beside another build of torch."""
    (tmp_path / "torchvision.py").write_text(BROKEN_TORCHVISION)
    (tmp_path / "timm.py").write_text("import torchvision")
    (tmp_path / "transformers.py").write_text(LIKE_TRANSFORMERS)
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    release = metadata.version("torch").partition("+")[0]
    early, *lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert early == "[]"  # hessdiag itself imports no optional package
    for line, place in zip(
        lines, ("torchvision.models.resnet34", "timm.create_model", "transformers.BertModel", "data"), strict=True
    ):
        assert line.startswith("MissingExtraError ")
        assert f"{place}: the installed torchvision cannot be imported, because it lacks its compiled operators" in line
        assert f"pip install --force-reinstall torch=={release} torchvision" in line
        assert "pip uninstall torchvision" in line


@pytest.mark.parametrize(
    ("build", "index"),
    [
        ("2.13.0+cpu", "torch==2.13.0 torchvision --index-url https://download.pytorch.org/whl/cpu"),
        ("2.13.0+cu130", "torch==2.13.0 torchvision --index-url https://download.pytorch.org/whl/cu130"),
        ("2.13.0", "torch==2.13.0 torchvision (or"),
        ("2.13.0+gitabc", "torch==2.13.0 torchvision (or"),
    ],
)
def test_the_pair_comes_from_the_index_of_the_torch_that_is_there(monkeypatch, build, index):
    monkeypatch.setattr("hessdiag.loading.extras.version", lambda package: build)
    error = RuntimeError("operator torchvision::nms does not exist")
    assert f"pip install --force-reinstall {index}" in str(explain_failure(error, "here"))


def test_a_missing_package_of_no_extra_is_a_fault_of_the_spec(tmp_path):
    with pytest.raises(HessdiagError) as caught:
        named(tmp_path, "no_such_package_of_test.build")
    assert caught.value.exit_code == 2
    assert not isinstance(caught.value, MissingExtraError)


def requirements(extra: str) -> set[str]:
    listed = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"][extra]
    found = set()
    for requirement in listed:
        inner = re.fullmatch(r"hessdiag\[(.+)\]", requirement)
        found |= set().union(*map(requirements, inner[1].split(","))) if inner else {re.split(r"[<>=]", requirement)[0]}
    return found


def test_the_extras_hold_what_they_are_said_to():
    installed_as = {"PIL": "pillow", "sklearn": "scikit-learn", "torch_geometric": "torch-geometric"}
    for package, extra in EXTRAS.items():
        if package != "tokenizers":  # transformers brings it
            assert installed_as.get(package, package) in requirements(extra)
            assert installed_as.get(package, package) in requirements("all")
    assert not requirements("test") & {"torchvision", "timm"}
    assert requirements("test") >= requirements("all") - {"torchvision", "timm"}


def test_each_direct_requirement_of_the_tests_has_its_version():
    lines = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert {name.lower() for name in requirements("test") | requirements("all")} <= pinned
