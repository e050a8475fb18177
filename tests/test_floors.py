"""Keeps the floors of the package: a module imports only from below (see CONTRIBUTING.md).

Imports are read from the syntax tree, inside functions and under TYPE_CHECKING too.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

# From the ground up. A name is a module, a name with "/" a folder, which counts as one part. A part
# imports what lies on lower floors and what is listed before it on its own.
FLOORS = [
    ["modeling/", "hub_files", "hub_download", "hub_upload", "folders"],
    ["tokenization", "presets", "data/", "checkpoints"],
    [
        "incremental",
        "metrics",
        "decoding",
        "explain",
        "evaluation",
        "evaluation_report",
        "doctor",
        "training_run",
        "training_callbacks",
        "training_average",
        "training_retention",
        "training_checkpoints",
        "training_data",
        "training_record",
        "training_dialogues",
        "training_curve",
        "training_model",
        "training",
        "safety",
        "export",
    ],
    ["chat", "hub_card", "hub", "pipelines", "reading"],
    ["serving/"],
    ["terminal", "app/"],
    ["cli", "__main__"],
]
# modeling/ is what goes to the Hub: it must load where the package is not installed.
# (huggingface_hub comes with transformers, whose configs take @strict from it.)
MODELING_NEEDS = {"torch", "transformers", "huggingface_hub"}
# What an extra of the package brings, and the only parts that may ask for it.
EXTRAS = {
    "gradio": {"app/"},
    "gradio_client": {"app/"},
    "fastapi": {"serving/", "app/"},
    "uvicorn": {"serving/", "app/"},
    "matplotlib": {"explain", "evaluation_report", "training_curve", "app/"},
    "plotly": {"explain", "app/"},
    "sacrebleu": {"metrics"},
    "better_profanity": {"data/"},
    "py3langid": {"data/"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "openai": {"serving/"},
    "ray": {"serving/"},
}
DISTRIBUTIONS = {"yaml": "pyyaml"}  # where the import name differs from the distribution's

PACKAGE = "chatbot"


def part_of(module: str) -> str:
    """The named part that a module of the package lies in: `data.sources` -> `data/`."""
    names = [name for floor in FLOORS for name in floor]
    top = module.split(".")[0]
    return f"{top}/" if f"{top}/" in names else module


def imports_of(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports, `from a import b` as `a.b`."""
    folder = [PACKAGE, *path.relative_to(package).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*base, node.module] if node.module else base)
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def violations(package: Path, core: set[str]) -> list[str]:
    """Every import of the package at `package` that breaks a rule, as `file:line: what`."""
    order = {name: (floor, i) for floor, names in enumerate(FLOORS) for i, name in enumerate(names)}
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative == Path("__init__.py"):  # the public names, each imported when it is asked for
            continue
        module = ".".join(relative.with_suffix("").parts)
        part = part_of(module)
        if part not in order:
            found.append(f"{relative}: no floor is given for it; name it in FLOORS")
            continue
        for line, name in imports_of(path, package):
            where = f"{relative}:{line}: "
            top, _, rest = name.partition(".")
            if top != PACKAGE:
                if top in sys.stdlib_module_names:
                    continue
                if part == "modeling/" and top not in MODELING_NEEDS:
                    found.append(f"{where}modeling/ must load without {top}")
                elif top in EXTRAS and part not in EXTRAS[top]:
                    found.append(f"{where}{top} belongs to {sorted(EXTRAS[top])}")
                elif top not in EXTRAS and DISTRIBUTIONS.get(top, top) not in core:
                    found.append(f"{where}{top} is no dependency that pyproject.toml names")
                continue
            if part == "modeling/" and not rest.startswith("modeling."):
                found.append(f"{where}modeling/ must load without {PACKAGE}")
                continue
            if rest == "__version__":
                continue
            target = part_of(rest) if part_of(rest) in order else part_of(rest.rpartition(".")[0])
            if target not in order:
                found.append(f"{where}{name}: import from the module that defines it")
            elif target != part and order[target] > order[part]:
                found.append(f"{where}{target} lies above {part}")
    return found


def absolute_imports(folder: Path) -> list[str]:
    """Imports of modeling/ that only an installed package resolves, or that leave the flat folder.

    The Hub's loader copies the siblings named by `from .sibling import Name`, and nothing else.
    """
    found = [f"{path.name}: a folder" for path in folder.rglob("*.py") if path.parent != folder]
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                wrong = any(name.split(".")[0] == PACKAGE for name in names)
            elif isinstance(node, ast.ImportFrom):
                names = [] if node.module is None else node.module.split(".")
                sibling = node.level == 1 and len(names) == 1
                wrong = not sibling if node.level else names[0] == PACKAGE
            else:
                continue
            if wrong:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return found


def heavy_imports(init: Path) -> list[str]:
    """What `import chatbot` alone would load beyond the standard library."""
    found = []
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [PACKAGE if node.level else str(node.module)]
        else:
            continue
        found += [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
    return found


def core_dependencies(pyproject: Path) -> set[str]:
    """Names of the distributions that every installation of the package brings."""
    from packaging.requirements import Requirement

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return {Requirement(line).name for line in project["dependencies"]}


def test_modules_import_only_from_below(repository: Path) -> None:
    core = core_dependencies(repository / "pyproject.toml")
    assert violations(repository / PACKAGE, core) == []


def test_modeling_imports_as_the_hub_needs_it(repository: Path) -> None:
    assert absolute_imports(repository / PACKAGE / "modeling") == []


def test_import_of_the_package_is_light(repository: Path) -> None:
    assert heavy_imports(repository / PACKAGE / "__init__.py") == []


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """A small package with these files."""
    package = root / PACKAGE
    for name, text in {"__init__.py": "", **files}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


ALLOWED = {
    "modeling/one_rnn.py": "import math\nimport torch\nfrom transformers import PreTrainedModel\n",
    "modeling/two_rnn.py": "from .one_rnn import One\n",
    "data/__init__.py": "from .sources import read\nfrom chatbot.tokenization import train\n",
    "data/sources.py": "from ..hub_files import hub_config_path\nimport yaml\n",
    "chat.py": "from chatbot import __version__, decoding\nfrom chatbot.modeling import One\n",
    "training.py": "from chatbot.evaluation import perplexity\n",
    "app/page.py": "import gradio\nfrom chatbot.chat import ChatSession\n",
}


def test_allowed_imports_pass(tmp_path: Path) -> None:
    package = write_tree(tmp_path, ALLOWED)
    assert violations(package, {"torch", "transformers", "pyyaml"}) == []
    assert absolute_imports(package / "modeling") == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("tokenization.py", "from chatbot.chat import X", "tokenization.py:1: chat lies above"),
        ("tokenization.py", "from . import chat", "chat lies above tokenization"),
        ("tokenization.py", "import chatbot.cli as c", "cli lies above tokenization"),
        ("evaluation.py", "import math\nfrom .training import X", "evaluation.py:2: training lies"),
        ("chat.py", "def f():\n    from .app.page import X", "chat.py:2: app/ lies above chat"),
        ("data/prepare.py", "from ..decoding import X", "decoding lies above data/"),
        ("chat.py", "import_module('chatbot.cli')", "cli lies above chat"),
        ("chat.py", "from chatbot import ChatSession", "import from the module that defines it"),
        ("chat.py", "import gradio", "gradio belongs to ['app/']"),
        ("training.py", "import matplotlib.pyplot", "matplotlib belongs to"),
        ("training.py", "import nltk", "nltk is no dependency"),
        ("modeling/x_rnn.py", "import yaml", "modeling/ must load without yaml"),
        ("modeling/x_rnn.py", "from chatbot.chat import X", "modeling/ must load without chatbot"),
        ("helpers.py", "", "helpers.py: no floor is given for it"),
    ],
)
def test_each_rule_can_be_broken(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    package = write_tree(tmp_path, {name: text})
    found = violations(package, {"torch", "transformers", "pyyaml"})
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "from . import one_rnn",
        "from ..hub_files import X",
        "from .sub.one_rnn import X",
        "from chatbot.modeling.one_rnn import X",
        "import chatbot.modeling.one_rnn",
    ],
)
def test_imports_that_the_hub_cannot_follow_are_found(tmp_path: Path, text: str) -> None:
    package = write_tree(tmp_path, {"modeling/x_rnn.py": text})
    assert absolute_imports(package / "modeling") == [f"x_rnn.py:1: {text}"]


def test_a_heavy_import_is_found(tmp_path: Path) -> None:
    package = write_tree(tmp_path, {"__init__.py": "import sys\nimport torch\nfrom . import chat"})
    assert heavy_imports(package / "__init__.py") == ["torch", PACKAGE]
