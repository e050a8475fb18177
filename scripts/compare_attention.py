"""What attention is worth: the study of docs/study.md. From the top of the repository:

    python scripts/compare_attention.py --list              all trials, and which are done
    python scripts/compare_attention.py --minutes 55        go on for so long; repeat until all are
    python scripts/compare_attention.py --only 'base-15-*'  these alone
    python scripts/compare_attention.py --others            translation and DailyDialog
    python scripts/compare_attention.py --tables            docs/study.md as the results are
    python scripts/compare_attention.py --quick             three tiny arms, on our own samples

CHATBOT_DATA names the folder with chat/self-dialogue. The parts, in reading order: references,
arms, trials, tables in scripts/study; what is trained and shown is in scripts/study/plan.yaml.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from study.arms import Trial, load_arm, trials
from study.others import OTHERS, carry_out_other, prepared
from study.others_page import load_others, other_blocks, other_pictures
from study.tables import arm_table, blocks, draw, load_results, write_pages
from study.trials import Study, carry_out, seconds_per_step

from chatbot.hub_files import hub_config_path

RESULTS, WORK = Path("docs/study/results"), Path("runs/study")
OTHER_RESULTS, PAGES = Path("docs/study/others"), [Path("docs/study.md"), Path("docs/model.md")]


def side_by_side(jobs: int, function: Callable[..., Any], *columns: Any) -> list[Any]:
    """`map` with a process of one thread for each item, `jobs` at a time; 0: in this process."""
    if not jobs:
        return list(map(function, *columns))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    anew = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}
    with ProcessPoolExecutor(jobs, **anew, **one_thread) as pool:
        return list(pool.map(function, *columns))


def speeds(study: Study, arms: Sequence[str], jobs: int) -> dict[str, float]:
    """CPU-seconds of each arm's step: the faster of two rounds, once for all trials."""
    file = study.results.with_name("speed.json")
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    rounds = [arm for arm in dict.fromkeys(arms) if arm not in known] * (1 if study.quick else 2)
    measured = side_by_side(jobs, seconds_per_step, rounds, repeat(study))
    for arm, seconds in zip(rounds, measured, strict=True):
        known[arm] = min(seconds, known.get(arm, math.inf))
    file.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    return known


def show(study: Study, planned: Sequence[Trial]) -> None:
    """Each trial with its parameters, and the CPU time that is left."""
    left = [trial for trial in planned if not study.result(trial).is_file()]
    for trial in planned:
        with torch.device("meta"):
            parameters = load_arm(trial.arm).new_model().num_parameters()
        print(f"{trial.name:24}{parameters:>12,}  {'' if trial in left else 'done'}")
    hours = sum(trial.minutes for trial in left) / 60
    print(f"{len(left)} of {len(planned)} trials and {hours:.1f} CPU-hours of training are left")


def fill_pages() -> None:
    """Write tables and pictures into the pages."""
    results, others = load_results(RESULTS), load_others(OTHER_RESULTS)
    texts = blocks(results) | other_blocks(others)
    write_pages(PAGES, texts, lambda: draw(results) | other_pictures(others))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, call."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="show the plan")
    parser.add_argument("--tables", action="store_true", help="write docs/study.md and pictures")
    parser.add_argument("--quick", action="store_true", help="three tiny arms, our own samples")
    parser.add_argument("--others", action="store_true", help="translation and DailyDialog")
    parser.add_argument("--output", type=Path, default=Path("runs/quick"), help="of --quick")
    parser.add_argument("--only", default="*", help="trials whose name has this pattern")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (2); 0: no process")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    options = parser.parse_args(arguments)
    deadline = time.time() + options.minutes * 60
    if options.tables:
        return fill_pages()
    data = Path(os.environ.get("CHATBOT_DATA", "$CHATBOT_DATA"))
    if options.others:
        names = [name for name in OTHERS if fnmatch(name, options.only)]
        for name in names:
            prepared(name, data)
        side_by_side(options.jobs, carry_out_other, names, repeat(data), repeat(OTHER_RESULTS))
        return None
    study = Study(RESULTS, WORK, [str(data / "chat/self-dialogue")], deadline=deadline)
    if options.quick:
        samples = [str(hub_config_path("sample_conversations"))]
        study = Study(options.output / "results", options.output, samples, True, deadline)
    groups = list(trials(options.quick).values())
    groups = [[each for each in group if fnmatch(each.name, options.only)] for group in groups]
    planned = [trial for group in groups for trial in group]
    if options.list:
        return show(study, planned)
    study.results.mkdir(parents=True, exist_ok=True)
    left = [trial.arm for trial in planned if not study.result(trial).is_file()]
    for arm in dict.fromkeys(left):
        study.data(load_arm(arm, study.quick))
    known = speeds(study, left, options.jobs)
    for group in groups:
        of = [known[trial.arm] for trial in group]
        side_by_side(options.jobs, carry_out, group, repeat(study), of)
    if options.quick:
        measures = ["per token", "long/short", "trained tokens/s"]
        print(arm_table(load_results(study.results), planned, measures))


if __name__ == "__main__":
    main()
