"""Export: onnxruntime says what PyTorch says, whatever the padding; int8; torch's own compilers."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from chat_helpers import make_chatbot, sample_tokenizer
from docs_helpers import table
from modeling_helpers import (
    HOLED,
    LEFT,
    RIGHT,
    Settings,
    name_of,
    random_tokens,
    tiny_model,
    variants,
)
from torch import Tensor

from chatbot import export as export_module
from chatbot.checkpoints import load_chatbot, load_target_tokenizer, save_chatbot
from chatbot.cli import main
from chatbot.data import load_prepared, prepare
from chatbot.export import (
    DecoderGraph,
    EncoderGraph,
    OnnxChatbot,
    example_inputs,
    export_int8,
    export_onnx,
    free_axes,
    free_lengths,
    sample_examples,
)
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration, quantize
from chatbot.tokenization import encode_context

# Each setting that changes a graph is in one of these; the slow test has all combinations.
ONE_LAYER: Settings = {"encoder_layers": 1, "decoder_layers": 1}
TWO_VOCABULARIES: Settings = {"share_embeddings": False, "decoder_vocab_size": 610}
EXPORTED: list[Settings] = [
    {"attention": "none", **ONE_LAYER, **TWO_VOCABULARIES},
    {"cell_type": "gru", "attention": "dot", "attention_window": "local-m", "input_feeding": True}
    | {"copy": True, **ONE_LAYER},
    {"attention": "concat", "attention_window": "local-p", "bidirectional": True, "residual": True}
    | {"layer_norm": True, "bridge": "linear", "encoder_layers": 1},
    {"cell_type": "gru", "attention": "additive", "attention_window": "recent", "copy": True}
    | {"bidirectional": True, "bridge": "zero", **ONE_LAYER},
]
# A batch of another size and length than the example, with padding on either side or between.
ONE = random_tokens(1, 1, seed=3), torch.ones(1, 1, dtype=torch.long)
BATCHES = {"left": LEFT, "right": RIGHT, "holed": HOLED, "one": ONE}

Model = RnnSeq2SeqForConditionalGeneration


def exported(model: Model, folder: Path) -> OnnxChatbot:
    two = model.config.vocab_size != model.config.decoder_vocab_size
    target = sample_tokenizer() if two else None
    export_onnx(model, sample_tokenizer(), folder, target_tokenizer=target)
    return OnnxChatbot(folder)


def chatterer(**settings: Any) -> Model:
    """A random chatbot whose replies end at different times."""
    model, _ = make_chatbot(end_bias=0.0, **settings)
    model.generation_config.eos_token_id = [3, *range(262, 290)]
    return model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chatbot that never stops by itself. Nobody changes it."""
    folder = tmp_path_factory.mktemp("export") / "model"
    save_chatbot(*make_chatbot(end_bias=0.0), folder)
    return folder


@pytest.fixture(scope="module")
def onnx_folder(model_folder: Path) -> Path:
    """The same as graphs. Nobody changes it."""
    folder = model_folder.parent / "onnx"
    assert main(["export", str(model_folder), "--to", "onnx", "--output", str(folder)]) == 0
    return folder


def run(session: Any, **values: Any) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    known = {given.name: np.asarray(values[given.name]) for given in session.get_inputs()}
    return dict(zip(names, session.run(names, known), strict=True))


def step_by_step(bot: OnnxChatbot, source: dict[str, Tensor], target: Tensor) -> Iterator[dict]:
    """What the decoder's graph gives for each target token."""
    values = {**source, **run(bot.encoder, **source)}
    for place in range(target.shape[1]):
        step = run(
            bot.decoder,
            **values,
            decoder_input_ids=target[:, place : place + 1],
            position=np.array(place),
        )
        values |= {name[len("next_") :]: step[name] for name in step if name.startswith("next_")}
        yield step


def check_graphs(model: Model, folder: Path) -> None:
    """Graphs and model agree on logits and attention for given targets, and in greedy search."""
    bot = exported(model, folder)
    for name, (ids, mask) in BATCHES.items():
        source, target = {"input_ids": ids, "attention_mask": mask}, random_tokens(len(ids), 6)
        with torch.no_grad():
            expected = model(**source, decoder_input_ids=target, output_attentions=True)
        steps = list(step_by_step(bot, source, target))
        logits = torch.from_numpy(np.stack([step["logits"] for step in steps], axis=1))
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=2e-5, msg=name)
        greedy = model.generate(
            **source,
            do_sample=False,
            max_new_tokens=12,
            output_attentions=True,
            return_dict_in_generate=True,
        )
        replies = bot.generate(ids, mask, max_new_tokens=12)
        assert replies.sequences.tolist() == greedy.sequences.tolist(), name
        if model.config.attention == "none":
            assert replies.attention is None
            continue
        weights = torch.from_numpy(np.stack([step["attention"] for step in steps], axis=1))
        torch.testing.assert_close(weights, expected.cross_attentions[0][:, 0], rtol=0, atol=1e-5)
        of_replies = torch.cat([step[0][:, 0] for step in greedy.cross_attentions], dim=1)
        torch.testing.assert_close(
            torch.from_numpy(replies.attention), of_replies, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("settings", EXPORTED, ids=name_of)
def test_onnxruntime_gives_pytorchs_numbers(settings: Settings, tmp_path: Path) -> None:
    check_graphs(chatterer(**settings), tmp_path / "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("settings", variants(), ids=name_of)
def test_onnxruntime_gives_pytorchs_numbers_in_every_variant(
    settings: Settings, tmp_path: Path
) -> None:
    check_graphs(chatterer(**ONE_LAYER | settings), tmp_path / "onnx")


def test_the_shipped_model_says_the_same_on_a_hundred_prompts(
    repository: Path, tmp_path: Path
) -> None:
    model, tokenizer = load_chatbot()
    export_onnx(model, tokenizer, tmp_path / "onnx")
    bot = OnnxChatbot(tmp_path / "onnx")
    prompts = (repository / "scripts/prompts.txt").read_text("utf-8").splitlines()[:100]
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    longest = model.config.max_source_positions
    contexts = [encode_context(tokenizer, turns, longest) for turns in messages]
    source = tokenizer.pad({"input_ids": contexts}, return_tensors="pt")
    expected = model.generate(**source, do_sample=False)
    assert len(prompts) == len(expected) == 100
    assert len({tuple(row) for row in expected.tolist()}) > 30
    assert bot.generate(**source).sequences.tolist() == expected.tolist()
    with torch.no_grad():
        logits = model(**source, decoder_input_ids=expected).logits
    for place, step in enumerate(step_by_step(bot, source, expected)):
        found = torch.from_numpy(step["logits"])
        torch.testing.assert_close(found, logits[:, place], rtol=0, atol=5e-5)


def test_the_folder_is_a_chatbot(onnx_folder: Path, model_folder: Path) -> None:
    model, tokenizer = load_chatbot(model_folder)
    context = encode_context(tokenizer, [{"role": "user", "content": "Hello!"}], 96)
    greedy = model.generate(torch.tensor([context]), do_sample=False, max_new_tokens=48)
    said = tokenizer.decode(greedy[0], skip_special_tokens=True).strip()
    assert said
    assert OnnxChatbot(onnx_folder).reply("Hello!").lower() == said
    config = json.loads((onnx_folder / "config.json").read_text("utf-8"))
    assert config["model_type"] == "rnn_seq2seq"
    assert "auto_map" not in config  # it names code, and there is none here


@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"eos_token_id": 400},
        {"eos_token_id": [3, 363], "pad_token_id": 9},
        {"eos_token_id": [3, 400], "min_new_tokens": 7},
        {"suppress_tokens": [363, 400]},
    ],
    ids=str,
)
def test_the_generation_config_is_followed(
    onnx_folder: Path, model_folder: Path, options: dict[str, Any]
) -> None:
    model, _ = load_chatbot(model_folder)
    bot = OnnxChatbot(onnx_folder)
    source = dict(zip(("input_ids", "attention_mask"), HOLED, strict=True))
    free = model.generate(**source, do_sample=False, max_new_tokens=20)
    for place in range(1, len(options) + 1):  # each option makes a difference
        fewer = dict(list(options.items())[:place])
        expected = model.generate(**source, do_sample=False, max_new_tokens=20, **fewer)
        assert expected.tolist() != free.tolist()
        free = expected
    bot.options |= options
    assert bot.generate(**source, max_new_tokens=20).sequences.tolist() == expected.tolist()


def test_the_length_of_a_reply_is_that_of_the_generation_config(
    onnx_folder: Path, tmp_path: Path
) -> None:
    assert OnnxChatbot(onnx_folder).options["max_new_tokens"] == 48  # none is given there
    folder = shutil.copytree(onnx_folder, tmp_path / "onnx")
    options = json.loads((folder / "generation_config.json").read_text("utf-8"))
    changed = options | {"max_new_tokens": 3, "suppress_tokens": [options["eos_token_id"]]}
    (folder / "generation_config.json").write_text(json.dumps(changed), "utf-8")
    assert OnnxChatbot(folder).generate(*LEFT).sequences.shape == (3, 4)


def test_the_documented_inputs_and_outputs_are_those_of_the_graphs(repository: Path) -> None:
    rows = table((repository / "docs/export.md").read_text("utf-8"), "name", "shape", "graph")
    documented = {(row["graph"], row["name"]) for row in rows}
    found = set()
    for settings in EXPORTED:
        model = tiny_model(**settings)
        source, step = example_inputs(model)
        graphs = {"encoder": (EncoderGraph(model), source), "decoder": (DecoderGraph(model), step)}
        for kind, (graph, inputs) in graphs.items():
            found |= {(f"{kind}, in", name) for name in inputs}
            found |= {(f"{kind}, out", name) for name in graph(inputs)}
    assert documented == found


def test_batch_and_source_are_free_and_nothing_else(onnx_folder: Path) -> None:
    bot = OnnxChatbot(onnx_folder)
    for session in (bot.encoder, bot.decoder):
        for given in session.get_inputs():
            names = ["batch", "source"] if given.name in export_module.SOURCE_LONG else ["batch"]
            free = [size for size in given.shape if isinstance(size, str)]
            assert free == ([] if given.name == "position" else names), given.name
    # nor inside: onnxruntime plans its memory by these shapes
    example = example_inputs(make_chatbot()[0])[0]["input_ids"].shape[1]
    inside = onnx.load(onnx_folder / "encoder.onnx").graph.value_info
    shapes = [[size.dim_value for size in value.type.tensor_type.shape.dim] for value in inside]
    assert len(shapes) > 20
    assert not [shape for shape in shapes if len(shape) > 1 and example in shape]


# What is refused, and what is left behind then


def test_an_empty_item_is_refused(onnx_folder: Path) -> None:
    ids, mask = LEFT
    with pytest.raises(ValueError, match="Item 1 of the batch is empty"):
        OnnxChatbot(onnx_folder).generate(ids, mask * torch.tensor([[1], [0], [1]]))


def test_a_reply_of_no_length_is_refused(onnx_folder: Path) -> None:
    with pytest.raises(ValueError, match="max_new_tokens=0 is not possible; allowed: 1 or more"):
        OnnxChatbot(onnx_folder).generate(*LEFT, max_new_tokens=0)


def test_another_folder_is_refused(model_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no encoder.onnx: not a folder of `chatbot"):
        OnnxChatbot(model_folder)


def test_int8_is_refused(tmp_path: Path) -> None:
    model, tokenizer = make_chatbot()
    with pytest.raises(ValueError, match="quantization='int8' is not possible in ONNX"):
        export_onnx(quantize(model), tokenizer, tmp_path / "onnx")
    with pytest.raises(ValueError, match="quantization='int8' is not possible again"):
        export_int8(quantize(model), tokenizer, tmp_path / "int8", sample_examples(tokenizer, 96))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"), [("repetition_penalty", 1.3), ("bad_words_ids", [[5]])]
)
def test_an_option_that_is_not_followed_is_refused(
    tmp_path: Path, option: str, value: object
) -> None:
    model, tokenizer = make_chatbot()
    setattr(model.generation_config, option, value)
    with pytest.raises(ValueError, match=f"{option}=.* in the generation config is not possible"):
        export_onnx(model, tokenizer, tmp_path / "onnx")


def test_sampling_options_are_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, tokenizer = make_chatbot()
    monkeypatch.setattr(export_module, "_write_graph", lambda graph, inputs, path: None)
    model.generation_config.update(do_sample=True, temperature=0.5, top_p=0.9, max_new_tokens=7)
    export_onnx(model, tokenizer, tmp_path / "onnx")
    options = json.loads((tmp_path / "onnx" / "generation_config.json").read_text("utf-8"))
    assert options["max_new_tokens"] == 7
    assert "temperature" not in options


def test_a_model_in_training_is_exported_without_dropout_and_trains_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, tokenizer = make_chatbot(dropout=0.5)
    seen = []

    def note(graph: torch.nn.Module, inputs: object, path: Path) -> None:
        seen.append([module.training for module in graph.children()])

    monkeypatch.setattr(export_module, "_write_graph", note)
    export_onnx(model.train(), tokenizer, tmp_path / "onnx")
    assert seen == [[False, False], [False]]
    assert model.training


def test_a_failed_export_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail_at_the_second(graph: object, inputs: object, path: Path) -> None:
        if path.name == "decoder.onnx":
            raise RuntimeError("no")
        path.write_text("half")

    monkeypatch.setattr(export_module, "_write_graph", fail_at_the_second)
    with pytest.raises(RuntimeError, match="no"):
        export_onnx(*make_chatbot(), tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_only_an_export_is_replaced(onnx_folder: Path, model_folder: Path) -> None:
    model, tokenizer = make_chatbot()
    with pytest.raises(FileExistsError, match="exists; replace it with --overwrite"):
        export_onnx(model, tokenizer, onnx_folder)
    with pytest.raises(FileExistsError, match=r"has no encoder.onnx"):
        export_onnx(model, tokenizer, model_folder, overwrite=True)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_in_one_line(
    onnx_folder: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    advice = f'{missing} is missing: pip install "rnn-seq2seq-chatbot[export]"'
    if missing == "onnxruntime":
        with pytest.raises(ImportError) as error:
            OnnxChatbot(onnx_folder)
        assert str(error.value) == advice
        return
    command = ["export", str(model_folder), "--to", "onnx", "--output", str(tmp_path / "x")]
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"chatbot export: {advice}"


# int8


def test_int8_of_the_shipped_model_costs_less_than_a_hundredth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_chatbot()
    examples = sample_examples(tokenizer, model.config.max_source_positions)
    report = export_int8(model, tokenizer, tmp_path / "int8", examples)
    assert report.float_bytes == 4 * model.num_parameters()
    assert report.int8_bytes < 0.27 * report.float_bytes
    assert -1 < report.loss < 1
    stated = report.int8_perplexity.per_token / report.float_perplexity.per_token
    assert report.loss == pytest.approx(100 * (stated - 1))
    assert report.loss != 0
    loaded, _ = load_chatbot(tmp_path / "int8")
    assert loaded.config.quantization == "int8"
    source = random_tokens(2, 9, vocabulary=4096)
    told = {"do_sample": False, "max_new_tokens": 9}
    assert loaded.generate(source, **told).equal(quantize(model).generate(source, **told))
    assert main(["export", "--to", "int8", "--output", str(tmp_path / "again")]) == 0
    assert str(report) in capsys.readouterr().out


def test_int8_is_measured_on_given_data(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load_chatbot(model_folder)
    sources = export_module.hub_config_path("sample_conversations")
    prepare([sources], tmp_path / "data", tokenizer=tokenizer, max_source_tokens=20)
    command = ["export", str(model_folder), "--to", "int8"]
    data = ["--data", str(tmp_path / "data")]
    assert main([*command, "--output", str(tmp_path / "int8"), *data]) == 0
    examples = load_prepared(tmp_path / "data")["test"]
    expected = export_int8(model, tokenizer, tmp_path / "other", examples)
    assert str(expected) in capsys.readouterr().out
    assert str(expected) != str(
        export_int8(model, tokenizer, tmp_path / "third", sample_examples(tokenizer, 96))
    )


def test_data_is_for_int8_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--to", "onnx", "--output", str(tmp_path / "x"), "--data", str(tmp_path)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said == (
        "chatbot export: --data is not possible with --to onnx; allowed: with --to int8\n"
    )


def test_two_vocabularies_are_measured_on_data_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = make_chatbot(**TWO_VOCABULARIES)
    save_chatbot(model, tokenizer, tmp_path / "model", target_tokenizer=tokenizer)
    command = ["export", str(tmp_path / "model"), "--to", "int8", "--output"]
    assert main([*command, str(tmp_path / "int8")]) == 2
    assert "--to int8 needs --data for a model of two vocab" in capsys.readouterr().err
    prepare(
        [export_module.hub_config_path("sample_conversations")],
        tmp_path / "data",
        tokenizer=tokenizer,
    )
    assert main([*command, str(tmp_path / "int8"), "--data", str(tmp_path / "data")]) == 0
    assert load_target_tokenizer(tmp_path / "int8").get_vocab() == tokenizer.get_vocab()


def test_the_sample_replies_are_held_out_whole_and_from_every_dialogue(tmp_path: Path) -> None:
    tokenizer = sample_tokenizer()
    sources = export_module.hub_config_path("sample_conversations")
    prepare([sources], tmp_path / "data", tokenizer=tokenizer)
    prepared = load_prepared(tmp_path / "data")["test"]
    ours = sample_examples(tokenizer, 96)
    assert sorted(ours["labels"]) == sorted(prepared["labels"])
    assert sorted(ours["input_ids"]) == sorted(prepared["input_ids"])


# torch's own compilers

WHOLE: list[Settings] = [
    {"attention": "general"},
    {"cell_type": "gru", "attention": "additive", "bidirectional": True, "bridge": "linear"},
    {"attention": "concat", "attention_window": "local-p", "input_feeding": True, "copy": True},
]


def forward_inputs(batch: tuple[Tensor, Tensor], target: int) -> dict[str, Any]:
    ids, mask = batch
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": random_tokens(len(ids), target, seed=target),
        "use_cache": False,
    }


def looking_model(**settings: Any) -> Model:
    """A model that returns its attention."""
    model = tiny_model(**settings)
    model.config.output_attentions = True
    return model


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.cross_attentions, expected.cross_attentions, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", WHOLE, ids=name_of)
def test_torch_export_of_the_whole_forward(settings: Settings) -> None:
    model = looking_model(**settings)
    # read token by token, a target has the length of the example
    by_steps = settings["attention"] == "additive" or "input_feeding" in settings
    batch, source = torch.export.Dim("batch"), torch.export.Dim("source")
    target = {} if by_steps else {1: torch.export.Dim("target", min=2)}
    axes: dict[str, Any] = {
        "input_ids": {0: batch, 1: source},
        "attention_mask": {0: batch, 1: source},
        "decoder_input_ids": {0: batch, **target},
        "use_cache": None,
    }
    with free_lengths(), torch.no_grad():
        program = torch.export.export(
            model, (), forward_inputs(HOLED, 4), dynamic_shapes=axes
        ).module()
        for other in (LEFT, (LEFT[0][:2], LEFT[1][:2])):
            inputs = forward_inputs(other, 4 if by_steps else 7)
            assert_same(program(**inputs), model(**inputs))


def test_torch_export_of_the_graphs() -> None:
    model = tiny_model(attention="general", cell_type="gru")
    others = {"input_ids": LEFT[0], "attention_mask": LEFT[1]}
    example, step_example = example_inputs(model)
    for graph, given in ((EncoderGraph(model), example), (DecoderGraph(model), step_example)):
        with free_lengths(), torch.no_grad():
            program = torch.export.export(
                graph, (), {"inputs": given}, dynamic_shapes={"inputs": free_axes(given)}
            ).module()
            found, expected = program(inputs=others), graph(others)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        others |= {**expected, "decoder_input_ids": LEFT[0][:, :1], "position": torch.tensor(3)}
        others = {name: others[name] for name in step_example}


@pytest.fixture
def compiler() -> Iterator[None]:
    """torch.compile with recurrent layers, from a clean start."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("settings", WHOLE, ids=name_of)
def test_torch_compile_of_the_forward_in_one_graph(settings: Settings) -> None:
    model = looking_model(**settings)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    inputs = forward_inputs(HOLED, 4)
    with torch.no_grad():
        assert_same(compiled(**inputs), model(**inputs))


@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_torch_compile_with_inductor() -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler: inductor needs one")
    if " " in torch.__file__:
        pytest.skip("inductor links nothing where PyTorch's path has a space in it")
    model = looking_model(attention="general", copy=True, **ONE_LAYER)
    inputs = forward_inputs(HOLED, 4)
    with torch.no_grad():
        assert_same(torch.compile(model, fullgraph=True)(**inputs), model(**inputs))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("settings", WHOLE, ids=name_of)
def test_torch_compile_gives_the_loss_and_its_gradients(settings: Settings) -> None:
    model = tiny_model(**ONE_LAYER | settings)
    ids, mask = HOLED
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": random_tokens(3, 4)}
    losses, gradients = [], []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        losses.append(forward(**inputs).loss)
        losses[-1].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("compiler")
def test_compiling_and_exporting_do_not_disturb_each_other() -> None:
    """torch remembers how it traced a recurrent call: written out, or with its length left free."""
    model = tiny_model(attention="none", **ONE_LAYER)
    graph, (given, _) = EncoderGraph(model), example_inputs(model)
    others = {"input_ids": LEFT[0], "attention_mask": LEFT[1]}
    for _ in range(2):
        torch._dynamo.reset()
        with torch.no_grad():
            compiled = torch.compile(graph, fullgraph=True, backend="aot_eager")(others)
            with free_lengths():
                program = torch.export.export(
                    graph, (), {"inputs": given}, dynamic_shapes={"inputs": free_axes(given)}
                )
            for found in (compiled, program.module()(inputs=others)):
                torch.testing.assert_close(found, graph(others), rtol=0, atol=1e-6)
