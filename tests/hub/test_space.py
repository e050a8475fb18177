"""The Space in a folder of its own, where nothing else brings this package; the endpoint too."""

import re
import shutil
import sysconfig
from pathlib import Path

import pytest
from hub_server import HubServer
from hub_store import faults_of_card
from packaging.requirements import Requirement

from .conftest import Client

# Without `site` no link to the checkout is followed: only the folder brings the package.
START = """
import sys
sys.path[:0] = [{folder!r}]
sys.path.append({packages!r})
"""
SERVE = """
import os, re, runpy, socket, subprocess, sys, threading
from gradio_client import Client
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
os.environ.update(GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT=str(port))
command = [sys.executable, "-S", "-c", {start!r} + "import runpy; runpy.run_path({app!r})"]
space = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/")
try:
    for line in space.stdout:
        if f":{{port}}" in line:
            break
    client = Client(f"http://127.0.0.1:{{port}}", verbose=False)
    result = client.predict("hello", None, "greedy", api_name="/chat")
finally:
    space.kill()
    space.wait()
"""
HANDLE = """
import json
from handler import EndpointHandler
import chatbot
assert chatbot.__file__.startswith({folder!r}), chatbot.__file__
handler = EndpointHandler({folder!r})
messages = [{{"role": "user", "content": "hello"}}]
for inputs in ("hello", messages):
    print(json.dumps(handler({{"inputs": inputs, "parameters": {{"preset": "greedy"}}}})))
"""


@pytest.fixture(scope="module")
def published(
    hub: HubServer,
    client: Client,
    tiny_chatbot_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """What a push with everything put on the Hub, in folders."""
    hub.calm()
    options = ("--licence-checked", "--space", "--endpoint")
    answer = client.chatbot("push", tiny_chatbot_folder, "club/spoken", *options)
    assert answer["result"] == 0, answer
    assert f"{hub.url}/club/spoken and {hub.url}/spaces/club/spoken" in answer["printed"]
    folders = {}
    for kind in ("model", "space"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        for name, content in hub.files("club/spoken", kind).items():
            (folders[kind] / name).parent.mkdir(parents=True, exist_ok=True)
            (folders[kind] / name).write_bytes(content)
    return folders


@pytest.fixture(scope="module")
def expected(client: Client, tiny_chatbot_folder: Path) -> str:
    """What the chat says."""
    program = f"""
from chatbot import ChatSession
session = ChatSession.from_pretrained({str(tiny_chatbot_folder)!r}, preset="greedy")
result = session.reply("hello").text
"""
    return str(client.run(program)["result"])


def test_the_space_answers_from_its_own_folder(
    client: Client, published: dict[str, Path], expected: str
) -> None:
    folder, packages = str(published["space"]), sysconfig.get_path("purelib")
    start = START.format(folder=folder, packages=packages)
    app = str(published["space"] / "app.py")
    answer = client.run(SERVE.format(start=start, app=app))
    assert answer["result"] == expected, answer


def test_the_space_s_files(published: dict[str, Path], repository: Path) -> None:
    folder = published["space"]
    pins = dict(
        line.split("==")
        for line in (repository / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    card = (folder / "README.md").read_text("utf-8")
    assert faults_of_card(card, "space") == []
    assert f"sdk_version: {pins['gradio']}" in card.replace("'", "").replace('"', "")
    assert "- club/spoken" in card
    first, *lines = (folder / "requirements.txt").read_text().splitlines()
    assert first.startswith("--extra-index-url")
    required = {Requirement(line).name: line.partition("==")[2] for line in lines}
    assert {"torch", "transformers", "huggingface-hub"} <= required.keys()
    assert not [name for name in required if "chatbot" in name]
    named = {re.sub("[_-]", "-", name).lower(): version for name, version in pins.items()}
    assert {name: named[name] for name in required} == required
    assert not list(folder.rglob("__pycache__")) + list(folder.rglob("pretrained"))


def test_the_endpoint_answers_as_the_chat(
    client: Client, published: dict[str, Path], expected: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(published["model"], tmp_path / "repository")
    start = START.format(folder=str(folder), packages=sysconfig.get_path("purelib"))
    done = client.fresh("-S", "-c", start + HANDLE.format(folder=str(folder)))
    line = f'[{{"generated_text": "{expected}"}}]'
    assert done.stdout.splitlines() == [line, line], done.stderr
