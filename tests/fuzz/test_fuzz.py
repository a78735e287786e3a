"""Whatever happens to a spec, a checkpoint or data: exit 0, 2 or 3, one clear message, in time, nothing touched.

``pytest -m slow tests/fuzz`` tries ten times as much.
"""

from __future__ import annotations

import math
import sys
import zlib
from functools import cache
from pathlib import Path

import fuzz_seeds_checkpoints  # noqa: F401
import fuzz_seeds_data  # noqa: F401
import fuzz_seeds_specs  # noqa: F401
import hypothesis
import pytest
from fuzz_mutations import CHANGES, STEPS, Mutation, mutations
from fuzz_program import Program
from fuzz_seeds import RECIPES, Recipe, Seed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the worker forks, and counts memory as Linux does")

EACH = 200
SLOW = 2000
CASES = [pytest.param(kind, name, id=f"{kind}-{name}") for kind, recipes in RECIPES.items() for name in recipes]


@cache
def made(recipe: Recipe, place: Path) -> Seed:
    return recipe.make(place / "seed")


def check(program: Program, seed: Seed, way: tuple[str, ...], mutation: Mutation) -> None:
    files = mutation(seed.files, seed.may_change)
    wrong = program.run(files, *way, modules=seed.modules)
    assert not wrong, "\n".join([" ".join(way), *wrong])


def fuzz(program: Program, kind: str, name: str, examples: int) -> None:
    seed = made(RECIPES[kind][name], program.place)
    assert program.run(seed.files, *seed.ways[0], modules=seed.modules) == []

    @hypothesis.seed(zlib.crc32(f"{kind}-{name}".encode()))  # derandomized, the changes would be the same for all
    @settings(
        max_examples=math.ceil(examples / len(RECIPES[kind])),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(mutations(STEPS if kind == "specs" else CHANGES), st.sampled_from(seed.ways))
    def run(mutation: Mutation, way: tuple[str, ...]) -> None:
        check(program, seed, way, mutation)

    run()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_changed_files(program, kind, name):
    fuzz(program, kind, name, EACH)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_changed_files_again_and_again(program, kind, name):
    fuzz(program, kind, name, SLOW)
