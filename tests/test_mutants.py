"""Every mutant of scripts/mutate.py still fits the code and changes it. Running them is slow."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def mutate(repository: Path) -> ModuleType:
    path = repository / "scripts" / "mutate.py"
    spec = importlib.util.spec_from_file_location("mutate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mutant_fits(mutate: ModuleType, repository: Path) -> None:
    assert len(mutate.MUTANTS) >= 15
    assert len({mutant.name for mutant in mutate.MUTANTS}) == len(mutate.MUTANTS)
    for mutant in mutate.MUTANTS:
        path, text = mutate.mutated(mutant, repository)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(path.read_text("utf-8"))), mutant


def test_a_mutant_that_fits_no_more_is_refused(mutate: ModuleType, repository: Path) -> None:
    with pytest.raises(ValueError, match="'no such line' occurs 0 times"):
        mutate.mutated(mutate.Mutant("x", "cache", "no such line", ""), repository)
