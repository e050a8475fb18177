"""What the README shows is what happens: its Python runs, and its numbers are the card's."""

import re
from pathlib import Path

import pytest
from docs_helpers import blocks

from chatbot.hub_files import hub_config_path


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text("utf-8")


def test_the_python_runs(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    programs = blocks(readme, "python")
    assert len(programs) == 3
    for program in programs:
        exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
        assert capsys.readouterr().out.strip()


def test_the_results_are_those_of_the_card(readme: str) -> None:
    card = (hub_config_path("pretrained") / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:all|self-dialogue) \| [\d,]+ \|.*$", card, flags=re.MULTILINE)
    assert len(rows) == 2
    for row in rows:
        assert row in readme
