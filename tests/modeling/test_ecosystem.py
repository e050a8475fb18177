"""At home among transformers, accelerate and PEFT: loading, resizing, training, adapting."""

import copy
import logging
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from modeling_helpers import (
    END,
    HOLED,
    VOCABULARY,
    Settings,
    name_of,
    random_tokens,
    tiny_config,
    tiny_model,
    variants,
)
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.modeling_outputs import Seq2SeqLMOutput

from chatbot.modeling import RnnSeq2SeqCache, RnnSeq2SeqForConditionalGeneration

TIED: Settings = {"embedding_size": 8, "tie_word_embeddings": True}
TWO: Settings = {"share_embeddings": False, "decoder_vocab_size": 13}
KINDS: list[Settings] = [
    {"cell_type": "lstm", "attention": "general", "copy": True, **TIED},
    {"cell_type": "gru", "attention": "additive", "bidirectional": True, "bridge": "linear"},
    {"cell_type": "lstm", "attention": "concat", "attention_window": "local-p", "layer_norm": True}
    | TWO,
    {"cell_type": "gru", "attention": "dot", "input_feeding": True, **TIED, **TWO},
    {"cell_type": "lstm", "attention": "none", "bidirectional": True, "residual": True},
    {"cell_type": "gru", "attention": "concat", "attention_window": "recent", "copy": True}
    | {"input_feeding": True},
]
SHARED = [KINDS[0], KINDS[1], KINDS[4], KINDS[5]]
each_kind = pytest.mark.parametrize("settings", KINDS, ids=name_of)
TARGET = random_tokens(3, 4, seed=2, vocabulary=13)
LABELS = torch.tensor([[5, 6, 7, END], [8, END, -100, -100], [9, 4, END, -100]])
CLOSE = {"rtol": 0.0, "atol": 2e-6}

Model = RnnSeq2SeqForConditionalGeneration


def logits_of(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(*HOLED, decoder_input_ids=TARGET).logits


def reply_of(model: nn.Module, beams: int = 2) -> list[list[int]]:
    options = {"num_beams": beams, "max_new_tokens": 5, "do_sample": False}
    tokens, mask = HOLED
    return model.generate(input_ids=tokens, attention_mask=mask, **options).tolist()


def assert_same(loaded: nn.Module, model: nn.Module) -> None:
    """The same weights, predictions and replies."""
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    # where a tensor lies in a file decides on its alignment, and that on the last bit of a product
    torch.testing.assert_close(logits_of(loaded), logits_of(model), **CLOSE)
    assert reply_of(loaded) == reply_of(model)


def is_tied(model: Model) -> bool:
    return model.lm_head.weight is model.model.get_decoder_input_embeddings().weight


@pytest.fixture
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither a warning nor a message of transformers."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == []


# --- loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", variants(bidirectional=True), ids=name_of)
@pytest.mark.usefixtures("silence")
def test_no_weight_is_lost(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings, layer_norm=True, bridge="linear")
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@each_kind
@pytest.mark.usefixtures("silence")
def test_a_model_in_shards(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    model.save_pretrained(tmp_path, max_shard_size="1KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 5
    loaded, info = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert is_tied(loaded) == is_tied(model)
    assert_same(loaded, model)


@each_kind
def test_nothing_is_pickled(settings: Settings, tmp_path: Path) -> None:
    tiny_model(**settings).save_pretrained(tmp_path)
    suffixes = {path.suffix for path in tmp_path.iterdir()}
    assert suffixes == {".json", ".py", ".safetensors"}


@each_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("silence")
def test_half_precision(settings: Settings, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    expected = logits_of(model)
    half = model.to(dtype)
    half.save_pretrained(tmp_path, max_shard_size="1KB")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert_same(loaded, half)
    bound = 0.01 if dtype == torch.float16 else 0.1
    torch.testing.assert_close(logits_of(loaded).float(), expected, rtol=0.0, atol=bound)
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert whole.dtype == torch.float32
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="auto").dtype == dtype


@each_kind
@pytest.mark.usefixtures("silence")
def test_a_device_map_made_by_accelerate(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    model.save_pretrained(tmp_path)
    assert_same(AutoModelForSeq2SeqLM.from_pretrained(tmp_path, device_map="auto"), model)


@each_kind
@pytest.mark.parametrize("by_hand", [False, True], ids=["auto", "by-hand"])
def test_weights_that_stay_on_the_disk(settings: Settings, by_hand: bool, tmp_path: Path) -> None:
    """More than fits into memory: each layer's weights come from the disk when it is called."""
    model = tiny_model(**settings)
    model.save_pretrained(tmp_path / "model", max_shard_size="1KB")
    options: dict[str, Any] = {"device_map": "auto", "max_memory": {"cpu": "1KB"}}
    if by_hand:  # what is tied stays in one place, as for every model
        far = "model.decoder" if model.config.share_embeddings else "model.encoder"
        near = dict.fromkeys(["model.encoder", "model.decoder", "lm_head"], "cpu")
        options = {"device_map": near | {far: "disk"}}
    loaded = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "model", offload_folder=tmp_path / "offloaded", **options
    )

    def away() -> set[str]:
        stacks = ((name, part) for name, part in loaded.named_parameters() if ".stack." in name)
        return {name.split(".")[1] for name, part in stacks if part.is_meta}

    expected = {far.split(".")[1]} if by_hand else {"encoder", "decoder"}
    assert away() == expected
    for _ in range(2):
        torch.testing.assert_close(logits_of(loaded), logits_of(model), **CLOSE)
        assert reply_of(loaded) == reply_of(model)
    assert away() == expected


@each_kind
def test_a_model_without_memory_takes_weights_later(settings: Settings) -> None:
    model = tiny_model(**settings)
    for place in (torch.device("meta"), init_empty_weights()):
        with place:
            empty = Model(tiny_config(**settings))
        assert all(parameter.is_meta for parameter in empty.parameters())
        empty.to_empty(device="cpu").load_state_dict(model.state_dict())
        empty.tie_weights()
        assert is_tied(empty) == is_tied(model)
        assert_same(empty.eval(), model)


@each_kind
def test_shapes_are_known_without_numbers(settings: Settings) -> None:
    model = tiny_model(**settings).to("meta")
    tokens = HOLED[0].to("meta")
    outputs = model(tokens, decoder_input_ids=TARGET.to("meta"))
    assert outputs.logits.is_meta
    assert outputs.logits.shape == (3, 4, model.config.decoder_vocab_size)


@each_kind
def test_a_copy_shares_nothing(settings: Settings) -> None:
    model = tiny_model(**settings)
    twin = copy.deepcopy(model)
    assert is_tied(twin) == is_tied(model)
    assert_same(twin, model)
    before = logits_of(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(logits_of(model), before)


@each_kind
def test_a_state_dict_makes_another_model_the_same(settings: Settings, tmp_path: Path) -> None:
    model, other = tiny_model(**settings), tiny_model(seed=1, **settings)
    assert not torch.equal(logits_of(other), logits_of(model))
    assert str(other.load_state_dict(model.state_dict())) == "<All keys matched successfully>"
    assert_same(other, model)


# --- outputs ---------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("labelled", [False, True], ids=["decoder_input_ids", "labels"])
def test_outputs_are_the_standard_ones(settings: Settings, labelled: bool) -> None:
    model = tiny_model(**settings)
    target = {"labels": LABELS} if labelled else {"decoder_input_ids": TARGET}
    wanted = {"output_attentions": True, "output_hidden_states": True, "use_cache": True}
    outputs = model(*HOLED, **target, **wanted)
    assert isinstance(outputs, Seq2SeqLMOutput)
    assert [each.name for each in fields(outputs)] == [
        each.name for each in fields(Seq2SeqLMOutput)
    ]
    names = ["logits", "decoder_hidden_states", "decoder_attentions", "cross_attentions"]
    names += ["encoder_last_hidden_state", "encoder_hidden_states"]
    # nobody goes on from labels
    names = ["loss", *names] if labelled else [names[0], "past_key_values", *names[1:]]
    assert list(outputs.keys()) == names
    as_tuple = model(*HOLED, **target, **wanted, return_dict=False)
    assert type(as_tuple) is tuple
    assert len(as_tuple) == len(names)
    for name, part in zip(names, as_tuple, strict=True):
        if isinstance(part, RnnSeq2SeqCache):
            assert part.get_seq_length() == outputs[name].get_seq_length() == 4
        else:
            torch.testing.assert_close(part, outputs[name], rtol=0.0, atol=0.0)


# --- embeddings and vocabularies -------------------------------------------------------------


@each_kind
def test_embeddings_are_got_and_set(settings: Settings) -> None:
    model = tiny_model(**settings)
    own = model.model.decoder.embed_tokens
    assert model.get_input_embeddings() is model.model.encoder.embed_tokens
    assert model.get_output_embeddings() is model.lm_head
    assert (own is None) == model.config.share_embeddings
    source = nn.Embedding(VOCABULARY, model.config.embedding_size)
    model.set_input_embeddings(source)
    assert model.get_input_embeddings() is source
    before = logits_of(model)
    with torch.no_grad():
        source.weight[HOLED[0]] += 1.0
    assert not torch.allclose(logits_of(model), before)
    model.tie_weights()
    assert is_tied(model) == model.config.tie_word_embeddings
    assert (model.lm_head.weight is source.weight) == (settings == KINDS[0])
    head = nn.Linear(8, model.config.decoder_vocab_size)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is head
    model.tie_weights()
    assert is_tied(model) == model.config.tie_word_embeddings
    assert logits_of(model).isfinite().all()


@pytest.mark.parametrize("settings", SHARED, ids=name_of)
def test_one_vocabulary_grows_and_shrinks(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    reference = logits_of(model).softmax(-1)
    model.resize_token_embeddings(VOCABULARY + 5)
    config = model.config
    assert config.vocab_size == config.decoder_vocab_size == VOCABULARY + 5
    assert model.lm_head.bias.shape == (VOCABULARY + 5,)
    assert is_tied(model) == config.tie_word_embeddings
    grown = logits_of(model).softmax(-1)
    known = grown[..., :VOCABULARY] / grown[..., :VOCABULARY].sum(-1, keepdim=True)
    if not config.copy:  # else the share of what is copied grows with the vocabulary's
        torch.testing.assert_close(known, reference, rtol=0.0, atol=1e-5)
    new = torch.full_like(HOLED[0], VOCABULARY + 2)
    model.train()
    model(new, labels=new).loss.backward()
    assert model.lm_head.weight.grad[VOCABULARY + 2].abs().sum() > 0
    assert model.get_input_embeddings().weight.grad[VOCABULARY + 2].abs().sum() > 0
    assert_same(saved_and_loaded(model.eval(), tmp_path), model)
    model.resize_token_embeddings(VOCABULARY)
    torch.testing.assert_close(logits_of(model).softmax(-1), reference, rtol=0.0, atol=1e-6)
    model.resize_token_embeddings(VOCABULARY, pad_to_multiple_of=8)
    assert model.config.decoder_vocab_size == logits_of(model).shape[-1] == 24


@pytest.mark.parametrize("settings", KINDS[2:4], ids=name_of)
def test_two_vocabularies_are_resized_apart(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    before = logits_of(model)
    model.resize_token_embeddings(30)
    assert (model.config.vocab_size, model.config.decoder_vocab_size) == (30, 13)
    torch.testing.assert_close(logits_of(model), before, **CLOSE)
    embeddings = model.resize_decoder_token_embeddings(17)
    assert embeddings is model.model.decoder.embed_tokens
    assert (model.config.vocab_size, model.config.decoder_vocab_size) == (30, 17)
    torch.testing.assert_close(logits_of(model)[..., :13], before, **CLOSE)
    assert is_tied(model) == model.config.tie_word_embeddings
    labels = torch.tensor([[16, 13]] * 3)
    model.train()
    model(torch.full_like(HOLED[0], 29), labels=labels).loss.backward()
    assert model.lm_head.weight.grad.shape[0] == model.lm_head.bias.grad.shape[0] == 17
    assert embeddings.weight.grad[16].abs().sum() > 0
    assert model.get_input_embeddings().weight.grad[29].abs().sum() > 0
    assert_same(saved_and_loaded(model.eval(), tmp_path), model)
    model.resize_decoder_token_embeddings(13)
    torch.testing.assert_close(logits_of(model), before, **CLOSE)


def test_one_vocabulary_has_no_second_to_resize() -> None:
    with pytest.raises(ValueError, match=r"share_embeddings=True .* allowed: resize_token_embed"):
        tiny_model().resize_decoder_token_embeddings(30)


def saved_and_loaded(model: Model, folder: Path) -> Model:
    model.save_pretrained(folder)
    return AutoModelForSeq2SeqLM.from_pretrained(folder)


# --- training --------------------------------------------------------------------------------

SOURCES = [random_tokens(length, seed=length).tolist() for length in (3, 4, 5, 6, 3, 2, 1, 4)]
REPLIES = [[*random_tokens(length, seed=9, vocabulary=13).tolist(), END] for length in
           (1, 7, 2, 5, 3, 1, 6, 2)]  # fmt: skip
ROWS = [
    {"input_ids": source, "attention_mask": [1] * len(source), "labels": reply}
    for source, reply in zip(SOURCES, REPLIES, strict=True)
]
PADDING = {"input_ids": 0, "attention_mask": 0, "labels": -100}


def collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Batches as wide as their longest source and reply."""
    batch = {}
    for name, value in PADDING.items():
        width = max(len(row[name]) for row in rows)
        batch[name] = torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])
    return batch


def train(
    model: nn.Module,
    folder: Path,
    batch: int = 8,
    accumulated: int = 1,
    steps: int = 1,
    **options: Any,
) -> Seq2SeqTrainer:
    """A step of plain gradient descent on all rows, by transformers' own Trainer."""
    settings: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
    settings |= {"lr_scheduler_type": "constant", "train_sampling_strategy": "sequential"}
    settings |= {"report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    settings |= {"num_train_epochs": 1}
    arguments = Seq2SeqTrainingArguments(
        folder,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulated,
        **settings | options,
    )
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=ROWS, data_collator=collate)
    trainer.train()
    return trainer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in after.items() if not torch.equal(weight, before[name])}


@each_kind
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_trainer_accumulates_as_if_it_were_one_batch(
    settings: Settings, batch: int, tmp_path: Path
) -> None:
    """Replies are of different lengths: a mean of means would weigh short ones too much."""
    whole, parts = tiny_model(**settings), tiny_model(**settings)
    before = weights(whole)
    trainers = [train(whole, tmp_path), train(parts, tmp_path, batch, 8 // batch)]
    assert changed(before, weights(whole)) == before.keys()
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0.0, atol=1e-6)
    losses = [trainer.state.log_history[-1]["train_loss"] for trainer in trainers]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


class Calls:
    """Counts calls of a function of torch while letting them through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str):
        self.count, self.function = 0, getattr(torch, name)
        monkeypatch.setattr(torch, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.function(*args, **kwargs)


@each_kind
@pytest.mark.parametrize("reentrant", [False, True], ids=["saved-tensors", "reentrant"])
def test_the_trainer_reads_again_instead_of_remembering(
    settings: Settings, reentrant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer that runs over a sequence runs again on the way back, with the same dropout."""
    options = {"dropout": 0.3, "recurrent_dropout": 0.2, **settings}
    plain, checkpointed = tiny_model(**options), tiny_model(**options)
    read = Calls(monkeypatch, settings["cell_type"])
    train(plain, tmp_path)
    once = read.count
    # the decoder's layers run step by step under input feeding and additive attention
    stepwise = settings.get("input_feeding") or settings["attention"] == "additive"
    assert once == (2 if stepwise else 4)
    kwargs = {"use_reentrant": reentrant}
    train(
        checkpointed,
        tmp_path,
        activation_checkpointing=True,
        activation_checkpointing_kwargs=kwargs,
    )
    assert read.count - once == 2 * once
    torch.testing.assert_close(weights(checkpointed), weights(plain), rtol=0.0, atol=1e-6)


@each_kind
def test_autocast_to_bfloat16_changes_little(settings: Settings) -> None:
    full, half = tiny_model(**settings), tiny_model(**settings)
    expected = full(*HOLED, labels=LABELS).loss
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = half(*HOLED, labels=LABELS).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    pairs = zip(full.parameters(), half.parameters(), strict=True)
    gradients = [(one.grad.flatten(), other.grad.flatten()) for one, other in pairs]
    exact, rough = (torch.cat(side) for side in zip(*gradients, strict=True))
    assert rough.isfinite().all()
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.99


@each_kind
def test_the_trainer_trains_under_autocast(settings: Settings, tmp_path: Path) -> None:
    full, half = tiny_model(**settings), tiny_model(**settings)
    before = weights(half)
    losses = [
        train(model, tmp_path, bf16=bf16, num_train_epochs=5)
        .state.log_history[-1]["train_loss"]
        for model, bf16 in ((full, False), (half, True))
    ]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {weight.dtype for weight in weights(half).values()} == {torch.float32}
    assert changed(before, weights(half)) == before.keys()


@each_kind
def test_a_frozen_encoder_stays_as_it_was(settings: Settings, tmp_path: Path) -> None:
    model = tiny_model(**settings)
    before = weights(model)
    model.get_encoder().requires_grad_(False)
    frozen = {name for name in before if name.startswith("model.encoder.")}
    # a tied embedding counts under its first name: with one vocabulary, the encoder's
    options = {"optim": "adamw_torch", "weight_decay": 0.1, "learning_rate": 0.01}
    train(model, tmp_path, num_train_epochs=3, **options)
    assert changed(before, weights(model)) == before.keys() - frozen
    assert frozen
    assert model.lm_head.weight.requires_grad != (settings == KINDS[0])


# --- adapters --------------------------------------------------------------------------------

# Every linear layer may have one; recurrent weights are no linear layers to PEFT, but may be
# trained whole beside them (`modules_to_save`).
TARGETS = [
    "memory",
    "query",
    "energy",
    "position",
    "centre",
    "combine",
    "copy_gate",
    "hidden",
    "cell",
]


def adapted(model: Model, **options: Any) -> PeftModel:
    config = LoraConfig(r=2, target_modules=TARGETS, task_type="SEQ_2_SEQ_LM", **options)
    return get_peft_model(model, config)


def without_adapter(model: PeftModel) -> dict[str, Tensor]:
    """Weights of the base under their own names."""
    names = ((name, name.replace(".base_layer", "")) for name, _ in model.named_parameters())
    base = {
        name: own.removeprefix("base_model.model.") for name, own in names if "lora_" not in own
    }
    return {own: model.get_parameter(name).detach() for name, own in base.items()}


ATTENTIVE = [settings for settings in KINDS if settings["attention"] != "none"]


@pytest.mark.parametrize("settings", ATTENTIVE, ids=name_of)
def test_an_adapter_trains_and_comes_back(settings: Settings, tmp_path: Path) -> None:
    tiny_model(**settings).save_pretrained(tmp_path / "base")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    before, untrained = weights(model), logits_of(model)
    lora = adapted(model)
    trained = {name for name, weight in lora.named_parameters() if weight.requires_grad}
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert len(trained) == 2 * len([name for name in linear if name.endswith("base_layer")])
    assert all("lora_" in name for name in trained)
    torch.testing.assert_close(logits_of(lora), untrained, **CLOSE)
    trainer = train(lora, tmp_path / "run", logging_steps=1, num_train_epochs=8)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.05
    assert without_adapter(lora).keys() == before.keys()
    assert changed(before, without_adapter(lora)) == set()
    lora.eval().save_pretrained(tmp_path / "adapter")
    assert not torch.allclose(logits_of(lora), untrained, atol=1e-2)
    base = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(loaded), logits_of(lora), **CLOSE)
    assert reply_of(loaded) == reply_of(lora)
    # transformers itself finds the base that the adapter names
    whole = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(whole), logits_of(lora), **CLOSE)
    with loaded.disable_adapter():
        torch.testing.assert_close(logits_of(loaded), untrained, **CLOSE)
    merged = loaded.merge_and_unload()
    assert type(merged) is Model
    torch.testing.assert_close(logits_of(merged), logits_of(lora), rtol=0.0, atol=1e-5)
    # where the target has its own embeddings PEFT takes the tied output layer for an untied one
    merged.config.tie_word_embeddings = is_tied(merged)
    assert_same(saved_and_loaded(merged, tmp_path / "merged"), merged)


def test_linear_layers_that_an_adapter_leaves_alone() -> None:
    """Only the output layer: PEFT cannot merge into a matrix that is tied."""
    for settings in KINDS:
        linear = {
            n for n, part in tiny_model(**settings).named_modules() if isinstance(part, nn.Linear)
        }
        assert {name for name in linear if name.split(".")[-1] not in TARGETS} == {"lm_head"}


@pytest.mark.parametrize("settings", [KINDS[0], KINDS[1]], ids=name_of)
def test_recurrent_layers_are_trained_whole_beside_an_adapter(
    settings: Settings, tmp_path: Path
) -> None:
    model = tiny_model(**settings)
    lora = adapted(model, modules_to_save=["stack"])
    before = weights(lora)
    train(lora, tmp_path / "run", num_train_epochs=3)
    moved = changed(before, weights(lora))
    assert {name for name in before if "modules_to_save" in name} <= moved
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    lora.eval().save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(tiny_model(**settings), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits_of(loaded), logits_of(lora), **CLOSE)
