"""The notebooks run from top to bottom, and what they show is what they print."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from docs_helpers import links
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
NAMES = ["attention_by_hand", "read_a_heat_map", "train_a_bot"]
SHIPPED = NAMES[:2]  # nothing is drawn or trained in them
# What the cell tagged `parameters` says in a test: a bot that has learned next to nothing.
SMALL = 'minutes = 0.02\nfolder = Path("bot")\nmine = [["Hi Pip!", "Hello!"]]'
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
MOST = 300_000  # bytes of a file


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def printed(notebook: Any) -> list[str]:
    """What each cell prints."""
    return [
        "".join(output["text"] for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum(
        any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs
    )


@pytest.fixture(scope="module", params=NAMES)
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A notebook as it is committed, and after a run in an empty folder."""
    committed, fresh = read(request.param), read(request.param)
    for cell in fresh.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL
        cell.pop("outputs", None) and cell.update(outputs=[])
    where = {"metadata": {"path": str(tmp_path_factory.mktemp(request.param))}}
    return committed, NotebookClient(fresh, timeout=600, resources=where).execute()


def test_a_notebook_runs_and_draws_what_it_did(run: tuple[Any, Any]) -> None:
    committed, fresh = run
    assert pictures(fresh) == pictures(committed) > 0
    assert [bool(text) for text in printed(fresh)] == [bool(text) for text in printed(committed)]


def test_numbers_of_the_shipped_model_are_those_of_the_run(run: tuple[Any, Any]) -> None:
    """All that is printed, but for the last digit."""
    committed, fresh = run
    if "parameters" in str(committed):
        pytest.skip("what is trained anew differs")
    for before, after in zip(printed(committed), printed(fresh), strict=True):
        assert NUMBER.sub("#", after) == NUMBER.sub("#", before)
        numbers = ([float(number) for number in NUMBER.findall(text)] for text in (after, before))
        assert next(numbers) == pytest.approx(next(numbers), abs=0.0051)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_as_it_ran(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert not [o for cell in code for o in cell.outputs if o.get("name") == "stderr"]
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_links_is_there(name: str) -> None:
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    found = links(text)
    assert found
    assert all((FOLDER / link.partition("#")[0]).is_file() for link in found)


def test_all_notebooks_are_listed_and_run() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    listed = links((FOLDER / "README.md").read_text("utf-8"))
    assert {f"{name}.ipynb" for name in NAMES} <= set(listed)
