"""The spec is read without torch, and its words without pydantic."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("from hessdiag.spec import Spec, json_schema, load_spec", ["torch", "numpy"]),
        ("import hessdiag.spec.names", ["torch", "pydantic", "yaml"]),
    ],
)
def test_what_an_import_leaves_alone(statement: str, absent: list[str]) -> None:
    code = f"{statement}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_package_can_be_had() -> None:
    import hessdiag.spec

    assert sorted(dir(hessdiag.spec)) == ["Spec", "json_schema", "load_spec"]
    assert all(getattr(hessdiag.spec, name) for name in dir(hessdiag.spec))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hessdiag.spec.nothing
