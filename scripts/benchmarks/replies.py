"""Tokens a CPU-second of one thread: ours against BART of the same size and the plainest loops.

Sources have 32 tokens, replies exactly 24. All take turns in each round, so that what else the
machine does hits them alike. After the table: what is left to the machine's own limit, where the
time of a step goes, and what int8 costs in perplexity.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarks.peers import REPLY, SOURCE, SPECIAL, VOCABULARY, Machine, bart, ours, seconds
from torch import Tensor
from torch.nn import functional as F

from chatbot.checkpoints import load_chatbot
from chatbot.data import load_prepared, prepare
from chatbot.evaluation import measure_perplexity
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.modeling.products_rnn_seq2seq import Linear
from chatbot.modeling.quantization_rnn_seq2seq import Int8Linear
from chatbot.presets import GenerationPreset
from chatbot.serving.slots import Request, Slots

WORKLOADS = {"greedy, 1": (1, 1), "greedy, 64": (64, 1), "beam 5, 1": (1, 5), "beam 5, 32": (32, 5)}
LENGTH = {"min_new_tokens": REPLY, "max_new_tokens": REPLY, "do_sample": False}
# Says replies to sources (B, S) with so many beams.
Speaker = Callable[[Tensor, int], object]


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
    layer_of = (lambda of: Int8Linear(of.weight, of.bias)) if int8 else (lambda of: of)
    maps = []
    for layer in lstm:
        (inputs, hidden, *biases) = layer.rnn.all_weights[0]
        both = Linear(inputs.shape[1] + hidden.shape[1], len(inputs))
        both.weight.data = torch.cat([inputs, hidden], 1).data
        both.bias.data = (biases[0] + biases[1]).data
        maps.append(layer_of(both))
    combine, output = layer_of(decoder.combine), layer_of(model.lm_head)
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


@torch.inference_mode()
def replies(rounds: int) -> None:
    """`benchmark.py replies`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = Machine.measured()
    print(machine)
    measured: dict[str, dict[str, float]] = {}
    all_speakers = speakers()
    for workload, (batch, beams) in WORKLOADS.items():
        sources = torch.randint(10, VOCABULARY // 4, (batch, SOURCE))
        taking = {n: say for n, (say, has_beams) in all_speakers.items() if beams == 1 or has_beams}
        times: dict[str, list[float]] = {name: [] for name in taking}
        for number in range(rounds + 1):
            for name, say in taking.items():
                took = seconds(say, sources, beams)
                times[name] += [took] if number else []  # the first is slower
        for name, took in times.items():
            speed = batch * REPLY / statistics.median(took)
            measured.setdefault(name, {})[workload] = speed
    show(measured)
    show_steps(measured, machine)
    show_loss()


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


def show_steps(measured: dict[str, dict[str, float]], machine: Machine) -> None:
    """Where a step of `generate()` goes: what the machine needs at least, and what comes on top."""
    model = ours()
    used = [*model.model.decoder.parameters(), *model.lm_head.parameters()]
    weights = sum(part.numel() for part in used if part.dim() == 2)
    print("| ms a step | the machine, at least | plain loop | generate() itself | generate() |")
    print("|---|---|---|---|---|")
    for workload, (batch, beams) in WORKLOADS.items():
        for kind in ("fp32", "int8"):
            least = 1000 * machine.least_seconds(weights, batch * beams, kind)
            names = (f"{kind}, plain loop", "generate() itself, width 16", f"{kind}, generate()")
            speeds = (measured[name].get(workload) for name in names)
            cells = [f"{1000 * batch / speed:.2f}" if speed else "" for speed in speeds]
            print(f"| {kind}, {workload} | {least:.2f} | {' | '.join(cells)} |")


def show_loss() -> None:
    """What int8 costs the shipped model, on sample conversations that it never learned."""
    model, tokenizer = load_chatbot()
    samples = hub_config_path("sample_conversations")
    with tempfile.TemporaryDirectory() as scratch:
        prepare([samples], Path(scratch, "samples"), tokenizer=tokenizer)
        examples = load_prepared(Path(scratch, "samples"))["test"]
        before, after = (
            measure_perplexity(each, tokenizer, examples).per_token
            for each in (model.float(), quantize(model))
        )
    print(f"perplexity, fp32 to int8: {before:.2f} to {after:.2f} ({after / before - 1:+.2%})")
