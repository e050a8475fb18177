"""From a training to the Hub and back: the commands of the README and of docs/hub.md as they are.

The Hub is on loopback and the command lines are the real ones. They run in a folder named after
somebody whose name may not leave it, who logs in through the browser.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_helpers import free_port
from chat_helpers import few_dialogues, write_dialogues
from docs_helpers import blocks, table
from gradio_client import Client as GradioClient
from hub_server import HubServer
from huggingface_hub import ModelCard

from .conftest import Answer, Client

SECRET = "annabel"
TRAIN = (
    "chatbot train --data data/mine --output runs/mine --push-to eve/trained "
    "--model.embedding_size 16 --model.hidden_size 16 --prompts [hi] --trainer.max_steps 2 "
    "--trainer.eval_strategy no --trainer.save_strategy no --trainer.load_best_model_at_end false"
)


class Home:
    """The folder of somebody who is not logged in yet."""

    def __init__(self, client: Client, folder: Path):
        self.client, self.folder = client, folder
        variables = client.environment
        self.variables = {name: variables[name] for name in variables if name != "HF_TOKEN"}

    def try_(self, line: str) -> Answer:
        """The warm process runs `chatbot`."""
        return self.client.chatbot(*shlex.split(line, comments=True)[1:])

    def start(self, line: str, *more: object) -> subprocess.Popen[str]:
        """A process of its own runs a line as a shell would."""
        words = shlex.split(line, comments=True)
        given = dict(word.split("=") for word in words if re.match("[A-Z_]+=", word))
        program = str(Path(sys.executable).with_name(words[len(given)]))
        return subprocess.Popen(
            [program, *words[len(given) + 1 :], *map(str, more)],
            env=self.variables | given,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tell(self, line: str) -> str:
        """What a command prints that does what it should."""
        if line.startswith("chatbot "):
            answer = self.try_(line)
            assert answer["result"] == 0, (line, answer)
            return str(answer["printed"])
        process = self.start(line)
        printed, _ = process.communicate("hello\n")
        assert process.returncode == 0, (line, printed)
        return printed


@pytest.fixture(scope="module")
def home(
    client: Client, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home") / SECRET
    write_dialogues(folder / "mine.jsonl", few_dialogues(train=40))
    (folder / "hub_config").symlink_to(repository / "hub_config")
    enter = "import os\nresult = os.getcwd(), os.environ.pop('HF_TOKEN')\nos.chdir({!r})"
    before, token = client.run(enter.format(str(folder)))["result"]
    yield Home(client, folder)
    client.run(f"import os\nos.chdir({before!r})\nos.environ['HF_TOKEN'] = {token!r}")


@pytest.fixture(scope="module")
def logged_in(hub: HubServer, home: Home) -> Home:
    """The same, with a login and data."""
    hub.calm()
    answer = home.try_(TRAIN)
    assert answer["result"] == 2
    assert "no token: `hf auth login` keeps one" in answer["printed"]
    assert not (home.folder / "runs").exists()
    assert "ABCD" in home.tell("hf auth login")
    home.tell("chatbot prepare mine.jsonl --output data/mine")
    return home


def test_a_training_is_published(hub: HubServer, logged_in: Home) -> None:
    """And what to do is said before, in case it should fail: the training is not lost."""
    printed = logged_in.tell(TRAIN)
    assert "chatbot push runs/mine/model eve/trained --private\n" in printed
    assert f"Published: {hub.url}/eve/trained\n" in printed
    assert hub.repos["model", "eve/trained"].private
    sent = logged_in.folder / "runs/mine/model/model.safetensors"
    assert hub.files("eve/trained")["model.safetensors"] == sent.read_bytes()


def commands(repository: Path) -> list[str]:
    """Those of the README's section and of the page, each once."""
    readme = (repository / "README.md").read_text("utf-8").split("## To the Hub and back\n")[1]
    page = (repository / "docs" / "hub.md").read_text("utf-8")
    found = [blocks(readme, "")[0], *blocks(page, "")]
    lines = [line.partition("  #")[0].rstrip() for block in found for line in block.splitlines()]
    return list(dict.fromkeys(lines))


def test_the_commands_of_the_readme_and_of_the_page(
    hub: HubServer, logged_in: Home, repository: Path
) -> None:
    printed = {}
    lines = commands(repository)
    assert len(lines) == 9
    for line in lines[1:]:  # the first is the login
        there = line.replace("owner/name", "eve/mine")
        printed[line] = ask(logged_in, there) if " serve " in line else logged_in.tell(there)
        assert ("model", "eve/mine") not in hub.repos or "--dry-run" not in line
    dry, real = (text for line, text in printed.items() if " push " in line)
    assert real.startswith(dry.removesuffix("Nothing was sent.\n"))
    assert real.endswith(f"Published: {hub.url}/spaces/eve/mine\n")
    for kind in ("model", "space"):
        assert hub.repos[kind, "eve/mine"].private
        for name, content in hub.files("eve/mine", kind).items():
            assert SECRET.encode() not in content, name
            assert b"hf_oauth" not in content, name
    assert "data/greetings_and_about_wren.jsonl" in hub.files("eve/mine", "dataset")
    check_card(hub.files("eve/mine")["README.md"].decode())


def ask(home: Home, line: str) -> str:
    """What the page of `chatbot serve` answers."""
    port = free_port()
    process = home.start(line, "--port", port, "--no-browser")
    assert process.stdout is not None
    try:
        printed = next((line for line in process.stdout if f":{port}" in line), "")
        assert printed, process.stdout.read()
        page = GradioClient(f"http://127.0.0.1:{port}", verbose=False)
        return str(page.predict("hello", None, "greedy", api_name="/chat"))
    finally:
        process.kill()
        process.wait()


def check_card(text: str) -> None:
    """It holds what `chatbot evaluate` measured."""
    card = ModelCard(text)
    names = " ".join(result.metric_name for result in card.data.eval_results)
    for measure in ("perplexity per token", "BLEU", "chrF", "distinct-1"):
        assert measure in names
    assert {result.dataset_name for result in card.data.eval_results} == {
        "own data 1, test dialogues"
    }
    assert "![Losses while it learned](learning_curve.svg)" in text
    assert "2 steps in 0 minutes" in text


def test_what_the_page_says_one_sees_is_what_is_said(repository: Path) -> None:
    modules = (repository / "chatbot").glob("hub*.py")
    said = "".join(path.read_text("utf-8") for path in modules)
    rows = table((repository / "docs" / "hub.md").read_text("utf-8"), "you see", "do")
    assert len(rows) >= 10
    for row in rows:
        parts = re.split(r"`|owner/name|ann/|README\.md|CC BY-NC|\.\.\.|[;:,] ", row["you see"])
        assert [part for part in parts if part.strip() not in said] == [], row
