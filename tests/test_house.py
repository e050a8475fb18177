"""Keeps the house in order: size, portability, versions, licence, scripts that parse."""

import ast
import hashlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import chatbot

# A person reads the package in an afternoon. Before raising a limit, look for what can go.
LINE_LIMITS = {"chatbot": 15900, "chatbot/modeling": 2240}
# The text at apache.org/licenses/LICENSE-2.0.txt
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|root|Users|work|opt|mnt)/\w")
SLEEP = re.compile(r"\btime\.sleep\(|\bfrom time import .*\bsleep\b|^\s*sleep \d", re.MULTILINE)
TEXT_SUFFIXES = {
    "", ".cff", ".css", ".html", ".js", ".json", ".log", ".md", ".py", ".sh", ".toml", ".txt",
    ".yaml", ".yml",
}  # fmt: skip


def repository_files(repository: Path) -> Iterator[Path]:
    """All files of the checkout but those that git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=repository, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    for name in listed.decode().split("\0"):
        if name and (repository / name).is_file():
            yield repository / name


def sources(repository: Path) -> Iterator[tuple[str, str]]:
    """Relative path and text of each text file that people wrote, this one apart."""
    for path in repository_files(repository):
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__):
            yield path.relative_to(repository).as_posix(), path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins(repository: Path) -> dict[str, str]:
    """Version of each distribution in constraints.txt, which holds nothing but plain pins."""
    found: dict[str, str] = {}
    for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert pin, f"{line!r} is no plain pin"
            found[canonicalize_name(pin[1])] = pin[2]
    return found


@pytest.mark.parametrize(("folder", "limit"), LINE_LIMITS.items())
def test_the_package_stays_small(repository: Path, folder: str, limit: int) -> None:
    lines = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (repository / folder).rglob("*.py")
    )
    assert lines <= limit


def test_no_path_of_one_machine(repository: Path) -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in sources(repository)
        for match in MACHINE_PATH.finditer(text)
    ]
    assert found == []


def test_nothing_waits_by_sleeping(repository: Path) -> None:
    """A sleep is too short on a busy machine and too long on any other: wait for the event."""
    assert [name for name, text in sources(repository) if SLEEP.search(text)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in /home/ann/x", True),
        ("'/root/x'", True),
        ("example.org/home/x", False),
        ("~/work/x", False),
    ],
)
def test_what_counts_as_a_path_of_one_machine(text: str, found: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("time.sleep(1)", True),
        ("from time import monotonic, sleep", True),
        ("  sleep 5", True),
        ('"I sleep 8 hours"', False),
    ],
)
def test_what_counts_as_sleeping(text: str, found: bool) -> None:
    assert bool(SLEEP.search(text)) == found


def test_ci_runs_make_test(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")


def test_scripts_parse_and_say_how_they_are_called(repository: Path) -> None:
    for path in sorted((repository / "scripts").rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    for path in sorted((repository / "scripts").rglob("*.sh")):
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_yaml_parses(repository: Path) -> None:
    for path in repository_files(repository):
        if path.suffix in {".yaml", ".yml", ".cff"}:
            assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_the_version_stands_everywhere(repository: Path, pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert chatbot.__version__ == project["version"] == citation["version"]
    assert installed_version(project["name"]) == project["version"], "install again: make test"
    assert project["version"] in changelog


def test_python_is_claimed_as_tested(pyproject: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    claimed = [name for name in pyproject["project"]["classifiers"] if name.startswith(prefix)]
    assert claimed == [prefix + "11"]
    assert pyproject["project"]["requires-python"] == ">=3.11"
    assert pyproject["tool"]["mypy"]["python_version"] == "3.11"
    assert pyproject["tool"]["ruff"]["target-version"] == "py311"


def test_each_dependency_is_pinned_within_its_range(
    pyproject: dict[str, Any], pins: dict[str, str]
) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(line)
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line


def test_the_pins_bring_no_cuda(pins: dict[str, str]) -> None:
    assert [name for name in pins if re.match("nvidia|cuda|triton", name)] == []


def test_the_licence_is_the_whole_apache_licence(repository: Path) -> None:
    assert hashlib.sha256((repository / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
