"""A pipeline of transformers that answers. Importing this module registers its task:

>>> import chatbot.pipelines
>>> from transformers import pipeline
>>> chat = pipeline("seq2seq-chat")  # or model="runs/tiny/model"
>>> chat("hello!")  # doctest: +SKIP
[{'generated_text': 'Hello!'}]

docs/pipeline.md has more.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils.chat_template_utils import Chat
from transformers.utils.hub import has_file

from chatbot.chat import ChatSession, Reply, clean_message
from chatbot.decoding import default_preset, generate, reply_text
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqConfig
from chatbot.presets import (
    DEFAULT_GENERATION_PRESET,
    GenerationPreset,
    check_names,
    generation_preset,
)
from chatbot.tokenization import SPEAKERS, TARGET_TOKENIZER, encode_context, is_chat

TASK = "seq2seq-chat"
PRESET_FIELDS = {field.name for field in fields(GenerationPreset)}
# Fields of transformers' GenerationConfig that mean something beside a preset.
OTHER_FIELDS = {
    "bad_words_ids",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "max_time",
    "num_return_sequences",
    "prompt_lookup_num_tokens",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
}
OBJECTS = {"preset", "seed", "stopping_criteria", "streamer"}


class Seq2SeqChatPipeline(Pipeline):
    """Answers a text, or a conversation that ends with the user's message.

    Text in, the reply out; messages in, the messages with the reply out, as in transformers'
    text generation. A list of either gives a list of results, `batch_size` at a time, a generator
    or a dataset an iterator of them. A model of parallel text translates texts, and reads
    the `target_tokenizer` of what it writes from its folder.

    Args, at construction or at each call:
        preset: A name of `hub_config/generation_presets.yaml`, or a `GenerationPreset`.
        seed: Of the draws. None: a new one each time. The same seed gives the same replies to the
            same batches.
        num_return_sequences: Replies to each input.
        return_full_text: False: of messages, too, only the reply comes back.
        max_source_tokens: Tokens of history that the encoder reads. None: as in training.
        streamer: One of transformers'; hears the tokens of a single reply.
        generate_kwargs: Fields of `GenerationPreset`, which change the preset, and those of
            transformers' `GenerationConfig` that `OTHER_FIELDS` lists.

    Raises:
        ValueError: The model is another's; an input is no text or messages, or says nothing;
            an option is unknown or out of range.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, model: Any, **options: Any):
        kind = model.config.model_type
        if kind != RnnSeq2SeqConfig.model_type:
            allowed = RnnSeq2SeqConfig.model_type
            raise ValueError(f"model of type {kind!r} is not possible; allowed: {allowed!r}.")
        super().__init__(model, **options)
        self.target_tokenizer = self.tokenizer
        name, is_one = model.name_or_path, model.config.share_embeddings
        if name and not is_one and has_file(name, f"{TARGET_TOKENIZER}/tokenizer.json"):
            self.target_tokenizer = AutoTokenizer.from_pretrained(name, subfolder=TARGET_TOKENIZER)
        self._forward_params.setdefault("preset", default_preset(self.tokenizer))

    def __call__(self, inputs: Any, **options: Any) -> Any:
        if isinstance(inputs, (list, tuple)) and not inputs:  # transformers reads the first
            raise _refusal("inputs", inputs)
        return super().__call__(inputs, **options)

    def stream(
        self, inputs: str | Sequence[Mapping[str, Any]], **options: Any
    ) -> Generator[str, None, Reply]:
        """Answer one input, yielding the reply as it grows, as `ChatSession.stream` does.

        Closing the iterator early stops the model. The options are `preset` or fields of it, `seed`
        and `max_source_tokens`.
        """
        preprocess, forward, _ = self._sanitize_parameters(**options)
        preprocess, forward = self._preprocess_params | preprocess, self._forward_params | forward
        check_names(forward, PRESET_FIELDS | {"preset", "do_sample", "seed"}, "streaming")
        preset, _ = _chosen_preset(**forward)
        *earlier, last = read_messages(inputs)
        session = ChatSession(
            self.model,
            self.tokenizer,
            preset,
            max_source_tokens=preprocess.get("max_source_tokens"),
            messages=earlier,
            seed=forward.get("seed"),
        )
        return session.stream(last["content"])

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> None:
        """Save model and tokenizer. The task itself stays with this package."""
        self.model.save_pretrained(save_directory, **options)
        self.tokenizer.save_pretrained(save_directory, **options)
        if self.target_tokenizer is not self.tokenizer:
            self.target_tokenizer.save_pretrained(Path(save_directory, TARGET_TOKENIZER), **options)

    def _sanitize_parameters(
        self,
        max_source_tokens: int | None = None,
        return_full_text: bool | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Options of each of the three steps, only those that were given."""
        check_names(generate_kwargs, PRESET_FIELDS | OTHER_FIELDS | OBJECTS, TASK)
        preprocess = {} if max_source_tokens is None else {"max_source_tokens": max_source_tokens}
        postprocess = {} if return_full_text is None else {"return_full_text": return_full_text}
        return preprocess, generate_kwargs, postprocess

    def preprocess(self, inputs: Any, max_source_tokens: int | None = None) -> dict[str, Any]:
        """Source tokens, (1, S). A conversation travels with them, to come back with the reply."""
        if max_source_tokens is None:
            max_source_tokens = self.model.config.max_source_positions
        if not (is_chat(self.tokenizer) or isinstance(inputs, str)):
            raise _refusal("inputs", inputs, "a text, which this model translates by itself")
        context = encode_context(self.tokenizer, read_messages(inputs), max_source_tokens)
        tokens = torch.tensor([context])
        messages = None if isinstance(inputs, str) else list(_messages(inputs))
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "messages": messages,
        }

    def _forward(
        self,
        model_inputs: dict[str, Any],
        *,
        num_return_sequences: int = 1,
        seed: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        preset, options = _chosen_preset(**options)
        is_drawn = preset.temperature > 0
        if num_return_sequences < 1 or (num_return_sequences > preset.num_beams and not is_drawn):
            allowed = "1 or more" if is_drawn else f"1 to num_beams={preset.num_beams}"
            raise _refusal("num_return_sequences", num_return_sequences, allowed)
        sources = zip(model_inputs["input_ids"], model_inputs["attention_mask"], strict=True)
        contexts = [tokens[mask.bool()].tolist() for tokens, mask in sources]
        copies, candidates = (num_return_sequences, 1) if is_drawn else (1, num_return_sequences)
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        sequences = generate(
            self.model,
            self.target_tokenizer,
            [context for context in contexts for _ in range(copies)],
            preset,
            generator,
            candidates=candidates,
            **options,
        ).sequences
        shape = (len(contexts), num_return_sequences)
        return {"sequences": sequences.unflatten(0, shape), "messages": model_inputs["messages"]}

    def postprocess(
        self, model_outputs: dict[str, Any], return_full_text: bool = True
    ) -> list[dict[str, Any]]:
        """Each reply to one input as {"generated_text": ...}."""
        replies = [
            reply_text(self.target_tokenizer, reply) for reply in model_outputs["sequences"][0]
        ]
        messages = model_outputs["messages"]
        if messages is None or not return_full_text:
            return [{"generated_text": reply} for reply in replies]
        said = ({"role": "assistant", "content": reply} for reply in replies)
        return [{"generated_text": [*messages, message]} for message in said]


def read_messages(inputs: object) -> list[dict[str, str]]:
    """A text or a conversation as cleaned messages, the last of them the user's."""
    if isinstance(inputs, str):
        inputs = [{"role": "user", "content": inputs}]
    messages = [_read_message(message) for message in _messages(inputs)]
    if messages[-1]["role"] != "user":
        role = messages[-1]["role"]
        raise ValueError(f"role={role!r} is not possible in the last message; allowed: 'user'.")
    return messages


def _messages(inputs: object) -> Sequence[object]:
    if isinstance(inputs, Chat):  # what transformers makes of a list of messages
        inputs = inputs.messages
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise _refusal("inputs", inputs)
    return inputs


def _read_message(message: object) -> dict[str, str]:
    if not isinstance(message, Mapping) or not message.keys() >= {"role", "content"}:
        raise _refusal("inputs", message)
    role, content = message["role"], message["content"]
    if role not in tuple(SPEAKERS):
        raise _refusal("role", role, " or ".join(map(repr, SPEAKERS)))
    if not isinstance(content, str) or not clean_message(content):
        raise _refusal("content", content, "text that says something")
    return {"role": role, "content": clean_message(content)}


def _refusal(
    name: str, value: object, allowed: str = "text, or messages with role and content"
) -> ValueError:
    return ValueError(f"{name}={short(value)} is not possible; allowed: {allowed}.")


def _chosen_preset(
    preset: GenerationPreset | str = DEFAULT_GENERATION_PRESET,
    do_sample: bool | None = None,
    **options: Any,
) -> tuple[GenerationPreset, dict[str, Any]]:
    """The preset with its fields changed as the options say, and the other options."""
    if not isinstance(preset, GenerationPreset):
        preset = generation_preset(preset)
    changes = {name: options.pop(name) for name in PRESET_FIELDS & options.keys()}
    if do_sample is False:
        changes["temperature"] = 0.0
    elif do_sample and preset.temperature == 0:
        changes.setdefault("temperature", 1.0)
    return replace(preset, **changes), options


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    Seq2SeqChatPipeline,
    pt_model=AutoModelForSeq2SeqLM,
    default={"model": (str(hub_config_path("pretrained")), None)},
    type="text",
)
