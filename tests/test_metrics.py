"""Measures of texts and of chance, against values worked out by hand and sacrebleu's command."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatbot.metrics import (
    bleu,
    bootstrap_interval,
    chrf,
    commonest_share,
    copy_rate,
    distinct,
    entropy,
    loop_rate,
    ngrams,
    overlap_tests,
    paired_test,
    ratio,
    unique_rate,
    unknown_rate,
    variety,
    word_f1,
)

SAID = ["So do I, and green tea?", "no", "I like it very much!", "Yes.", "well, the cat sat there"]
OTHERS = ["So do I.", "no way", "I like green tea", "yes", "the cat sat on the mat"]
WANTED = [
    "So do I, green tea.",
    "no way",
    "I like it very very much",
    "Yes",
    "the cat sat on a mat",
]


def test_runs_of_words() -> None:
    assert ngrams("Don't you? I do!", 2) == [("don't", "you"), ("you", "i"), ("i", "do")]
    assert ngrams("one two", 3) == []
    assert ngrams("", 1) == []


@pytest.mark.parametrize(
    ("replies", "n", "expected"),
    [
        (["i do", "i do not"], 1, 3 / 5),  # i, do, not
        (["i do", "i do not"], 2, 2 / 3),  # (i do), (do not)
        (["yes", "no"], 1, 1.0),
        (["yes", "Yes!", "yes."], 1, 1 / 3),
        ([], 1, 0.0),
        (["one two"], 3, 0.0),
    ],
)
def test_distinct_by_hand(replies: Sequence[str], n: int, expected: float) -> None:
    assert distinct(replies, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("replies", "n", "bits"),
    [
        (["a b", "c d"], 1, 2.0),  # four words alike
        (["a b", "c d"], 2, 1.0),
        (["yes", "Yes!", "yes"], 1, 0.0),
        (["a a a b"], 1, 0.75 * math.log2(4 / 3) + 0.25 * 2),
        (["a"], 2, 0.0),
    ],
)
def test_entropy_by_hand(replies: Sequence[str], n: int, bits: float) -> None:
    assert entropy(replies, n) == pytest.approx(bits)


@pytest.mark.parametrize(
    ("replies", "unique", "first", "top_two"),
    [
        (["Yes.", "yes", "YES!", "yes"], 1 / 4, 1.0, 1.0),
        (["a", "b", "c", "d"], 1.0, 1 / 4, 1 / 2),
        (["a", "A", "b", "c", "c"], 3 / 5, 2 / 5, 4 / 5),
        ([], 0.0, 0.0, 0.0),
    ],
)
def test_equal_replies_by_hand(
    replies: Sequence[str], unique: float, first: float, top_two: float
) -> None:
    assert unique_rate(replies) == pytest.approx(unique)
    assert commonest_share(replies, top=1) == pytest.approx(first)
    assert commonest_share(replies, top=2) == pytest.approx(top_two)
    assert commonest_share(replies) == (1.0 if replies else 0.0)  # there are not ten


def test_variety_has_no_interval() -> None:
    measured = variety(["yes", "yes", "no no"])
    assert measured["distinct-1"] == {"value": pytest.approx(2 / 4)}
    assert measured["unique"] == {"value": pytest.approx(2 / 3)}
    assert {"entropy-2", "ten commonest"} < measured.keys()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("yoga yoga yoga yoga yoga", 2 / 3),  # three trigrams, one of them new
        ("i like tea and i like tea too", 1 / 6),
        ("i like tea, and you?", 0.0),
        ("no", 0.0),
    ],
)
def test_loops_by_hand(reply: str, expected: float) -> None:
    assert loop_rate(reply) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "message", "expected"),
    [
        ("You like green tea?", "I like green tea.", 1 / 2),  # (like green tea) of two
        ("i like green tea", "I like green tea.", 1.0),
        ("so do i, really", "I like green tea.", 0.0),
        ("tea?", "tea", 0.0),
    ],
)
def test_copies_by_hand(reply: str, message: str, expected: float) -> None:
    assert copy_rate(reply, message) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("The cat sat.", "a cat, sits here", 2 / 5),  # cat, of cat sat and cat sits here
        ("yes yes yes", "yes", 2 / 4),  # a word counts as often as in both
        ("An apple!", "the APPLE", 1.0),
        ("it's", "it s", 1.0),
        ("the", "a", 0.0),
        ("", "", 0.0),
    ],
)
def test_f1_by_hand(reply: str, reference: str, expected: float) -> None:
    assert word_f1(reply, reference) == pytest.approx(expected)


def test_unknown_tokens_by_hand() -> None:
    assert unknown_rate([[1, 5, 1], [7]], 1) == 2 / 4
    assert unknown_rate([], 1) == 0


def lines(path: Path, texts: Sequence[str]) -> str:
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return str(path)


def sacrebleu(folder: Path, *options: str) -> Any:
    """What sacrebleu's own command says of SAID against WANTED."""
    said, wanted = lines(folder / "said", SAID), lines(folder / "wanted", WANTED)
    command = [sys.executable, "-m", "sacrebleu", wanted, "-i", said]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_and_chrf_are_those_of_sacrebleus_command(tmp_path: Path, lowercase: bool) -> None:
    case = ["-lc", "--chrf-lowercase"] if lowercase else []
    options = ["-m", "bleu", "chrf", "-w", "6", "--confidence", *case]
    for told, score in zip(sacrebleu(tmp_path, *options), (bleu, chrf), strict=True):
        measured = score(SAID, WANTED, lowercase=lowercase)
        assert measured["value"] == pytest.approx(told["score"], abs=1e-6)
        assert measured["value"] > 10
        middle, half = (measured["low"] + measured["high"]) / 2, measured["high"] - measured["low"]
        assert middle == pytest.approx(told["confidence_mean"], abs=1e-5)
        assert half / 2 == pytest.approx(told["confidence_var"], abs=1e-5)
        assert measured["signature"] == told["signature"]
        assert f"case:{'lc' if lowercase else 'mixed'}" in measured["signature"]
        assert "nrefs:1" in measured["signature"]


def test_capitals_count_where_they_shall() -> None:
    for score in (bleu, chrf):
        same = score(["YES IT IS SO"], ["yes it is so"], lowercase=True)
        assert same["value"] == pytest.approx(100)
        assert score(["YES IT IS SO"], ["yes it is so"])["value"] < 20


def test_nothing_in_common_is_zero() -> None:
    for score in (bleu, chrf):
        measured = score(["zzz"], ["aaa bb"])
        assert measured.keys() == {"value", "signature"}
        assert measured["value"] == 0


def test_where_sacrebleu_fails_there_is_no_interval() -> None:
    """A sample that draws "zzz" alone has a chrF of 0, which its average does not take."""
    measured = chrf(["zzz", "aaa bb"], ["aaa bb", "aaa bb"])
    assert measured.keys() == {"value", "signature"}
    assert measured["value"] > 0
    assert "bs:" not in measured["signature"]


def test_chance_in_bleu_is_that_of_sacrebleus_command(tmp_path: Path) -> None:
    others = lines(tmp_path / "others", OTHERS)
    options = ["-m", "bleu", "chrf", "--paired-ar", "--paired-ar-n", "2000"]
    _, told = sacrebleu(tmp_path, others, *options)
    measured = overlap_tests(SAID, OTHERS, WANTED, lowercase=False)
    assert measured["BLEU"] == pytest.approx(told["BLEU"]["p_value"], abs=1e-4)
    assert measured["chrF"] == pytest.approx(told["chrF2"]["p_value"], abs=1e-4)
    assert 0 < measured["chrF"] < 1


def test_a_model_is_as_good_as_itself() -> None:
    assert overlap_tests(SAID, list(SAID), WANTED, lowercase=True) == {"BLEU": 1.0, "chrF": 1.0}
    # nor is one zero better than another
    assert overlap_tests(["a b c"], ["a b d"], ["e f g"], lowercase=True)["BLEU"] == 1
    values = np.random.default_rng(0).normal(size=50)
    assert paired_test(values, values) == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_overlaps_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match="need sacrebleu: install the extra `evaluate`"):
        bleu(SAID, WANTED)


def test_an_interval_holds_the_mean_and_shrinks() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=1600)
    widths = []
    for size in (100, 400, 1600):
        low, high = bootstrap_interval(values[:size])
        assert low < values[:size].mean() < high
        widths.append(high - low)
        # as the textbook has it: 1.96 standard errors to each side
        assert high - low == pytest.approx(2 * 1.96 * values[:size].std() / size**0.5, rel=0.15)
    assert widths[0] > 1.7 * widths[1] > 2.9 * widths[2]
    low, high = bootstrap_interval(values[:100], level=0.5)
    assert high - low == pytest.approx(widths[0] * 0.674 / 1.96, rel=0.15)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        low, high = bootstrap_interval(draw.normal(size=60), samples=200, seed=trial)
        held += low < 0 < high
    assert 0.89 <= held / 200 <= 0.99


def test_an_interval_of_a_ratio_draws_its_parts_together() -> None:
    sizes = np.random.default_rng(3).integers(1, 50, size=100)
    rows = np.stack([2.0 * sizes, sizes], axis=1)
    assert ratio(rows) == 2
    assert bootstrap_interval(rows, ratio) == (2, 2)
    rows[0, 0] += 100
    assert bootstrap_interval(rows, ratio, seed=4) == bootstrap_interval(rows, ratio, seed=4)
    assert bootstrap_interval(rows, ratio, seed=4) != bootstrap_interval(rows, ratio, seed=5)


def test_a_difference_by_hand() -> None:
    # the signs of 1, 1, 1, 1 fall alike in 2 of 16 throws
    tested = paired_test([2, 2, 2, 2], [1, 1, 1, 1])
    assert (tested["value"], tested["low"], tested["high"]) == (1, 1, 1)
    assert tested["p"] == pytest.approx(2 / 16, abs=0.03)
    weighed = paired_test([4, 4], [2, 0], [1, 5])  # 6 more on 6 words
    assert weighed["value"] == pytest.approx(1)


def test_differences_are_found_and_not_invented() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(size=300)
    for sign in (1, -1):
        tested = paired_test(values + sign * 0.1 + draw.normal(0, 0.3, size=300), values)
        assert tested["p"] < 0.001
        assert sign * tested["low"] > 0 < sign * tested["high"]
    found = [paired_test(draw.normal(size=40), draw.normal(size=40))["p"] for _ in range(60)]
    assert np.mean(np.array(found) < 0.1) <= 0.2
    assert 0.4 <= np.mean(found) <= 0.6
