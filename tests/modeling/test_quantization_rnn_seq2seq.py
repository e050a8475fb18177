"""int8: whole numbers worked out by hand, bits that no neighbour changes, files that come back."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_helpers import sample_dialogues
from datasets import Dataset
from modeling_helpers import (
    HOLED,
    LEFT,
    LENGTHS,
    RIGHT,
    SOURCE,
    Settings,
    name_of,
    random_tokens,
    replies_without_the_package,
    tiny_config,
    tiny_model,
)
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, Trainer, TrainingArguments

from chatbot.checkpoints import load_chatbot
from chatbot.data import dialogue_examples
from chatbot.evaluation import measure_perplexity
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.modeling.quantization_rnn_seq2seq import (
    Int8Embedding,
    Int8Linear,
    Int8RecurrentLayer,
    quantize_modules,
    quantize_rows,
)
from chatbot.modeling.recurrent_rnn_seq2seq import RnnSeq2SeqRecurrentLayer

Array = NDArray[np.float32]

# Every kind of module, in models that differ in all that int8 touches.
MODELS: list[Settings] = [
    {"cell_type": "lstm", "attention": "general", "embedding_size": 8, "tie_word_embeddings": True},
    {"cell_type": "gru", "attention": "additive", "bidirectional": True, "bridge": "linear"},
    {"cell_type": "lstm", "attention": "concat", "attention_window": "local-p", "residual": True,
     "share_embeddings": False, "decoder_vocab_size": 13, "layer_norm": True},
    {"cell_type": "gru", "attention": "dot", "embedding_size": 8, "tie_word_embeddings": True,
     "share_embeddings": False, "decoder_vocab_size": 13, "input_feeding": True},
    {"cell_type": "lstm", "attention": "none", "bidirectional": True},
]  # fmt: skip
COPYING: Settings = {"cell_type": "lstm", "attention": "general", "copy": True}
TARGET = random_tokens(3, 4, vocabulary=13)
# Random models repeat themselves.
VARIED = {"max_new_tokens": 12, "do_sample": False, "no_repeat_ngram_size": 2}
# Around the widths of vectors, where kernels change from one loop to another.
BATCHES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 70)


def int8_model(**settings: object) -> RnnSeq2SeqForConditionalGeneration:
    return quantize(tiny_model(**settings))


def read(model: RnnSeq2SeqForConditionalGeneration, padded: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(*padded, decoder_input_ids=TARGET[: len(padded[0])]).logits


def same_state(model: nn.Module, other: nn.Module) -> bool:
    state, expected = model.state_dict(), other.state_dict()
    return state.keys() == expected.keys() and all(
        tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name])
        for name, tensor in state.items()
    )


def test_rows_by_hand() -> None:
    values = torch.tensor([[0.79, -0.5, 0.304], [0.0, 0.0, 0.0], [0.1, -1.58, 0.01]])
    quantized, scales = quantize_rows(values)
    assert quantized.dtype == torch.int8
    assert quantized.tolist() == [[79, -50, 30], [0, 0, 0], [5, -79, 0]]
    assert scales.flatten().tolist() == pytest.approx([0.01, 0, 0.02], abs=1e-8)
    assert (scales > 0).all()  # nothing is divided by 0


def test_a_linear_layer_by_hand() -> None:
    # in whole numbers 79 -50 30 with scale 0.01, and 0 79 50 with scale 0.02
    matrix = torch.tensor([[0.79, -0.5, 0.304], [0.0, 1.58, 1.0]])
    linear = Int8Linear(matrix, torch.tensor([1.0, -1.0]))
    # 50 -79 2 with scale 0.01, and the same with scale 0.02
    inputs = torch.tensor([[0.5, -0.79, 0.02], [1.0, -1.58, 0.04]])
    # 79 * 50 + 50 * 79 + 30 * 2 = 7960, and 79 * -79 + 50 * 2 = -6141
    by_hand = [[7960e-4 + 1, -6141e-4 * 2 - 1], [7960e-4 * 2 + 1, -6141e-4 * 4 - 1]]
    torch.testing.assert_close(linear(inputs), torch.tensor(by_hand))
    torch.testing.assert_close(linear(inputs[:, None]), torch.tensor(by_hand)[:, None])


def test_an_embedding_by_hand() -> None:
    embedding = Int8Embedding(torch.tensor([[0.79, -0.5, 0.304], [0.0, 1.58, 1.0]]))
    vectors = embedding(torch.tensor([[1], [0]]))
    torch.testing.assert_close(vectors, torch.tensor([[[0, 1.58, 1]], [[0.79, -0.5, 0.3]]]))


# The largest sums there can be, on older processors that this one plays.
LARGEST_SUMS = """
import torch
from chatbot.modeling.quantization_rnn_seq2seq import Int8Linear

for outputs in (1, 19):
    for signs in ([1.0, 1.0], [1.0, -1.0]):
        row = torch.tensor(signs).repeat(40)
        linear, inputs = Int8Linear(row.repeat(outputs, 1), None), row.repeat(3, 1)
        torch.testing.assert_close(linear(inputs), torch.full((3, outputs), 80.0))
        torch.testing.assert_close(linear(-inputs[:1]), torch.full((1, outputs), -80.0))
"""


@pytest.mark.parametrize("processor", ["AVX2", "AVX512_CORE"])
def test_no_sum_overflows(processor: str, repository: Path) -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": processor, "PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", LARGEST_SUMS], env=environment, check=True, timeout=600)


def rows_of(values: Array) -> tuple[NDArray[np.int64], Array]:
    scales = np.abs(values).max(-1, keepdims=True) / np.float32(79)
    whole = np.rint(values / np.maximum(scales, np.float32(1e-14)))
    return whole.astype(np.int64), scales


def product_of(inputs: Array, matrix: Array) -> Array:
    """inputs @ matrix.T in whole numbers, scaled."""
    (whole, scales), (weights, factors) = rows_of(inputs), rows_of(matrix)
    return (whole @ weights.T).astype(np.float32) * scales * factors.T


@pytest.mark.parametrize("outputs", [1, 2, 19])
@pytest.mark.parametrize("width", [1, 2, 7, 33])
def test_a_product_is_that_of_whole_numbers(width: int, outputs: int) -> None:
    matrix, bias = torch.randn(outputs, width), torch.randn(outputs)
    linear = Int8Linear(matrix, bias)
    for rows in (0, 1, 2, 5, 33):
        inputs = torch.randn(rows, 3, width)
        expected = np.stack([product_of(item.numpy(), matrix.numpy()) for item in inputs] or [[]])
        expected = expected.reshape(rows, 3, outputs) + bias.numpy()
        np.testing.assert_allclose(linear(inputs).numpy(), expected, rtol=1e-6, atol=1e-6)


def float_layer(cell_type: str, directions: int = 1, width: int = 13) -> RnnSeq2SeqRecurrentLayer:
    layer = RnnSeq2SeqRecurrentLayer(tiny_config(cell_type=cell_type), 9, width, directions)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    return layer.eval().requires_grad_(False)


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def advance(weights: list[Array], inputs: Array, hidden: Array, cell: Array) -> tuple[Array, Array]:
    """One step in torch's order of gates, products in whole numbers."""
    of_inputs, of_hidden, input_bias, hidden_bias = weights
    ours, theirs = (
        np.split(product_of(*pair) + bias, len(bias) // hidden.shape[1], axis=1)
        for *pair, bias in ((inputs, of_inputs, input_bias), (hidden, of_hidden, hidden_bias))
    )
    if len(ours) == 4:
        admit, forget, new, show = (a + b for a, b in zip(ours, theirs, strict=True))
        cell = sigmoid(forget) * cell + sigmoid(admit) * np.tanh(new)
        return sigmoid(show) * np.tanh(cell), cell
    reset, update = sigmoid(ours[0] + theirs[0]), sigmoid(ours[1] + theirs[1])
    new = np.tanh(ours[2] + reset * theirs[2])
    return (1 - update) * new + update * hidden, cell


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
def test_a_layer_is_the_formula_in_whole_numbers(cell_type: str, directions: int) -> None:
    layer, lengths, inputs = float_layer(cell_type, directions), (6, 4, 1), torch.randn(3, 6, 9)
    padding = torch.arange(6) >= torch.tensor(lengths)[:, None]
    quantized = Int8RecurrentLayer(layer)
    state = quantized.zero_state(inputs)
    outputs, *after = quantized(inputs, *state, padding)
    weights = [weight.numpy() for weight in layer.weights()]
    for item, length in enumerate(lengths):
        for way in range(directions):
            hidden, cell = (part[[item], way].numpy() for part in state)
            for step in range(length)[:: -1 if way else 1]:
                token = inputs[[item], step].numpy()
                hidden, cell = advance(weights[4 * way : 4 * way + 4], token, hidden, cell)
                given = outputs[item, step, 13 * way : 13 * way + 13].numpy()
                np.testing.assert_allclose(given, hidden[0], atol=2e-6)
            for part, expected in zip(after, (hidden, cell), strict=True):
                np.testing.assert_allclose(part[item, way].numpy(), expected[0], atol=2e-6)
    # and near to the layer that it was made of
    for part, expected in zip((outputs, *after), layer(inputs, *state, padding), strict=True):
        real = ~padding if part is outputs else slice(None)
        torch.testing.assert_close(part[real], expected[real], rtol=0, atol=0.05)


@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
def test_steps_give_what_a_sequence_gives(cell_type: str) -> None:
    layer, inputs = Int8RecurrentLayer(float_layer(cell_type)), torch.randn(3, 6, 9)
    state = tuple(part.uniform_(-1, 1) for part in layer.zero_state(inputs))
    outputs, *last = layer(inputs, *state)
    weights = layer.weights()
    for step in range(6):
        hidden, state = layer.step(inputs[:, step], state, weights)
        assert torch.equal(hidden, outputs[:, step])
    assert torch.equal(state[0], last[0])
    assert torch.equal(state[1], last[1])


@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
def test_other_floats_are_read_as_they_are(cell_type: str) -> None:
    layer, linear = Int8RecurrentLayer(float_layer(cell_type)), Int8Linear(torch.randn(5, 9), None)
    inputs = torch.randn(3, 6, 9).bfloat16()
    outputs = layer(inputs, *layer.zero_state(inputs))
    expected = layer(inputs.float(), *layer.zero_state(inputs.float()))
    assert torch.equal(linear(inputs), linear(inputs.float()))
    for part, whole in zip(outputs, expected, strict=True):
        assert torch.equal(part, whole)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Work is cut at other places."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("width", [13, 96])
@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
def test_a_row_has_the_same_bits_in_any_batch(cell_type: str, width: int) -> None:
    layer = Int8RecurrentLayer(float_layer(cell_type, 2, width))
    linear = Int8Linear(torch.randn(700, width), None)
    inputs, rows = torch.randn(70, 11, 9), torch.randn(70, width)
    padding = torch.arange(11) >= torch.randint(1, 12, (70, 1))
    whole = [*layer(inputs, *layer.zero_state(inputs), padding), linear(rows)]
    alone = [
        (*layer(inputs[[i]], *layer.zero_state(inputs[[i]]), padding[[i]]), linear(rows[[i]]))
        for i in range(70)
    ]
    for part, items in zip(whole, zip(*alone, strict=True), strict=True):
        assert torch.equal(part, torch.cat(items))
    for size in BATCHES:
        part = inputs[:size]
        outputs = layer(part, *layer.zero_state(part), padding[:size])
        for ours, expected in zip((*outputs, linear(rows[:size])), whole, strict=True):
            assert torch.equal(ours, expected[:size]), size


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_an_item_has_the_same_bits_in_any_batch(settings: Settings) -> None:
    model = int8_model(**settings)
    tokens, target = random_tokens(70, 7, seed=2), random_tokens(70, 4, seed=3, vocabulary=13)
    mask = (torch.arange(7) < torch.randint(1, 8, (70, 1))).long()
    with torch.no_grad():
        whole = model(tokens, mask, decoder_input_ids=target).logits
        for size in BATCHES:
            for part in (slice(0, size), slice(70 - size, 70)):
                logits = model(tokens[part], mask[part], decoder_input_ids=target[part]).logits
                assert torch.equal(logits, whole[part]), size


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_cached_gives_the_bits_of_uncached(settings: Settings) -> None:
    model, past, steps = int8_model(**settings), None, []
    for token in TARGET.split(1, dim=1):
        given = {"decoder_input_ids": token, "past_key_values": past, "use_cache": True}
        with torch.no_grad():
            output = model(*HOLED, **given)
        past = output.past_key_values
        steps.append(output.logits)
    assert torch.equal(torch.cat(steps, dim=1), read(model, HOLED))


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_padding_changes_nothing(settings: Settings) -> None:
    model = int8_model(**settings)
    for item, length in enumerate(LENGTHS):
        tokens, target = SOURCE[[item], :length], TARGET[[item]]
        alone = model.model.encoder(tokens)
        logits = model(tokens, decoder_input_ids=target).logits
        for padded in (RIGHT, LEFT, HOLED):
            encoded = model.model.encoder(*padded)
            real = encoded.last_hidden_state[item, padded[1][item].bool()]
            assert torch.equal(real, alone.last_hidden_state[0])
            assert torch.equal(encoded.final_hidden[item], alone.final_hidden[0])
            assert torch.equal(encoded.final_cell[item], alone.final_cell[0])
            # the attention's float sums depend on where its zeros stand, up to a rounding to int8
            torch.testing.assert_close(read(model, padded)[[item]], logits, rtol=0, atol=0.01)


def replies(
    model: RnnSeq2SeqForConditionalGeneration, items: int = 3, **options: object
) -> list[list[int]]:
    tokens, mask = (part[:items] for part in HOLED)
    return model.generate(tokens, attention_mask=mask, **VARIED | options).tolist()


@pytest.mark.parametrize("settings", [*MODELS, COPYING], ids=name_of)
def test_every_way_to_generate(settings: Settings) -> None:
    model = int8_model(**settings)
    greedy = replies(model)
    assert len({token for reply in greedy for token in reply}) > 4
    assert replies(model, use_cache=False) == greedy
    assert replies(model, num_beams=3, use_cache=False) == replies(model, num_beams=3)
    helper = tiny_model(**settings)  # guesses right most of the time
    for options in ({"assistant_model": helper}, {"prompt_lookup_num_tokens": 2}):
        assert replies(model, items=1, **options) == replies(model, items=1)


def test_copying() -> None:
    model = int8_model(**COPYING)
    log_probabilities = read(model, HOLED)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(3, 4))
    torch.testing.assert_close(
        log_probabilities, read(tiny_model(**COPYING), HOLED), rtol=0, atol=0.1
    )
    for size in (1, 2):
        part = tuple(part[:size] for part in HOLED)
        torch.testing.assert_close(read(model, part), log_probabilities[:size])


@pytest.mark.parametrize("settings", [*MODELS, COPYING], ids=name_of)
def test_the_original_stays_as_it_is(settings: Settings) -> None:
    model, twin = tiny_model(**settings), tiny_model(**settings)
    model.generation_config.max_new_tokens = 7
    expected = read(model, RIGHT)
    quantized = quantize(model.train())
    assert model.training
    assert model.config.quantization == "none"
    assert same_state(model, twin)
    assert not quantized.training
    assert quantized.config.quantization == "int8"
    assert quantized.generation_config.max_new_tokens == 7
    assert 0 < (read(quantized, RIGHT) - expected).abs().max() < 0.1
    kinds = {type(module) for module in quantized.modules()}
    assert not kinds & {nn.Linear, nn.Embedding, nn.LSTM, nn.GRU, RnnSeq2SeqRecurrentLayer}


def test_what_is_int8_already_stays_so() -> None:
    model = int8_model()
    modules = list(model.modules())
    quantize_modules(model)
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    again = quantize(model)
    assert again is not model
    assert same_state(again, model)


def test_normalisation_keeps_its_weights() -> None:
    model = tiny_model(layer_norm=True)
    norms = [name for name, _ in model.named_parameters() if "norms" in name]
    assert norms
    for name in norms:
        assert torch.equal(quantize(model).get_parameter(name), model.get_parameter(name)), name


def test_a_model_in_half_precision_is_quantised_from_its_values() -> None:
    model = tiny_model(layer_norm=True).bfloat16()
    assert same_state(quantize(model), quantize(model.float()))


def test_a_model_can_be_built_in_int8() -> None:
    model = RnnSeq2SeqForConditionalGeneration(tiny_config(quantization="int8"))
    assert not model.training
    assert read(model, RIGHT).isfinite().all()
    with torch.device("meta"):
        meta = RnnSeq2SeqForConditionalGeneration(tiny_config(quantization="int8"))
    assert {name: tensor.dtype for name, tensor in meta.state_dict().items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers says while a test runs."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [*MODELS, COPYING], ids=name_of)
@pytest.mark.parametrize("dtype", [None, "auto", torch.float32, torch.bfloat16, torch.float16])
def test_a_saved_model_comes_back(
    settings: Settings, dtype: object, tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    model = int8_model(**settings)
    model.save_pretrained(tmp_path)
    options = {} if dtype is None else {"dtype": dtype}
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path, output_loading_info=True, **options
    )
    assert warned.messages == []
    assert not any(info.values())
    assert loaded.config.quantization == "int8"
    assert loaded.dtype == torch.float32
    assert same_state(loaded, model)
    assert torch.equal(read(loaded, HOLED), read(model, HOLED))


@pytest.mark.parametrize("settings", MODELS, ids=name_of)
def test_a_tied_matrix_is_written_once(settings: Settings, tmp_path: Path) -> None:
    model = int8_model(**settings)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    tied = {"lm_head.weight", "lm_head.scale"} if settings.get("tie_word_embeddings") else set()
    assert names == model.state_dict().keys() - tied
    embeddings = model.model.get_decoder_input_embeddings()
    for name in ("weight", "scale"):
        same = getattr(model.lm_head, name) is getattr(embeddings, name)
        assert same == bool(tied)


def test_a_fresh_process_without_the_package(tmp_path: Path) -> None:
    model = int8_model(**MODELS[0])
    model.save_pretrained(tmp_path / "model")
    expected = [model.generate(SOURCE, **VARIED, num_beams=beams).tolist() for beams in (1, 3)]
    assert replies_without_the_package(tmp_path / "model", tmp_path / "again", VARIED) == expected
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again")
    assert same_state(again, model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_no_other_float_comes_in(dtype: torch.dtype) -> None:
    model, twin = int8_model(layer_norm=True), int8_model(layer_norm=True)
    assert model.to(dtype).dtype == torch.float32
    assert same_state(model.half().bfloat16(), twin)
    with torch.autocast("cpu", torch.bfloat16):
        close = read(model, RIGHT)
    torch.testing.assert_close(close, read(twin, RIGHT), rtol=0, atol=0.1)


@pytest.mark.parametrize("loaded", [False, True], ids=["made", "loaded"])
def test_training_is_refused(loaded: bool, tmp_path: Path) -> None:
    model = int8_model(layer_norm=True)
    if loaded:
        model.save_pretrained(tmp_path)
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"quantization='int8' cannot be trained; allowed: 'none'"):
        model.train()
    assert not any(module.training for module in model.modules())
    arguments = TrainingArguments(tmp_path, report_to="none", dataloader_pin_memory=False)
    trainer = Trainer(model, arguments, train_dataset=[{}])
    with pytest.raises(ValueError, match=r"quantization='int8'"):
        trainer.train()


def test_another_device_is_refused() -> None:
    model = int8_model()
    with pytest.raises(ValueError, match=r"device='meta' is not possible in int8; allowed: 'cpu'"):
        model.to("meta")(SOURCE.to("meta"), decoder_input_ids=TARGET.to("meta"))


def test_sixteen_threads_at_once() -> None:
    model = int8_model(**MODELS[0])
    sources = [random_tokens(2, 5, seed=seed) for seed in range(16)]

    def reply(source: Tensor) -> list[list[int]]:
        return model.generate(source, **VARIED, num_beams=2).tolist()

    expected = [reply(source) for source in sources]
    assert len({str(tokens) for tokens in expected}) > 4
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(reply, sources)) == expected


def test_the_shipped_model_loses_next_to_nothing() -> None:
    model, tokenizer = load_chatbot()
    quantized = quantize(model)
    sizes = [mine.get_memory_footprint() for mine in (quantized, model)]
    assert sizes[0] < 0.26 * sizes[1]
    limits = {"max_source_tokens": model.config.max_source_positions, "max_target_tokens": 48}
    rows = [
        row
        for turns in sample_dialogues()[:60]
        for row in dialogue_examples(tokenizer, turns, **limits)
    ]
    examples = Dataset.from_list(rows)
    assert len(examples) > 200
    before, after = (
        measure_perplexity(mine, tokenizer, examples).per_token for mine in (model, quantized)
    )
    assert before != after < 1.01 * before
