"""The picture of a training: losses, perplexity and learning rate over its steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

CURVE_NAME = "learning_curve.svg"


def draw_learning_curve(log: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the Trainer's `log_history`.

    Raises:
        ImportError: matplotlib is missing; the message says how to get it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'rnn-seq2seq-chatbot[evaluate]'"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (
        ("loss", "training (with dropout)", "-"),
        ("eval_loss", "validation", "o-"),
    ):
        points = [(entry["step"], entry[name]) for entry in log if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="step", ylabel="loss, nats a token")
    if axes.lines:
        axes.legend(loc="upper right")
    perplexity = axes.twinx()
    perplexity.set(yscale="log", ylabel="perplexity", ylim=np.exp(axes.get_ylim()))
    rates = [(entry["step"], entry["learning_rate"]) for entry in log if "learning_rate" in entry]
    if rates:
        below = axes.twinx()
        below.plot(*zip(*rates, strict=True), color="0.8", zorder=0)
        below.set_axis_off()
        axes.set_title("The grey line is the learning rate.", fontsize="small")
    figure.savefig(path)
