"""Files that nobody expects, from the file to the examples: what is kept is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from source_helpers import write
from transformers import AutoTokenizer

from chatbot.data import DataError, find_sources, load_prepared, prepare, read_source, write_report
from chatbot.data.preparation import training_texts

PLAIN = [[f"what is {n} and {n + 1}?", f"{2 * n + 1} of course"] for n in range(40)]


def record(*texts: str) -> str:
    turns = [
        {"role": "assistant" if turn % 2 else "user", "content": text}
        for turn, text in enumerate(texts)
    ]
    return json.dumps({"messages": turns})


def jsonl(path: Path, *more: str) -> Path:
    """Forty good records, then others."""
    return write(path, "\n".join([*(record(*texts) for texts in PLAIN), *more]) + "\n")


def replies(folder: Path) -> list[dict[str, Any]]:
    """The examples of all splits, with what their ids say."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return [
        example | {"said": tokenizer.decode(example["labels"])}
        for examples in load_prepared(folder).values()
        for example in examples
    ]


def test_emoji_alone(tmp_path: Path) -> None:
    said = [(chr(0x1F600 + n), f"{chr(0x1F601 + n)}👩🏽\u200d🌾") for n in range(30)]
    chat = write(tmp_path / "chat.txt", "".join(f"{one}\n{other}\n\n" for one, other in said))
    report = prepare([chat], tmp_path / "out")
    assert sum(report.dialogues["train"].values()) == 30  # no two are duplicates
    assert [example["said"] for example in replies(tmp_path / "out")] == [
        f"{other}<end>" for _, other in said
    ]


@pytest.mark.parametrize(
    "long", ["x" * 1_000_000, "ab " * 350_000, "好" * 350_000, "[(<{" * 250_000]
)
def test_a_turn_of_a_megabyte(tmp_path: Path, long: str) -> None:
    """Neither a step nor the tokenizer takes a time that grows with its square."""
    chat = jsonl(tmp_path / "chat.jsonl", record("say it", long), record(long, "said"))
    prepare([chat], tmp_path / "out", max_target_tokens=20)
    found = {example["reply"]: example for example in replies(tmp_path / "out")}
    assert len(found) == 42
    assert found[long.strip()]["said"].endswith("<end>")
    assert len(found[long.strip()]["labels"]) == 20
    assert len(found["said"]["input_ids"]) == 96


def test_a_tokenizer_learns_from_the_beginning_of_a_long_turn(tmp_path: Path) -> None:
    chat = jsonl(tmp_path / "chat.jsonl", record("x" * 5_000, "y"))
    assert max(map(len, training_texts([chat]))) == 2_000


@pytest.mark.parametrize("unicode", [True, False])
def test_halves_of_characters_and_zeros(tmp_path: Path, unicode: bool) -> None:
    halves = record("half \ud83d", "zero \0 \ude00"), record("\ud83d", "\ude00")
    chat = jsonl(tmp_path / "chat.jsonl", *halves)
    prepare([chat], tmp_path / "out", clean={"unicode": unicode})
    (found,) = (each["said"] for each in replies(tmp_path / "out") if "zero" in each["reply"])
    assert found == ("zero<end>" if unicode else "zero \0 ?<end>")
    write_report(tmp_path / "out")  # which shows what was removed


@pytest.mark.parametrize(
    "nested",
    [
        "[" * 10_000 + "]" * 10_000,
        '{"messages": ' * 10_000 + "1" + "}" * 10_000,
        record("hi", "ho")[:-1] + f', "more": {"[" * 10_000 + "]" * 10_000}}}',
    ],
)
def test_json_that_is_nested_ten_thousand_deep(tmp_path: Path, nested: str) -> None:
    chat = jsonl(tmp_path / "chat.jsonl", nested)
    with pytest.raises(DataError, match=r"chat.jsonl:41: not JSON \(maximum recursion depth"):
        prepare([chat], tmp_path / "out")
    array = write(tmp_path / "chat.json", f"[{record('hi', 'ho')},\n{nested}]")
    with pytest.raises(DataError, match=r"chat.json:2: not JSON \(maximum recursion depth"):
        prepare([array], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mark", "repeated"), [("<script>", 30_000), ("<!--", 60_000), ("<a ", 90_000), ("&#1", 90_000)]
)
def test_tags_that_never_close(tmp_path: Path, mark: str, repeated: int) -> None:
    chat = jsonl(tmp_path / "chat.jsonl", record("say it", mark * repeated))
    prepare([chat], tmp_path / "out")
    assert (mark * repeated).strip() in {example["reply"] for example in replies(tmp_path / "out")}


def test_one_dialogue_is_enough(tmp_path: Path) -> None:
    prepare([write(tmp_path / "chat.txt", "hello\nhi there")], tmp_path / "out")
    assert [example["said"] for example in replies(tmp_path / "out")] == ["hi there<end>"]


SCRIPTS = {
    "zh": [
        (f"你喜欢{food}吗？", f"喜欢，{food}很好吃。") for food in ("苹果", "米饭", "面条", "茶")
    ],
    "ja": [
        (f"{day}は雨ですか。", f"いいえ、{day}は晴れです。") for day in ("今日", "明日", "昨日")
    ],
    "th": [(f"คุณชอบ{food}ไหม", f"ชอบ{food}มาก") for food in ("ข้าว", "กาแฟ", "ชา", "ปลา")],
}


@pytest.mark.parametrize("level", ["char", "bpe", "unigram"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_without_spaces(tmp_path: Path, script: str, level: Any) -> None:
    text = "".join(f"{one}\n{other}\n\n" for one, other in SCRIPTS[script])
    prepare([write(tmp_path / "chat.txt", text)], tmp_path / "out", level=level)
    expected = {f"{other}<end>" for _, other in SCRIPTS[script]}
    assert {example["said"] for example in replies(tmp_path / "out")} == expected


MILLION = 1_000_000


def million_lines(path: Path) -> Path:
    """250,000 dialogues of three turns, and blank lines between them."""
    with path.open("w") as file:
        file.writelines(
            f"where is {n}?\nnumber {n} is behind {n * 7919 % MILLION}\nthanks\n\n"
            for n in range(MILLION // 4)
        )
    return path


def test_a_million_lines_are_read(tmp_path: Path) -> None:
    (file,) = find_sources([million_lines(tmp_path / "chat.txt")])
    lines = [line for line, _ in read_source(file)]
    assert (len(lines), lines[-1]) == (MILLION // 4, MILLION - 3)


@pytest.mark.slow
def test_a_million_lines_are_prepared(tmp_path: Path) -> None:
    report = prepare([million_lines(tmp_path / "chat.txt")], tmp_path / "out", num_proc=2)
    kept = sum(sum(counts.values()) for counts in report.dialogues.values())
    assert (kept, report.dropped["train"]) == (MILLION // 4, {})
    examples = load_prepared(tmp_path / "out")
    assert sum(map(len, examples.values())) == MILLION // 4
    for row in (0, -1):
        example = examples["train"][row]
        assert re.fullmatch(r"number \d+ is behind \d+", example["reply"])
