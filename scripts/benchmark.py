"""Measure what a job needs on this machine. The parts are in scripts/benchmarks.

python scripts/benchmark.py data                        preparing 50 MB of made-up dialogues
python scripts/benchmark.py data --gigabytes 2          more of them; TMPDIR says where
python scripts/benchmark.py data --source chats.jsonl   your own
python scripts/benchmark.py training                    steps on pairs, against BART
python scripts/benchmark.py training data/mine          pairs against dialogues in one pass
python scripts/benchmark.py training data/mine --model.copy false --trainer.bf16 true
python scripts/benchmark.py replies                     generate() and the engine against BART
python scripts/benchmark.py profile                     where the time of generate() goes
python scripts/benchmark.py start                       cold start and memory
"""

import argparse
from pathlib import Path


def main() -> None:
    """Parse, call. What a job imports is imported for it alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    jobs = parser.add_subparsers(dest="job", required=True)
    job = jobs.add_parser("data", help="preparing data")
    job.add_argument("--gigabytes", type=float, default=0.05, help="of made-up dialogues (0.05)")
    job.add_argument("--source", type=Path, help="a file or folder of conversations instead")
    job = jobs.add_parser("training", help="one thread; fields of a run may be given as options")
    said = "folder that `chatbot prepare` wrote; without it, against BART"
    job.add_argument("data", nargs="?", type=Path, help=said)
    job.add_argument("--batch", type=int, default=128, help="replies (128)")
    job.add_argument("--batches", type=int, default=8, help="that are timed (8)")
    job = jobs.add_parser("replies", help="tokens a CPU-second, one thread")
    job.add_argument("--rounds", type=int, default=9, help="of which the median counts (9)")
    jobs.add_parser("profile", help="generate() by operation, one thread")
    job = jobs.add_parser("start", help="from an empty process to the first word")
    job.add_argument("--rounds", type=int, default=5, help="of which the best counts (5)")
    options, rest = parser.parse_known_args()
    if options.job == "data":
        from benchmarks.preparation import data

        data(options.source, options.gigabytes)
    elif options.job == "training":
        from benchmarks.training import against_bart, training

        if options.data:
            training(options.data, options.batch, options.batches, rest)
        else:
            against_bart(options.batch, options.batches)
    elif options.job == "profile":
        from benchmarks.profiles import profiles

        profiles()
    elif options.job == "start":
        from benchmarks.start import start

        start(options.rounds)
    else:
        from benchmarks.replies import replies

        replies(options.rounds)


if __name__ == "__main__":
    main()
