"""The program in its worker, once for each process of pytest, and what was seen of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzz_program import Program, lay_out


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    place = tmp_path_factory.mktemp("fuzz")
    lay_out({"outside": b"a neighbour\n", "outside.safetensors": b"another\n"}, place)
    program = Program(place)
    yield program
    program.close()
