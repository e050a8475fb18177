"""What users of transformers, datasets and `hf` know works here as well; data sets too."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer

from chatbot.checkpoints import load_chatbot
from chatbot.hub_files import hub_config_path

from .conftest import Client


def test_push_to_hub_of_transformers(
    hub: HubServer, client: Client, tiny_chatbot_folder: Path
) -> None:
    program = f"""
from chatbot import load_chatbot
model, tokenizer = load_chatbot({str(tiny_chatbot_folder)!r})
model.push_to_hub("ann/plain")
tokenizer.push_to_hub("ann/plain")
again, _ = load_chatbot("ann/plain")
result = all((a == b).all() for a, b in zip(model.parameters(), again.parameters()))
result = bool(result)
"""
    answer = client.run(program)
    assert answer["result"] is True, answer
    assert "modeling_rnn_seq2seq.py" in hub.files("ann/plain")


def test_the_trainer_pushes(
    hub: HubServer, client: Client, tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    program = f"""
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments
from chatbot import load_chatbot
model, tokenizer = load_chatbot({str(tiny_chatbot_folder)!r})
examples = Dataset.from_list([{{"input_ids": [4, 9, 3, 5], "labels": [9, 3]}}] * 4)
arguments = Seq2SeqTrainingArguments(
    {str(tmp_path / "run")!r}, max_steps=1, push_to_hub=True, hub_model_id="ann/by-trainer",
    report_to="none", use_cpu=True, save_strategy="steps", save_steps=1, disable_tqdm=True,
)
trainer = Seq2SeqTrainer(
    model, arguments, train_dataset=examples, processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer, model),
)
trainer.train()
result = [load_chatbot("ann/by-trainer")[0].lm_head.bias.tolist()]
trainer.push_to_hub()
result += [model.lm_head.bias.tolist()]
"""
    answer = client.run(program)
    by_itself, trained = answer["result"] or answer["error"]
    before, _ = load_chatbot(tiny_chatbot_folder)
    assert by_itself == trained != before.lm_head.bias.tolist()
    assert "README.md" in hub.files("ann/by-trainer")


def test_hf_downloads_what_was_pushed_and_uploads_what_can_be_loaded(
    hub: HubServer, client: Client, pushed: str, tmp_path: Path
) -> None:
    hf = str(Path(sys.executable).with_name("hf"))
    for command in (
        ["download", pushed, "--local-dir", str(tmp_path)],
        ["upload", "ann/by-hf", str(tmp_path), ".", "--exclude", ".cache/**"],
    ):
        done = subprocess.run(
            [hf, *command], env=client.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for name, content in hub.files(pushed).items():
        assert (tmp_path / name).read_bytes() == content
    assert hub.files("ann/by-hf") == hub.files(pushed)
    assert client.chatbot("chat", "ann/by-hf")["result"] == 0


def test_the_sample_conversations_are_a_data_set(hub: HubServer, client: Client) -> None:
    folder = hub_config_path("sample_conversations")
    answer = client.chatbot("push-data", folder, "ann/talk")
    assert answer["result"] == 0, answer
    assert set(hub.files("ann/talk", "dataset")) == {".gitattributes", "README.md"} | {
        f"data/{path.name}" for path in folder.glob("data/*.jsonl")
    }
    program = """
from datasets import load_dataset
data = load_dataset("ann/talk", split="train")
result = [len(data), data[0]["messages"][0]["role"]]
"""
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in folder.glob("data/*.jsonl"))
    assert lines >= 2000
    assert client.run(program)["result"] == [lines, "user"]


@pytest.mark.parametrize(
    ("licence", "source", "message"),
    [
        ("cc-by-nc-4.0", None, "is under cc-by-nc-4.0, which does not allow"),
        (None, None, "is not known: if it may be published, add --licence-checked"),
        ("mit", "personality-chat", None),
    ],
)
def test_a_set_needs_a_licence_that_allows_it(
    hub: HubServer,
    client: Client,
    tmp_path: Path,
    licence: str | None,
    source: str | None,
    message: str | None,
) -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    record = {"messages": said} | ({"source": source} if source else {})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "notes.txt").write_text("mine")
    head = f"license: {licence}" if licence else "pretty_name: x"
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\nTalk\n")
    answer = client.chatbot("push-data", tmp_path, "ann/set", "--private")
    if message is None:
        assert set(hub.files("ann/set", "dataset")) == {
            ".gitattributes",
            "README.md",
            "data/a.jsonl",
        }
    elif licence is None:
        assert answer["result"] == 0
        assert "Keep it private until you know" in answer["printed"]
        answer = client.chatbot("push-data", tmp_path, "ann/open")
        assert message in answer["printed"]
    else:
        assert answer["result"] == 2
        assert message in answer["printed"]
    shutil.rmtree(tmp_path / "data")
    assert "is no set of conversations" in client.chatbot("push-data", tmp_path, "ann/x")["printed"]


def test_a_set_is_pushed_from_python(hub: HubServer, client: Client) -> None:
    program = f"""
from pathlib import Path
from chatbot import push_data
result = push_data(Path({str(hub_config_path("sample_conversations"))!r}), "ann/python")
"""
    assert client.run(program)["result"] == f"{hub.url}/datasets/ann/python"


def test_permission_is_seen_before_a_training(client: Client, tmp_path: Path) -> None:
    answer = client.chatbot("train", "--output", tmp_path / "run", "--push-to", "bob/mine")
    assert answer["result"] == 2
    assert "bob/mine is not yours to make" in answer["printed"]
    assert not (tmp_path / "run").exists()
