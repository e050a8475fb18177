"""Tables: CSV, TSV, Parquet and flat JSON records, by columns."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from source_helpers import formats, read, write

from chatbot.data import DataError
from chatbot.data.sources import find_sources, read_source
from chatbot.data.sources.speakers import MAX_TURNS

PAIRS = ["u: How are you? | b: Fine, thanks", 'u: Say "hi"\nagain | b: hi; hi']
CONTENTS = {
    "a.csv": 'Question,Answer,id\nHow are you?,"Fine, thanks",1\n"Say ""hi""\nagain",hi; hi,2\n',
    "b.csv": 'prompt;response\r\nHow are you?;Fine, thanks\r\n"Say ""hi""\r\nagain";"hi; hi"\r\n',
    "c.csv.gz": '\ufeffcontext|reply\nHow are you?|Fine, thanks\n\n"Say ""hi""\nagain"|hi; hi\n',
    "d.jsonl": "\n".join(
        json.dumps({"instruction": question, "output": answer})
        for question, answer in (("How are you?", "Fine, thanks"), ('Say "hi"\nagain', "hi; hi"))
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contexts_and_replies(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, CONTENTS[name])
    assert formats(path) == ["table"]
    assert read(path) == PAIRS


def test_quotes_between_tabs_are_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'input\toutput\n"Hey" he said\tSo, "hey\n')
    assert read(path) == ['u: "Hey" he said | b: So, "hey']


def test_columns_without_a_name_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",context,reply,\n0,hi,hello,\n")
    assert read(path) == ["u: hi | b: hello"]


def test_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "q,a,context,reply\nhi,hello,1,2\n")
    assert read(path) == ["u: 1 | b: 2"]
    assert read(path, columns={"context": "q", "reply": "a"}) == ["u: hi | b: hello"]
    assert read(path, columns={"speaker": "q", "text": "a"}) == ["u: hello"]
    with pytest.raises(DataError, match=r"a.csv:2: no column 'b'; allowed: q, a, context, reply"):
        read(path, columns={"reply": "b"})
    with pytest.raises(DataError, match="columns: 'answer' is unknown; allowed: context, reply,"):
        read(path, columns={"answer": "a"})


SPOKEN = """dialogue_id,speaker,utterance
7,Ann,hi
7,Ben,hello
7,Ann,and you?
7,Cleo,fine too
7,Ben,good
8,Ben,morning
8,Ann,morning!
"""


def test_the_second_speaker_of_a_dialogue_is_the_bot(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", SPOKEN)
    assert read(path) == [
        "u: hi | b: hello | u: and you? | u: fine too | b: good",
        "u: morning | b: morning!",
    ]


def test_the_bot_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", SPOKEN)
    assert read(path, bot="ben") == [
        "u: hi | b: hello | u: and you? | u: fine too | b: good",
        "b: morning | u: morning!",
    ]
    with pytest.raises(DataError, match=r"a.csv: nobody is called 'Dan' \(bot\); allowed: Ann, B"):
        read(path, bot="Dan")


@pytest.mark.parametrize(
    ("speakers", "roles"),
    [
        (["bot", "Ann"], "bu"),
        (["Ann", "User"], "bu"),
        (["CUSTOMER", "Agent", "Ann"], "ubu"),
        (["user", "user"], "uu"),
        (["Ann"], "u"),
    ],
)
def test_names_that_say_who_is_the_bot(tmp_path: Path, speakers: list[str], roles: str) -> None:
    rows = "".join(f"1,{speaker},hi\n" for speaker in speakers)
    path = write(tmp_path / "a.csv", f"dialogue,speaker,text\n{rows}")
    assert read(path) == [" | ".join(f"{role}: hi" for role in roles)]


def test_without_ids_a_blank_row_ends_a_dialogue_and_the_bot_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sender,message\nAnn,1\nBen,2\n\nBen,3\nAnn,4\n,\nBot,5\n")
    assert read(path) == ["u: 1 | b: 2", "b: 3 | u: 4", "u: 5"]


def test_dialogues_without_end_are_cut(tmp_path: Path) -> None:
    rows = "".join(f"{'AB'[n % 2]},{n}\n" for n in range(2 * MAX_TURNS + 1))
    path = write(tmp_path / "a.csv", f"speaker,text\n{rows}")
    dialogues = [dialogue["messages"] for _, dialogue in read_source(*find_sources([path]))]
    assert [len(messages) for messages in dialogues] == [MAX_TURNS, MAX_TURNS, 1]
    said = [message for messages in dialogues for message in messages]
    assert [message["content"] for message in said] == [str(n) for n in range(2 * MAX_TURNS + 1)]
    assert {message["role"] for message in said if int(message["content"]) % 2} == {"assistant"}


@pytest.mark.parametrize(
    ("rows", "dialogues"),
    [
        ([{"question": "hi", "answer": "hello"}], ["u: hi | b: hello"]),
        (
            [{"context": [*"abc"], "response": "d"}, {"context": ["b", "c"], "response": "e"}],
            ["u: a | b: b | u: c | b: d", "u:  | b: b | u: c | b: e"],
        ),
        ([{"dialog": ["a", "b", "c"], "act": [1, 2, 3]}], ["u: a | b: b | u: c"]),
        (
            [{"conv_id": 3, "from": 1, "text": "a"}, {"conv_id": 3, "from": 0, "text": "b"}],
            ["u: a | b: b"],
        ),
        (
            [{"messages": [{"role": "user", "content": "a"}]}],
            ["u: a"],
        ),
        (
            [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}],
            ["u: a | b: b"],
        ),
    ],
)  # fmt: skip
def test_parquet(tmp_path: Path, rows: list[dict[str, Any]], dialogues: list[str]) -> None:
    path = tmp_path / "a.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    assert read(path) == dialogues


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.parquet: not a whole Parquet file"):
        read(write(tmp_path / "a.parquet", b"PAR1 and no more"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "a.csv:1: not a file of dialogues, with columns a, b; allowed: context and"),
        ("context,reply\nhi\n", "a.csv:2: 1 cells; allowed: 2, as in the first line"),
        ("context,reply\na,b\nhi,x,y\n", "a.csv:3: 3 cells; allowed: 2"),
        ('context,reply\n"hi" you,x\n', "a.csv:2: not CSV (',' expected after '\"')"),
        ('context,reply\nhi,"x\n\n', "a.csv:3: not CSV (unexpected end of data)"),
        ("context,reply\n", "a.csv: the file is empty; allowed: at least one dialogue"),
        ("reply,a,reply\nx,y,z\n", "a.csv:1: two columns are called 'reply'; allowed: one of eac"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(write(tmp_path / "a.csv", content))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"context": "hi", "reply": 7}', "a.jsonl:2: a text is a number; allowed: a string"),
        ('{"context": "hi"}', "a.jsonl:2: no reply; allowed: what the first record has"),
        ("7", "a.jsonl:2: a number; allowed: an object"),
    ],
)
def test_wrong_records_are_named(tmp_path: Path, record: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"context": "hi", "reply": "ho"}}\n{record}\n')
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)


def test_a_record_without_a_speaker_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"speaker": "Ann", "text": "hi"}\n{"text": "ho"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: no speaker; allowed: what the first record"):
        read(path)
