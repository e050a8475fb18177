"""Loading from the Hub: with the package, without it, in the chat; offline, private, damaged."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from hub_store import Repo

from chatbot.chat import ChatSession
from chatbot.checkpoints import load_chatbot
from chatbot.hub import DISTRIBUTION
from chatbot.hub_download import download_model, is_hub_name

from .conftest import Client, alone, fresh_python

FROZEN = Path(__file__).with_name("frozen")
# The lines of the card, with a choice that no draw decides.
LOAD = """
import sys
from importlib.util import find_spec
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
name, options = sys.argv[1], {options}
if not options:
    import chatbot.modeling
assert bool(options) == (find_spec("chatbot") is None)
model = AutoModelForSeq2SeqLM.from_pretrained(name, **options)
tokenizer = AutoTokenizer.from_pretrained(name, **options)
tokens = tokenizer("hello", return_tensors="pt")
print(model.generate(**tokens, do_sample=False, max_new_tokens=5).tolist())
"""
WITH, WITHOUT = LOAD.format(options="{}"), LOAD.format(options="{'trust_remote_code': True}")


def test_three_ways_in_fresh_environments(
    hub: HubServer, pushed: str, tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    """Each in an empty folder, with an empty cache, for somebody without a token."""
    model, tokenizer = load_chatbot(tiny_chatbot_folder)
    tokens = tokenizer("hello", return_tensors="pt")
    generated = model.generate(**tokens, do_sample=False, max_new_tokens=5).tolist()
    said = ChatSession(model, tokenizer, "greedy").reply("hello").text
    few = fresh_python(tmp_path / "transformers", ["torch", "transformers"])
    whole = fresh_python(tmp_path / "package", [DISTRIBUTION])
    programs = {
        "with the package": ([whole, "-c", WITH, pushed], str(generated)),
        "without it": ([few, "-c", WITHOUT, pushed], str(generated)),
        "chat": ([whole, "-m", "chatbot", "chat", pushed, "--preset", "greedy"], said),
    }
    started = []
    for way, (command, expected) in programs.items():
        (tmp_path / way).mkdir()
        process = subprocess.Popen(
            command,
            cwd=tmp_path / way,
            env=alone(tmp_path / way, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET=1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append((way, process, expected))
    for way, process, expected in started:
        printed, errors = process.communicate("hello\n")
        assert printed.strip().splitlines()[-1:] == [expected], (way, errors)


def test_the_cache_serves_offline_and_names_what_is_damaged(client: Client, pushed: str) -> None:
    client.run(f"from chatbot import load_chatbot\nload_chatbot({pushed!r})")
    program = """
import os, sys
from pathlib import Path
from chatbot.hub_download import download_model
folder = download_model("ann/tiny")
for name in ("bob/other", "ann/tiny@v9"):
    try:
        download_model(name)
    except FileNotFoundError as error:
        print(error)
file = folder / "model.safetensors"
whole = file.read_bytes()
file.write_bytes(whole[:-1] + b"?")
try:
    download_model("ann/tiny")
except ValueError as error:
    print(error)
file.write_bytes(whole)
print(download_model("ann/tiny") == folder)
"""
    offline = client.fresh("-c", program, HF_HUB_OFFLINE="1")
    other, revision, damaged, again = offline.stdout.splitlines()
    assert other.startswith("bob/other: no such model folder; nor in the cache, and HF_HUB_OFFLINE")
    assert revision.startswith("ann/tiny@v9: no such model folder; nor in the cache")
    assert damaged.startswith("ann/tiny: model.safetensors in ")
    assert damaged.endswith(" is damaged: load it once without HF_HUB_OFFLINE")
    assert again == "True"


def chat(client: Client, name: str, token: str = "hf_ann") -> tuple[int, str]:
    """What `chatbot chat` returns and prints, for whoever has this token."""
    answer = client.run(f"""
import os
from chatbot.cli import main
os.environ["HF_TOKEN"], before = {token!r}, os.environ["HF_TOKEN"]
result = main(["chat", {name!r}])
os.environ["HF_TOKEN"] = before
""")
    return answer["result"], answer["printed"]


def test_a_damaged_download_is_named_and_fetched_again(
    hub: HubServer, client: Client, pushed: str
) -> None:
    content = dict(hub.files(pushed))
    hub.repos["model", "ann/flaky"] = Repo(False)
    revision = hub.repos["model", "ann/flaky"].commit("main", content)
    hub.fail(f"GET /ann/flaky/resolve/{revision}/model.safetensors", "corrupt", always=True)
    status, printed = chat(client, "ann/flaky")
    assert status == 2
    assert "chatbot chat: ann/flaky: model.safetensors in " in printed
    assert printed.strip().endswith("is damaged: the Hub's own copy is, too")
    hub.calm()
    again = "ann/flaky: model.safetensors was damaged on its way; fetching it again"
    status, printed = chat(client, "ann/flaky")
    assert (status, again in printed) == (0, True)
    hub.calm()
    status, printed = chat(client, "ann/flaky")
    assert (status, again in printed) == (0, False)
    assert not [one for one in hub.requests if one.startswith("GET /ann/flaky/resolve")]


def test_private_models_and_revisions(hub: HubServer, client: Client, pushed: str) -> None:
    repo = hub.repos["model", "ann/hidden"] = Repo(True)
    first = repo.commit("v1", dict(hub.files(pushed)))
    repo.commit("main", {**hub.files(pushed), "config.json": b"{}"})
    for name in ("ann/hidden@v1", f"ann/hidden@{first}"):
        assert chat(client, name)[0] == 0
    status, printed = chat(client, "ann/hidden")
    assert status == 2
    assert "holds a model of type None" in printed
    program = """
from chatbot import ChatSession, load_chatbot
from chatbot.cli import main
where = {"revision": "v1", "token": "hf_ann"}
load_chatbot("ann/hidden", **where)
ChatSession.from_pretrained("ann/hidden", **where)
result = main(["serve", "ann/hidden@v9", "--no-browser"])
"""
    answer = client.run(program)
    assert answer["result"] == 2, answer
    reason = "the Hub has the model, but not that branch, tag or commit"
    assert f"ann/hidden@v9: no such model folder; {reason}" in answer["printed"]
    hub.repos["model", "ann/secret"] = repo  # which is in nobody's cache
    status, printed = chat(client, "ann/secret@v1", "hf_bob")
    assert status == 2
    assert "nor on the Hub, for you: a private one needs `hf auth login` or HF_TOKEN" in printed


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ann/tiny", True),
        ("ann/tiny@v1.0", True),
        ("./tiny", False),
        ("tiny", False),
        ("a/b/c", False),
    ],
)
def test_what_is_a_name_of_the_hub(name: str, known: bool) -> None:
    assert is_hub_name(name) is known


def test_a_mistyped_path_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"runs/mine: no such model folder\."):
        load_chatbot("runs/mine")
    with pytest.raises(ValueError, match="'mine' is no model of the Hub; allowed: owner/name"):
        download_model("mine")


def test_a_model_of_the_first_release_loads_and_says_what_it_said() -> None:
    expected = json.loads((FROZEN / "expected.json").read_text("utf-8"))
    model, tokenizer = load_chatbot(FROZEN)
    assert model.config.format_version == 1
    assert tokenizer(expected["text"]).input_ids == expected["text_ids"]
    inputs = {name: torch.tensor(expected[name]) for name in ("input_ids", "decoder_input_ids")}
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1, :24]
    torch.testing.assert_close(logits, torch.tensor(expected["last_logits"]), atol=2e-5, rtol=0)
