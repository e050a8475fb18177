"""From an empty process to the first word: CPU seconds and memory, part by part.

The shipped model against BART of the same size through transformers, each in a process of its own
and one thread, the better of some rounds. Memory is what is resident after each part (Linux).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import BartConfig, BartForConditionalGeneration

from chatbot.checkpoints import load_chatbot

# Each part of a process, and what prints its time and memory.
OURS = [
    ("import torch", "import torch; torch.set_num_threads(1)"),
    ("import ChatSession", "from chatbot import ChatSession; ChatSession.from_pretrained"),
    ("load", "session = ChatSession.from_pretrained(seed=0)"),
    ("first word", "words = session.stream('hello, how are you?'); next(words)"),
    ("whole reply", "list(words)"),
]
BART = [
    OURS[0],
    (
        "import transformers",
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, TextIteratorStreamer\n"
        "from threading import Thread",
    ),
    (
        "load",
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n"
        "model = AutoModelForSeq2SeqLM.from_pretrained(FOLDER)",
    ),
    (
        "first word",
        "words = TextIteratorStreamer(tokenizer)\n"
        "given = dict(input_ids=tokenizer('hello, how are you?', return_tensors='pt').input_ids,\n"
        "    max_new_tokens=12, min_new_tokens=12, do_sample=True, top_p=0.9, streamer=words)\n"
        "Thread(target=model.generate, kwargs=given).start(); next(words)",
    ),
    ("whole reply", "list(words)"),
]
REPORT = """
import json, time
from pathlib import Path
def note(part):
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else ["VmRSS: 0"]
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    print(json.dumps([part, time.process_time(), kilobytes / 1e3]), flush=True)
note("python")
"""


def same_size_bart(folder: Path) -> int:
    """Saved with the shipped tokenizer, its weights new. Returns its parameters."""
    model, tokenizer = load_chatbot()
    sides = {"layers": 1, "attention_heads": 4}
    options = {
        f"{of}_{name}": size for of in ("encoder", "decoder") for name, size in sides.items()
    }
    found = None
    for width in range(128, 1024, 16):
        widths = {"d_model": width, "encoder_ffn_dim": 2 * width, "decoder_ffn_dim": 2 * width}
        ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        config = BartConfig(
            vocab_size=len(tokenizer), max_position_embeddings=128, decoder_start_token_id=2,
            forced_eos_token_id=None, **widths, **options, **ids,
        )  # fmt: skip
        found = BartForConditionalGeneration(config)
        if found.num_parameters() >= model.num_parameters():
            break
    found.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(found.num_parameters())


def measure(parts: list[tuple[str, str]], folder: Path) -> list[list[float]]:
    """Name, CPU seconds and megabytes after each part."""
    code = REPORT + f"FOLDER = {str(folder)!r}\n"
    code += "\n".join(f"{text}\nnote({name!r})" for name, text in parts)
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | quiet, capture_output=True, text=True
    )
    if made.returncode:
        raise SystemExit(made.stderr)
    return [json.loads(line) for line in made.stdout.splitlines() if line.startswith('["')]


def start(rounds: int) -> None:
    """`benchmark.py start`."""
    shipped = load_chatbot()[0].num_parameters()
    with tempfile.TemporaryDirectory() as scratch:
        print(f"parameters: ours {shipped:,}, BART {same_size_bart(Path(scratch)):,}")
        alone = min(measure([("chatbot", "import chatbot")], Path(scratch)) for _ in range(rounds))
        print(f"import chatbot: {alone[1][1] - alone[0][1]:.3f} CPU seconds")
        totals = {}
        for name, parts in (("ours", OURS), ("BART", BART)):
            took = min(
                (measure(parts, Path(scratch)) for _ in range(rounds)), key=lambda t: t[4][1]
            )
            totals[name] = took[4][1]
            print(f"\n| {name} | CPU seconds | MB resident |\n|---|---|---|")
            before = 0.0
            for part, seconds, megabytes in took:
                print(f"| {part} | {seconds - before:.2f} | {megabytes:.0f} |")
                before = seconds
            print(f"| to the first word | {took[4][1]:.2f} | {took[4][2]:.0f} |")
    print(f"\nratio to the first word: {totals['ours'] / totals['BART']:.2f}")
