"""What `make conformance` does before and after the tests; nothing where this folder is not named.

Tests picked with `-k` or `::` run without the verdict, which is on whole variants.
"""

from pathlib import Path

import pytest
from conformance.distribution import fetch
from conformance.variants import VARIANTS
from conformance.verdict import Verdict

HERE = Path(__file__).parent
# Marks that the tests carry; pytest wants to know them.
MARKS = ["accelerate_tests", "torch_compile_test"]
MARKS += ["flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"]


def pytest_addoption(parser: pytest.Parser) -> None:
    text = f"models to test, out of {', '.join(VARIANTS)} (all of them)"
    parser.addoption("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help=text)


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: of transformers")
    if hasattr(config, "workerinput"):
        return  # a process that -n has started: what follows is done once
    fetch()
    if not config.option.keyword and "::" not in "".join(config.args):
        config.pluginmanager.register(Verdict(config.option.variants))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.option.variants
    items[:] = [item for item in items if item.path.parent != HERE or item.cls.__name__ in chosen]
