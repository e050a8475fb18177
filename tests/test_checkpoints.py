"""Chatbots on disk: whole or not at all, and what cannot be loaded."""

import contextlib
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chat_helpers import Chatbot
from modeling_helpers import tiny_model
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from chatbot import load_chatbot, save_chatbot, train_tokenizer
from chatbot.checkpoints import load_target_tokenizer
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.modeling.quantization_rnn_seq2seq import quantize

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
TRANSLATIONS = {
    "stai attento, thomas": "be careful, thomas",
    "stai attento": "be careful",
    "cosa vorresti ordinare?": "what would you like to order?",
    "come stai?": "how are you?",
    "quale sport ti piace di più?": "which sport do you like the most?",
}
Bilingual = tuple[
    RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast, PreTrainedTokenizerFast
]


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """The system refuses to write past this many bytes of a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def model_files(folder: Path) -> set[str]:
    """Names of what a folder holds, but for the code that loads it where we are not installed."""
    return {entry.name for entry in folder.iterdir() if entry.suffix != ".py"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_what_is_loaded(
    tiny_chatbot: Chatbot, tmp_path: Path, dtype: torch.dtype
) -> None:
    model, tokenizer = tiny_chatbot
    folder = tmp_path / "new" / "model"
    save_chatbot(model, tokenizer, folder, dtype=dtype)
    assert model_files(folder) == FILES
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {dtype}
    assert model.dtype == torch.float32  # the model itself is left as it was
    loaded, loaded_tokenizer = load_chatbot(folder)
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight.to(dtype).float(), msg=name)
    messages = [{"role": "user", "content": "Hello <end> you"}]
    for options in ({"tokenize": False}, {"tokenize": True, "add_generation_prompt": True}):
        assert loaded_tokenizer.apply_chat_template(
            messages, **options
        ) == tokenizer.apply_chat_template(messages, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_int8_model_stays_as_it_is(
    tiny_chatbot: Chatbot, tmp_path: Path, dtype: torch.dtype
) -> None:
    model, tokenizer = tiny_chatbot
    small = quantize(model)
    save_chatbot(small, tokenizer, tmp_path / "model", dtype=dtype)
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.int8, torch.float32}
    loaded, _ = load_chatbot(tmp_path / "model")
    for name, weight in small.state_dict().items():
        assert loaded.state_dict()[name].dtype == weight.dtype, name
        assert torch.equal(loaded.state_dict()[name], weight), name
    source = tokenizer("hello", return_tensors="pt")
    replies = [model.generate(**source, num_beams=2, max_new_tokens=9) for model in (small, loaded)]
    assert torch.equal(*replies)


def test_nothing_else_is_left_beside_it(tiny_chatbot: Chatbot, tmp_path: Path) -> None:
    save_chatbot(*tiny_chatbot, tmp_path / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_an_existing_model_is_replaced_only_when_asked(
    tiny_chatbot: Chatbot, tiny_chatbot_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_chatbot_folder, folder)
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    with pytest.raises(FileExistsError, match="model exists; replace it with --overwrite"):
        save_chatbot(*tiny_chatbot, folder)
    assert contents(folder) == before
    save_chatbot(*tiny_chatbot, folder, dtype=torch.bfloat16, overwrite=True)
    assert model_files(folder) == FILES


def test_what_is_no_model_is_never_replaced(tiny_chatbot: Chatbot, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"has no config\.json, so --overwrite does not"):
        save_chatbot(*tiny_chatbot, tmp_path, overwrite=True)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.usefixtures("capsys")  # what libraries print stays in memory
def test_a_full_disk_leaves_nothing_half_written(
    tiny_chatbot: Chatbot, tiny_chatbot_folder: Path, tmp_path: Path, name: str, overwrite: bool
) -> None:
    """The disk has no room for the file of this name."""
    folder = tmp_path / "model"
    if overwrite:
        shutil.copytree(tiny_chatbot_folder, folder)
    before = contents(tmp_path)
    size = (tiny_chatbot_folder / name).stat().st_size
    with full_disk(size - 1), pytest.raises(OSError, match="model"):
        save_chatbot(*tiny_chatbot, folder, overwrite=overwrite)
    assert contents(tmp_path) == before
    assert list(tmp_path.iterdir()) == ([folder] if overwrite else [])


def test_a_path_that_cannot_be_written_is_named(tiny_chatbot: Chatbot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/model: cannot write in .*file"):
        save_chatbot(*tiny_chatbot, tmp_path / "file" / "model")
    with pytest.raises(FileExistsError, match="file exists"):
        save_chatbot(*tiny_chatbot, tmp_path / "file")
    assert contents(tmp_path) == {"file": b""}


@pytest.fixture
def broken(tiny_chatbot_folder: Path, tmp_path: Path) -> Path:
    """A copy of the chatbot, to be broken."""
    return Path(shutil.copytree(tiny_chatbot_folder, tmp_path / "broken"))


def test_weights_in_shards_are_loaded(tiny_chatbot: Chatbot, broken: Path) -> None:
    model, _ = tiny_chatbot
    (broken / "model.safetensors").unlink()
    model.save_pretrained(broken, max_shard_size="20KB")
    assert len(list(broken.glob("model-*.safetensors"))) > 2
    loaded, _ = load_chatbot(broken)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    next(broken.glob("model-00002-*")).unlink()
    with pytest.raises(ValueError, match=r"index\.json cannot be read \(.*model-00002-of"):
        load_chatbot(broken)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such model folder\."):
        load_chatbot(tmp_path / "nowhere")


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: not a model folder\.$"):
        load_chatbot(tmp_path)
    (tmp_path / "model").mkdir()  # the folder of a run
    with pytest.raises(FileNotFoundError, match="not a model folder; it holds model/"):
        load_chatbot(tmp_path)


def test_a_folder_without_tokenizer_is_named(broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json: save the tokenizer"):
        load_chatbot(broken)


def test_a_folder_without_weights_is_named(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        load_chatbot(broken)


def test_a_pickle_is_never_loaded(broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    torch.save(weights, broken / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        load_chatbot(broken)


@pytest.mark.parametrize("kind", ["bart", None])
def test_another_architecture_is_named(broken: Path, kind: str | None) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    with pytest.raises(ValueError, match=f"holds a model of type {kind!r}; allowed: 'rnn_seq2seq'"):
        load_chatbot(broken)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b""),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe"),
        ("model.safetensors", b""),
        ("model.safetensors", b"half a file"),
        ("tokenizer.json", b""),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_broken_file_is_named(broken: Path, name: str, content: bytes) -> None:
    (broken / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"broken.*{name}"):
        load_chatbot(broken)


def test_weights_that_do_not_fit_are_named(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 20}))
    with pytest.raises(ValueError, match="broken"):
        load_chatbot(broken)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    tiny_chatbot: Chatbot, broken: Path, tmp_path: Path
) -> None:
    tokenizer = tiny_chatbot[1]
    known = len(tokenizer)
    small = tiny_model(vocab_size=known - 1)
    message = (
        rf"tokenizer has {known} tokens, .* with vocab_size={known - 1} .* at most {known - 1}"
    )
    with pytest.raises(ValueError, match=message):
        save_chatbot(small, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    small.save_pretrained(broken)
    with pytest.raises(ValueError, match=rf"tokenizer\.json has {known} tokens"):
        load_chatbot(broken)
    large = tiny_model(vocab_size=known + 2)  # rows that no token uses are allowed
    save_chatbot(large, tokenizer, tmp_path / "model")
    assert load_chatbot(tmp_path / "model")[0].config.vocab_size == known + 2


# --- two vocabularies ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bilingual() -> Bilingual:
    """A model that has learned `TRANSLATIONS`, and its two tokenizers."""
    texts = list(TRANSLATIONS), list(TRANSLATIONS.values())
    source, target = (train_tokenizer(side, level="word", min_frequency=1) for side in texts)
    model = tiny_model(
        vocab_size=len(source),
        decoder_vocab_size=len(target),
        share_embeddings=False,
        hidden_size=24,
        cell_type="gru",
    )
    inputs = source(texts[0], padding=True, return_tensors="pt")
    labels = target(texts[1], padding=True, return_tensors="pt")
    labels = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    return model, source, target


def test_a_model_of_two_languages_has_two_tokenizers(bilingual: Bilingual, tmp_path: Path) -> None:
    model, source, target = bilingual
    assert len(source) != len(target)
    folder = tmp_path / "model"
    save_chatbot(model, source, folder, target_tokenizer=target)
    assert model_files(folder) == FILES | {"target_tokenizer"}
    loaded, reader = load_chatbot(folder)
    writer = load_target_tokenizer(folder)
    assert (reader.get_vocab(), writer.get_vocab()) == (source.get_vocab(), target.get_vocab())
    inputs = reader(list(TRANSLATIONS), padding=True, return_tensors="pt")
    for beams in (1, 3):
        replies = loaded.generate(**inputs, num_beams=beams, max_new_tokens=12, do_sample=False)
        read = writer.batch_decode(replies, skip_special_tokens=True)
        assert read == list(TRANSLATIONS.values())


def test_a_model_of_one_language_writes_with_its_only_tokenizer(
    tiny_chatbot: Chatbot, tiny_chatbot_folder: Path
) -> None:
    vocabulary = tiny_chatbot[1].get_vocab()
    assert load_target_tokenizer(tiny_chatbot_folder).get_vocab() == vocabulary
    assert load_target_tokenizer().get_vocab() == load_chatbot()[1].get_vocab()


def test_two_vocabularies_may_be_of_one_size(tiny_chatbot: Chatbot, tmp_path: Path) -> None:
    tokenizer = tiny_chatbot[1]
    apart = tiny_model(vocab_size=len(tokenizer), share_embeddings=False)
    save_chatbot(apart, tokenizer, tmp_path / "one")
    other = train_tokenizer(TRANSLATIONS, level="word", min_frequency=1)
    save_chatbot(apart, tokenizer, tmp_path / "two", target_tokenizer=other)
    for name, expected in (("one", tokenizer), ("two", other)):
        assert load_target_tokenizer(tmp_path / name).get_vocab() == expected.get_vocab()
        assert load_chatbot(tmp_path / name)[1].get_vocab() == tokenizer.get_vocab()


def test_a_target_tokenizer_must_fit_the_model(bilingual: Bilingual, tmp_path: Path) -> None:
    model, source, target = bilingual
    folder = tmp_path / "model"
    with pytest.raises(ValueError, match=r"target_tokenizer=None .* two vocabularies; allowed"):
        save_chatbot(model, source, folder)
    large = train_tokenizer(TRANSLATIONS, level="char", min_frequency=1)
    with pytest.raises(ValueError, match=rf"target_tokenizer has {len(large)} tokens, .*decoder_v"):
        save_chatbot(model, source, folder, target_tokenizer=large)
    with pytest.raises(ValueError, match=r"target_tokenizer .* share_embeddings=True"):
        save_chatbot(tiny_model(vocab_size=99), source, folder, target_tokenizer=target)
    assert list(tmp_path.iterdir()) == []


def test_a_target_tokenizer_that_is_missing_or_broken_is_named(
    bilingual: Bilingual, tmp_path: Path
) -> None:
    model, source, target = bilingual
    folder = tmp_path / "model"
    save_chatbot(model, source, folder, target_tokenizer=target)
    file = folder / "target_tokenizer" / "tokenizer.json"
    whole = file.read_bytes()
    train_tokenizer(TRANSLATIONS, level="char", min_frequency=1).save_pretrained(file.parent)
    for load in (load_chatbot, load_target_tokenizer):
        with pytest.raises(ValueError, match=r"target_tokenizer/tokenizer\.json has .* tokens"):
            load(folder)
    file.write_bytes(whole[:99])
    with pytest.raises(ValueError, match=r"target_tokenizer/tokenizer\.json cannot be read"):
        load_chatbot(folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"target_tokenizer has no tokenizer\.json"):
        load_chatbot(folder)
    shutil.rmtree(file.parent)
    for load in (load_chatbot, load_target_tokenizer):
        with pytest.raises(FileNotFoundError, match=r"model has no target_tokenizer/, but its"):
            load(folder)
