"""The report: its numbers by hand, and a page that is whole and safe."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from chatbot.data import prepare, write_report
from chatbot.data.report import _bars, _bins

EVIL = "<script>alert('hi')</script> & at www.example.org"


def record(user: str, assistant: str) -> str:
    said = {"user": user, "assistant": assistant}
    messages = [{"role": role, "content": text} for role, text in said.items()]
    return json.dumps({"messages": messages}) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    exchanges = [("what is it", "a wren"), ("what was it", "A wren!"), ("who sings", EVIL)]
    exchanges += [(f"question number {n}", f"it is {n}") for n in range(40)]
    (folder / "train.jsonl").write_text("".join(record(*both) for both in exchanges))
    (folder / "test.jsonl").write_text(record("so", "wren unheard"))
    prepare([folder], folder / "out", clean={"html": False})
    assert write_report(folder / "out") == folder / "out/report.html"
    return folder / "out"


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return report


def test_numbers(folder: Path, facts: dict[str, Any]) -> None:
    prepared = json.loads((folder / "preparation.json").read_text("utf-8"))
    assert {name: facts[name] for name in prepared} == prepared
    total = sum(count for split in facts["dialogues"].values() for count in split.values())
    assert facts["lengths"]["turns in a dialogue"] == {"2": total}
    words = facts["lengths"]["words in a turn of the user"]
    assert words["1"] == 1
    assert words["3"] >= 35
    replies = facts["commonest_replies"]
    learned = facts["examples"]["train"]
    assert replies["replies"] == sum(learned.values())
    assert replies["distinct"] == replies["replies"] - 1
    assert replies["commonest"][0] == {"reply": "a wren", "count": 2, "questions": 2}
    assert sum(facts["lengths"]["tokens of a reply (train)"].values()) == replies["replies"]


def test_vocabulary(facts: dict[str, Any]) -> None:
    """Held out are "so", "wren" and "unheard" and what the hash takes: the words are counted."""
    rows = {row["level"]: row for row in facts["vocabulary"]}
    assert list(rows) == ["chosen", "bpe", "unigram", "word", "char"]
    assert rows["chosen"] | {"level": "bpe"} == rows["bpe"]
    assert rows["bpe"]["unknown"] == rows["char"]["unknown"] == 0
    assert rows["word"]["unknown"] > 0
    assert rows["word"]["tokens_a_word"] >= 1
    assert rows["char"]["tokens_a_word"] > rows["bpe"]["tokens_a_word"]
    assert 0 < rows["word"]["whole_words"] < 1


def test_the_page_is_whole_and_says_texts_as_texts(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    opened: Counter[str] = Counter()
    scripts: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attributes: Any) -> None:
            opened[tag] += 1
            scripts.extend(tag for name in ("src", "href", "onload") if name in dict(attributes))
            scripts.extend([tag] if tag in ("script", "link", "img") else [])

        def handle_endtag(self, tag: str) -> None:
            opened[tag] -= 1

    Check().feed(page)
    assert scripts == []
    assert {tag for tag, count in opened.items() if count} <= {"meta", "br"}  # never closed
    assert "alert(&#x27;hi&#x27;)" in page
    assert page.count("<svg") >= 7


def test_bins_double() -> None:
    assert _bins({"1": 2, "2": 1, "3": 1, "4": 1, "5": 1, "8": 1, "9": 1}) == [
        ("1", 2), ("2", 1), ("3–4", 2), ("5–8", 2), ("9–16", 1),
    ]  # fmt: skip
    assert _bins({}) == []


def test_bars_are_as_long_as_their_numbers() -> None:
    drawn = _bars([("a <b>", 1000), ("c", 250)])
    assert [float(width) for width in re.findall(r'width="([\d.]+)"', drawn)] == [420, 105]
    assert "a &lt;b&gt;" in drawn
    assert ">1,000<" in drawn


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no preparation\.json"):
        write_report(tmp_path)
