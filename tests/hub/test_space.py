"""The Space in a folder of its own, in a fresh environment and a real browser; the endpoint too."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_helpers import bots, button, finished, free_port, ready, say, text_of
from gradio_client import Client as GradioClient
from hub_server import HubServer
from hub_store import faults_of_card
from huggingface_hub import RepoCard
from packaging.requirements import Requirement
from playwright.sync_api import expect
from playwright.sync_api import sync_playwright as playwright
from waiting import PATIENCE

from chatbot.app import strings
from chatbot.chat import ChatSession

from .conftest import Client, alone, fresh_python

HOST = "localhost"  # as in a Space, another name than 127.0.0.1, which means: this computer alone
HANDLE = """
import json, sys
import chatbot
from handler import EndpointHandler
assert chatbot.__file__.startswith(sys.argv[1]), chatbot.__file__
handler = EndpointHandler(sys.argv[1])
for line in sys.stdin:
    try:
        print(json.dumps(handler(json.loads(line))))
    except ValueError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def published(
    hub: HubServer,
    client: Client,
    tiny_chatbot_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """What a push with everything put on the Hub, in folders."""
    options = ("--licence-checked", "--space", "--endpoint")
    addresses = [f"{hub.url}/club/spoken", f"{hub.url}/spaces/club/spoken"]
    hub.calm()
    answer = client.chatbot("push", tiny_chatbot_folder, "club/spoken", *options)
    assert answer["result"] == 0, answer
    assert re.findall(r"^Published: (.+)$", answer["printed"], re.MULTILINE) == addresses
    folders = {}
    for kind in ("model", "space"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        for name, content in hub.files("club/spoken", kind).items():
            (folders[kind] / name).parent.mkdir(parents=True, exist_ok=True)
            (folders[kind] / name).write_bytes(content)
    return folders


def requirements(folder: Path) -> list[str]:
    return (folder / "requirements.txt").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def space(published: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the Space, run as the Hub does: its requirements, its gradio, its folder."""
    folder, place = published["space"], tmp_path_factory.mktemp("machine")
    gradio = f"gradio=={RepoCard.load(folder / 'README.md').data.sdk_version}"
    python = fresh_python(place / "venv", [gradio, *requirements(folder)])
    port = free_port()
    process = subprocess.Popen(
        [python, "app.py"],
        cwd=folder,
        env=alone(place, GRADIO_SERVER_NAME=HOST, GRADIO_SERVER_PORT=port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if f":{port}" in line:
            break
    else:
        pytest.fail("".join(printed))
    yield f"http://{HOST}:{port}"
    process.kill()
    process.wait()


def test_the_space_answers_as_the_chat(space: str, tiny_chatbot_folder: Path) -> None:
    session = ChatSession.from_pretrained(tiny_chatbot_folder, preset="greedy")
    said = GradioClient(space, verbose=False).predict("hello", None, "greedy", api_name="/chat")
    assert said == session.reply("hello").text != ""


@pytest.mark.browser
def test_the_space_answers_in_a_browser(space: str, chromium: str) -> None:
    expect.set_options(timeout=1_000 * PATIENCE)
    with playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab, asked = browser.new_page(), set()
        tab.on("request", lambda request: asked.add(request.url))
        tab.goto(space)
        ready(tab)
        say(tab, "hello")
        finished(tab, 1)
        assert text_of(bots(tab))
        tab.get_by_text(strings.ATTENTION).click()
        expect(tab.locator("#inspection tbody td[title]").first).to_be_visible()
        for rating in (strings.LIKE, strings.DISLIKE):  # what would be written to the server's disk
            expect(button(tab, rating)).to_have_count(0)
        browser.close()
    assert not [url for url in asked if not url.startswith((space, "data:", "blob:"))]


def test_the_space_s_files(hub: HubServer, published: dict[str, Path], repository: Path) -> None:
    folder = published["space"]
    pins = dict(
        line.split("==")
        for line in (repository / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    card = (folder / "README.md").read_text("utf-8")
    assert faults_of_card(card, "space") == []
    head = RepoCard(card).data
    assert (head.sdk, head.sdk_version, head.app_file) == ("gradio", pins["gradio"], "app.py")
    assert head.models == ["club/spoken"]
    first = (folder / "requirements.txt").read_text().splitlines()[0]
    assert first.startswith("--extra-index-url")
    required = {Requirement(line).name: line.partition("==")[2] for line in requirements(folder)}
    assert {"torch", "transformers", "huggingface-hub"} <= required.keys()
    assert not [name for name in required if "chatbot" in name]
    named = {re.sub("[_-]", "-", name).lower(): version for name, version in pins.items()}
    assert {name: named[name] for name in required} == required
    sent = hub.files("club/spoken", "space")
    assert {"app.py", "chatbot/cli.py", "chatbot/app/page.py", "model/config.json"} <= sent.keys()
    assert not [name for name in sent if "__pycache__" in name or "pretrained" in name]


def test_the_endpoint_answers_as_the_chat(
    published: dict[str, Path], tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    folder = published["model"]
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Hi."}]
    messages = [*said, {"role": "user", "content": "what do you like?"}]
    session = ChatSession.from_pretrained(
        tiny_chatbot_folder, preset="careful", seed=3, messages=said
    )
    replies = [
        ChatSession.from_pretrained(tiny_chatbot_folder, preset="greedy").reply("hello").text,
        session.reply("what do you like?").text,
    ]
    asked = [
        {"inputs": "hello", "parameters": {"preset": "greedy"}},
        {"inputs": said[:1], "parameters": {"preset": "greedy"}},
        {"inputs": messages, "parameters": {"preset": "careful", "seed": 3}},
        {"inputs": "hello", "parameters": {"preset": "loud"}},
        {"inputs": []},
    ]
    python = fresh_python(tmp_path / "venv", requirements(folder))
    done = subprocess.run(
        [python, "-c", HANDLE, folder],
        cwd=folder,
        env=alone(tmp_path),
        input="\n".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer[0]["generated_text"] for answer in answers[:3]] == [
        replies[0],
        replies[0],
        replies[1],
    ], done.stderr
    assert "loud" in answers[3]
    assert answers[4].startswith("inputs=[]")
