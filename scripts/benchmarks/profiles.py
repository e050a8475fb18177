"""Where the time of `generate()` goes, by operation of torch; what is left is Python."""

import time

import torch
from benchmarks.peers import SOURCE, VOCABULARY, ours
from benchmarks.replies import WORKLOADS, by_generate
from torch.profiler import ProfilerActivity, profile

from chatbot.modeling import quantize

SHOWN = 7  # operations


@torch.inference_mode()
def profiles() -> None:
    """`benchmark.py profile`. The profiler itself slows what has many small operations."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speakers = {"fp32": by_generate(ours()), "int8": by_generate(quantize(ours()))}
    for workload, (batch, beams) in WORKLOADS.items():
        sources = torch.randint(10, VOCABULARY // 4, (batch, SOURCE))
        for name, say in speakers.items():
            say(sources, beams)  # the first is slower
            began = time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU]) as found:
                say(sources, beams)
            whole = 1e6 * (time.perf_counter() - began)
            of = {each.key: each.self_cpu_time_total for each in found.key_averages()}
            most = sorted(of.items(), key=lambda pair: -pair[1])[:SHOWN]
            shares = [f"{key.removeprefix('aten::')} {spent / whole:.0%}" for key, spent in most]
            rest = f"Python {1 - sum(of.values()) / whole:.0%}"
            print(f"{name}, {workload}: {', '.join([*shares, rest])}", flush=True)
