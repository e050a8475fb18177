"""The model that a training begins with: a new one, or one that is continued."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedTokenizerFast

from chatbot.checkpoints import load_chatbot
from chatbot.decoding import default_preset, unspoken_tokens
from chatbot.modeling import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration
from chatbot.presets import generation_preset, model_preset
from chatbot.tokenization import Tokenizers, is_chat
from chatbot.training_data import Chatbot, settings_of
from chatbot.training_run import SCRATCH, SHIPPED, TrainingRun


def load_start(run: TrainingRun) -> Chatbot | None:
    """The model that is continued, and its tokenizer. None: a new one.

    Raises:
        ValueError: It is an int8 model, which cannot learn.
    """
    if run.start == SCRATCH:
        return None
    model, tokenizer = load_chatbot(None if run.start == SHIPPED else run.start)
    if model.config.quantization != "none":
        raise ValueError(
            f"start={run.start!r} is not possible: its weights are {model.config.quantization}; "
            "allowed: the model that it was made from."
        )
    return model, tokenizer


def first_model(
    run: TrainingRun, start: Chatbot | None, tokenizers: Tokenizers, prepared: Path
) -> RnnSeq2SeqForConditionalGeneration:
    """The model of the first step.

    Raises:
        ValueError: It does not fit the run's settings or the prepared data.
    """
    if start is None:
        length = settings_of(prepared)["max_source_tokens"]
        model = build_model(_for_vocabularies(run, tokenizers), tokenizers[0], length)
    else:
        model = start[0]
    if run.trainer.get("label_smoothing_factor") and model.config.copy:
        raise ValueError(
            "trainer.label_smoothing_factor is not possible with copy=True, whose probabilities of "
            "copied words it would smooth too; allowed: 0, or model.copy false."
        )
    if start is not None and start[1].get_vocab() != tokenizers[0].get_vocab():
        raise ValueError(
            f"start={run.start!r} is not possible: {prepared} was prepared with another tokenizer; "
            "allowed: its sources, or start=scratch."
        )
    return model


def _for_vocabularies(run: TrainingRun, tokenizers: Tokenizers) -> TrainingRun:
    """The run with what two vocabularies, where there are two, ask of the model."""
    if len(tokenizers) == 1:
        return run
    two = {"decoder_vocab_size": len(tokenizers[1]), "share_embeddings": False, "copy": False}
    wrong = {name: value for name, value in run.model.items() if two.get(name, value) != value}
    if wrong:
        raise ValueError(f"model: {wrong} is not possible with two vocabularies; allowed: {two}.")
    return replace(run, model={**run.model, **two})


def build_model(
    run: TrainingRun, tokenizer: PreTrainedTokenizerFast, max_source_tokens: int
) -> RnnSeq2SeqForConditionalGeneration:
    """A new model of the run's size for a tokenizer; its `generate()` samples, or for parallel text
    searches, and ends."""
    settings = dict(run.model)
    sizes = model_preset(settings.pop("preset", "tiny"))
    if settings.get("attention") == "none" or settings.get("decoder_vocab_size"):
        sizes.pop("copy")  # a preset's wish gives way; said outright, it is refused
    known = {"vocab_size": len(tokenizer), "max_source_positions": max_source_tokens}
    try:
        config = RnnSeq2SeqConfig(**{**known, **sizes, **settings})
    except StrictDataclassError as error:  # a value of the wrong kind; ours are ValueErrors
        raise ValueError(f"model: {' '.join(str(error).split())}") from error
    model = RnnSeq2SeqForConditionalGeneration(config)
    preset = generation_preset(default_preset(tokenizer))
    drawn = preset.temperature > 0
    model.generation_config.update(
        do_sample=drawn,
        temperature=preset.temperature if drawn else None,
        top_p=preset.top_p if drawn else None,
        top_k=0 if drawn else None,
        num_beams=preset.num_beams,
        no_repeat_ngram_size=preset.no_repeat_ngram_size,
        min_new_tokens=preset.min_new_tokens,
        max_length=None,
        max_new_tokens=preset.max_new_tokens,
        suppress_tokens=unspoken_tokens(tokenizer),
    )
    return model


def reads_dialogues(
    run: TrainingRun,
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
) -> bool:
    """Whether the run learns all replies of a dialogue in one pass.

    Raises:
        ValueError: It should, and cannot.
    """
    faults = {
        f"start={run.start}": run.start != SCRATCH,  # whose contexts are noisy, and its data small
        "pairs (task seq2seq)": not is_chat(tokenizer),
        "model.bidirectional true": model.config.bidirectional,
        "trainer.label_smoothing_factor": bool(run.trainer.get("label_smoothing_factor")),
    }
    found = [name for name, is_set in faults.items() if is_set]
    if run.one_pass and found:
        raise ValueError(f"one_pass=True is not possible with {found[0]}; allowed: false.")
    return not found if run.one_pass is None else run.one_pass
