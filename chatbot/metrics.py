"""Measures of replies, and what chance does to them: functions of texts and numbers alone.

Texts of the same words, capitals and punctuation apart, count as equal.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from string import punctuation
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Estimate = dict[str, Any]  # value, low and high of its 95 % interval; signature, p


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Runs of n lower-cased words, punctuation left out."""
    words = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split()
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def distinct(replies: Sequence[str], n: int) -> float:
    """Distinct word n-grams over all of them (Li et al. 2016)."""
    grams = Counter(gram for reply in replies for gram in ngrams(reply, n))
    return len(grams) / max(1, grams.total())


def entropy(replies: Sequence[str], n: int) -> float:
    """Bits of the distribution of all word n-grams (Zhang et al. 2018)."""
    counts = Counter(gram for reply in replies for gram in ngrams(reply, n))
    return sum(c * math.log2(counts.total() / c) for c in counts.values()) / max(1, counts.total())


def unique_rate(replies: Sequence[str]) -> float:
    """Different replies over all replies."""
    return len(_same_words(replies)) / max(1, len(replies))


def commonest_share(replies: Sequence[str], top: int = 10) -> float:
    """Share of the replies that are one of the `top` commonest."""
    return sum(n for _, n in _same_words(replies).most_common(top)) / max(1, len(replies))


def variety(replies: Sequence[str]) -> dict[str, Estimate]:
    """The measures above, without intervals: a bootstrap's samples repeat replies, so vary less."""
    measured = {f"{of.__name__}-{n}": of(replies, n) for of in (distinct, entropy) for n in (1, 2)}
    measured |= {"unique": unique_rate(replies), "ten commonest": commonest_share(replies)}
    return {name: {"value": value} for name, value in measured.items()}


def loop_rate(reply: str, n: int = 3) -> float:
    """Share of a reply's word n-grams that it has said before."""
    grams = ngrams(reply, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copy_rate(reply: str, message: str, n: int = 3) -> float:
    """Share of a reply's word n-grams that stand in the message it answers."""
    grams, said = ngrams(reply, n), set(ngrams(message, n))
    return sum(gram in said for gram in grams) / len(grams) if grams else 0.0


def word_f1(reply: str, reference: str) -> float:
    """F1 of the words two texts share, as ParlAI defines it: lower case, no a, an or the."""
    bare = (re.sub(f"[{re.escape(punctuation)}]", " ", text.lower()) for text in (reply, reference))
    said, wanted = (re.sub(r"\b(a|an|the)\b", " ", text).split() for text in bare)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def unknown_rate(rows: Sequence[Sequence[int]], unk_id: int) -> float:
    """Share of the tokens that are `<unk>`."""
    return sum(list(row).count(unk_id) for row in rows) / max(1, sum(map(len, rows)))


def bleu(replies: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> Estimate:
    """BLEU of sacrebleu with one reference a reply. ImportError: no extra `evaluate`."""
    return _overlap(_metric("BLEU", lowercase), replies, references)


def chrf(replies: Sequence[str], references: Sequence[str], *, lowercase: bool = False) -> Estimate:
    """chrF of sacrebleu with one reference a reply. ImportError: no extra `evaluate`."""
    return _overlap(_metric("CHRF", lowercase), replies, references)


def overlap_tests(
    ours: Sequence[str], theirs: Sequence[str], references: Sequence[str], *, lowercase: bool
) -> dict[str, float]:
    """p of the difference in BLEU and in chrF: sacrebleu's paired approximate randomisation."""
    from sacrebleu.significance import PairedTest

    metrics = {name: _metric(name.upper(), lowercase) for name in ("BLEU", "chrF")}
    systems: Any = [("ours", list(ours)), ("theirs", list(theirs))]
    found: Any = PairedTest(systems, metrics, [list(references)], n_samples=2000)()[1]
    _, *tested = found.values()  # the first names the systems
    scores = zip(metrics, tested, strict=True)
    # of equal scores sacrebleu gives its smallest p
    return {name: 1.0 if a.score == b.score else float(b.p_value) for name, (a, b) in scores}


def ratio(rows: NDArray[Any]) -> float:
    """Sum of the first column over that of the second: a mean over what the items hold."""
    return float(np.divide(*rows.sum(axis=0)))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[Any]], float] = lambda rows: float(rows.mean()),
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic over items (items,) or (items, columns), drawn anew."""
    rows, draw = np.asarray(values), np.random.default_rng(seed)
    drawn = [statistic(rows[draw.integers(len(rows), size=len(rows))]) for _ in range(samples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_test(
    ours: ArrayLike, theirs: ArrayLike, sizes: ArrayLike | None = None, *, seed: int = 0
) -> Estimate:
    """Mean of `ours - theirs`, (items,), per unit of `sizes` (1; or the words of each item, say).

    The interval is the bootstrap's, p that of a two-sided approximate randomisation.
    """
    gaps = np.asarray(ours, float) - np.asarray(theirs, float)
    rows = np.stack([gaps, np.ones_like(gaps) if sizes is None else np.asarray(sizes)], axis=1)
    draw, trials = np.random.default_rng(seed), 2000
    # where the items may as well be swapped, the signs of their differences are a coin's
    flips = (draw.integers(2, size=len(gaps)) * 2 - 1 for _ in range(trials))
    as_far = sum(abs(flip @ gaps) >= abs(gaps.sum()) * (1 - 1e-9) for flip in flips)
    low, high = bootstrap_interval(rows, ratio, seed=seed)
    p = float((as_far + 1) / (trials + 1))
    return {"value": ratio(rows), "low": low, "high": high, "p": p}


def _same_words(replies: Sequence[str]) -> Counter[tuple[tuple[str, ...], ...]]:
    return Counter(tuple(ngrams(reply, 1)) for reply in replies)


def _metric(name: str, lowercase: bool) -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ImportError("BLEU and chrF need sacrebleu: install the extra `evaluate`") from error
    return vars(sacrebleu.metrics)[name](lowercase=lowercase)


def _overlap(metric: Any, replies: Sequence[str], references: Sequence[str]) -> Estimate:
    texts = (list(replies), [list(references)])
    try:
        score = metric.corpus_score(*texts, n_bootstrap=1000)
    except TypeError:  # sacrebleu 2.6 cannot average samples some of which are 0
        metric.n_bootstrap = metric.seed = None
        score = metric.corpus_score(*texts)
    signature = str(metric.get_signature())
    said = json.loads(score.format(width=6, is_json=True, signature=signature))
    found = {"value": float(score.score), "signature": signature}
    if "confidence" in said:
        middle, half = said["confidence_mean"], said["confidence_var"]
        found |= {"low": middle - half, "high": middle + half}
    return found
