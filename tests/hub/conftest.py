"""A Hub on loopback, and a warm process in which the real client talks to it."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from hub_store import User
from packaging.requirements import Requirement

# Importing torch takes seconds: one process runs one program after the other.
LOOP = """
import contextlib, io, json, sys
answers, programs = sys.stdout, sys.stdin
for line in programs:
    printed, names = io.StringIO(), {}
    sys.stdin = io.StringIO("hello\\n")
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exec(json.loads(line), names)
        answer = {"result": names.get("result"), "error": ""}
    except BaseException as error:
        answer = {"result": None, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps({**answer, "printed": printed.getvalue()}), file=answers, flush=True)
"""
Answer = dict[str, Any]


class Client:
    """A Python that knows the Hub, as a user with a token has it."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, program: str) -> Answer:
        """Run a program. What it names `result`, what it printed, and its error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(program) + "\n")
        self.process.stdin.flush()
        answer: Answer = json.loads(self.process.stdout.readline())
        return answer

    def chatbot(self, *arguments: object) -> Answer:
        """The command line; `result` is its exit status."""
        given = [str(argument) for argument in arguments]
        return self.run(f"from chatbot.cli import main\nresult = main({given!r})")

    def fresh(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A process of its own."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=600,
            input="hello\n",
        )


def fresh_python(folder: Path, requirements: Iterable[str]) -> Path:
    """The Python of a new environment: these requirements, what they require, and nothing else.

    The packages are links to those of this environment, whose versions must fit: no network.
    """
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    todo, seen = list(requirements), set()
    while todo:
        need = Requirement(todo.pop())
        if str(need) in seen:
            continue
        seen.add(str(need))
        found = distribution(need.name)
        assert need.specifier.contains(found.version, prereleases=True), (need, found.version)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
        extras = [{"extra": extra} for extra in ("", *need.extras)]
        for line in found.requires or []:
            marker = Requirement(line).marker
            if marker is None or any(map(marker.evaluate, extras)):
                todo.append(line)
    return folder / "bin" / "python"


def alone(home: Path, **more: object) -> dict[str, str]:
    """Environment variables of a computer that knows nobody."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS")}
    return kept | {"HOME": str(home), **{name: str(value) for name, value in more.items()}}


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.users = {
            "hf_ann": User("ann", orgs=("club",)),
            "hf_bob": User("bob", role="read"),
            "hf_oauth_eve": User("eve", role="oauth"),
        }
        yield server


@pytest.fixture(scope="session")
def client(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_TOKEN": "hf_ann",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    client = Client(environment)
    yield client
    client.process.kill()
    client.process.wait()


@pytest.fixture(autouse=True)
def calm(hub: HubServer) -> None:
    """Nothing is broken, and everybody has their rights."""
    hub.calm()
    hub.users["hf_ann"].role = "write"


@pytest.fixture(scope="session")
def pushed(
    hub: HubServer,
    client: Client,
    tiny_chatbot_folder: Path,
) -> str:
    """The random chatbot on the Hub. Nobody changes it."""
    answer = client.chatbot("push", tiny_chatbot_folder, "ann/tiny", "--licence-checked")
    assert answer["result"] == 0, answer
    return "ann/tiny"
