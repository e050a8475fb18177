"""Who is compared: our model and transformers' BART of one size, and what this core can do at most.

Weights are new: speed does not depend on them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration

from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.modeling.products_rnn_seq2seq import linear

SOURCE, REPLY, VOCABULARY = 32, 24, 8192
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}


def ours(width: int = 512) -> RnnSeq2SeqForConditionalGeneration:
    """Two layers a side, the encoder bidirectional, general attention."""
    sizes = {"embedding_size": width, "hidden_size": width, "vocab_size": VOCABULARY}
    config = RnnSeq2SeqConfig(**sizes, encoder_layers=2, decoder_layers=2, bidirectional=True)
    return RnnSeq2SeqForConditionalGeneration(config).eval()


def bart() -> BartForConditionalGeneration:
    """transformers' own, with about as many parameters."""
    sides = {"layers": 2, "attention_heads": 8, "ffn_dim": 1024}
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=448,
        max_position_embeddings=128,
        forced_eos_token_id=None,
        **{
            f"{side}_{name}": size
            for side in ("encoder", "decoder")
            for name, size in sides.items()
        },
        **SPECIAL,
    )
    return BartForConditionalGeneration(config).eval()


@dataclass
class Machine:
    """What one core can do at most: operations and bytes a second, by precision."""

    operations: dict[str, float]
    read: float
    has_vnni: bool

    @classmethod
    def measured(cls) -> "Machine":
        """The best of five products of squares, as the model makes them, and of sums of 256 MB."""
        square = torch.rand(1024, 1024)
        low, whole, long = square.bfloat16(), (square * 100).to(torch.int8), torch.rand(1 << 26)
        jobs = {
            "fp32": lambda: linear(square, square),
            "bf16": lambda: low @ low,
            "int8": lambda: torch._int_mm(whole, whole),
            "read": long.sum,
        }
        best = {name: min(seconds(job) for _ in range(5)) for name, job in jobs.items()}
        read = long.numel() * long.element_size() / best.pop("read")
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        operations = {name: 2 * len(square) ** 3 / took for name, took in best.items()}
        return cls(operations, read, "vnni" in flags)

    def __str__(self) -> str:
        speeds = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in self.operations.items())
        vnni = "with" if self.has_vnni else "without"
        read = f"memory read {self.read / 1e9:.0f} GB/s"
        return f"matrix products, GFLOP/s: {speeds}; {read}; {vnni} VNNI"

    def least_seconds(self, weights: int, rows: int, precision: str) -> float:
        """Of a product of so many rows with so many weights, which are read once."""
        size = {"fp32": 4, "bf16": 2, "int8": 1}[precision]
        return max(2 * weights * rows / self.operations[precision], weights * size / self.read)


def seconds(job: Callable[..., object], *arguments: object) -> float:
    """Of this process's CPU."""
    started = time.process_time()
    job(*arguments)
    return time.process_time() - started
