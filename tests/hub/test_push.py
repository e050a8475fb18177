"""A push through the real client: permission, what is sent, and every request failing in turn."""

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from hub_store import Repo

from chatbot.hub import check_licences

from .conftest import Answer, Client

STAGE = """
from pathlib import Path
from chatbot.hub import copy_files, files_of
from chatbot.hub_download import MODEL_FILES
from chatbot.hub_upload import Target, check_permission, preview, upload

def push(folder, repo_id, **options):
    target, files = Target(repo_id, waits=(0, 0, 0), **options), files_of(Path(folder))
    exists = check_permission(target)
    preview(target, exists, files)
    return upload(target, exists, files)
"""


@pytest.fixture(scope="module")
def staged(tiny_chatbot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as `stage_model` makes them, without the trial, which asks the Hub for nothing."""
    folder = tmp_path_factory.mktemp("staged") / "model"
    shutil.copytree(tiny_chatbot_folder, folder)
    card = "---\nlicense: mit\n---\n# Mine\n<!-- chatbot:use -->\nnew\n<!-- /chatbot:use -->\n"
    (folder / "README.md").write_text(card)
    return folder


def push(client: Client, folder: Path, repo_id: str, **options: Any) -> Answer:
    return client.run(f"{STAGE}\nresult = push({str(folder)!r}, {repo_id!r}, **{options!r})")


def holds(hub: HubServer, repo_id: str, folder: Path, revision: str = "main") -> bool:
    found = hub.files(repo_id, revision=revision)
    wanted = {path.name: path.read_bytes() for path in folder.iterdir()}
    return all(
        found.get(name) == content for name, content in wanted.items() if name != "README.md"
    )


FIRST = "ann/first-well-new"
CARD = b"---\nlicense: gpl\n---\nMy words.\n<!-- chatbot:use -->\nold\n<!-- /chatbot:use -->\n"


def begin(hub: HubServer, repo_id: str, how: int | str, update: bool) -> str:
    """The name of a repository that is not there, or that somebody has edited."""
    name = f"{repo_id}-{how}-{'update' if update else 'new'}"
    if update:
        repo = hub.repos["model", name] = Repo(False)
        repo.commit("main", {"README.md": CARD, "config.json": b"{}", "mine.txt": b"mine"})
    hub.objects.clear()
    return name


@pytest.fixture(scope="module")
def requests(hub: HubServer, client: Client, staged: Path) -> dict[bool, list[str]]:
    """What a push asks for: False: of a new model; True: to a repository that is there."""
    asked = {}
    for update in (False, True):
        repo_id = begin(hub, "ann/first", "well", update)
        hub.calm()
        answer = push(client, staged, repo_id)
        assert answer["result"] == f"{hub.url}/{repo_id}", answer
        assert holds(hub, repo_id, staged)
        asked[update] = list(hub.requests)
        assert any(one.startswith("PUT /lfs/") for one in asked[update])
    assert any("/resolve/" in one for one in asked[True])
    return asked


def own(requests: list[str]) -> list[tuple[int, str]]:
    """Those that the client does not repeat itself, which takes it a second and more each time."""
    its_own = re.compile("/lfs/|/preupload/|/resolve/")
    return [(number, one) for number, one in enumerate(requests) if not its_own.search(one)]


@pytest.mark.parametrize(
    ("how", "update"),
    [
        *itertools.product([503, "cut", "hang", "lost"], [False, True]),
        *itertools.product([408, 429, 500, 502, 504], [False]),
    ],
)
def test_each_request_may_fail_once(
    hub: HubServer,
    client: Client,
    staged: Path,
    requests: dict[bool, list[str]],
    how: int | str,
    update: bool,
) -> None:
    every = how == 503
    for number, request in enumerate(requests[update]) if every else own(requests[update]):
        repo_id = begin(hub, f"ann/once-{number}", how, update)
        hub.fail(number, how)
        silence = {"silence": 0.3} if how == "hang" else {}
        answer = push(client, staged, repo_id, **silence)
        assert answer["result"] == f"{hub.url}/{repo_id}", (request, answer)
        assert hub.faults[0].hit, request
        assert holds(hub, repo_id, staged), request
        assert not update or b"My words." in hub.files(repo_id)["README.md"]


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize(("how", "words"), [(403, "403"), (507, "507"), ("cut", "disconnected")])
def test_each_request_may_fail_for_good(
    hub: HubServer,
    client: Client,
    staged: Path,
    requests: dict[bool, list[str]],
    how: int | str,
    words: str,
    update: bool,
) -> None:
    """No claim of success; all is new or as it was; the next push completes it."""
    asked = requests[update]
    # what cannot be looked at by its id is looked at as the head of the branch
    for number, request in own(asked[:-1]) if how == "cut" else enumerate(asked):
        repo_id = begin(hub, f"ann/never-{number}", how, update)
        before = hub.files(repo_id) if update else {".gitattributes": b""}
        hub.fail(number, how, always=True)
        answer = push(client, staged, repo_id)
        assert answer["result"] is None, request
        assert "Published" not in answer["printed"], request
        assert "Error: " in answer["error"], request
        assert words in answer["error"], (request, answer)
        assert hub.faults[0].hit, request
        if ("model", repo_id) in hub.repos:
            whole = holds(hub, repo_id, staged)
            assert whole or hub.files(repo_id).keys() == before.keys()
            assert whole == ("commit " in answer["error"]), (request, answer)
        hub.calm()
        assert push(client, staged, repo_id)["result"] == f"{hub.url}/{repo_id}"
        assert holds(hub, repo_id, staged)


def test_a_token_may_lose_its_rights_on_the_way(
    hub: HubServer, client: Client, staged: Path
) -> None:
    hub.fail("POST /api/models/ann/revoked/commit", "revoke")
    error = push(client, staged, "ann/revoked")["error"]
    assert "nothing was published: the token may not do that: make one that may write" in error
    assert "ann/revoked is empty, if it was made. Pushing again completes it." in error


def test_what_is_no_model_is_named(hub: HubServer, client: Client, staged: Path) -> None:
    """The model of this name may have been published just before."""
    hub.fail("POST /api/datasets/ann/named/commit", 403, always=True)
    error = push(client, staged, "ann/named", kind="dataset")["error"]
    assert "HubError: dataset ann/named: nothing was published: the token may not" in error
    assert "; dataset ann/named is empty, if it was made. Pushing again completes it." in error


def test_a_server_that_hangs_is_given_up(hub: HubServer, client: Client, staged: Path) -> None:
    hub.fail("POST /api/repos/create", "hang")
    answer = push(client, staged, "ann/hung", silence=0.5)
    assert answer["result"] == f"{hub.url}/ann/hung"
    hub.fail("GET /api/whoami-v2", "hang", always=True)
    assert (
        "HubError: ann/hung: nothing was" in push(client, staged, "ann/hung", silence=0.2)["error"]
    )


def test_large_files_are_sent_only_when_they_changed(
    hub: HubServer, client: Client, staged: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(staged, tmp_path / "model"))
    assert push(client, folder, "ann/again")["result"]
    for change in (False, True):
        if change:
            (folder / "generation_config.json").write_text("{}")
        hub.calm()
        before = len(hub.repos["model", "ann/again"].commits)
        assert push(client, folder, "ann/again")["result"]
        assert not [one for one in hub.requests if one.startswith("PUT")]
        assert len(hub.repos["model", "ann/again"].commits) == before + change
        assert holds(hub, "ann/again", folder)


def test_commits_of_others_meanwhile(hub: HubServer, client: Client, staged: Path) -> None:
    push(client, staged, "ann/busy")
    hub.edit("ann/busy", "config.json", b"{}")
    commit = "POST /api/models/ann/busy/commit"
    hub.fail(commit, "newer")
    assert push(client, staged, "ann/busy")["result"]
    assert holds(hub, "ann/busy", staged)
    assert "notes.md" in hub.files("ann/busy")
    hub.edit("ann/busy", "config.json", b"{}")
    hub.fail(commit, "newer", with_file="tokenizer.json")
    assert "['tokenizer.json'] changed there meanwhile" in push(client, staged, "ann/busy")["error"]


def test_old_shards_go_and_the_card_stays_its_owner_s(
    hub: HubServer, client: Client, staged: Path
) -> None:
    push(client, staged, "ann/edited")
    card = b"---\nlicense: gpl\nlanguage: it\n---\nMy words.\n<!-- chatbot:use -->\nold\n"
    hub.edit("ann/edited", "README.md", card + b"<!-- /chatbot:use -->\nAnd these.\n")
    hub.edit("ann/edited", "model-00001-of-00002.safetensors", b"old")
    hub.edit("ann/edited", "picture.txt", b"mine")
    assert push(client, staged, "ann/edited")["result"]
    found = hub.files("ann/edited")
    assert "model-00001-of-00002.safetensors" not in found
    assert found["picture.txt"] == b"mine"
    text = found["README.md"].decode()
    use = "<!-- chatbot:use -->\nnew\n<!-- /chatbot:use -->"
    assert text == f"---\nlicense: gpl\nlanguage: it\n---\nMy words.\n{use}\nAnd these.\n"


def test_branches_and_pull_requests(hub: HubServer, client: Client, staged: Path) -> None:
    push(client, staged, "ann/branched")
    hub.edit("ann/branched", "config.json", b"{}")
    url = f"{hub.url}/ann/branched"
    assert push(client, staged, "ann/branched", revision="v2")["result"] == f"{url}/tree/v2"
    assert holds(hub, "ann/branched", staged, "v2")
    hub.users["hf_ann"].role = "read"
    answer = push(client, staged, "ann/branched", create_pr=True)
    assert answer["result"] == f"{url}/discussions/1", answer
    assert holds(hub, "ann/branched", staged, "refs/pr/1")
    assert hub.files("ann/branched")["config.json"] == b"{}"


@pytest.mark.parametrize(
    ("repo_id", "options", "message"),
    [
        ("bob/x", {}, "bob/x is not yours to make; allowed: ann/..., club/..."),
        ("ann/x", {"token": "hf_bob"}, "ann/x is not yours to make; allowed: bob/..."),
        ("bob/x", {"token": "hf_bob"}, "the token may only read: make one that may write"),
        ("ann/x", {"token": "hf_nobody"}, "the token may not do that"),
        (FIRST, {"private": True}, "is public already, so --private keeps nothing private"),
        (FIRST, {"token": "hf_bob"}, "the token may not do that"),
        ("first", {}, "'first' is no name on the Hub; allowed: owner/name."),
    ],
)
@pytest.mark.usefixtures("requests")
def test_permission_comes_first(
    hub: HubServer, client: Client, staged: Path, repo_id: str, options: Any, message: str
) -> None:
    hub.calm()
    assert message in push(client, staged, repo_id, **options)["error"]
    assert [one for one in hub.requests if not one.startswith("GET")] == []


def test_a_card_that_the_hub_refuses_stops_the_push(
    hub: HubServer, client: Client, staged: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(staged, tmp_path / "model"))
    (folder / "README.md").write_text("---\nlicense: {}\n---\n")
    assert "must be a string" in push(client, folder, "ann/bad")["error"]
    assert ("model", "ann/bad") not in hub.repos


# --- what is sent ----------------------------------------------------------------------------

SECRET = "annabel"
RUN = {
    "config": {
        "start": "scratch",
        "model": {"attention": "general", "notes": SECRET},
        "trainer": {"learning_rate": 0.1, "logging_dir": f"~/{SECRET}", "hub_token": SECRET},
        "output": f"~/{SECRET}/run",
    },
    "steps": None, "seed": 1, "threads": 2, "processes": 1, "versions": {"torch": "2"},
    "data": {"data": {"folder": f"~/{SECRET}", "sources": {f"{SECRET}.jsonl": "0"}}},
    "licences": {"sample-conversations": "Apache-2.0", f"chats-of-{SECRET}": "unknown"},
    "hardware": {"system": SECRET, "processor": "P", "cores": 2, "memory_gb": 4.0, "gpus": []},
    "sessions": [{"command": f"chatbot train ~/{SECRET}", "seconds": 60.0, "step": 9, "end": "x"}],
}  # fmt: skip
UNSENT = [
    *("log.json", "preparation.json", "feedback.jsonl", "optimizer.pt", "run.yaml", ".env"),
    *("training_args.bin", "notes_rnn_seq2seq.txt", "secret_rnn_seq2seq.py", "data/train.jsonl"),
    *("model.safetensors.bak", "evaluation/predictions.jsonl"),
]


@pytest.fixture(scope="module")
def planted(tiny_chatbot_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with all that must stay at home."""
    run = tmp_path_factory.mktemp("run")
    model = Path(shutil.copytree(tiny_chatbot_folder, run / "model"))
    (run / "run.json").write_text(json.dumps(RUN))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"_name_or_path": f"~/{SECRET}"}))
    for name in UNSENT:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(SECRET)
    return model


def test_nothing_of_the_user_is_sent(hub: HubServer, client: Client, planted: Path) -> None:
    answer = client.chatbot("push", planted, "ann/planted", "--private")
    assert answer["result"] == 0, answer
    assert f"licence of chats-of-{SECRET} is not known. Keep it private" in answer["printed"]
    found = hub.files("ann/planted")
    code = {path.name for path in planted.glob("*_rnn_seq2seq.py")} - {"secret_rnn_seq2seq.py"}
    assert set(found) == code | {
        ".gitattributes", "README.md", "chat_template.jinja", "config.json", "run.json",
        "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    listed = {line.split()[0] for line in answer["printed"].splitlines() if line[:2] == "  "}
    assert listed == set(found) - {".gitattributes"}
    assert not [name for name, content in found.items() if SECRET.encode() in content]
    assert hub.repos["model", "ann/planted"].private
    card = found["README.md"].decode()
    assert "| sample-conversations | Apache-2.0 |" in card
    assert "| own data 2 | unknown |" in card
    assert "9 steps in 1 minutes" in card


def test_a_path_in_a_text_stops_the_push(client: Client, planted: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(planted, tmp_path / "model"))
    path = "/".join(["", "home", SECRET, "x"])
    (model / "README.md").write_text(f"Made in {path} by me")
    answer = client.chatbot("push", model, "ann/path", "--licence-checked")
    assert answer["result"] == 2
    assert f"README.md holds {path}: take it out before" in answer["printed"]


def test_a_model_that_does_not_answer_is_not_sent(
    hub: HubServer, client: Client, planted: Path, tmp_path: Path
) -> None:
    """Here: where the package is missing, for want of the line that names its code."""
    model = Path(shutil.copytree(planted, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    del config["auto_map"]
    (model / "config.json").write_text(json.dumps(config))
    answer = client.chatbot("push", model, "ann/mute", "--private")
    assert "does not answer where this package is missing" in answer["printed"]
    assert ("model", "ann/mute") not in hub.repos


@pytest.mark.parametrize(
    "licence", ["CC BY-NC-SA 4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "research only"]
)
@pytest.mark.parametrize("private", [False, True])
def test_a_licence_that_forbids_it_stops_the_push(licence: str, private: bool) -> None:
    with pytest.raises(ValueError, match=f"films is under {licence}, which does not allow"):
        check_licences({"films": licence}, private=private, checked=True)


def test_what_is_not_known_needs_a_word_or_stays_private(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = "no run.json tells the licences of what it learned"
    some = "the licence of mine is not known"
    for said, licences in ((nothing, {}), (some, {"mine": "unknown", "ours": "MIT"})):
        with pytest.raises(ValueError, match=f"^{said}: .* add --licence-checked$"):
            check_licences(licences, private=False, checked=False)
        check_licences(licences, private=False, checked=True)
        assert capsys.readouterr().out == ""
        check_licences(licences, private=True, checked=False)
        assert "Keep it private until you know" in capsys.readouterr().out
    check_licences({"ours": "CDLA-Sharing-1.0"}, private=False, checked=False)


def test_a_licence_that_forbids_it_is_read_from_the_run(
    hub: HubServer, client: Client, planted: Path, tmp_path: Path
) -> None:
    """Also of the model that the run continued."""
    first = Path(shutil.copytree(planted, tmp_path / "first" / "model"))
    forbidden = RUN | {"licences": {"films": "CC BY-NC 4.0"}}
    (first.parent / "run.json").write_text(json.dumps(forbidden))
    second = Path(shutil.copytree(planted, tmp_path / "second" / "model"))
    config = {"config": {**RUN["config"], "start": str(first)}}
    (second.parent / "run.json").write_text(json.dumps(RUN | config))
    hub.calm()
    for model in (first, second):
        answer = client.chatbot("push", model, "ann/films", "--private", "--licence-checked")
        assert answer["result"] == 2
        assert "films is under CC BY-NC 4.0, which does not allow" in answer["printed"]
    assert hub.requests == []


@pytest.mark.parametrize("start", ["ann/films", "moved/model"])
def test_the_licences_of_a_start_that_is_not_there_are_unknown(
    client: Client, hub: HubServer, planted: Path, tmp_path: Path, start: str
) -> None:
    model = Path(shutil.copytree(planted, tmp_path / "first" / "model"))
    config = {"config": {**RUN["config"], "start": start}}
    (model.parent / "run.json").write_text(json.dumps(RUN | config))
    hub.calm()
    answer = client.chatbot("push", model, "ann/films")
    assert answer["result"] == 2
    assert re.search(rf"the licence of {start}, [\w-]+ is not known", answer["printed"])


@pytest.mark.parametrize(
    ("part", "message"),
    [("nowhere", "nowhere: no such model folder"), (".", "not a model folder; it holds model/")],
)
def test_what_is_no_model_is_said_first(
    client: Client, planted: Path, part: str, message: str
) -> None:
    answer = client.chatbot("push", planted.parent / part, "ann/none")
    assert answer["result"] == 2
    assert message in answer["printed"]
