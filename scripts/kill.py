"""Kill a training twenty times at random moments, resume it, and compare it with one left alone.

    python scripts/kill.py /tmp/kills            20 kills; another number: --kills 3
    python scripts/kill.py /tmp/more --start /tmp/kills/alone/model      continued, with rehearsal

A small model on the sample conversations, whole dialogues in one pass, saved every third step so
that many kills meet a checkpoint that is being written. Exits with 1 where one bit of the final
weights differs.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

RUN = (
    "--trainer.per_device_train_batch_size 64 --trainer.max_steps 150 --trainer.eval_strategy no "
    "--trainer.load_best_model_at_end false --trainer.save_strategy steps --trainer.save_steps 3 "
    "--trainer.logging_steps 1"
)
SCRATCH = "--start scratch --model.hidden_size 32 --model.embedding_size 32 --one_pass true"


def start(output: Path, *options: str) -> subprocess.Popen[str]:
    """`chatbot train` into a folder, on one thread."""
    run = [*RUN.split(), "--output", str(output), *options]
    command = [sys.executable, "-m", "chatbot", "train", *run]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill_at_random(process: subprocess.Popen[str], draw: random.Random) -> str:
    """SIGKILL, up to a second after one of the first twelve steps. Returns the last line seen."""
    assert process.stdout is not None
    wanted, seen, last = draw.randint(1, 12), 0, ""
    for line in process.stdout:
        last, seen = line.strip(), seen + ("training loss" in line)
        if "Going on from" in line:
            print(f"  {last}", flush=True)
        if seen == wanted:
            break
    try:
        process.wait(draw.uniform(0, 1))
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    return last


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the two runs go")
    parser.add_argument("--kills", type=int, default=20, help="how often (20)")
    parser.add_argument("--start", help="a model to continue, with rehearsal (default: a new one)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    kind = ["--start", options.start] if options.start else SCRATCH.split()
    alone, killed = options.folder / "alone", options.folder / "killed"
    process, kills = start(killed, *kind, "--overwrite"), 0
    while kills < options.kills:
        last = kill_at_random(process, draw)
        if process.returncode >= 0:
            raise SystemExit(f"the run ended by itself ({process.returncode}) after {kills} kills")
        kills += 1
        print(f"kill {kills}, after: {last}", flush=True)
        process = start(killed, *kind, "--resume")
    for finishing in (process, start(alone, *kind, "--overwrite")):
        finishing.communicate()
        if finishing.returncode:
            raise SystemExit(f"a training ended with {finishing.returncode}")
    found, expected = (
        load_file(folder / "model" / "model.safetensors") for folder in (killed, alone)
    )
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    print(f"{kills} kills, {len(expected)} tensors, {len(different)} that differ: {different}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
