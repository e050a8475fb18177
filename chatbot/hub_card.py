"""The model card: what a model is, measured and shown, in the form that the Hub reads.

Its parts stand between markers: those are written anew, and all else is the owner's.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from chatbot import __version__
from chatbot.chat import ChatSession
from chatbot.data import REPORT_NAME
from chatbot.evaluation_report import RESULTS, model_index
from chatbot.hub_files import hub_config_path
from chatbot.metrics import copy_rate, loop_rate
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.tokenization import Tokenizers, is_chat

Run = Mapping[str, Any]  # what `run.json` holds


def render_card(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizers: Tokenizers,
    repo_id: str,
    run: Run,
    *,
    evaluation: Path | None = None,
    prompts: Path | None = None,
    training: str | None = None,
    curve: bool = False,
) -> str:
    """A card of what is known.

    Args:
        run: Its `run.json`; empty where there is none.
        evaluation: What `chatbot evaluate --output` wrote.
        prompts: A file with a prompt in each line. None: ours.
        training: A paragraph on how it was trained, in place of what the run tells.
        curve: Whether the picture of the training lies beside the card.
    """
    data, chat, name = sources(run), is_chat(tokenizers[0]), repo_id.split("/")[-1]
    asked = (prompts or hub_config_path("card_prompts.txt")).read_text("utf-8").splitlines()
    lines = answer_prompts(ChatSession(model, tokenizers[0]), asked) if chat else []
    shown: dict[str, Any] = {"name": name, "repo_id": repo_id, "chat": chat, "curve": curve}
    index = []
    if evaluation is not None:
        results = json.loads((evaluation / RESULTS).read_text("utf-8"))
        # the folder's name is the owner's: the sets tell as much
        results["data"] = " + ".join(row["name"] for row in data) or "own data"
        index = [one for one in model_index(results) if math.isfinite(one.metric_value)]
        shown["split"], shown["results"] = next(iter(results["splits"].items()))
        shown["sets"] = _by_set(
            shown["results"], dict(zip(run.get("licences", {}), data, strict=True))
        )
    known = bool(data) and all(row["license"] != "unknown" for row in data)
    metadata = ModelCardData(
        license="apache-2.0" if known else None,
        library_name="transformers",
        pipeline_tag="text-generation" if chat else "translation",
        tags=["chatbot"] * chat + ["recurrent", "attention", "seq2seq"],
        model_name=name,
        eval_results=index or None,
    )
    fields = (name for name in RnnSeq2SeqConfig.__annotations__ if not name.endswith("_id"))
    card = ModelCard.from_template(
        metadata,
        template_path=str(hub_config_path("model_card_template.md")),
        config=model.config,
        architecture={field: getattr(model.config, field) for field in fields},
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        lines=lines,
        worst=sorted(lines, key=lambda line: -max(line["loop"], line["copy"]))[:3],
        distinct=len({line["reply"] for line in lines}) / max(1, len(lines)),
        training=training,
        sessions=[session for session in run.get("sessions", []) if "step" in session],
        hardware=run.get("hardware"),
        data=data,
        version=__version__,
        **shown,
    )
    return str(card)


def _by_set(measured: Run, learned: Mapping[str, Run]) -> list[Run]:
    """Perplexities of each held-out set, under the name that the card gives it, and of all."""
    whole = {"name": "all", "count": measured["replies"], **measured["measures"]["teacher forcing"]}
    rows = measured["tables"]["source"]
    named = [row | {"name": learned.get(row["name"], {"name": "other"})["name"]} for row in rows]
    return [*named, whole]


def answer_prompts(session: ChatSession, prompts: Sequence[str], seed: int = 0) -> list[Run]:
    """Replies to prompts, each in a conversation of its own that starts from the same seed."""
    lines: list[Run] = []
    for prompt in prompts:
        session.reset()
        session.generator.manual_seed(seed)
        reply = session.reply(prompt).text
        rates = {"loop": loop_rate(reply), "copy": copy_rate(reply, prompt)}
        lines.append({"prompt": prompt, "reply": reply.replace("|", "\\|"), **rates})
    return lines


def sources(run: Run) -> list[dict[str, str]]:
    """What a run learned from: licence and share. Sets that are not public ones have no name."""
    known = yaml.safe_load(hub_config_path("data_sources.yaml").read_text("utf-8"))
    counts: Counter[str] = Counter()
    prepared = (run.get("data") or {}).get("data", {}).get("folder")
    if prepared and (report := Path(prepared) / REPORT_NAME).is_file():
        dialogues = json.loads(report.read_text("utf-8"))["dialogues"]
        all_learned = not run.get("config", {}).get("hold_out", True)
        for split in dialogues if all_learned else ["train"]:
            counts.update(dialogues[split])
    rows = []
    for number, (name, licence) in enumerate(run.get("licences", {}).items(), start=1):
        share = counts.get(name, 0) / max(1, sum(counts.values()))
        count = {"dialogues": f"{counts[name]:,}", "share": f"{share:.0%}"} if share else {}
        origin = known.get(name, {"origin": "not public"})["origin"]
        shown = name if name in known else f"own data {number}"
        rows.append({"name": shown, "license": licence, "origin": origin, **count})
    return rows
