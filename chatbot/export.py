"""Export: a chatbot as two graphs that onnxruntime runs, or in int8.

The encoder's graph reads the source once, the decoder's one target token at a time. What bears the
same name in both is the same thing, and `next_hidden` is the `hidden` of the next step. Batch and
source length are free. docs/export.md lists all inputs and outputs.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from chatbot.checkpoints import TARGET_TOKENIZER, save_chatbot
from chatbot.data import dialogue_examples, find_files, is_test, read_dialogues
from chatbot.decoding import reply_text
from chatbot.evaluation import Perplexity, measure_perplexity
from chatbot.folders import whole_folder
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.modeling.modeling_rnn_seq2seq import RnnSeq2SeqEncoderOutput
from chatbot.modeling.recurrent_rnn_seq2seq import State
from chatbot.presets import GenerationPreset
from chatbot.tokenization import encode_context

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
# What is as long as the source; everything else has one row for each item.
SOURCE_LONG = {"input_ids", "attention_mask", "values", "keys"}
# Options of a generation config that OnnxChatbot follows, and those that it has no use for.
FOLLOWED = {
    "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "max_new_tokens",
    "min_new_tokens", "no_repeat_ngram_size", "suppress_tokens",
}  # fmt: skip
UNUSED = {
    "do_sample", "temperature", "top_k", "top_p", "min_p", "num_beams", "length_penalty",
    "early_stopping", "use_cache", "transformers_version", "_from_model_config",
}  # fmt: skip

Named = dict[str, Any]
Array = NDArray[Any]


class EncoderGraph(nn.Module):
    """Reads the source: what the decoder looks at, and its first states."""

    def __init__(self, model: RnnSeq2SeqForConditionalGeneration):
        super().__init__()
        self.encoder, self.decoder = model.get_encoder(), model.model.decoder

    def forward(self, inputs: Named) -> Named:
        """Map `input_ids` and `attention_mask`, (B, S), to `hidden` (B, states, H), an LSTM's
        `cell` (B, layers, H), and what the attention looks at: `values`, `keys` (B, S, M or H)."""
        mask = inputs["attention_mask"]
        encoded = self.encoder(inputs["input_ids"], mask)
        states = self.decoder.bridge(encoded.final_hidden, encoded.final_cell)
        if self.decoder.config.input_feeding:
            fed = torch.zeros_like(states[0][0])
            states.append((fed, fed[..., :0]))
        outputs = _side_by_side(states)
        if self.decoder.attention is not None:
            memory = self.decoder.attention.remember(encoded.last_hidden_state, mask.bool())
            outputs["values"] = memory.values
            if memory.keys is not memory.values:
                outputs["keys"] = memory.keys
        return outputs


class DecoderGraph(nn.Module):
    """Reads one target token."""

    def __init__(self, model: RnnSeq2SeqForConditionalGeneration):
        super().__init__()
        self.model = model

    def forward(self, inputs: Named) -> Named:
        """Map `decoder_input_ids` (B, 1), `position` (how many came before) and what the encoder
        read and gave to `logits` (B, V), `next_hidden`, `next_cell` and `attention` (B, S)."""
        cache = self.model.model.decoder.new_cache()
        hidden = inputs["hidden"].split(1, dim=1)
        cells = inputs["cell"].split(1, dim=1) if "cell" in inputs else ()
        cache.start(list(zip_longest(hidden, cells, fillvalue=hidden[0][..., :0])))
        for layer in cache.layers:
            layer.length = inputs["position"]
        cache.attention_keys = inputs.get("keys", inputs.get("values"))
        outputs = self.model(
            encoder_outputs=RnnSeq2SeqEncoderOutput(
                last_hidden_state=inputs.get("values"), source_ids=inputs.get("input_ids")
            ),
            attention_mask=inputs.get("attention_mask"),
            decoder_input_ids=inputs["decoder_input_ids"],
            past_key_values=cache,
            output_attentions=True,
        )
        named = {"logits": outputs.logits[:, 0]}
        for name, states in _side_by_side(cache.last_states()).items():
            named[f"next_{name}"] = states
        if outputs.cross_attentions:
            named["attention"] = outputs.cross_attentions[0][:, 0, 0]
        return named


def _side_by_side(states: list[State]) -> Named:
    """All hidden states as one tensor, and all cells where there are any."""
    cells = [cell for _, cell in states if cell.shape[-1]]
    named: Named = {"hidden": torch.cat([hidden for hidden, _ in states], dim=1)}
    return named | ({"cell": torch.cat(cells, dim=1)} if cells else {})


def example_inputs(model: RnnSeq2SeqForConditionalGeneration) -> tuple[Named, Named]:
    """What the two graphs read, as two sources of three tokens would have it."""
    ids = torch.zeros(2, 3, dtype=torch.long)
    source = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        encoded = EncoderGraph(model)(source)
    step = {"decoder_input_ids": ids[:, :1], "position": torch.tensor(0), **encoded}
    if "values" in encoded:
        step["attention_mask"] = source["attention_mask"]
    if model.config.copy:
        step["input_ids"] = ids
    return source, step


def free_axes(inputs: dict[str, Tensor]) -> Named:
    """The axes of a graph's inputs that are not fixed, as torch.export wants them."""
    batch, source = torch.export.Dim("batch"), torch.export.Dim("source")
    axes: Named = {name: {0: batch} if tensor.ndim else {} for name, tensor in inputs.items()}
    return axes | {name: {0: batch, 1: source} for name in inputs if name in SOURCE_LONG}


@contextmanager
def free_lengths() -> Iterator[None]:
    """Within it, torch.export leaves the length of a recurrent call free, and does not write out
    the steps of its example. torch.onnx.export sees to that in the first half of its work only."""
    from torch.export import _patches  # from torch 2.13 on

    lstm, gru = torch.ops.aten.lstm.input, torch.ops.aten.gru.input
    lstm._dispatch_cache.clear()  # where torch remembers how it traced before
    gru._dispatch_cache.clear()
    try:
        with (
            warnings.catch_warnings(action="ignore", category=FutureWarning),  # of torch to itself
            _patches.register_lstm_while_loop_decomposition(),
            _patches.register_gru_while_loop_decomposition(),
        ):
            yield
    finally:
        lstm._dispatch_cache.clear()
        gru._dispatch_cache.clear()


def export_onnx(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path | str,
    *,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder that `OnnxChatbot` loads, whole or not at all.

    Raises:
        FileExistsError: The folder exists and `overwrite` is false, or it holds no graph.
        ImportError: The extra [export] is not installed.
        OSError: The disk is full or not writable; what was there before stays.
        ValueError: The model is in int8, or its generation config has options that `OnnxChatbot`
            does not follow.
    """
    _need("onnx", "onnxscript")
    if model.config.quantization != "none":
        raise ValueError(
            f"quantization={model.config.quantization!r} is not possible in ONNX; allowed: 'none'. "
            "Export the model that it was made of: onnxruntime has a quantizer of its own."
        )
    options = _greedy_options(model)
    config = {name: value for name, value in model.config.to_dict().items() if name != "auto_map"}
    training = model.training
    model.eval()
    with whole_folder(Path(folder), overwrite=overwrite, mark=ENCODER) as built:
        source, step = example_inputs(model)
        _write_graph(EncoderGraph(model), source, built / ENCODER)
        _write_graph(DecoderGraph(model), step, built / DECODER)
        (built / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
        (built / "generation_config.json").write_text(json.dumps(options, indent=2), "utf-8")
        tokenizer.save_pretrained(built)
        if target_tokenizer is not None:
            target_tokenizer.save_pretrained(built / TARGET_TOKENIZER)
    model.train(training)


def _greedy_options(model: RnnSeq2SeqForConditionalGeneration) -> Named:
    """The options that `OnnxChatbot` follows."""
    asked = {name: v for name, v in model.generation_config.to_diff_dict().items() if v is not None}
    for name in asked.keys() - FOLLOWED - UNUSED:
        if asked[name]:
            raise ValueError(
                f"{name}={asked[name]!r} in the generation config is not possible in ONNX; "
                "allowed: None."
            )
    longest = {"max_new_tokens": GenerationPreset.max_new_tokens}
    return longest | {name: asked[name] for name in sorted(asked.keys() & FOLLOWED)}


def _write_graph(graph: nn.Module, inputs: Named, path: Path) -> None:
    # what it warns of is its own affair
    with torch.no_grad(), free_lengths(), warnings.catch_warnings(action="ignore"):
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.eval(),
            kwargs={"inputs": inputs},
            dynamic_shapes={"inputs": free_axes(inputs)},
            input_names=list(inputs),
            output_names=list(graph(inputs)),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path)


class OnnxReplies(NamedTuple):
    """Replies, and where the attention was.

    Args:
        sequences: Tokens as `model.generate` gives them: `<go>`, the reply, padding, (B, 1 + T).
        attention: Weights at each step, (B, T, S); None without attention.
    """

    sequences: Array
    attention: Array | None


class OnnxChatbot:
    """A chatbot that onnxruntime runs by greedy search, as `model.generate(do_sample=False)` does.

    Args:
        folder: What `export_onnx` wrote.
    """

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        if not (folder / ENCODER).is_file():
            raise FileNotFoundError(f"{folder} has no {ENCODER}: not a folder of `chatbot export`.")
        (onnxruntime,) = _need("onnxruntime")
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.options = json.loads((folder / "generation_config.json").read_text("utf-8"))
        target = folder / TARGET_TOKENIZER
        self.tokenizer, self.target_tokenizer = (
            PreTrainedTokenizerFast.from_pretrained(place)
            for place in (folder, target if target.is_dir() else folder)
        )

    def reply(self, text: str) -> str:
        """Answer a message, without any before it."""
        messages = [{"role": "user", "content": text}]
        source = encode_context(self.tokenizer, messages, self.config["max_source_positions"])
        sequences = self.generate([source], np.ones((1, len(source)))).sequences
        return reply_text(self.target_tokenizer, sequences[0].tolist())

    def generate(
        self, input_ids: ArrayLike, attention_mask: ArrayLike, max_new_tokens: int | None = None
    ) -> OnnxReplies:
        """Choose the likeliest token at each step.

        Args:
            input_ids: Source tokens, padded anywhere, (B, S).
            attention_mask: 1 where a token is real, (B, S).
            max_new_tokens: Tokens of the longest reply. None: what generation_config.json says.

        Raises:
            ValueError: An item without a real token, or no room for a reply.
        """
        longest = self.options["max_new_tokens"] if max_new_tokens is None else max_new_tokens
        if longest < 1:
            raise ValueError(f"max_new_tokens={longest} is not possible; allowed: 1 or more.")
        mask = np.asarray(attention_mask, np.int64)
        if not mask.any(1).all():
            item = mask.any(1).argmin()
            raise ValueError(
                f"Item {item} of the batch is empty: its attention_mask is 0 everywhere."
            )
        known = {"input_ids": np.asarray(input_ids, np.int64), "attention_mask": mask}
        known |= _run(self.encoder, known)
        said = np.full((len(mask), 1), self.options["decoder_start_token_id"])
        ends, done = np.atleast_1d(self.options["eos_token_id"]), np.zeros(len(mask), bool)
        attention = []
        while said.shape[1] <= longest and not done.all():
            known |= {"decoder_input_ids": said[:, -1:], "position": np.array(said.shape[1] - 1)}
            step = _run(self.decoder, known)
            known |= {name.removeprefix("next_"): value for name, value in step.items()}
            self._forbid(step["logits"], said, ends)
            chosen = np.where(done, self.options["pad_token_id"], step["logits"].argmax(1))
            said = np.concatenate([said, chosen[:, None]], axis=1)
            done |= np.isin(chosen, ends)
            attention += [step["attention"]] if "attention" in step else []
        return OnnxReplies(said, np.stack(attention, axis=1) if attention else None)

    def _forbid(self, logits: Array, said: Array, ends: Array) -> None:
        """Rule out what the generation config rules out."""
        logits[:, self.options.get("suppress_tokens", [])] = -np.inf
        if said.shape[1] <= self.options.get("min_new_tokens", 0):
            logits[:, ends] = -np.inf
        size = self.options.get("no_repeat_ngram_size", 0)
        if 0 < size <= said.shape[1]:
            grams = np.lib.stride_tricks.sliding_window_view(said, size, axis=1)
            begun = said[:, None, said.shape[1] - size + 1 :]
            items, places = (grams[..., :-1] == begun).all(-1).nonzero()
            logits[items, grams[items, places, -1]] = -np.inf


def _run(session: Any, values: dict[str, Array]) -> dict[str, Array]:
    """Outputs of a graph by name; of the values it reads those that it names."""
    names = [output.name for output in session.get_outputs()]
    inputs = {given.name: values[given.name] for given in session.get_inputs()}
    return dict(zip(names, session.run(names, inputs), strict=True))


def _need(*names: str) -> list[ModuleType]:
    """Modules of the extra [export]."""
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise ImportError(
            f'{error.name} is missing: pip install "rnn-seq2seq-chatbot[export]"'
        ) from error


@dataclass(frozen=True)
class Int8Report:
    """What int8 saves and costs: bytes in memory, perplexity on the same replies."""

    float_bytes: int
    int8_bytes: int
    float_perplexity: Perplexity
    int8_perplexity: Perplexity

    @property
    def loss(self) -> float:
        """What int8 adds to the perplexity per token, in percent."""
        return 100 * (self.int8_perplexity.per_token / self.float_perplexity.per_token - 1)

    def __str__(self) -> str:
        before, after = self.float_perplexity.per_token, self.int8_perplexity.per_token
        return (
            f"weights in memory: {self.float_bytes / 1e6:.1f} MB, {self.int8_bytes / 1e6:.1f} MB "
            f"in int8\nperplexity per token: {before:.2f}, {after:.2f} in int8 ({self.loss:+.2f} %)"
        )


def export_int8(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path | str,
    examples: Dataset,
    *,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    overwrite: bool = False,
) -> Int8Report:
    """Write a model in int8 as `save_chatbot` does, and measure on prepared `examples`.

    Raises:
        ValueError: The model is in int8 already, or there are no examples.
        FileExistsError, OSError: As `save_chatbot`.
    """
    if model.config.quantization != "none":
        raise ValueError("quantization='int8' is not possible again; allowed: 'none'.")
    quantized = quantize(model)
    written = tokenizer if target_tokenizer is None else target_tokenizer
    report = Int8Report(
        model.get_memory_footprint(),
        quantized.get_memory_footprint(),
        measure_perplexity(model, written, examples),
        measure_perplexity(quantized, written, examples),
    )
    save_chatbot(
        quantized, tokenizer, Path(folder), target_tokenizer=target_tokenizer, overwrite=overwrite
    )
    return report


def sample_examples(tokenizer: PreTrainedTokenizerFast, max_source_tokens: int) -> Dataset:
    """Replies of our sample conversations, of the dialogues that nothing is trained on."""
    files = find_files(hub_config_path("sample_conversations"))
    dialogues = (record["messages"] for file in files for _, record in read_dialogues(file.path))
    held_out = [messages for messages in dialogues if is_test(messages)]
    lengths = {"max_source_tokens": max_source_tokens, "max_target_tokens": 48}
    return Dataset.from_list(
        [
            dict(example)
            for messages in held_out
            for example in dialogue_examples(tokenizer, messages, **lengths)
        ]
    )
