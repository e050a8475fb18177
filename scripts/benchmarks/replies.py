"""Tokens a CPU-second of one thread: ours against BART of the same size and the plainest loops.

Weights are new: speed does not depend on them. Sources have 32 tokens, replies exactly 24. All take
turns in each round, so that what else the machine does hits them alike.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BartConfig, BartForConditionalGeneration

from chatbot.checkpoints import load_chatbot
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.modeling.quantization_rnn_seq2seq import Int8Linear
from chatbot.presets import GenerationPreset
from chatbot.serving.slots import Request, Slots

SOURCE, REPLY, VOCABULARY = 32, 24, 8192
WORKLOADS = {"greedy, 1": (1, 1), "greedy, 64": (64, 1), "beam 5, 1": (1, 5), "beam 5, 32": (32, 5)}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
LENGTH = {"min_new_tokens": REPLY, "max_new_tokens": REPLY, "do_sample": False}
# Says replies to sources (B, S) with so many beams.
Speaker = Callable[[Tensor, int], object]


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


def by_generate(model: torch.nn.Module) -> Speaker:
    """What every user of transformers calls."""
    return lambda sources, beams: model.generate(sources, num_beams=beams, **LENGTH)


def by_slots(model: RnnSeq2SeqForConditionalGeneration) -> Speaker:
    """The chat engine's stepping, greedily."""
    _, tokenizer = load_chatbot()
    preset = GenerationPreset(no_repeat_ngram_size=0, min_new_tokens=REPLY, max_new_tokens=REPLY)
    slots = {count: Slots(model, tokenizer, count, SOURCE) for count in (1, 64)}

    def say(sources: Tensor, beams: int) -> None:
        rows = slots[len(sources)]
        draws = torch.Generator()
        rows.join([Request(row, preset, draws, lambda _: None) for row in sources.tolist()])
        for _ in range(REPLY):
            rows.step()
        rows.leave(range(len(sources)))

    return say


def by_plain_loop(model: RnnSeq2SeqForConditionalGeneration, int8: bool) -> Speaker:
    """The floor: the same network in bare torch calls, greedily, without anything around them."""
    decoder, lstm = model.model.decoder, model.model.decoder.stack.layers
    linear = (lambda of: Int8Linear(of.weight, of.bias)) if int8 else (lambda of: of)
    maps = []
    for layer in lstm:
        (inputs, hidden, *biases) = layer.rnn.all_weights[0]
        both = torch.nn.Linear(inputs.shape[1] + hidden.shape[1], len(inputs))
        both.weight.data = torch.cat([inputs, hidden], 1).data
        both.bias.data = (biases[0] + biases[1]).data
        maps.append(linear(both))
    combine, output = linear(decoder.combine), linear(model.lm_head)
    table = model.get_input_embeddings().weight

    def say(sources: Tensor, beams: int) -> Tensor:
        read = model.model.encoder(sources)
        values, keys = (
            read.last_hidden_state,
            decoder.attention.score.project(read.last_hidden_state),
        )
        states = [(h[:, 0], c[:, 0]) for h, c in decoder.bridge(read.final_hidden, read.final_cell)]
        said = [sources.new_full((len(sources),), SPECIAL["bos_token_id"])]
        for _ in range(REPLY):
            outputs = table[said[-1]]
            for place, ((hidden, cell), gates) in enumerate(zip(states, maps, strict=True)):
                i, f, g, o = gates(torch.cat([outputs, hidden], 1)).chunk(4, 1)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                outputs = torch.sigmoid(o) * torch.tanh(cell)
                states[place] = outputs, cell
            weights = F.softmax(torch.bmm(keys, outputs[..., None])[..., 0], 1)
            context = torch.bmm(weights[:, None], values)[:, 0]
            logits = output(torch.tanh(combine(torch.cat([context, outputs], 1))))
            said.append(logits.argmax(1))
        return torch.stack(said, 1)

    return say


def speakers() -> dict[str, tuple[Speaker, bool]]:
    """Who speaks, and whether with beams too."""
    model = ours()
    small = quantize(ours())
    print(f"parameters: ours {model.num_parameters():,}, BART {bart().num_parameters():,}")
    return {
        "BART, generate()": (by_generate(bart()), True),
        "fp32, generate()": (by_generate(model), True),
        "int8, generate()": (by_generate(small), True),
        "int8, engine": (by_slots(small), False),
        "fp32, plain loop": (by_plain_loop(model, False), False),
        "int8, plain loop": (by_plain_loop(model, True), False),
        "generate() itself, width 16": (by_generate(ours(16)), True),
    }


def machine() -> str:
    """What this core can do at most, and whether it has instructions for int8."""
    square = torch.rand(1024, 1024)
    whole, long = (square * 100).to(torch.int8), torch.rand(1 << 26)
    jobs = {
        "fp32": lambda: square @ square,
        "bf16": lambda: square.bfloat16() @ square.bfloat16(),
        "int8": lambda: torch._int_mm(whole, whole),
        "read": long.sum,
    }
    best = {name: min(_seconds(job) for _ in range(5)) for name, job in jobs.items()}
    speeds = ", ".join(
        f"{name} {2**31 / best[name] / 1e9:.0f}" for name in ("fp32", "bf16", "int8")
    )
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vnni = "with" if "vnni" in flags else "without"
    read = long.numel() * 4 / best["read"] / 1e9
    return f"matrix products, GFLOP/s: {speeds}; memory read {read:.0f} GB/s; {vnni} VNNI"


def _seconds(job: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    job(*arguments)
    return time.process_time() - started


@torch.inference_mode()
def replies(rounds: int) -> None:
    """`benchmark.py replies`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(machine())
    measured: dict[str, dict[str, float]] = {}
    all_speakers = speakers()
    for workload, (batch, beams) in WORKLOADS.items():
        sources = torch.randint(10, VOCABULARY // 4, (batch, SOURCE))
        taking = {n: say for n, (say, has_beams) in all_speakers.items() if beams == 1 or has_beams}
        seconds: dict[str, list[float]] = {name: [] for name in taking}
        for number in range(rounds + 1):
            for name, say in taking.items():
                took = _seconds(say, sources, beams)
                seconds[name] += [took] if number else []  # the first is slower
        for name, took in seconds.items():
            speed = batch * REPLY / statistics.median(took)
            measured.setdefault(name, {})[workload] = speed
    show(measured)


def show(measured: dict[str, dict[str, float]]) -> None:
    """Tokens a CPU-second, and how many times those of BART."""
    print(f"| tokens a CPU-second (times BART) | {' | '.join(WORKLOADS)} |")
    print("|---|" + "---|" * len(WORKLOADS))
    base = next(iter(measured.values()))
    for name, speeds in measured.items():
        cells = [
            f"{speeds[of]:,.0f} ({speeds[of] / base[of]:.2f})" if of in speeds else ""
            for of in WORKLOADS
        ]
        print(f"| {name} | {' | '.join(cells)} |")
