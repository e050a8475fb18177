"""The shipped model answers everyone: 500 prompts, alone and in batches."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from chatbot.chat import ChatSession
from chatbot.checkpoints import load_chatbot
from chatbot.decoding import generate_replies
from chatbot.hub_files import hub_config_path
from chatbot.metrics import loop_rate
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, generation_preset

Chatbot = tuple[RnnSeq2SeqForConditionalGeneration, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def shipped() -> Chatbot:
    return load_chatbot()


@pytest.fixture(scope="module")
def prompts(repository: Path) -> list[str]:
    """The 200 fixed prompts, and what people say first and last in our own conversations."""
    fixed = (repository / "scripts" / "prompts.txt").read_text("utf-8").splitlines()
    said = []
    for path in sorted(hub_config_path("sample_conversations", "data").glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            messages = json.loads(line)["messages"]
            said += [messages[0]["content"], messages[-2]["content"]]
    everything = fixed + said[:: len(said) // 300]
    assert len(everything) >= 500
    return everything[:500]


def one_by_one(chatbot: Chatbot, prompts: list[str]) -> list[str]:
    session = ChatSession(*chatbot, seed=0)
    replies = []
    for prompt in prompts:
        session.reset()
        replies.append(session.reply(prompt).text)
    return replies


def in_batches(chatbot: Chatbot, prompts: list[str]) -> list[str]:
    preset = generation_preset(DEFAULT_GENERATION_PRESET)
    replies: list[str] = []
    for start in range(0, len(prompts), 16):
        asked = [[{"role": "user", "content": text}] for text in prompts[start : start + 16]]
        replies += generate_replies(*chatbot, asked, preset, seed=start)
    return replies


@pytest.mark.parametrize("answer", [one_by_one, in_batches])
def test_every_prompt_has_a_reply_of_its_own(
    shipped: Chatbot, prompts: list[str], answer: Callable[[Chatbot, list[str]], list[str]]
) -> None:
    replies = answer(shipped, prompts)
    assert len(replies) == 500
    assert all(any(c.isalnum() for c in reply) for reply in replies)
    assert not any("<unk>" in reply or "\ufffd" in reply for reply in replies)
    counts = Counter(replies)
    (commonest, times), *_ = counts.most_common(1)
    assert len(counts) >= 0.6 * 500
    assert times <= 0.05 * 500, commonest
    assert sum(loop_rate(reply) > 0 for reply in replies) <= 0.02 * 500


def test_the_folder_is_a_small_hub_repository() -> None:
    folder = hub_config_path("pretrained")
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= 20_000_000
    weights = load_file(folder / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.bfloat16"}
    generation = json.loads((folder / "generation_config.json").read_text("utf-8"))
    assert generation["max_new_tokens"] == 48
    assert not list(folder.glob("*.bin")) + list(folder.glob("*.pt"))
    card = (folder / "README.md").read_text("utf-8")
    assert "chatbot evaluate" in card
    assert "model-index" in card


def test_the_model_code_in_the_folder_is_the_package_s() -> None:
    package = Path(load_chatbot.__code__.co_filename).parent / "modeling"
    for file in hub_config_path("pretrained").glob("*.py"):
        assert file.read_text("utf-8") == (package / file.name).read_text("utf-8"), file.name
