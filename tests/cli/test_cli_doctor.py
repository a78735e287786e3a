"""`hessdiag doctor`: what is told is so, and what is broken is seen as broken."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from hessdiag.curvature.dense import dense_hessian
from hessdiag.loading.extras import EXTRAS
from hessdiag.results import Eigenpair
from hessdiag.workflows import doctor, imports, self_test

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}


def test_it_knows_every_package_of_the_project():
    assert names(PROJECT["dependencies"]) == set(doctor.NEEDED)
    told = {(extra, doctor._INSTALLED_AS.get(name, name)) for name, extra in EXTRAS.items()}
    for extra in ("hf", "vision", "graph", "tabular"):
        asked = names(PROJECT["optional-dependencies"][extra])
        assert asked <= {name for other, name in told if other == extra}


@pytest.fixture
def quick(monkeypatch):
    """Without the imports in another process, which have tests of their own."""
    monkeypatch.setattr(doctor, "import_faults", lambda modules: {})


def test_all_is_well(run, quick):
    result = run("doctor", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["schema"], found["well"]) == ("hessdiag/doctor@1", True)
    assert found["python"] == platform.python_version()
    versions = {package["name"]: package["version"] for package in found["packages"]}
    assert versions["torch"] == torch.__version__
    assert versions["pyyaml"] == importlib.metadata.version("pyyaml")
    for package in found["packages"]:
        if package["version"] is None:
            assert f"hessdiag[{package['extra']}]" in package["install"]
    assert found["self_tests"][0]["device"] == "cpu"
    assert found["devices"][0]["name"] == "cpu"


def test_the_self_test_compares_with_the_dense_hessian():
    exact = torch.linalg.eigvalsh(dense_hessian(self_test._problem("cpu")))
    found = self_test.self_test("cpu")
    assert found.passed
    largest, smallest, trace = found.rows
    assert largest.reference == pytest.approx(float(exact[-1]), rel=1e-12)
    assert smallest.reference == pytest.approx(float(exact[0]), rel=1e-12)
    assert trace.reference == pytest.approx(float(exact.sum()), rel=1e-12)
    assert largest.value == pytest.approx(largest.reference, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_self_test_on_a_gpu(run, quick):
    found = json.loads(run("doctor", "--json").stdout)
    assert [(test["device"], test["passed"]) for test in found["self_tests"]] == [("cpu", True), ("cuda:0", True)]
    assert found["devices"][1]["memory"] == torch.cuda.get_device_properties(0).total_memory


def test_wrong_numbers_are_no_success(run, quick, monkeypatch):
    right = self_test.eigenvalues

    def wrong(*args, **options):
        found = right(*args, **options)
        value = found.largest[0].value * 1.001
        return type(found)(**{**vars(found), "largest": (Eigenpair(value, 0.0),)})

    monkeypatch.setattr(self_test, "eigenvalues", wrong)
    result = run("doctor")
    assert result.exit_code == 3
    assert "Not well: the self-test failed on cpu" in result.stdout


def test_a_failing_device_is_told_and_not_raised(run, quick, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr(self_test, "trace", broken)
    result = run("doctor")
    assert result.exit_code == 3
    assert "RuntimeError: no kernel image" in result.stdout


def test_a_package_that_is_too_old_is_seen(quick, monkeypatch):
    right = importlib.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.0rc1" if name == "numpy" else right(name))
    found = {package.name: package for package in doctor.examine().packages}
    assert found["numpy"].fault == "found 1.0rc1, expected at least 1.26: pip install --upgrade numpy"
    assert found["scipy"].fault is None


@pytest.mark.parametrize(("build", "index"), [("2.13.0+cpu", "whl/cpu"), ("2.13.0", ""), ("2.13.0+git1", "")])
def test_torchvision_comes_from_the_index_of_torch(monkeypatch, build, index):
    monkeypatch.setattr(doctor, "_version", lambda name: build)
    install = doctor._install("vision")
    assert install.startswith("pip install 'hessdiag[vision]'")
    assert install.endswith(index)
    assert ("--extra-index-url" in install) == bool(index)
    assert "index" not in doctor._install("hf")


def process(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "hessdiag", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
        cwd=folder,
    )


def package(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(textwrap.dedent(source))


def test_without_torch(tmp_path):
    package(tmp_path, "torch", "raise OSError('libtorch.so: cannot open shared object file')")
    done = process(tmp_path, "doctor", "--json")
    assert done.returncode == 3
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["well"] is False
    assert (found["torch_build"], found["devices"], found["self_tests"]) == (None, [], [])
    assert "libtorch.so" in found["packages"][0]["fault"]


def test_imports_are_tried_in_another_process(tmp_path, monkeypatch):
    package(tmp_path, "fine_one", "print('hello')")
    package(tmp_path, "dies", "import os; os._exit(7)")
    package(tmp_path, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    package(tmp_path, "noisy", "import sys; sys.stdout.write('no newline'); raise ImportError('DLL load failed')")
    monkeypatch.syspath_prepend(tmp_path)
    faults = imports.import_faults(["fine_one", "dies", "torchvision", "noisy"])
    assert set(faults) == {"dies", "torchvision", "noisy"}
    assert faults["dies"] == "its import ended Python (exit code 7)"
    assert "compiled operators" in faults["torchvision"]
    assert "--force-reinstall" in faults["torchvision"]
    assert "DLL load failed" in faults["noisy"]


def test_an_import_that_hangs_is_given_up(tmp_path, monkeypatch):
    package(tmp_path, "hangs", "import time; time.sleep(60)")
    monkeypatch.syspath_prepend(tmp_path)
    assert imports.import_faults(["hangs"], seconds=1) == {"hangs": "its import did not end within 1 s"}
