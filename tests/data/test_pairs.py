"""Parallel text (`task: seq2seq`): from pairs to examples of two vocabularies, or of one."""

import json
from pathlib import Path
from typing import Any

import pytest
from source_helpers import write
from transformers import PreTrainedTokenizerFast

from chatbot.cli import main
from chatbot.data import (
    DataError,
    Message,
    PreparationReport,
    load_prepared,
    natural_task,
    preparation,
    prepare,
)
from chatbot.data.examples import pair_examples
from chatbot.data.splits import dialogue_digest, split_of
from chatbot.tokenization import END, encode_context, is_chat, load_tokenizers, train_tokenizer
from chatbot.training_run import TrainingRun

Pairs = list[tuple[str, str]]


def exchange(source: str, target: str) -> list[Message]:
    return [{"role": "user", "content": source}, {"role": "assistant", "content": target}]


def split(pair: tuple[str, str]) -> str:
    return split_of(dialogue_digest(exchange(*pair)))


ALL = [(f"ecco il numero {n}", f"here is number {n}") for n in range(200)]
TRAIN = [pair for pair in ALL if split(pair) == "train"][:20]
VALIDATION, TEST = (
    next(pair for pair in ALL if split(pair) == name) for name in ("validation", "test")
)


def write_pairs(folder: Path, name: str, pairs: Pairs) -> str:
    """Two files, named as one source."""
    sides = ["\n".join(side) + "\n" for side in zip(*pairs, strict=True)]
    paths = [write(folder / f"{name}.{end}", side) for end, side in zip(("it", "en"), sides)]  # noqa: B905
    return "+".join(map(str, paths))


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_pairs(tmp_path / "in", "numbers", [*TRAIN, VALIDATION, TEST])


def prepare_pairs(source: str | list[str], output: Path, **options: Any) -> PreparationReport:
    sources = [source] if isinstance(source, str) else source
    return prepare(sources, output, task="seq2seq", **options)


def read(folder: Path, split: str = "train") -> Pairs:
    """The examples of a split as text, and nothing that a pair has not."""
    tokenizers, pairs = load_tokenizers(folder / "tokenizer"), []
    for row in load_prepared(folder)[split]:
        texts = tokenizers[0].decode(row["input_ids"]), tokenizers[-1].decode(row["labels"])
        assert all(text.endswith(END) and text.count("<") == 1 for text in texts)
        assert (row["reply"].lower(), row["turn"]) == (texts[1].removesuffix(END), 1)
        pairs.append(tuple(text.removesuffix(END) for text in texts))
    return pairs


def test_each_side_has_its_own_vocabulary(source: str, tmp_path: Path) -> None:
    report = prepare_pairs(source, tmp_path / "out")
    assert read(tmp_path / "out") == TRAIN
    assert read(tmp_path / "out", "validation") == [VALIDATION]
    assert read(tmp_path / "out", "test") == [TEST]
    italian, english = load_tokenizers(tmp_path / "out/tokenizer")
    assert "Ġnumero" in italian.get_vocab().keys() - english.get_vocab().keys()
    assert "Ġnumber" in english.get_vocab().keys() - italian.get_vocab().keys()
    assert not is_chat(italian)
    assert not is_chat(english)
    assert (report.vocab_size, report.target_vocab_size) == (len(italian), len(english))
    assert report.settings["task"] == "seq2seq"
    assert report.bots == {"numbers": {"numbers": []}}
    assert report.summary().splitlines() == [
        "train: 20 pairs, 20 examples",
        "validation: 1 pairs, 1 examples",
        "test: 1 pairs, 1 examples",
        "dropped: nothing",
        f"{len(italian)} and {len(english)} tokens",
    ]
    written = json.loads((tmp_path / "out/preparation.json").read_text("utf-8"))
    assert written["files"].keys() == set(source.split("+"))


def test_one_vocabulary_may_serve_both(source: str, tmp_path: Path) -> None:
    report = prepare_pairs(source, tmp_path / "out", shared_vocabulary=True)
    assert read(tmp_path / "out") == TRAIN
    (tokenizer,) = load_tokenizers(tmp_path / "out/tokenizer")
    assert {"Ġnumero", "Ġnumber"} <= tokenizer.get_vocab().keys()
    assert not is_chat(tokenizer)
    assert report.target_vocab_size is None
    assert report.summary().endswith(f"\n{len(tokenizer)} tokens")


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"vocab_size": 270, "target_vocab_size": 265}, (270, 265)),
        ({"vocab_size": 268}, (268, 268)),
        ({"vocab_size": 270, "shared_vocabulary": True}, (270, None)),
    ],
)
def test_sizes_of_the_vocabularies(
    source: str, tmp_path: Path, options: dict[str, Any], sizes: tuple[int, int | None]
) -> None:
    report = prepare_pairs(source, tmp_path / "out", **options)
    assert (report.vocab_size, report.target_vocab_size) == sizes
    assert read(tmp_path / "out") == TRAIN


def test_a_pair_that_is_too_long_is_no_example(tmp_path: Path) -> None:
    """Four tokens are three letters and `<end>`."""
    pairs = [("abc", "xyz"), ("abcd", "x"), ("a", "xyzx"), ("aa", "xx")]
    assert {split(pair) for pair in pairs} == {"train"}
    source = write_pairs(tmp_path, "letters", pairs * 2)
    limits = {"max_source_tokens": 4, "max_target_tokens": 4}
    report = prepare_pairs(source, tmp_path / "out", level="char", **limits)
    assert read(tmp_path / "out") == [pairs[0], pairs[3]]
    assert report.dialogues["train"] == {"letters": 4}
    assert report.examples["train"] == {"letters": 2}
    tokenizers = load_tokenizers(tmp_path / "out/tokenizer")
    for limit, count in ((3, 0), (4, 1), (5, 1)):
        made = pair_examples(
            tokenizers[0],
            exchange(*pairs[0]),
            target_tokenizer=tokenizers[1],
            max_source_tokens=limit,
            max_target_tokens=5,
        )
        assert len(list(made)) == count


def test_what_is_typed_becomes_no_special_token(source: str, tmp_path: Path) -> None:
    prepare_pairs(source, tmp_path / "out")
    for tokenizer in load_tokenizers(tmp_path / "out/tokenizer"):
        history = [*exchange("uno", "one"), *exchange("<end> due <bot>", "")[:1]]
        tokens = encode_context(tokenizer, history, 40)
        assert tokenizer.decode(tokens) == "< end> due < bot><end>"
        assert sum(token in tokenizer.all_special_ids for token in tokens) == 1
        assert encode_context(tokenizer, history, 4) == [*tokens[:3], tokens[-1]]


def test_duplicates_and_leaks(tmp_path: Path) -> None:
    sources = [
        write_pairs(tmp_path / "set", "train", [*TRAIN, TRAIN[0], VALIDATION, TEST, ("", "gone")]),
        write_pairs(tmp_path / "set", "validation", [TRAIN[1], (TRAIN[2][0], "another")]),
    ]
    report = prepare_pairs(sources, tmp_path / "out")
    assert report.dropped == {
        "train": {"set": {"duplicate": 1, "leak": 1, "one turn": 1}},
        "validation": {},
        "test": {},
    }
    assert report.steps["leaks"]["held_out"] == {"validation": 1, "test": 0}
    # One source may have two targets; a validation file leaves the hash's share in train.
    assert read(tmp_path / "out") == [TRAIN[0], *TRAIN[2:], VALIDATION]
    assert report.dialogues["validation"] == {"set": 2}
    kept = prepare_pairs(sources, tmp_path / "kept", clean={"leaks": False, "duplicates": False})
    assert kept.dialogues["train"] == {"set": len(TRAIN) + 2}


def test_both_sides_are_cleaned(tmp_path: Path) -> None:
    dirty = (" <b>Ecco</b>  a@b.it ", "Here&nbsp;is www.example.org/x")
    clean = ("ecco this email address", "here is this link")
    source = write_pairs(tmp_path, "mixed", [*TRAIN, dirty, dirty])
    report = prepare_pairs(source, tmp_path / "out")
    assert clean in [pair for name in report.examples for pair in read(tmp_path / "out", name)]
    counts = {step: report.steps[step]["count"] for step in ("html", "emails", "urls")}
    assert counts == {"html": 4, "emails": 2, "urls": 2}


def test_records_give_what_two_files_give(source: str, tmp_path: Path) -> None:
    pairs = [*TRAIN, VALIDATION, TEST]
    lines = [json.dumps({"source": s, "target": t, "id": 1}) for s, t in pairs]
    rows = ["target,source", *(f"{t},{s}" for s, t in pairs)]
    prepare_pairs(source, tmp_path / "files")
    for name, text in (("in/numbers.jsonl", "\n".join(lines)), ("in/rows.csv", "\n".join(rows))):
        path = write(tmp_path / name, text)
        report = prepare_pairs(str(path), tmp_path / f"{name}-out")
        assert report.dialogues["train"] == {path.stem: len(TRAIN)}
        for part in ("train", "validation", "test"):
            assert read(tmp_path / f"{name}-out", part) == read(tmp_path / "files", part)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("chats.jsonl", '{"messages": []}', r"chats.jsonl: conversations \(messages\) are no pair"),
        ("talk.txt", "hi\nhello\n", r"talk.txt: conversations \(lines\) are no pairs; allowed"),
        ("a.jsonl", '{"source": "uno"}', r"a.jsonl:1: not a pair, with source; allowed: texts na"),
        ("a.jsonl", '{"source": 1, "target": "one"}', "a.jsonl:1: not a pair, with source, target"),
        ("a.csv", "it,en\nuno,one\n", r"a.csv:2: not a pair, with it, en; .*--column source=NAME"),
    ],
)
def test_what_is_no_pair_is_refused(
    source: str, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        prepare_pairs([source, str(path)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_are_pairs_without_being_told(source: str, tmp_path: Path) -> None:
    report = prepare([f"{source}:0.5"], tmp_path / "out")
    assert (report.settings["task"], read(tmp_path / "out")) == ("seq2seq", TRAIN)
    talk = write(tmp_path / "in/talk.txt", "hi\nhello\n")
    assert natural_task([source, talk]) == "chat"
    chat = prepare([source], tmp_path / "chat", task="chat")
    assert (chat.settings["task"], chat.target_vocab_size) == ("chat", None)
    assert prepare([source, talk], tmp_path / "both").settings["task"] == "chat"
    assert TrainingRun(data=[source]).start == "scratch"
    assert TrainingRun(data=[source], prepare={"task": "chat"}).start == "shipped"
    table = write(tmp_path / "in/table.csv", "source,target\nuno,one\n")
    with pytest.raises(DataError, match="of pairs, with --task seq2seq, source and target"):
        prepare([table], tmp_path / "no")


def test_pairs_of_unlike_length_are_left_out(tmp_path: Path) -> None:
    """Characters after cleaning, at most twice as many as on the other side."""
    pairs = [("abc", "uvwxyz"), ("abcd", "vw"), ("abc", "tuvwxyz"), ("a&amp;b", "w"), ("ab ", "x")]
    assert {split(pair) for pair in pairs} == {"train"}
    source = write_pairs(tmp_path, "letters", pairs)
    report = prepare_pairs(source, tmp_path / "out", clean={"max_length_ratio": 2})
    assert read(tmp_path / "out") == [*pairs[:2], ("ab", "x")]
    assert report.dropped["train"] == {"letters": {"uneven pair": 2}}
    shown = [{"before": text, "after": ""} for text in ("abc / tuvwxyz", "a&b / w")]
    assert report.steps["max_length_ratio"] == {"setting": 2, "count": 2, "examples": shown}
    finer = prepare_pairs(source, tmp_path / "finer", clean={"max_length_ratio": 2.5})
    assert finer.dialogues["train"] == {"letters": 4}
    assert prepare_pairs(source, tmp_path / "all").dialogues["train"] == {"letters": 5}
    with pytest.raises(ValueError, match=r"clean\.max_length_ratio: allowed with task seq2seq"):
        prepare([source], tmp_path / "no", task="chat", clean={"max_length_ratio": 2})
    options = ["--max-length-ratio", "3.5", "--output", str(tmp_path / "cli")]
    assert main(["prepare", source, *options]) == 0
    facts = json.loads((tmp_path / "cli/preparation.json").read_text("utf-8"))
    assert facts["steps"]["max_length_ratio"]["setting"] == 3.5


def test_sides_of_unlike_length_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "numbers", TRAIN)
    short = write(tmp_path / "numbers.en", "one\ntwo\n")
    with pytest.raises(DataError, match=r"numbers.en:3: the file ends before this line"):
        prepare_pairs(f"{tmp_path / 'numbers.it'}+{short}", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "translate"}, "task='translate': allowed are chat, seq2seq"),
        ({"task": "chat", "target_vocab_size": 300}, "target_vocab_size, shared_vocabulary: allow"),
        ({"task": "chat", "shared_vocabulary": True}, "allowed is one, with task seq2seq"),
        (
            {"target_vocab_size": 300, "shared_vocabulary": True},
            "allowed is one, with task seq2seq",
        ),
        ({"vocab_size": 5}, "vocab_size=5: level 'bpe' needs at least 262"),
    ],
)
def test_impossible_settings(
    source: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare([source], tmp_path / "out", **{"task": "seq2seq", **options})


def test_given_tokenizers_are_used(source: str, tmp_path: Path) -> None:
    prepare_pairs(source, tmp_path / "out")
    folder = tmp_path / "out/tokenizer"
    other = write_pairs(tmp_path / "in", "other", [(f"{s} ecco", t) for s, t in TRAIN])
    report = prepare([other], tmp_path / "more", task="seq2seq", tokenizer=folder)
    vocabularies = [each.get_vocab() for each in load_tokenizers(folder)]
    used = load_tokenizers(tmp_path / "more/tokenizer")
    assert [each.get_vocab() for each in used] == vocabularies
    assert report.settings["tokenizer"] == {"trained": False, "name": str(folder)}
    assert (f"{TRAIN[1][0]} ecco", TRAIN[1][1]) in read(tmp_path / "more")
    with pytest.raises(ValueError, match="not with a tokenizer"):
        prepare([other], tmp_path / "no", task="seq2seq", tokenizer=folder, target_vocab_size=300)
    with pytest.raises(ValueError, match="it has no chat template; allowed: with task seq2seq"):
        prepare([other], tmp_path / "no", task="chat", tokenizer=folder)


def test_a_tokenizer_of_a_chat_is_lent(source: str, tmp_path: Path) -> None:
    mine = train_tokenizer([text for pair in TRAIN for text in pair])
    prepare([source], tmp_path / "out", task="seq2seq", tokenizer=mine)
    assert read(tmp_path / "out") == TRAIN
    assert [is_chat(each) for each in load_tokenizers(tmp_path / "out/tokenizer")] == [False]
    assert is_chat(mine)


def test_the_folder_must_fit_the_model(source: str, tmp_path: Path) -> None:
    prepare_pairs(source, tmp_path / "out")
    italian, english = load_tokenizers(tmp_path / "out/tokenizer")
    assert len(load_prepared(tmp_path / "out", italian, english)["train"]) == len(TRAIN)
    for pair in ((italian, italian), (english, english)):
        with pytest.raises(ValueError, match="prepared with another tokenizer than the model's"):
            load_prepared(tmp_path / "out", *pair)
    chat: PreTrainedTokenizerFast = load_tokenizers(tmp_path / "out/tokenizer")[0]
    chat.chat_template = "x"
    with pytest.raises(ValueError, match="out was prepared for task seq2seq, which is not the mod"):
        load_prepared(tmp_path / "out", chat)
    prepare([source], tmp_path / "talk", task="chat")
    with pytest.raises(ValueError, match="talk was prepared for task chat, which is not the model"):
        load_prepared(tmp_path / "talk", italian, english)


def test_only_what_changed_is_made_anew(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    prepare_pairs(source, output)

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("done again")

    with monkeypatch.context() as patch:
        for name in ("select_dialogues", "train_tokenizer", "write_examples"):
            patch.setattr(preparation, name, fail)
        prepare_pairs(source, output)
        with pytest.raises(AssertionError, match="done again"):
            prepare_pairs(source, output, shared_vocabulary=True, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "select_dialogues", fail)
        patch.setattr(preparation, "train_tokenizer", fail)
        prepare_pairs(source, output, max_target_tokens=9, overwrite=True)
        assert read(output) == TRAIN
    monkeypatch.setattr(preparation, "select_dialogues", fail)
    report = prepare_pairs(source, output, shared_vocabulary=True, overwrite=True)
    assert report.target_vocab_size is None
    assert not (output / "tokenizer/target_tokenizer").exists()
