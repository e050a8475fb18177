"""To the Hub: a model with its card and code, a Space that runs it, a set of conversations.

What is sent is put together in a folder of its own, from files whose names are known: nothing else
can go with it. It is tried there before anything is sent.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import RepoCard
from jinja2 import Template

from chatbot import modeling
from chatbot.checkpoints import load_chatbot
from chatbot.data import read_dialogues
from chatbot.evaluation_report import RESULTS
from chatbot.hub_card import Run, render_card, sources
from chatbot.hub_download import MODEL_FILES
from chatbot.hub_files import hub_config_path
from chatbot.hub_upload import (
    CARD,
    PART,
    Files,
    Target,
    check_permission,
    merge_cards,
    preview,
    upload,
)
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import load_tokenizers
from chatbot.training_curve import CURVE_NAME
from chatbot.training_record import RECORD_NAME
from chatbot.training_run import SCRATCH, SHIPPED

MODELING = Path(str(modeling.__file__)).parent
DISTRIBUTION = "rnn-seq2seq-chatbot"
# Non-commercial, no derivatives, research only: what they forbid cannot be undone once published.
FORBIDDING = re.compile(r"\b(nc|nd)\b|non-?commercial|research|proprietary|reserved", re.IGNORECASE)
PERSONAL = re.compile(r"(?:file:/+|/home/|/Users/|/root/|[A-Z]:\\\\?Users\\)[^\s\"'`]*")
NAMING = ("_name_or_path", "name_or_path")  # fields in which libraries keep the path of a folder
HIDE_PACKAGE = 'import sys\nsys.modules["chatbot"] = None\n'


def push_chatbot(
    model: Path | str,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    space: bool = False,
    endpoint: bool = False,
    dry_run: bool = False,
    licence_checked: bool = False,
    token: str | None = None,
) -> str:
    """Publish a model in one commit, or say what stands in the way. Returns where; "" if dry_run.

    Args:
        model: Its folder; `run.json` and `evaluation/` are found in it or beside it.
        repo_id: `owner/name`; it is made where it does not exist.
        private: Nobody else may see what is made.
        create_pr: Propose it, where one may not write.
        revision: A branch, made where it does not exist. None: main.
        space: A Space of the same name runs it, too.
        endpoint: What an Inference Endpoint needs goes with it: `handler.py` and the package.
        dry_run: Everything but the sending.
        licence_checked: Sources without a known licence may be published.
        token: None: that of `hf auth login`, or HF_TOKEN.

    Raises:
        FileNotFoundError, ValueError: The folder cannot be published; the message says why.
        HubError: The Hub, or the token, does not allow it; or it cannot be reached.
    """
    targets = [Target(repo_id, "model", private, revision, create_pr, token)]
    targets += [Target(repo_id, "space", private, token=token)] if space else []
    model = Path(model)
    if not model.is_dir():
        raise FileNotFoundError(f"{model}: no such model folder")
    loaded, run = load_chatbot(model)[0], record_of(model)
    check_licences(run.get("licences", {}), private=private, checked=licence_checked)
    exist = [check_permission(target) for target in targets]
    with TemporaryDirectory() as scratch:
        folders = [Path(scratch) / target.kind for target in targets]
        stage_model(loaded, model, folders[0], repo_id, run)
        if endpoint:
            stage_package(folders[0], "endpoint")
        if space:
            stage_space(folders[0], folders[1], repo_id)
        plans = [(t, e, files_of(f)) for t, e, f in zip(targets, exist, folders, strict=True)]
        return send(plans, dry_run)


def push_data(
    folder: Path, repo_id: str, *, dry_run: bool = False, licence_checked: bool = False, **to: Any
) -> str:
    """Publish a folder of conversations: `README.md` with a `license`, and `data/*.jsonl`.

    Args:
        to: `private`, `create_pr`, `revision` and `token`, as of `push_chatbot`.

    Raises:
        FileNotFoundError, ValueError, HubError: As of `push_chatbot`.
    """
    target, paths = Target(repo_id, "dataset", **to), sorted(folder.glob("data/*.jsonl"))
    if not paths or not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder} is no set of conversations: {CARD} and data/*.jsonl")
    licences = {folder.name: str(RepoCard.load(folder / CARD).data.get("license") or "unknown")}
    records = (record for path in paths for _, record in read_dialogues(path))
    named = {record["source"] for record in records if "source" in record}
    known = yaml.safe_load(hub_config_path("data_sources.yaml").read_text("utf-8"))
    licences |= {name: known[name]["license"] for name in named if name in known}
    check_licences(licences, private=target.private, checked=licence_checked)
    exists = check_permission(target)
    files = {path.relative_to(folder).as_posix(): path for path in (folder / CARD, *paths)}
    return send([(target, exists, files)], dry_run)


def send(plans: Sequence[tuple[Target, bool, Files]], dry_run: bool) -> str:
    """Upload what is planned, once all of it is found to be in order."""
    for plan in plans:
        preview(*plan)
    if dry_run:
        print("Nothing was sent.")
        return ""
    return " and ".join([upload(*plan) for plan in plans])


def beside(model: Path, name: str) -> Path | None:
    """What a run wrote into the folder of its model, or beside it."""
    found = [place / name for place in (model, model.absolute().parent)]
    return next((path for path in found if path.is_file()), None)


def record_of(model: Path) -> dict[str, Any]:
    """Its `run.json`, with the licences of the model that it was continued from; {} without one."""
    if (path := beside(model, RECORD_NAME)) is None:
        return {}
    run: dict[str, Any] = json.loads(path.read_text("utf-8"))
    start = run.get("config", {}).get("start", SCRATCH)  # a published record has none
    if start != SCRATCH:
        folder = hub_config_path("pretrained") if start == SHIPPED else Path(start)
        before = record_of(folder).get("licences") or {start: "unknown"}
        run["licences"] = {**before, **run["licences"]}
    return run


def check_licences(licences: Mapping[str, str], *, private: bool, checked: bool) -> None:
    """Raise ValueError where a licence forbids to publish, or none is known; warn in private."""
    for name, licence in licences.items():
        if FORBIDDING.search(licence):
            raise ValueError(f"{name} is under {licence}, which does not allow to publish this")
    unknown = [name for name, licence in licences.items() if licence == "unknown"]
    if (unknown or not licences) and not checked:
        missing = f"the licence of {', '.join(unknown)} is not known"
        missing = missing if unknown else "no run.json tells the licences of what it learned"
        if not private:
            raise ValueError(f"{missing}: if it may be published, add --licence-checked")
        print(f"Mind: {missing}. Keep it private until you know.")


def stage_model(
    loaded: RnnSeq2SeqForConditionalGeneration, model: Path, folder: Path, repo_id: str, run: Run
) -> None:
    """Put together what is sent of a model, and see that it answers without this package."""
    copy_files(model, folder, *MODEL_FILES)
    copy_files(MODELING, folder, "*_rnn_seq2seq.py")
    if curve := beside(model, CURVE_NAME):
        copy_files(curve.parent, folder, CURVE_NAME)
    if run:
        (folder / RECORD_NAME).write_text(json.dumps(public_record(run), indent=1), "utf-8")
    measured = beside(model, f"evaluation/{RESULTS}")
    options: Any = {"evaluation": measured and measured.parent, "curve": bool(curve)}
    card = render_card(loaded, load_tokenizers(model), repo_id, run, **options)
    trial = re.findall("```python\n(.*?)```", card, re.DOTALL)[1]
    if (model / CARD).is_file():
        written = (model / CARD).read_text("utf-8")
        # what `write_card.py` measured stays, but it does not know where the model goes
        card = merge_cards(card, written, only=["use"] if PART.search(written) else [])
    (folder / CARD).write_text(card, "utf-8")
    check_personal(folder)
    program = HIDE_PACKAGE + trial.replace(f'"{repo_id}"', repr(str(folder)))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": f"{folder}-code"}
    command = [sys.executable, "-I", "-c", program]
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    tried = subprocess.run(command, env=environment, **options)
    if tried.returncode:
        reason = tried.stderr.strip().splitlines()[-1]
        raise ValueError(f"{model} does not answer where this package is missing: {reason}")


def stage_space(model: Path, folder: Path, repo_id: str) -> None:
    """Put together a Space: the app, this package, and the model that was staged."""
    stage_package(folder, "space")
    names = {"name": repo_id.split("/")[-1], "repo_id": repo_id, "gradio": version("gradio")}
    names["python"] = "{}.{}".format(*sys.version_info)
    card = Template(hub_config_path("space", CARD).read_text("utf-8"), keep_trailing_newline=True)
    (folder / CARD).write_text(card.render(names), "utf-8")
    copy_files(model, folder / "model", *MODEL_FILES)


def stage_package(folder: Path, kind: str) -> None:
    """Put this package beside what needs it, with the versions of all that it needs itself."""
    copy_files(hub_config_path(kind), folder, "*.py")
    copy_files(MODELING.parent, folder / "chatbot", "*.py", "[a-z]*/**/*.py", "app/*.[cj]s*")
    copy_files(hub_config_path(), folder / "chatbot" / "_hub_config", "*.yaml", "*.txt", "*.md")
    needs = [need for need in requires(DISTRIBUTION) or [] if ";" not in need]
    names = [re.split(r"[^\w.-]", need)[0] for need in needs]
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in names]
    lines = ["--extra-index-url https://download.pytorch.org/whl/cpu", *pins]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", "utf-8")


def files_of(folder: Path) -> dict[str, Path]:
    """What is sent, by its path in the repository."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def public_record(run: Run) -> dict[str, Any]:
    """Of `run.json` what anybody may read: no paths, names of files, commands or free text."""
    config, fields = run["config"], RnnSeq2SeqConfig.__annotations__
    told = ("seconds", "step", "end")
    return {
        **{name: run[name] for name in ("steps", "seed", "threads", "processes", "versions")},
        "model": {name: value for name, value in config["model"].items() if name in fields},
        "trainer": {n: v for n, v in config["trainer"].items() if isinstance(v, int | float)},
        "licences": {row["name"]: row["license"] for row in sources(run)},
        "hardware": {n: v for n, v in run["hardware"].items() if n != "system"},
        "sessions": [{n: v for n, v in one.items() if n in told} for one in run["sessions"]],
    }


def check_personal(folder: Path) -> None:
    """Raise ValueError where a text that is sent holds the path of somebody's folder."""
    for path in (p for p in folder.rglob("*") if p.suffix in (".json", ".md", ".jinja", ".svg")):
        found = PERSONAL.search(path.read_text("utf-8"))
        if found and path.name != "tokenizer.json":
            raise ValueError(f"{path.name} holds {found[0]}: take it out before it is published")


def copy_files(source: Path, folder: Path, *patterns: str) -> None:
    """Link files into a folder; of what libraries wrote, copies that name no path."""
    for path in (path for pattern in patterns for path in source.glob(pattern)):
        place = folder / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not path.name.endswith("config.json"):
            place.symlink_to(path.resolve())
            continue
        content = json.loads(path.read_text("utf-8"))
        kept = {name: value for name, value in content.items() if name not in NAMING}
        place.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")
