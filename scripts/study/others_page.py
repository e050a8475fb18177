"""What docs/study.md shows of translation and DailyDialog: blocks by name, and a picture."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from study.others import ASKED, DAILYDIALOG, HELD_OUT, LONGEST, TRANSLATIONS, WITHOUT
from study.tables import MISSING, as_markdown, heat_maps
from study.trials import DECODINGS

from chatbot.data import normalized_text
from chatbot.data.splits import SPLITS

Others = dict[str, dict[str, Any]]  # by name: those that were run
DECODED = [(decoding, measure) for decoding in DECODINGS for measure in ("BLEU", "chrF")]
LENGTHS = {f"{end - 7} to {end}": end for end in range(8, LONGEST, 8)}
LENGTHS |= {f"{LONGEST - 7} or more": LONGEST}


def load_others(folder: Path) -> Others:
    """All results of a folder."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def other_blocks(others: Others) -> dict[str, str]:
    """What stands between the markers of the page."""
    return {
        "translation": _translation(others),
        "translation lengths": _lengths(others),
        "translation sentences": _sentences(others),
        "translation data": _data(others, TRANSLATIONS[0]),
        "left out": _left_out(others),
        "dailydialog": _dailydialog(others),
        "dailydialog data": _data(others, DAILYDIALOG),
    }


def other_pictures(others: Others) -> dict[str, Figure]:
    """Where the translator looks, if it was run."""
    found = others.get(TRANSLATIONS[0])
    return {"translation": heat_maps({TRANSLATIONS[0]: found["sentences"]}, 4)} if found else {}


def _number(of: dict[str, float], digits: str = ".2f") -> str:
    """With its interval, where it has one."""
    around = f" ({of['low']:{digits}} to {of['high']:{digits}})" if "low" in of else ""
    return f"{of['value']:{digits}}{around}"


def _translation(others: Others) -> str:
    rows = [["arm", "parameters", "steps", "split", "pairs", "per token", "per word"]]
    rows[0] += [f"{measure}, {decoding}" for decoding, measure in DECODED]
    for name in TRANSLATIONS:
        if name not in others:
            rows.append([name, MISSING, *[""] * (len(rows[0]) - 2)])
            continue
        of = others[name]
        for split in HELD_OUT:
            part, steps = of[split], of["sessions"][-1]["step"]
            forced = part["teacher forcing"]
            rows.append(
                [name, f"{of['parameters']:,}", f"{steps:,}", split, f"{part['examples']:,}"]
            )
            rows[-1] += [_number(forced[f"perplexity per {unit}"]) for unit in ("token", "word")]
            rows[-1] += [_number(part[decoding][measure]) for decoding, measure in DECODED]
    return as_markdown(rows)


def _lengths(others: Others) -> str:
    rows = [["arm", *LENGTHS]]
    for name in TRANSLATIONS:
        found = others.get(name, {}).get("validation", {}).get("by source length", [])
        by_end = {row["name"]: _number(row["perplexity per token"]) for row in found}
        rows.append(
            [name, *(by_end.get(end, "" if found else MISSING) for end in LENGTHS.values())]
        )
    return as_markdown(rows)


def _sentences(others: Others) -> str:
    rows = [["sentence", "in the articles", "arm", *DECODINGS, "as in the articles"]]
    for place, (asked, wanted) in enumerate(ASKED.items()):
        for name in TRANSLATIONS:
            cells = [MISSING, "", ""]
            if name in others:
                of = others[name]["sentences"][place]
                said = [of[decoding].replace("|", "\\|") for decoding in DECODINGS]
                plain, *known = (normalized_text([{"content": s}]) for s in (wanted, *said))
                cells = [*said, ", ".join("yes" if each == plain else "no" for each in known)]
            rows.append([asked, wanted, name, *cells])
    return as_markdown(rows)


def _left_out(others: Others) -> str:
    rows, of = [["sentence", "lines that hold it"]], others.get(TRANSLATIONS[0])
    for said in WITHOUT:
        key = normalized_text([{"content": said}])
        rows.append([said, str(of["left out"][key]) if of else MISSING])
    return as_markdown(rows)


def _data(others: Others, name: str) -> str:
    """What is kept, by split, and what is not, by the split of its file."""
    if name not in others:
        return MISSING
    report = others[name]["preparation"]
    rows = [["", *SPLITS]]
    for title in ("dialogues", "examples"):  # a pair is a dialogue of one turn and its reply
        rows.append(
            [f"{title} kept", *(f"{sum(report[title][split].values()):,}" for split in SPLITS)]
        )
    gone = {split: Counter[str]() for split in SPLITS}
    for split, sources in report["dropped"].items():
        for reasons in sources.values():
            gone[split].update(reasons)
    for reason in dict.fromkeys(reason for split in SPLITS for reason in gone[split]):
        rows.append([f"dropped: {reason}", *(f"{gone[split][reason]:,}" for split in SPLITS)])
    return as_markdown(rows)


def _dailydialog(others: Others) -> str:
    if DAILYDIALOG not in others:
        return MISSING
    parts = [others[DAILYDIALOG][split] for split in HELD_OUT]
    rows = [["", *HELD_OUT], ["replies", *(f"{part['examples']:,}" for part in parts)]]
    for group in ("teacher forcing", "ranking", *DECODINGS):
        for name in parts[0][group]:
            rows.append(
                [f"{group}: {name}", *(_number(part[group][name], ".3f") for part in parts)]
            )
    return as_markdown(rows)
