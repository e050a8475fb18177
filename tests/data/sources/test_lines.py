"""Plain text: a line a turn."""

from pathlib import Path

import pytest
from source_helpers import formats, read, write

from chatbot.data.sources import find_sources, read_source

TEXT = "hi\nhello\nhow are you?\nfine\n\n\n  \nbye\nsee you"


@pytest.mark.parametrize("name", ["chat.txt", "chat.txt.gz", "chat"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_turns_alternate_and_blank_lines_end_a_dialogue(
    tmp_path: Path, name: str, end: str
) -> None:
    path = write(tmp_path / name, TEXT.replace("\n", end))
    assert formats(path) == ["lines"]
    assert read(path) == ["u: hi | b: hello | u: how are you? | b: fine", "u: bye | b: see you"]
    assert [line for line, _ in read_source(*find_sources([path]))] == [1, 8]


def test_any_text_is_lines_when_told_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", '{"messages": [\n[31/12/2023, 21:15:03] Ann: hi\n')
    assert read(path, format="lines") == ['u: {"messages": [ | b: [31/12/2023, 21:15:03] Ann: hi']
