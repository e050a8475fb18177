"""What the docs say is what happens: Python, links, fields, costs, numbers worked out by hand."""

import ast
import doctest
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch
from docs_helpers import anchors, blocks, links, run_page, table
from modeling_helpers import GO, Settings, random_tokens, tiny_model
from torch.utils.flop_counter import FlopCounterMode

import chatbot.modeling
from chatbot.modeling import RnnSeq2SeqConfig
from chatbot.modeling.configuration_rnn_seq2seq import AttentionType, AttentionWindow
from chatbot.modeling.generation_rnn_seq2seq import _REFUSED, _TWO_VOCABULARIES
from chatbot.presets import model_preset

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
ATTENTION = DOCS / "attention"
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((REPOSITORY / "hub_config").rglob("*.md")),
]
TEXTS = {page.relative_to(REPOSITORY).as_posix(): page.read_text("utf-8") for page in PAGES}
PROGRAMS = [
    name for name, text in TEXTS.items() if name.startswith("docs/") and blocks(text, "python")
]
CHOICES = (*get_args(AttentionType), *get_args(AttentionWindow))
BY_HAND = [name for name in CHOICES if name != "none"]  # without attention there are no weights
# what people name; the pretrained class is only what models inherit from
PUBLIC = [
    name
    for name in chatbot.modeling.__all__
    if isinstance(getattr(chatbot.modeling, name), type) and name != "RnnSeq2SeqPreTrainedModel"
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_python_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    run_page(REPOSITORY / name)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    for link in links(TEXTS[name]):
        file, _, anchor = link.partition("#")
        target = ((REPOSITORY / name).parent / file) if file else REPOSITORY / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_each_attention_has_a_page_that_is_linked() -> None:
    assert CHOICES
    for name in (*CHOICES, "copying"):
        assert (ATTENTION / f"{name}.md").is_file()
        assert f"{name}.md" in links(TEXTS["docs/attention/README.md"])
        assert f"attention/{name}.md" in links(TEXTS["docs/model.md"])


@pytest.mark.parametrize("name", [*CHOICES, "copying"])
def test_pages_of_attentions_are_alike(name: str) -> None:
    text = TEXTS[f"docs/attention/{name}.md"]
    parts = ["```math", "**Paper.**", "## Shapes", "**Cost.**", "**When.**", "## By hand"]
    places = [text.find(part) for part in [*parts, "## In Python"]]
    assert places == sorted(places), parts
    assert -1 not in places


# Fields


def value(cell: str) -> object:
    """A default as the table writes it."""
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return cell


def test_the_table_of_fields_is_complete_and_its_defaults_are_right() -> None:
    documented: dict[str, object] = {}
    for row in table(TEXTS["docs/model.md"], "field", "default"):
        names = row["field"].replace("`", "").split(", ")
        values = row["default"].partition(":")[0].split(", ")  # an explanation may follow
        documented |= zip(names, map(value, values), strict=True)
    defaults = {field.name: field.default for field in fields(RnnSeq2SeqConfig)}
    assert documented == {name: defaults[name] for name in RnnSeq2SeqConfig.__annotations__}


def test_the_table_of_refused_options_is_that_of_the_code() -> None:
    documented = {
        row["because"]: re.findall(r"\w+", row["option"].rpartition(": ")[2])
        for row in table(TEXTS["docs/generation.md"], "option", "because")
    }
    in_code = (_REFUSED | _TWO_VOCABULARIES).items()
    assert documented == {reason: names.split() for reason, names in in_code}


# Numbers worked out by hand


def number(cell: str) -> float:
    return float(cell.replace("−", "-"))


def three_tokens() -> list[str]:
    return [row["h_s"] for row in table(TEXTS["docs/attention/README.md"], "token", "h_s")]


@pytest.mark.parametrize("name", BY_HAND)
def test_the_example_by_hand_is_what_the_module_computes(name: str) -> None:
    page = ATTENTION / f"{name}.md"
    by_hand = table(page.read_text("utf-8"), "token", "h_s", "score", "weight")
    assert [row["h_s"] for row in by_hand][:3] == three_tokens()
    names = run_page(page)
    memory = [list(ast.literal_eval(row["h_s"])) for row in by_hand]
    assert names["values"][0].tolist() == memory
    weights = torch.tensor([number(row["weight"]) for row in by_hand])
    close = {"rtol": 0, "atol": 6e-5}  # written with four digits
    torch.testing.assert_close(weights, names["weights"][0, 0].detach(), **close)
    scores = [-torch.inf if row["score"] == "hidden" else number(row["score"]) for row in by_hand]
    torch.testing.assert_close(weights, torch.tensor(scores).softmax(0), **close)


def test_the_example_of_copying_is_what_the_module_computes() -> None:
    page = ATTENTION / "copying.md"
    by_hand = table(page.read_text("utf-8"), "word", "softmax", "attention", "p")
    mixed = run_page(page)["mixed"][0, 0].exp()
    torch.testing.assert_close(torch.tensor([number(row["p"]) for row in by_hand]), mixed)
    for row in by_hand:
        p = 0.4 * number(row["softmax"]) + 0.6 * number(row["attention"])
        assert p == pytest.approx(number(row["p"]), abs=1e-9)


# Costs

# of unlike widths, so that no formula can be right by chance
SIZES = {"E": 6, "H": 8, "M": 5, "S": 7}
COST_TABLE = table(TEXTS["docs/attention/README.md"], "setting", "parameters")
FURTHER = {
    "local-p": {"attention_window": "local-p"},
    "input_feeding": {"input_feeding": True},
    "copy": {"copy": True},
}


def evaluated(formula: str, sizes: dict[str, int]) -> int:
    return eval(formula.replace("·", "*"), {}, sizes)


@torch.no_grad()
def costs(sizes: dict[str, int], **settings: object) -> torch.Tensor:
    """Multiply-adds of a generation's first step and of any other, and parameters."""
    model = tiny_model(
        embedding_size=sizes["E"],
        hidden_size=sizes["H"],
        encoder_hidden_size=sizes["M"],
        bridge="linear",
        **settings,
    )
    encoded = model.get_encoder()(random_tokens(1, sizes["S"]))
    cache, counts = model.model.decoder.new_cache(), []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            model(
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([[GO]]),
                past_key_values=cache,
            )
        counts.append(counter.get_total_flops() // 2)
    return torch.tensor([*counts, model.num_parameters()])


@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
@pytest.mark.parametrize("row", COST_TABLE, ids=lambda row: row["setting"])
def test_the_table_of_costs_is_what_the_model_does(row: dict[str, str], cell_type: str) -> None:
    name = row["setting"].partition("`")[0]
    base: Settings = {"cell_type": cell_type, "attention": "none"}
    more: Settings = {"attention": name}
    if name in FURTHER:
        base, more = base | {"attention": "general"}, FURTHER[name]
    sizes = SIZES | {"M": SIZES["H"]} if name == "dot" else SIZES
    first, later, parameters = (costs(sizes, **base | more) - costs(sizes, **base)).tolist()
    sizes = sizes | {"G": 4 if cell_type == "lstm" else 3}
    assert first - later == evaluated(row["once a source"], sizes)
    assert later == evaluated(row["at each target token"], sizes)
    assert parameters == evaluated(row["parameters"], sizes)


def test_the_table_of_costs_is_complete() -> None:
    names = [row["setting"].partition("`")[0] for row in COST_TABLE]
    assert names == [*get_args(AttentionType), *FURTHER]


def test_costs_of_the_small_preset_are_its_formulas() -> None:
    preset = RnnSeq2SeqConfig(**model_preset("small"))
    sizes = {"E": preset.embedding_size, "H": preset.hidden_size, "M": preset.memory_size}
    sizes |= {"S": preset.max_source_positions, "G": 4, "V": preset.vocab_size}
    for row in COST_TABLE:
        formula = row["at each target token"]
        assert row["at each target token, small"] == f"{evaluated(formula, sizes):,}"
    for formula in ("G·H·(E + H)", "V·H"):
        stated = f"`{formula}` = {evaluated(formula, sizes):,}"
        assert stated in " ".join(TEXTS["docs/attention/README.md"].split())


def test_pages_repeat_the_table_of_costs() -> None:
    for row in COST_TABLE[1:]:
        name = row["setting"].partition("`")[0]
        page = {"copy": "copying", "input_feeding": "README"}.get(name, name)
        text = " ".join(TEXTS[f"docs/attention/{page}.md"].split())
        for column in ("once a source", "at each target token", "parameters"):
            assert row[column] == "0" or f"`{row[column]}`" in text, (page, row[column])


def test_the_parts_of_a_model_have_the_parameters_of_the_table() -> None:
    config = {"vocab_size": 19, "embedding_size": 6, "hidden_size": 8, "encoder_hidden_size": 5}
    parts = table(TEXTS["docs/model.md"], "part", "parameters")
    formulas = {row["part"]: row["parameters"] for row in parts}
    for cell_type, gates in (("lstm", 4), ("gru", 3)):
        layers: Settings = {"cell_type": cell_type, "encoder_layers": 1, "decoder_layers": 1}
        model = tiny_model(**config, **layers, bridge="linear", bidirectional=True)
        tied = tiny_model(**config | {"embedding_size": 8}, tie_word_embeddings=True, bridge="zero")
        sizes = {"V": 19, "E": 6, "H": 8, "M": 10, "G": gates}

        def counted(part: str, n: int = 0, m: int = 0, sizes: dict[str, int] = sizes) -> int:
            return evaluated(formulas[part], sizes | {"n": n, "m": m})

        encoder, decoder = model.model.encoder, model.model.decoder
        assert size_of(encoder.embed_tokens) == counted("embeddings")
        assert size_of(encoder.stack) == 2 * counted("encoder layer, each direction", n=5, m=6)
        assert size_of(decoder.stack) == counted("decoder layer", n=8, m=6)
        assert size_of(model.lm_head) == counted("output layer")
        own = tied.num_parameters() - size_of(tied.model)
        assert own == counted("output layer, tied")
        if cell_type == "lstm":
            assert size_of(decoder.bridge) == counted("linear` bridge of one layer to one, LSTM")


def size_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Docstrings


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_of_a_public_class_has_an_example_that_runs(name: str) -> None:
    text = getattr(chatbot.modeling, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples, f"{name} has no example"
    report: list[str] = []
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, _ = runner.run(example, out=report.append)
    assert not failed, "".join(report)
