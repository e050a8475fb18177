"""What docs/study.md shows of the results: tables, claims with what was measured, pictures."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from study.arms import STUDY, Trial, trials

# Results of all seeds of an arm and its minutes. An arm whose learning rate is tried has it in its
# name, as files have: bart-lr0.001.
Results = dict[tuple[str, float], list[dict[str, Any]]]
MISSING = "not run yet"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 8}


def load_results(folder: Path) -> Results:
    """All results of a folder, with what is computed from more than one number of each."""
    found: Results = {}
    for path in sorted(folder.glob("*.json")):
        arm, minutes, _ = path.stem.rsplit("-", 2)
        result = json.loads(path.read_text("utf-8"))
        bins = {str(row["name"]): row for row in result["by source length"]}
        ends = [row["perplexity per token"]["value"] for row in bins.values()]
        own = result["teacher forcing"]["perplexity per token"]["value"]
        result["by source length"] = bins
        result["longest over shortest"] = ends[-1] / ends[0]
        result["validation over train"] = own / result["train replies"]
        found.setdefault((arm, float(minutes)), []).append(result)
    return found


def values(results: Results, arm: str, minutes: float, measure: str) -> list[float]:
    """A measure of each seed."""
    found = []
    for number in results.get((arm, float(minutes)), []):
        for name in STUDY["measures"][measure][0].split(" > "):
            number = number[name]
        found.append(number)
    return found


def cell(results: Results, arm: str, minutes: float, measure: str) -> str:
    """Mean and, of several seeds, their standard deviation."""
    numbers, digits = values(results, arm, minutes, measure), STUDY["measures"][measure][1]
    if not numbers:
        return MISSING
    spread = f" ± {np.std(numbers, ddof=1):{digits}}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):{digits}}{spread}"


def as_markdown(rows: list[list[str]]) -> str:
    """Rows of cells, the first the header."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def arm_table(results: Results, planned: Sequence[Trial], measures: list[str]) -> str:
    """Measures of the arms of some trials, a row for all seeds."""
    named = (trial.name.rsplit("-", 2) for trial in planned)
    rows = [["arm", "minutes", "seeds", *measures]]
    for arm, minutes in dict.fromkeys((arm, float(minutes)) for arm, minutes, _ in named):
        seeds = len(results.get((arm, minutes), []))
        cells = [cell(results, arm, minutes, measure) if seeds else "" for measure in measures]
        rows.append([arm, f"{minutes:g}", str(seeds or MISSING), *cells])
    return as_markdown(rows)


def verdict(first: list[float], last: list[float], more_is_better: bool) -> str:
    """Whether every seed of the first is better than every seed of the last; ratio of the means."""
    if not first or not last:
        return MISSING
    better, worse = (first, last) if more_is_better else (last, first)
    said = "holds" if min(better) > max(worse) else "seeds overlap"
    said = "does not hold" if max(better) < min(worse) else said
    seeds = " (one seed)" if min(len(first), len(last)) == 1 else ""
    return f"{said}{seeds}, {np.mean(first) / np.mean(last):.3f}"


def claim_table(results: Results) -> str:
    """Each claim with what was measured."""
    rows = [["claim", "minutes", "measured", "verdict"]]
    for claim, minutes, measure, arms, is_order in STUDY["claims"]:
        first, last = (values(results, arms[end], minutes, measure) for end in (0, -1))
        said = verdict(first, last, STUDY["measures"][measure][2]) if is_order else ""
        rows.append([claim, f"{minutes:g}", _measured(results, arms, minutes, measure), said])
    return as_markdown(rows)


def choice_table(results: Results) -> str:
    """Each need with what to take, and what was measured of it."""
    rows = [["you want", "take", "measured"]]
    for need, taken, minutes, measure, arms in STUDY["choices"]:
        measured = _measured(results, arms, minutes, measure)
        rows.append([need, taken, f"{measured} ({minutes:g} minutes)"])
    return as_markdown(rows)


def _measured(results: Results, arms: Sequence[str], minutes: float, measure: str) -> str:
    """A measure of some arms, a cell."""
    of = [f"{arm} {cell(results, arm, minutes, measure)}" for arm in arms]
    return f"{measure}: {'; '.join(of)}"


def blocks(results: Results) -> dict[str, str]:
    """What stands between the markers of the pages, but for pictures."""
    texts, groups = {"claims": claim_table(results), "choices": choice_table(results)}, trials()
    for name, of in STUDY["tables"].items():
        planned = [trial for group in of["rows"] for trial in groups[group]]
        texts[name] = arm_table(results, planned, of["columns"])
    return texts


def fill(page: str, texts: Mapping[str, str], pictures: Mapping[str, Figure]) -> str:
    """The page with what stands between its markers as the results are."""
    drawn = {f"picture {name}": f"![{name}](study/{name}.svg)" for name in pictures}
    texts = {**texts, **drawn}
    marked = re.compile(r"(<!-- begin (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda at: f"{at[1]}{texts.get(at[2], MISSING)}\n{at[3]}", page)


def write_pages(
    pages: Sequence[Path], texts: Mapping[str, str], drawing: Callable[[], dict[str, Figure]]
) -> None:
    """Fill the pages, and draw the pictures into the folder beside the first."""
    with rc_context(STYLE):
        pictures = drawing()
        for name, figure in pictures.items():
            figure.savefig(pages[0].with_suffix("") / f"{name}.svg", metadata={"Date": None})
    for page in pages:
        page.write_text(fill(page.read_text("utf-8"), texts, pictures), "utf-8")


def draw(results: Results) -> dict[str, Figure]:
    """Pictures by name: those that there are results for."""
    plan, time, lengths = STUDY["plan"], {}, {}
    bins = {name: int(name.split()[-1]) for name in STUDY["measures"] if " to " in name}
    for arm, minutes in sorted(results):
        if arm in plan["hour"]["arms"] + plan["one-pass"]["arms"]:
            mean = float(np.mean(values(results, arm, minutes, "per token")))
            time.setdefault(arm, {})[minutes] = mean
        if minutes == 15 and arm in plan["decisive"]["arms"] + plan["main"]["arms"]:
            of = {end: values(results, arm, minutes, name) for name, end in bins.items()}
            lengths[arm] = {end: float(np.mean(found)) for end, found in of.items()}
    maps = {arm: of[0]["attention"] for (arm, _), of in results.items() if of[0]["attention"]}
    maps = {arm: maps[arm] for arm in STUDY["heat maps"] if arm in maps}
    made = {"attention": heat_maps(maps)} if maps else {}
    curves = {"time": ("CPU-minutes", time), "lengths": ("tokens of the context, up to", lengths)}
    return made | {name: _lines(*lines) for name, lines in curves.items() if lines[1]}


def _lines(label: str, lines: dict[str, dict[float, float]]) -> Figure:
    """Perplexity of each arm over what the label names."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for arm, points in lines.items():
        axes.plot(points.keys(), points.values(), "o-", label=arm)
    axes.set(xlabel=label, ylabel="perplexity per token", xscale="log", yscale="log")
    axes.set_xticks(sorted({x for points in lines.values() for x in points}))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.xaxis.minorticks_off()
    axes.legend()
    return figure


def heat_maps(maps: dict[str, list[dict[str, Any]]], size: float = 2) -> Figure:
    """Attention to some sentences, a row each, of the arms that attend, a column each."""
    rows, columns = len(next(iter(maps.values()))), len(maps)
    figure = Figure(figsize=(size * columns, size * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, (arm, sentences) in enumerate(maps.items()):
        grid[0, place].set_title(arm)
        for axes, of in zip(grid[:, place], sentences, strict=True):
            weights = [[int(number) for number in row.split()] for row in of["weights"]]
            axes.imshow(weights, vmin=0, vmax=100, cmap="Greys", interpolation="none")
            axes.set_xticks(range(len(of["source"])), of["source"], rotation=90)
            axes.set_yticks(
                range(len(of["target"])), of["target"] if place == 0 else [""] * len(weights)
            )
            axes.tick_params(length=0, labelsize=6)
    return figure
