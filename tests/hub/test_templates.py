"""Every file of `hub_config`: what it must be, and that code holds nothing that belongs there."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from jinja2.meta import find_undeclared_variables

from chatbot.hub_files import hub_config_path
from chatbot.presets import generation_preset, model_preset

PRESETS = ("model_presets.yaml", "generation_presets.yaml")


def prompts(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(set(lines)) == len(lines) >= 7
    assert all(lines)


def table(path: Path) -> None:
    values = yaml.safe_load(path.read_text("utf-8"))
    assert values
    for name in values if path.name == PRESETS[0] else ():
        model_preset(name)
    for name in values if path.name == PRESETS[1] else ():
        generation_preset(name)
    if path.name == "data_sources.yaml":
        assert all(of["license"] and of["origin"] for of in values.values())


def template(path: Path) -> None:
    """It can be rendered, and takes something."""
    pages = Environment(loader=FileSystemLoader(path.parent))
    pages.get_template(path.name)
    text = path.read_text("utf-8")
    assert find_undeclared_variables(pages.parse(text)) or "macro" in text


def program(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


# What each is, and where it is rendered or run whole: test_card, test_space, test_evaluation_report
KINDS: dict[str, Callable[[Path], None]] = {
    "card_prompts.txt": prompts,
    "data_sources.yaml": table,
    "endpoint/handler.py": program,
    "evaluation/numbers.txt": template,
    "evaluation/protocol.txt": prompts,
    "evaluation/reading.html": template,
    "evaluation/report.html": template,
    "evaluation/results.md": template,
    "evaluation/results.tex": template,
    "generation_presets.yaml": table,
    "model_card_template.md": template,
    "model_presets.yaml": table,
    "safety.yaml": table,
    "space/README.md": template,
    "space/app.py": program,
}
REPOSITORIES = ("pretrained", "sample_conversations")  # which have tests of their own


def test_no_file_is_forgotten() -> None:
    folder = hub_config_path()
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    own = {path.as_posix() for path in found if "__pycache__" not in path.parts}
    assert {name for name in own if name.split("/")[0] not in REPOSITORIES} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_each_file_is_what_it_should_be(name: str) -> None:
    KINDS[name](hub_config_path(name))


def test_sizes_and_ways_to_decode_stand_in_the_presets_alone(repository: Path) -> None:
    """In code there are only values that change nothing."""
    values = [yaml.safe_load(hub_config_path(name).read_text("utf-8")) for name in PRESETS]
    fields = {field for table in values for preset in table.values() for field in preset}
    found = []
    for path in (repository / "chatbot").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            pairs = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
            if isinstance(node, ast.Dict):
                names = (key.value if isinstance(key, ast.Constant) else None for key in node.keys)
                pairs = list(zip(names, node.values, strict=True))
            found += [
                (path.name, name, value.value)
                for name, value in pairs
                if name in fields and isinstance(value, ast.Constant)
            ]
    assert found
    assert [one for one in found if one[2] not in (0, 1, False, None)] == []
