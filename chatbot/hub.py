"""The model card: what a model is, measured and shown, in the form that the Hub reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from chatbot.chat import ChatSession
from chatbot.checkpoints import load_chatbot
from chatbot.data import REPORT_NAME, load_prepared
from chatbot.evaluation import SourcePerplexity, perplexity_by_source
from chatbot.hub_files import hub_config_path
from chatbot.metrics import copy_rate, loop_rate


@dataclass(frozen=True)
class Line:
    """A prompt, its reply, and how much of the reply is said twice or taken from the prompt."""

    prompt: str
    reply: str
    loop: float
    copy: float

    @property
    def fault(self) -> float:
        return max(self.loop, self.copy)


def answer_prompts(session: ChatSession, prompts: list[str], seed: int = 0) -> list[Line]:
    """Replies to prompts, each in a conversation of its own that starts from the same seed."""
    lines = []
    for prompt in prompts:
        session.reset()
        session.generator.manual_seed(seed)
        reply = session.reply(prompt).text
        lines.append(Line(prompt, reply, loop_rate(reply), copy_rate(reply, prompt)))
    return lines


def write_card(model: Path, data: Path, prompts: Path, training: str) -> ModelCard:
    """Measure a model and write its card, `README.md`, beside it.

    Args:
        model: Folder of the model.
        data: Folder that `chatbot prepare` wrote, for the test split and the sources.
        prompts: A file with a prompt in each line.
        training: A paragraph on how it was trained.
    """
    loaded, tokenizer = load_chatbot(model)
    results = perplexity_by_source(loaded, tokenizer, load_prepared(data, tokenizer)["test"])
    asked = prompts.read_text("utf-8").splitlines()
    lines = answer_prompts(ChatSession(loaded, tokenizer), asked)
    report = json.loads((data / REPORT_NAME).read_text("utf-8"))
    card = ModelCard.from_template(
        _metadata(results),
        template_path=str(hub_config_path("model_card_template.md")),
        name="Wren, a recurrent chatbot with attention",
        config=loaded.config,
        parameters=f"{loaded.num_parameters() / 1e6:.1f}",
        transcripts=lines,
        worst=sorted(lines, key=lambda line: -line.fault)[:3],
        prompt_count=len(lines),
        distinct_replies=len({line.reply for line in lines}) / len(lines),
        results=results,
        max_target_tokens=report["settings"]["max_target_tokens"],
        command=f"chatbot evaluate {model} {data} --split test",
        training=training,
        data=_sources(report["dialogues"]["train"]),
    )
    card.save(model / "README.md")
    return card


def _metadata(results: list[SourcePerplexity]) -> ModelCardData:
    measured = [
        EvalResult(
            task_type="text-generation",
            dataset_type=row.name,
            dataset_name=f"{row.name}, held-out test dialogues",
            metric_type="perplexity",
            metric_name=name,
            metric_value=round(value, 2),
        )
        for row in results
        for name, value in (
            ("perplexity per token", row.perplexity.per_token),
            ("perplexity per word", row.perplexity.per_word),
        )
    ]
    return ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["chatbot", "lstm", "attention", "seq2seq", "conversational"],
        model_name="Wren",
        eval_results=measured,
    )


def _sources(dialogues: dict[str, int]) -> list[dict[str, Any]]:
    """What the data licences file says of each source of a run."""
    known = yaml.safe_load(hub_config_path("data_sources.yaml").read_text("utf-8"))
    missing = set(dialogues) - set(known)
    if missing:
        raise ValueError(f"data_sources.yaml says nothing of {', '.join(sorted(missing))}.")
    return [{"name": name, "dialogues": count, **known[name]} for name, count in dialogues.items()]
