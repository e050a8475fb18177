"""Options and verdict of `make conformance`. A run that does not name this folder has neither.

The download happens here, in the one process that starts the others.
"""

import pytest
from conformance.distribution import fetch
from conformance.variants import VARIANTS
from conformance.verdict import Verdict

# Marks that the tests carry; pytest wants to know them.
MARKS = ["accelerate_tests", "torch_compile_test"]
MARKS += ["flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"]


def pytest_addoption(parser: pytest.Parser) -> None:
    text = f"models to test, out of {', '.join(VARIANTS)} (all of them)"
    parser.addoption("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help=text)


def pytest_sessionstart(session: pytest.Session) -> None:
    for mark in MARKS:
        session.config.addinivalue_line("markers", f"{mark}: of transformers")
    if not hasattr(session.config, "workerinput"):  # what a helper process of -n has
        fetch()
        session.config.pluginmanager.register(Verdict(session.config.option.variants))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("variants", default=None)
    if chosen is not None:  # else the run does not name this folder
        items[:] = [item for item in items if item.cls.__name__ in chosen]
