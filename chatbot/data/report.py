"""The report on prepared data: one page to look at, `report.html`, and the same as `report.json`.

The page needs no other file and no network; its plots are drawn as inline SVG.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from chatbot.data.dullness import count_replies, read_shard
from chatbot.data.preparation import REPORT_NAME, dialogue_shards, load_prepared
from chatbot.data.records import ROLES
from chatbot.data.splits import SPLITS, Split
from chatbot.data.steps import language_of
from chatbot.tokenization import (
    UNK,
    Level,
    is_chat,
    is_lowercasing,
    load_tokenizers,
    train_tokenizer,
)

_TEXTS = 50_000  # turns that each vocabulary learns from and is measured on
_LANGUAGE_SAMPLE = 2000  # dialogues
_SHOWN = 20  # bars

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d2733; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
       vertical-align: top; } td.n, th.n { text-align: right; }
tr { border-bottom: 1px solid #d8dee6; } svg { width: 100%; height: auto; }
summary { cursor: pointer; } del { color: #a33; text-decoration: none; } ins { color: #276;
       text-decoration: none; } li { margin: .4rem 0; overflow-wrap: anywhere; }
rect { fill: #4778b5; } text { font: 13px system-ui, sans-serif; fill: currentColor; }
@media (prefers-color-scheme: dark) { body { color: #dde4ec; background: #161b22; }
       tr { border-color: #333c47; } del { color: #f09a94; } ins { color: #7fd0a5; } }
"""


def write_report(data: Path, output: Path | None = None) -> Path:
    """Write `report.json` and `report.html` on a folder that `prepare` wrote. Returns the page.

    Raises:
        FileNotFoundError: `prepare` did not write it.
    """
    facts = measure(data)
    folder = output or data
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(f"{text}\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_page(facts), encoding="utf-8")
    return page


def measure(data: Path) -> dict[str, Any]:
    """All numbers of the report, from `preparation.json` and what was prepared."""
    load_prepared(data)  # or an error
    facts: dict[str, Any] = json.loads((data / REPORT_NAME).read_text("utf-8"))
    turns: Counter[int] = Counter()
    words: dict[str, Counter[int]] = {"user": Counter(), "assistant": Counter()}
    for record in _dialogues(data, SPLITS):
        turns[len(record["messages"])] += 1
        for message in record["messages"]:
            words[message["role"]][len(message["content"].split())] += 1
    return facts | {
        "lengths": {
            "turns in a dialogue": _plain(turns),
            "words in a turn of the user": _plain(words["user"]),
            "words in a turn of the bot": _plain(words["assistant"]),
            "tokens of a context (train)": _plain(_token_lengths(data, "input_ids")),
            "tokens of a reply (train)": _plain(_token_lengths(data, "labels")),
        },
        "commonest_replies": _commonest_replies(data),
        "languages": _languages(data),
        "vocabulary": _vocabularies(data),
    }


def _dialogues(data: Path, splits: Iterable[Split]) -> Iterator[dict[str, Any]]:
    for split in splits:
        for shard in dialogue_shards(data, split):
            yield from read_shard(shard)


def _token_lengths(data: Path, column: str) -> Counter[int]:
    lengths: Counter[int] = Counter()
    for file in sorted((data / "train").glob("data-*.arrow")):  # each is in memory while it is read
        rows = Dataset.from_file(str(file)).select_columns(column).with_format("numpy")
        lengths.update(len(ids) for batch in rows.iter(1000) for ids in batch[column])
    return lengths


def _commonest_replies(data: Path) -> dict[str, Any]:
    """Of what the bot learns to say: how much of it is distinct, and what it says most often."""
    with tempfile.TemporaryDirectory() as scratch:
        said = count_replies(dialogue_shards(data, "train"), Path(scratch) / "replies.sqlite")
        query = "SELECT reply, SUM(count) AS total, COUNT(*) FROM said GROUP BY reply"
        top = said.execute(f"{query} ORDER BY total DESC, reply LIMIT {_SHOWN}").fetchall()
        total, distinct = said.execute(
            "SELECT SUM(count), COUNT(DISTINCT reply) FROM said"
        ).fetchone()
        said.close()
    names = ("reply", "count", "questions")
    return {
        "replies": total or 0,
        "distinct": distinct,
        "commonest": [dict(zip(names, row, strict=True)) for row in top],
    }


def _languages(data: Path) -> dict[str, int] | None:
    """How many of a sample of the dialogues are in which language; None without py3langid."""
    if find_spec("py3langid") is None:
        return None
    total = sum(1 for _ in _dialogues(data, SPLITS))
    sample = islice(_dialogues(data, SPLITS), 0, None, 1 + total // _LANGUAGE_SAMPLE)
    turns = ([message["content"] for message in record["messages"]] for record in sample)
    is_one = is_chat(load_tokenizers(data / "tokenizer")[0])  # a pair has a language on each side
    said = (text for texts in turns for text in ([" ".join(texts)] if is_one else texts))
    return _plain(Counter(language_of(text) or "too short" for text in said))


def _vocabularies(data: Path) -> list[dict[str, Any]]:
    """What a vocabulary of each level and of the chosen size makes of held-out texts: of two, the
    target's after the source's."""
    tokenizers, rows = load_tokenizers(data / "tokenizer"), []
    sides = (
        [("", ROLES)] if len(tokenizers) == 1 else [("source ", ROLES[:1]), ("target ", ROLES[1:])]
    )
    for chosen, (side, roles) in zip(tokenizers, sides, strict=True):
        learned = list(_texts(data, ("train",), roles))
        held_out = list(_texts(data, ("validation", "test"), roles)) or learned
        rows.append(_vocabulary(f"{side}chosen", chosen, held_out))
        for level in get_args(Level):
            tokenizer = _train(learned, level, len(chosen), is_lowercasing(chosen))
            rows.append(_vocabulary(f"{side}{level}", tokenizer, held_out))
    return rows


def _texts(data: Path, splits: tuple[Split, ...], roles: Sequence[str]) -> Iterator[str]:
    turns = (m for record in _dialogues(data, splits) for m in record["messages"])
    return islice((m["content"] for m in turns if m["role"] in roles), _TEXTS)


def _train(texts: list[str], level: Level, size: int, lowercase: bool) -> PreTrainedTokenizerFast:
    try:
        return train_tokenizer(texts, level=level, vocab_size=size, lowercase=lowercase)
    except ValueError:  # these texts give fewer tokens
        return train_tokenizer(texts, level=level, lowercase=lowercase)


def _vocabulary(
    level: str, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> dict[str, Any]:
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    tokens = sum(map(len, ids))
    unknown = sum(row.count(tokenizer.convert_tokens_to_ids(UNK)) for row in ids)
    words = Counter(word for text in texts for word in text.split())
    pieces = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    whole = sum(
        count
        for count, piece in zip(words.values(), pieces, strict=True)
        if len(piece) == 1 and piece[0] != tokenizer.unk_token_id
    )
    return {
        "level": level,
        "tokens": len(tokenizer),
        "whole_words": whole / words.total(),
        "tokens_a_word": tokens / words.total(),
        "unknown": unknown / tokens,
    }


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    """Numbers in order, or names from the commonest on, as what JSON knows."""
    if all(isinstance(key, int) for key in counts):
        return {str(key): counts[key] for key in sorted(counts)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _page(facts: dict[str, Any]) -> str:
    replies = facts["commonest_replies"]
    common = [(f"“{row['reply']}”", row["count"]) for row in replies["commonest"]]
    parts = [
        "<h1>What the data is like</h1>",
        _table(("split", "source", "dialogues", "replies"), _counts(facts)),
        "<h2>Left out</h2>",
        _bars(_dropped(facts)),
        "<h2>What cleaning did</h2>",
        *(_step(name, step) for name, step in facts["steps"].items()),
        "<h2>Lengths</h2>",
        *(f"<h3>{escape(name)}</h3>{_bars(_bins(of))}" for name, of in facts["lengths"].items()),
        "<h2>Commonest replies</h2>",
        f"<p>{replies['distinct']:,} of {replies['replies']:,} replies to learn are distinct, "
        "capitals and punctuation apart.</p>",
        _bars(common),
        "<h2>Vocabulary</h2>",
        "<p>On held-out dialogues: the share of words that are one token, tokens for a word, and "
        "the share of tokens that are unknown.</p>",
        _table(("level", "tokens", "whole words", "tokens a word", UNK), _coverage(facts)),
        _bars([(row["level"], row["whole_words"]) for row in facts["vocabulary"]], "{:.1%}"),
        "<h2>Languages</h2>",
        _bars(list(facts["languages"].items()))
        if facts["languages"]
        else "<p>Not known: py3langid, of the extra <code>data</code>, is not installed.</p>",
        "<h2>Sources</h2>",
        _table(("file", "SHA-256"), list(facts["files"].items())),
    ]
    head = f'<meta charset="utf-8"><title>Data report</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _counts(facts: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (split, source, count, facts["examples"][split].get(source, 0))
        for split, sources in facts["dialogues"].items()
        for source, count in sources.items()
    ]


def _dropped(facts: dict[str, Any]) -> list[tuple[str, float]]:
    reasons: Counter[str] = Counter()
    for sources in facts["dropped"].values():
        for counts in sources.values():
            reasons.update({f"dialogues: {reason}": count for reason, count in counts.items()})
    return [*reasons.most_common(), *facts["skipped"].items()]


def _coverage(facts: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            row["level"],
            row["tokens"],
            f"{row['whole_words']:.1%}",
            f"{row['tokens_a_word']:.2f}",
            f"{row['unknown']:.2%}",
        )
        for row in facts["vocabulary"]
    ]


def _bins(counts: Mapping[str, int]) -> list[tuple[str, float]]:
    """Lengths in ranges that double: 1, 2, 3 to 4, 5 to 8."""
    bins: Counter[int] = Counter()
    for length, count in counts.items():
        bins[(max(int(length), 1) - 1).bit_length()] += count
    top = max(bins, default=-1)
    names = ["1", "2", *(f"{2 ** (b - 1) + 1}–{2**b}" for b in range(2, top + 1))]
    return [(names[b], bins[b]) for b in range(top + 1)]


def _step(name: str, step: dict[str, Any]) -> str:
    title = f"{escape(name)}: {step['count']:,}" if step["setting"] else f"{escape(name)}: off"
    if not step["examples"]:
        return f"<p>{title}</p>"
    shown = "".join(
        f"<li><del>{escape(example['before'])}</del>"
        + (f"<br><ins>{escape(example['after'])}</ins>" if example["after"] else "")
        + "</li>"
        for example in step["examples"]
    )
    return f"<details><summary>{title}</summary><ul>{shown}</ul></details>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(tag: str, value: Any) -> str:
        if isinstance(value, int):
            return f'<{tag} class="n">{value:,}</{tag}>'
        return f"<{tag}>{escape(str(value))}</{tag}>"

    lines = [
        "".join(cell("th", head) for head in heads),
        *("".join(cell("td", value) for value in row) for row in rows),
    ]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _bars(rows: Sequence[tuple[str, float]], number: str = "{:,}") -> str:
    """A bar for each name, in SVG."""
    if not rows:
        return "<p>Nothing.</p>"
    longest = max(value for _, value in rows) or 1
    drawn = []
    for line, (name, value) in enumerate(rows):
        y, width, short = 22 * line, 420 * value / longest, name[:38] + "…" * (len(name) > 38)
        drawn.append(
            f'<text x="290" y="{y + 15}" text-anchor="end">{escape(short)}</text>'
            f'<rect x="300" y="{y + 3}" width="{width:.1f}" height="16" rx="2"/>'
            f'<text x="{307 + width:.1f}" y="{y + 15}">{number.format(value)}</text>'
        )
    return f'<svg viewBox="0 0 820 {22 * len(rows)}" role="img">{"".join(drawn)}</svg>'
