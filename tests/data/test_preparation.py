"""Preparation: from files to a folder, whole or not at all."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatbot.data import (
    DataError,
    Message,
    is_test,
    normalized_text,
    preparation,
    prepare,
    training_texts,
)
from chatbot.tokenization import encode_context, train_tokenizer

Turns = list[Message]


def dialogue(number: int) -> Turns:
    """Four turns, or two: number 7, which is for validation, and 30, for test (`test_numbers`)."""
    texts = (
        ["hello", f"number {number}"] if number in (7, 30) else ["hi", f"bot {number}", "so?", "ok"]
    )
    return [
        Message(role="assistant" if turn % 2 else "user", content=text)
        for turn, text in enumerate(texts)
    ]


def write(path: Path, dialogues: list[Turns], **keys: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"messages": messages, **keys}) for messages in dialogues]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def digest_remainder(messages: Turns) -> int:
    return int(hashlib.sha256(normalized_text(messages).encode()).hexdigest(), 16) % 50


TRAIN = [dialogue(n) for n in range(40, 70) if digest_remainder(dialogue(n)) > 2]
VALIDATION, TEST = dialogue(7), dialogue(30)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in/chats.jsonl", [*TRAIN, VALIDATION, TEST])


def test_a_source_without_a_validation_file_holds_out_its_own(tmp_path: Path) -> None:
    """The file of another folder says nothing of it."""
    write(tmp_path / "films/train.jsonl", TRAIN[:3])
    write(tmp_path / "films/validation.jsonl", [dialogue(1)])
    write(tmp_path / "chats/mine.jsonl", [*TRAIN[3:], VALIDATION, TEST])
    report = prepare([tmp_path / "films", tmp_path / "chats"], tmp_path / "out")
    assert report.dialogues == {
        "train": {"films": 3, "mine": len(TRAIN) - 3},
        "validation": {"films": 1, "mine": 1},
        "test": {"mine": 1},
    }


def test_numbers() -> None:
    assert (digest_remainder(VALIDATION), digest_remainder(TEST)) == (1, 0)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_round_trip(source: Path, tmp_path: Path, num_proc: int) -> None:
    report = prepare([source], tmp_path / "new/out", num_proc=num_proc)
    output = tmp_path / "new/out"
    splits = datasets.load_from_disk(output)
    tokenizer = AutoTokenizer.from_pretrained(output / "tokenizer")
    assert list(splits) == ["train", "validation", "test"]
    assert splits["test"]["reply"] == ["number 30"]
    assert splits["validation"]["reply"] == ["number 7"]
    assert len(splits["train"]) == 2 * len(TRAIN)
    for example in splits["train"]:
        messages = TRAIN[example["dialogue"]]
        context = messages[: example["turn"]]
        assert example["input_ids"] == encode_context(tokenizer, context, 96)
        assert tokenizer.decode(example["labels"]) == messages[example["turn"]]["content"] + "<end>"
        assert example["source"] == "chats"
    assert splits["train"].features["input_ids"].feature.dtype == "int32"
    assert report.dialogues == {
        "train": {"chats": len(TRAIN)},
        "validation": {"chats": 1},
        "test": {"chats": 1},
    }
    assert report.examples["train"] == {"chats": 2 * len(TRAIN)}
    assert report.files == {str(source): hashlib.sha256(source.read_bytes()).hexdigest()}
    assert report.vocab_size == len(tokenizer)
    written = json.loads((output / "preparation.json").read_text())
    assert written["dialogues"] == report.dialogues
    assert written["settings"]["max_source_tokens"] == 96
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_files_of_other_splits_stay_whole(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write(folder / "train.jsonl", [*TRAIN, VALIDATION, TEST])
    write(folder / "validation.jsonl", [dialogue(1), TRAIN[0]], source="other")
    write(folder / "test.jsonl", [dialogue(2), dialogue(1)])
    report = prepare([folder], tmp_path / "out")
    # TRAIN[0] leaves train and dialogue 1 leaves validation; number 7 stays in train.
    assert report.dialogues == {
        "train": {"films": len(TRAIN)},
        "validation": {"other": 1},
        "test": {"films": 3},
    }
    assert report.dropped == {
        "train": {"films": {"leak": 1}},
        "validation": {"other": {"leak": 1}},
        "test": {},
    }


def test_drops_are_counted(tmp_path: Path) -> None:
    one_turn: Turns = [{"role": "user", "content": "hi"}]
    empty: Turns = [{"role": "user", "content": " "}]
    same = [Message(role=m["role"], content=f" {m['content'].upper()}!") for m in TRAIN[0]]
    source = write(tmp_path / "chats.jsonl", [*TRAIN, one_turn, same, empty, one_turn, TRAIN[0]])
    report = prepare([source, source], tmp_path / "out")
    assert report.dropped["train"] == {"chats": {"one turn": 2, "duplicate": 2, "no text": 1}}
    assert report.dialogues == {"train": {"chats": len(TRAIN)}, "validation": {}, "test": {}}
    splits = datasets.load_from_disk(tmp_path / "out")
    assert [len(splits[name]) for name in ("validation", "test")] == [0, 0]
    assert splits["test"].features == splits["train"].features


def test_nothing_to_train_on(tmp_path: Path) -> None:
    source = write(tmp_path / "in/chats.jsonl", [[{"role": "user", "content": "hi"}]])
    with pytest.raises(DataError, match=r"no dialogue is left to train on \(dropped: 1 one turn\)"):
        prepare([source], tmp_path / "out")
    with pytest.raises(DataError, match="sources: none is given"):
        prepare([], tmp_path / "out")


def test_a_given_tokenizer_is_used(source: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["hi, so ok?"] * 3, level="char", lowercase=False)
    tokenizer.save_pretrained(tmp_path / "mine")
    for given in (tokenizer, tmp_path / "mine"):
        prepare([source], tmp_path / "out", tokenizer=given, overwrite=True)
        used = AutoTokenizer.from_pretrained(tmp_path / "out/tokenizer")
        assert used.get_vocab() == tokenizer.get_vocab()
        with pytest.raises(ValueError, match="not with a tokenizer"):
            prepare([source], tmp_path / "new", tokenizer=given, vocab_size=300)
    with pytest.raises(ValueError, match="no such folder"):
        prepare([source], tmp_path / "new", tokenizer=tmp_path / "none")
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")
    with pytest.raises(ValueError, match="it lacks <unk>, <go>, <end>, <user>, <bot>"):
        prepare([source], tmp_path / "new", tokenizer=other)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_source_tokens", 3, "a whole number of at least 4."),
        ("max_source_tokens", "many", "a whole number of at least 4."),
        ("max_target_tokens", 1, "a whole number of at least 2."),
        ("vocab_size", 1e3, "a whole number."),
        ("num_proc", 0, "a whole number of at least 1."),
    ],
)
def test_impossible_settings(
    source: Path, tmp_path: Path, name: str, value: Any, allowed: str
) -> None:
    said = f"{name}={value!r} is not possible; allowed: {allowed}"
    with pytest.raises(ValueError, match=re.escape(said)):
        prepare([source], tmp_path / "out", **{name: value})


def test_an_existing_output_is_replaced_only_when_asked(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare([source], output)
    before = (output / "preparation.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"out exists; replace it with --overwrite"):
        prepare([source], output, max_source_tokens=32)
    (output / "stale").touch()
    with pytest.raises(ValueError, match=r"vocab_size=100000: .* these texts give"):
        prepare([source], output, overwrite=True, vocab_size=100_000)
    assert (output / "preparation.json").read_bytes() == before
    prepare([source], output, overwrite=True, max_source_tokens=32)
    assert (
        json.loads((output / "preparation.json").read_text())["settings"]["max_source_tokens"] == 32
    )
    assert not (output / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_of_something_else_is_never_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match=r"in has no preparation.json"):
        prepare([source], source.parent, overwrite=True)
    with pytest.raises(FileExistsError, match=r"chats.jsonl has no preparation.json"):
        prepare([source], source, overwrite=True)
    assert source.exists()
    (tmp_path / "empty").mkdir()
    prepare([source], tmp_path / "empty", overwrite=True)


def test_a_failure_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    with source.open("a") as file:
        file.write("not json\n")
    with pytest.raises(DataError, match=rf"chats.jsonl:{len(TRAIN) + 3}: not JSON"):
        prepare([source], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_output_that_cannot_be_written_is_named(source: Path) -> None:
    with pytest.raises(OSError, match=r".*chats.jsonl/out: cannot write in .*chats.jsonl"):
        prepare([source], source / "out")


def test_the_users_cache_is_left_alone(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    prepare([source], tmp_path / "out")
    assert not cache.exists()


def test_a_tokenizer_alone_learns_no_held_out_word(tmp_path: Path) -> None:
    dialogues = [
        [
            {"role": "user", "content": f"question {n}"},
            {"role": "assistant", "content": f"reply {n}"},
        ]
        for n in range(200)
    ]
    held_out = [messages for messages in dialogues if is_test(messages)]
    assert held_out
    lines = [json.dumps({"messages": messages}) for messages in dialogues]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text(lines[0].replace("0", "zero"), encoding="utf-8")
    learned = list(training_texts([tmp_path]))
    assert learned == [m["content"] for d in dialogues if d not in held_out for m in d]


def test_the_account_of_the_steps(tmp_path: Path) -> None:
    texts = [f"<b>{message['content']}</b> www.example.org" for message in VALIDATION]
    marked = [Message(role=m["role"], content=t) for m, t in zip(VALIDATION, texts, strict=True)]
    named: Turns = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "[name]"}]
    source = write(tmp_path / "chats.jsonl", [*TRAIN, TRAIN[0], TRAIN[0], marked, named])
    report = prepare([source], tmp_path / "out", clean={"max_reply_count": 10})
    assert report.steps["html"]["count"] == report.steps["urls"]["count"] == 2
    assert report.steps["urls"]["examples"][0]["after"] == "hello this link"
    assert report.steps["duplicates"] == {
        "setting": True,
        "count": 2,
        "examples": [{"before": (said := "hi / bot 40 / so? / ok"), "after": said}] * 2,
    }
    assert report.dropped["train"] == {"chats": {"duplicate": 2, "no reply": 1}}
    # one reply of each dialogue is "ok", of which ten are learned
    assert report.steps["max_reply_count"]["count"] == len(TRAIN) - 10
    assert report.examples["train"]["chats"] == len(TRAIN) + 10 + 1
    assert report.settings["clean"]["max_reply_count"] == 10
    written = json.loads((tmp_path / "out/preparation.json").read_text())
    assert written["steps"] == report.steps


def test_switches_leave_the_split_as_it_is(tmp_path: Path) -> None:
    marked = [[Message(role=m["role"], content=f"<i>{m['content']}</i>") for m in dialogue(n)]
              for n in range(200)]  # fmt: skip
    source = write(tmp_path / "chats.jsonl", marked)
    on = prepare([source], tmp_path / "on")
    off = prepare([source], tmp_path / "off", clean={"html": False})
    assert on.dialogues == off.dialogues
    assert on.steps["html"]["count"] == sum(map(len, marked))
    assert off.steps["html"]["count"] == 0


def test_the_same_again_is_taken_as_it_is(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    settings = {"max_source_tokens": 32, "clean": {"languages": [], "profanity": False}}
    first = prepare([source], output, **settings)  # type: ignore[arg-type]
    made = (output / "preparation.json").stat().st_ino

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("done again")

    with monkeypatch.context() as patch:
        for name in ("select_dialogues", "train_tokenizer", "write_examples"):
            patch.setattr(preparation, name, fail)
        again = prepare([source], output, max_source_tokens=32, num_proc=2)
        assert again.made_from == first.made_from
        prepare([source], output, max_source_tokens=32, overwrite=True)
        assert (output / "preparation.json").stat().st_ino == made
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "select_dialogues", fail)
        patch.setattr(preparation, "train_tokenizer", fail)
        longer = prepare([source], output, max_source_tokens=64, overwrite=True)
    fresh = prepare([source], tmp_path / "fresh", max_source_tokens=64)
    assert longer == fresh
    assert tree(output) == tree(tmp_path / "fresh")
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "select_dialogues", fail)
        prepare([source], output, level="char", max_source_tokens=64, overwrite=True)
        with pytest.raises(AssertionError, match="done again"):
            prepare([source], output, clean={"urls": False}, overwrite=True)
        write(source, [*TRAIN, TEST])
        with pytest.raises(AssertionError, match="done again"):
            prepare([source], output, level="char", max_source_tokens=64, overwrite=True)


def tree(folder: Path) -> dict[str, bytes]:
    """Content by path, but for what names when and where it was made."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("state.json", "dataset_info.json")
    }


def test_weights_are_of_what_is_learned(tmp_path: Path) -> None:
    """By the names that records have; of a source whose dialogues all went, there is none."""
    named = [{"messages": turns, "source": "films"} for turns in TRAIN[:3]]
    (tmp_path / "sets.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in named))
    write(tmp_path / "again.jsonl", TRAIN[:3])
    write(tmp_path / "other.jsonl", TRAIN[3:6])
    output = tmp_path / "out"

    def weights(*weights: str) -> dict[str, float]:
        names = zip(("sets", "again", "other"), weights, strict=True)
        sources = [f"{tmp_path}/{name}.jsonl{weight}" for name, weight in names]
        found: dict[str, float] = prepare(sources, output, overwrite=True).settings["weights"]
        return found

    assert weights(":0.2", ":4", "") == {"films": 0.2}
    assert weights(":0.5", ":4", ":2") == {"films": 0.5, "other": 2}
    assert weights("", "", "") == {}


def test_an_interrupt_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([source], tmp_path / "out")
    before = tree(tmp_path / "out")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "write_examples", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare([source], tmp_path / "out", max_source_tokens=32, overwrite=True)
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
