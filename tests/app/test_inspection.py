"""The look inside a reply, as HTML."""

from html.parser import HTMLParser

import torch

from chatbot.app import strings
from chatbot.app.inspection import inspect_reply, note
from chatbot.chat import Reply, Timing


class Tags(HTMLParser):
    """Counts elements; their text and titles are kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.titles += [value for name, value in attrs if name == "title" and value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def a_reply(attention: torch.Tensor | None = None, **changes: object) -> Reply:
    values: dict[str, object] = {
        "text": "no",
        "tokens": [" <b>no", "<end>"],
        "candidates": ["no"],
        "scores": [-1.5],
        "confidence": 0.5,
        "attention": attention,
        "source_tokens": ["<user>", ' "hi&', "<bot>"],
        "timing": Timing(0.1, 0.25, 2),
    }
    return Reply(**values | changes)  # type: ignore[arg-type]


def test_the_heat_map_has_a_cell_for_each_pair() -> None:
    weights = torch.tensor([[0.7, 0.3, 0.0], [0.001, 0.0, 0.999]])
    tags = Tags(inspect_reply(a_reply(weights)))
    assert tags.names.count("tr") == 3
    assert tags.names.count("td") == 2 * 3 + 1
    assert tags.titles == [
        "“<b>no” looks at “<user>”: 0.700",
        '“<b>no” looks at “"hi&”: 0.300',
        "“<end>” looks at “<bot>”: 0.999",
    ]
    assert "b" not in tags.names
    assert {"<b>no", "<end>", '"hi&', "0.70", "1.00"} <= set(tags.texts)


def test_a_model_without_attention_says_so() -> None:
    html = inspect_reply(a_reply(None))
    assert strings.ATTENTION_NONE in html
    assert "<table" not in html


def test_candidates_are_shown_with_their_scores() -> None:
    html = inspect_reply(a_reply(candidates=["<i>a", "b"], scores=[-1.25, -3.0]))
    assert Tags(html).texts[-4:] == ["<i>a", "-1.25", "b", "-3.00"]
    assert "<i>" not in html


def test_the_note_says_how_long_it_took() -> None:
    assert note(a_reply()) == "2 tokens · 8 a second · the first after 0.10 s"
    assert note(a_reply(timing=Timing(0, 0, 0))) == ""
