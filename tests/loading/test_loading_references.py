"""What a spec names by ``file.py:name`` or ``package.module.Name``."""

from __future__ import annotations

import sys
import urllib.error
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from hessdiag.errors import HessdiagError, UsageError
from hessdiag.loading.references import call_reference, import_reference


@pytest.fixture(autouse=True)
def _modules_put_back():
    before, path = dict(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def named(folder: Path, reference: str) -> object:
    return import_reference(reference, lambda name: folder / name, "model.class_path")


def test_a_file_beside_the_spec(tmp_path):
    (tmp_path / "net.py").write_text("def build(): return 7")
    assert named(tmp_path, "net.py:build")() == 7


def test_a_file_in_a_folder_below(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/net.py").write_text("def build(): return 7")
    assert named(tmp_path, "code/net.py:build")() == 7


def test_a_dotted_name():
    assert named(Path(), "torch.nn.Linear") is nn.Linear


def test_two_specs_may_both_have_a_model_py(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.py").write_text(f"def build(): return {place!r}")
    builders = [named(tmp_path / place, "model.py:build") for place in ("a", "b")]
    assert [build() for build in builders] == ["a", "b"]


def test_a_file_imports_its_neighbours_and_no_other_specs(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "layers_of_test.py").write_text(f"NAME = {place!r}")
        (tmp_path / place / "model.py").write_text("from layers_of_test import NAME\ndef build(): return NAME")
    builders = {place: named(tmp_path / place, "model.py:build") for place in ("a", "b")}
    assert {place: build() for place, build in builders.items()} == {"a": "a", "b": "b"}


def test_a_factory_imports_its_neighbours_when_it_is_called(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "late_of_test.py").write_text(f"NAME = {place!r}")
        (tmp_path / place / "model.py").write_text("def build():\n    from late_of_test import NAME\n    return NAME")
    for place in ("a", "b", "a"):
        builder = named(tmp_path / place, "model.py:build")
        assert call_reference("model", "model.py:build", builder, lambda n, p=place: tmp_path / p / n) == place


def test_one_file_is_one_module_and_an_edited_one_another(tmp_path):
    (tmp_path / "model.py").write_text("class Net: pass\ndef loss(): return Net\ndef build(): return Net")
    assert named(tmp_path, "model.py:build")() is named(tmp_path, "model.py:loss")()
    (tmp_path / "model.py").write_text("def build(): return 'edited'")
    assert named(tmp_path, "model.py:build")() == "edited"


def test_dataclasses_in_a_file_find_their_module(tmp_path):
    (tmp_path / "model.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Box:\n    n: int = 3\nbuild = Box\n"
    )
    assert named(tmp_path, "model.py:build")().n == 3


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "model.py: importing it failed: ZeroDivisionError: division by zero"),
        ("import no_such_package_of_test", "ModuleNotFoundError: No module named 'no_such_package_of_test'"),
        ("raise SystemExit", "importing it failed: SystemExit"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_file_that_fails(tmp_path, code, words):
    (tmp_path / "model.py").write_text(code)
    for _ in range(2):  # a failed import leaves nothing behind
        with pytest.raises(HessdiagError, match=r"model\.class_path") as caught:
            named(tmp_path, "model.py:build")
        assert words in str(caught.value)
        assert caught.value.exit_code == 3
        assert caught.value.__cause__ is not None


def test_an_interrupted_import_is_an_interruption(tmp_path):
    (tmp_path / "model.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        named(tmp_path, "model.py:build")


def test_missing_names_come_with_the_nearest(tmp_path):
    (tmp_path / "model.py").write_text("def build_mlp(): pass\ndef other(): pass\ndef _hidden(): pass")
    with pytest.raises(UsageError, match=r"no 'build_mpl' in model.py, expected one of: build_mlp, \.\.\.$"):
        named(tmp_path, "model.py:build_mpl")
    with pytest.raises(UsageError, match=r"expected one of: build_mlp, other$"):
        named(tmp_path, "model.py:zzz")
    with pytest.raises(UsageError) as caught:
        named(Path(), "torch.nn.zzz")
    assert len(str(caught.value)) < 300


def test_a_name_goes_on_into_a_class(tmp_path):
    assert named(Path(), "torch.nn.Embedding.from_pretrained") == nn.Embedding.from_pretrained
    (tmp_path / "model.py").write_text(
        "class Net:\n    class Inner:\n        pass\n    @classmethod\n    def small(cls): return cls, 'small'"
    )
    kind, size = named(tmp_path, "model.py:Net.small")()
    assert (kind, size) == (named(tmp_path, "model.py:Net"), "small")
    assert named(tmp_path, "model.py:Net.Inner") is kind.Inner


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            "torch.nn.Embedding.from_pretraned",
            "no 'from_pretraned' in torch.nn.Embedding, expected one of: from_pretrained",
        ),
        ("torch.nnn.Linear", "no 'nnn' in torch, expected one of: nn, "),
        ("torch.nn.Linear.build.net", "no 'build' in torch.nn.Linear, expected one of: "),
        ("model.py:Net.smal", "no 'smal' in model.py:Net, expected one of: small"),
        ("model.py:Net.small.er", "no 'er' in model.py:Net.small, expected one of: "),
    ],
)
def test_where_a_name_leads_no_further(tmp_path, reference, words):
    (tmp_path / "model.py").write_text("class Net:\n    @classmethod\n    def small(cls): return cls()")
    with pytest.raises(UsageError) as caught:
        named(tmp_path, reference)
    assert f"model.class_path: found {words}" in str(caught.value)


def test_a_package_that_imports_its_parts_when_they_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "lazy_of_test.py").write_text(
        "def __dir__(): return ['network', 'broken']\n"
        "def __getattr__(name):\n"
        "    if name == 'broken': raise RuntimeError('no good')\n"
        "    if name == 'network': return dict\n"
        "    raise AttributeError(name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert named(tmp_path, "lazy_of_test.network") is dict
    with pytest.raises(UsageError, match="found no 'netwrk' in lazy_of_test, expected one of: network"):
        named(tmp_path, "lazy_of_test.netwrk")
    with pytest.raises(
        HessdiagError, match="importing broken from lazy_of_test failed: RuntimeError: no good"
    ) as caught:
        named(tmp_path, "lazy_of_test.broken")
    assert caught.value.exit_code == 3


def test_a_factory_that_wants_to_download(tmp_path):
    def offline(**arguments: object) -> None:
        raise OSError("no weights") from urllib.error.URLError("Name or service not known")

    with pytest.raises(
        HessdiagError, match=r"failed: OSError: no weights: it wanted to download .* model\.checkpoint$"
    ):
        call_reference("model.class_path", "a.b", offline, lambda name: tmp_path / name, pretrained=True)
    with pytest.raises(HessdiagError, match=r"failed: OSError: no weights$"):
        call_reference("loss", "a.b", offline, lambda name: tmp_path / name)


def test_missing_modules():
    with pytest.raises(UsageError, match="found no module 'no_such_package_of_test'"):
        named(Path(), "no_such_package_of_test.module.f")


def test_two_specs_are_loaded_with_their_own_code(tmp_path):
    for place, hidden in (("a", 5), ("b", 5)):
        (tmp_path / place).mkdir()
        tiny.write(tmp_path / place)
        (tmp_path / place / "parts_of_test.py").write_text(f"SCALE = {len(place) if place == 'a' else 3}.0")
        (tmp_path / place / "model.py").write_text(
            f"{tiny.MODEL}\nfrom parts_of_test import SCALE\ninner = build\n"
            f"class Net(nn.Sequential):\n    def forward(self, x): return super().forward(SCALE * x)\n"
            f"def build(): return Net(*inner({hidden}))\n"
        )
    first, second, again = (tiny.load(tmp_path / place / "audit.yaml") for place in ("a", "b", "a"))
    x = torch.ones(1, 4)
    assert torch.equal(first.model(3 * x), second.model(x))
    assert torch.equal(first.model(x), again.model(x))
