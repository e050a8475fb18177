"""Steps of training: pairs against whole dialogues in one pass, and pairs against BART."""

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from benchmarks.peers import REPLY, SOURCE, VOCABULARY, bart, ours, seconds
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer
from transformers.trainer_pt_utils import LengthGroupedSampler

from chatbot.data import load_prepared
from chatbot.training import JOINED_CONTEXTS
from chatbot.training_dialogues import ReplyCollator, join_replies
from chatbot.training_model import build_model
from chatbot.training_run import load_run, parse_overrides


def training(folder: Path, batch: int, batches: int, options: list[str]) -> None:
    """`benchmark.py training`: replies forward and back, as pairs and in one pass.

    Of five times as many batches every fifth by length, so that both ways meet all lengths.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    longest = json.loads((folder / "preparation.json").read_text())["settings"]["max_source_tokens"]
    run = load_run(None, {"start": "scratch", **parse_overrides(options)})
    model = build_model(run, tokenizer, longest).train()
    examples = load_prepared(folder)["train"]
    examples = examples.select(range(min(len(examples), 5 * batch * batches)))
    pairs, timed = examples.select_columns(["input_ids", "labels"]), {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch, "rows.arrow")
        rows = join_replies(examples, tokenizer, JOINED_CONTEXTS * longest, cache)
        collate = ReplyCollator(tokenizer, model, pad_to_multiple_of=8)
        for name, data in (("pairs", pairs), ("one pass", rows)):
            size = max(1, round(batch * len(data) / len(pairs)))
            lengths = data["length"] if "length" in data.column_names else None
            sampler = LengthGroupedSampler(size, data, lengths)
            loader = DataLoader(data, size, sampler=sampler, collate_fn=collate)
            timed[name] = sorted(loader, key=lambda batch: batch["input_ids"].shape[1])[2::5]
    seconds, replies = Counter(), Counter()
    for number in range(-1, batches):  # the first is slower; in turn, so that noise hits both
        for name, features in ((name, given[max(0, number)]) for name, given in timed.items()):
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=run.trainer.get("bf16", False)):
                loss = model(**features).loss
            loss.backward()
            model.zero_grad()
            if number >= 0:
                seconds[name] += time.process_time() - began
                replies[name] += int((features["labels"] != -100).any(-1).sum())
    speeds = {name: replies[name] / seconds[name] for name in timed}
    for name, speed in speeds.items():
        rows_each = len(timed[name][0]["input_ids"])
        print(f"{name:10}{speed:8.0f} replies a CPU-second, {rows_each} rows a batch")
    print(f"{'ratio':10}{speeds['one pass'] / speeds['pairs']:8.2f}")


def against_bart(batch: int, batches: int) -> None:
    """`benchmark.py training` without data: target tokens of whole steps, AdamW included.

    Sources of 32 tokens, targets of 24, nothing padded; in turn, so that noise hits both.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = torch.randint(10, VOCABULARY, (batch, SOURCE))
    labels = torch.randint(10, VOCABULARY, (batch, REPLY))
    models = {"BART": bart().train(), "ours": ours().train()}
    optimizers = {name: torch.optim.AdamW(model.parameters()) for name, model in models.items()}
    for precision in (torch.float32, torch.bfloat16):
        took = Counter[str]()
        for number in range(batches + 1):
            for name, model in models.items():
                second = seconds(_step, model, optimizers[name], source, labels, precision)
                took[name] += second if number else 0  # the first is slower
        speeds = {name: batches * labels.numel() / each for name, each in took.items()}
        said = ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
        print(
            f"{precision}: {said} target tokens a CPU-second; {speeds['ours'] / speeds['BART']:.2f}"
        )


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: torch.Tensor,
    labels: torch.Tensor,
    precision: torch.dtype,
) -> None:
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = model(input_ids=source, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
