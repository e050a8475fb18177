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
from safetensors.torch import load_file

from chatbot import load_chatbot, save_chatbot

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


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
