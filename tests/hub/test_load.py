"""Loading from the Hub: with the package, without it, in the chat; offline, private, damaged."""

import json
from pathlib import Path

import pytest
import torch
from hub_server import HubServer

from chatbot.checkpoints import load_chatbot
from chatbot.hub_download import download_model, is_hub_name

from .conftest import Client

FROZEN = Path(__file__).with_name("frozen")
WITHOUT = """
import sys
sys.modules["chatbot"] = None
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
tokens = tokenizer("hello", return_tensors="pt")
print(model.generate(**tokens, do_sample=False, max_new_tokens=5).tolist())
"""
WITH = """
import chatbot.modeling
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained("ann/tiny")
tokens = AutoTokenizer.from_pretrained("ann/tiny")("hello", return_tensors="pt")
result = model.generate(**tokens, do_sample=False, max_new_tokens=5).tolist()
"""


def test_three_ways_give_one_answer(client: Client, pushed: str, tiny_chatbot_folder: Path) -> None:
    model, tokenizer = load_chatbot(tiny_chatbot_folder)
    tokens = tokenizer("hello", return_tensors="pt")
    expected = model.generate(**tokens, do_sample=False, max_new_tokens=5).tolist()
    assert client.run(WITH)["result"] == expected
    stranger = client.fresh("-I", "-c", WITHOUT, pushed)
    assert json.loads(stranger.stdout or "0") == expected, stranger.stderr
    replies = [
        client.chatbot("chat", model, "--seed", 1) for model in (pushed, tiny_chatbot_folder)
    ]
    said = [reply["printed"].strip().splitlines()[-1] for reply in replies]
    assert said[0] == said[1] != ""
    session = f"""
from chatbot import ChatSession
result = ChatSession.from_pretrained({pushed!r}, seed=1).reply("hello").text
"""
    assert client.run(session)["result"] == said[0]


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


def load(client: Client, name: str, token: str = "hf_ann") -> tuple[str, str]:
    program = f"""
from chatbot import load_chatbot
result = str(load_chatbot({name!r}, token={token!r})[0].config.hidden_size)
"""
    answer = client.run(program)
    return answer["result"] or answer["error"], answer["printed"]


def test_a_damaged_download_is_named_and_fetched_again(
    hub: HubServer, client: Client, pushed: str, tiny_chatbot_folder: Path
) -> None:
    copy = 'HfApi().create_repo("ann/flaky", exist_ok=True)\nHfApi().upload_folder'
    sent = f"from huggingface_hub import HfApi\n{copy}(folder_path={str(tiny_chatbot_folder)!r}, "
    assert not client.run(f'{sent}repo_id="ann/flaky")')["error"]
    file = "resolve/{}/model.safetensors".format(hub.repos["model", "ann/flaky"].refs["main"])
    hub.fail(f"GET /ann/flaky/{file}", "corrupt", always=True)
    result, _ = load(client, "ann/flaky")
    assert "ann/flaky: model.safetensors in " in result
    assert result.endswith("is damaged: the Hub's own copy is, too")
    hub.calm()
    result, printed = load(client, "ann/flaky")
    assert result == "16"
    assert "ann/flaky: model.safetensors was damaged on its way; fetching it again" in printed
    hub.calm()
    assert load(client, "ann/flaky") == ("16", "")
    assert not [one for one in hub.requests if one.startswith("GET /ann/flaky/resolve")]


def test_private_models_and_revisions(hub: HubServer, client: Client, pushed: str) -> None:
    repo = hub.repos["model", pushed]
    first = repo.refs["main"]
    repo.refs["v1"] = first
    assert load(client, f"{pushed}@v1")[0] == "16"
    assert load(client, f"{pushed}@{first}")[0] == "16"
    assert "no such model folder" in load(client, f"{pushed}@v2")[0]
    repo.private = True
    try:
        assert load(client, pushed)[0] == "16"
        result, _ = load(client, pushed, token="hf_bob")
    finally:
        repo.private = False
        del repo.refs["v1"]
    # what is in the cache stays readable; a stranger's cache is empty
    assert result == "16"
    hub.repos["model", "ann/hidden"] = type(repo)(True, repo.commits, repo.refs)
    assert "nor on the Hub, for you: a private one needs" in load(client, "ann/hidden", "hf_bob")[0]
    assert load(client, "ann/hidden")[0] == "16"


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
