"""The tokenizer: exactness, special tokens, the chat template, and the cutting of contexts."""

import random
import threading
from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatbot.tokenization import (
    BOT,
    END,
    SPECIAL_TOKENS,
    USER,
    encode_context,
    encode_reply,
    encode_turn,
    is_lowercasing,
    restore_case,
    train_tokenizer,
)

TEXTS = [
    "Hi there! How are you today?",
    "I'm fine, thanks. Do you like films?",
    "I love cricket (and tea), don't you?",
    "Is it 5.5% or not? <END> of story, <user>!",
] * 10
LOSSLESS = ("bpe", "unigram", "char")
DIALOGUE = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "how are you?"},
]
ODD_TEXTS = [
    "",
    " ",
    "  two  spaces, tab\tand\r\nlines \n",
    "don't do that , it 's odd .",
    "👍🏽 👨\u200d👩\u200d👧 🇮🇹",
    "你好,世界。",
    "مرحبا كيف حالك؟",
    "e\u0301 é o\u0308\u0323",
    "\x00\x01\x7f\x85",
    "\u00a0\u2003\u3000\u200b\ufeff\u2028",
    "<0x41> ▁ Ġ ## ĊĊ",
    "\U0010ffff\uffff",
]


@pytest.fixture(scope="module", params=[*LOSSLESS, "word"])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, level=request.param)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS)


def random_texts(count: int) -> list[str]:
    """Texts of characters from all over Unicode, without surrogates."""
    draw = random.Random(0)
    ranges = [(0, 0x7F), (0, 0x7F), (0x80, 0x2FF), (0x300, 0x36F), (0x600, 0x6FF), (0x2000, 0x206F)]
    ranges += [(0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0xE000, 0x10FFFF)]
    return [
        "".join(chr(draw.randint(*draw.choice(ranges))) for _ in range(draw.randint(1, 30)))
        for _ in range(count)
    ]


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def template_ids(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("level", LOSSLESS)
def test_decoding_is_exact_on_any_text(level: str) -> None:
    tokenizer = train_tokenizer(TEXTS, level=level, lowercase=False)
    for text in [*TEXTS[:3], *ODD_TEXTS, *random_texts(300)]:
        assert tokenizer.decode(ids(tokenizer, text)) == text
        assert tokenizer.unk_token_id not in ids(tokenizer, text)


@pytest.mark.parametrize("level", LOSSLESS)
def test_lower_casing_is_the_only_loss(level: str) -> None:
    tokenizer = train_tokenizer(TEXTS, level=level)
    for text in [*TEXTS[:3], *ODD_TEXTS, "İSTANBUL", "ÀÉ ẞ ЖЁ"]:
        assert tokenizer.decode(ids(tokenizer, text)) == text.lower()
    assert tokenizer.decode(ids(tokenizer, "ΟΔΟΣ")) == "οδοσ" != "ΟΔΟΣ".lower()


def test_words_decode_to_readable_text() -> None:
    tokenizer = train_tokenizer(TEXTS, level="word", lowercase=False)
    for text in TEXTS[:3]:
        assert tokenizer.decode(ids(tokenizer, text)) == text
    assert tokenizer.decode(ids(tokenizer, "5.5%, zebra!")) == "5.5%, <unk>!"


def test_special_tokens_and_settings(any_tokenizer: PreTrainedTokenizerFast) -> None:
    assert any_tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4, 5]
    assert (any_tokenizer.pad_token, any_tokenizer.unk_token) == ("<pad>", "<unk>")
    assert (any_tokenizer.bos_token, any_tokenizer.eos_token) == ("<go>", "<end>")
    assert sorted(any_tokenizer.all_special_ids) == [0, 1, 2, 3, 4, 5]
    assert any_tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert any_tokenizer.padding_side == "right"
    for token in any_tokenizer.added_tokens_decoder.values():
        assert token == AddedToken(token.content, normalized=False, special=True)


def test_calling_appends_end_and_the_template_adds_nothing(
    any_tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert any_tokenizer("hi")["input_ids"] == [*ids(any_tokenizer, "hi"), 3]
    rendered = any_tokenizer.apply_chat_template(
        DIALOGUE, tokenize=False, add_generation_prompt=True
    )
    assert rendered == "<user>hi<end><bot>hello<end><user>how are you?<end><bot>"
    expected = [4, *ids(any_tokenizer, "hi"), 3, 5, *ids(any_tokenizer, "hello"), 3]
    expected += [4, *ids(any_tokenizer, "how are you?"), 3, 5]
    assert template_ids(any_tokenizer, DIALOGUE) == expected


def test_template_refuses_other_roles(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="must be user or assistant, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "obey"}])
    with pytest.raises(ValueError, match="role='system': allowed are user, assistant"):
        encode_turn(tokenizer, "system", "obey")


@pytest.mark.parametrize(
    "spelling", [*SPECIAL_TOKENS, *map(str.upper, SPECIAL_TOKENS), "<un\u212a>"]
)
def test_typed_text_never_becomes_a_special_token(
    any_tokenizer: PreTrainedTokenizerFast, spelling: str
) -> None:
    text = f"{spelling}a {spelling}{spelling}<{spelling}>{spelling[:3]}{spelling}{spelling[3:]}"
    forbidden = set(any_tokenizer.all_special_ids) - {any_tokenizer.unk_token_id}
    if any_tokenizer.backend_tokenizer.model.__class__.__name__ != "WordLevel":
        forbidden.add(any_tokenizer.unk_token_id)
    assert not forbidden & set(encode_turn(any_tokenizer, "user", text)[1:-1])
    assert not forbidden & set(encode_reply(any_tokenizer, text, 500)[:-1])
    messages = [{"role": "user", "content": text}]
    assert encode_context(any_tokenizer, messages, 500) == template_ids(any_tokenizer, messages)


def test_saved_folder_loads_as_a_plain_tokenizer(
    any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    any_tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert loaded.chat_template == any_tokenizer.chat_template
    assert loaded.special_tokens_map == any_tokenizer.special_tokens_map
    assert loaded.added_tokens_decoder == any_tokenizer.added_tokens_decoder
    assert loaded.model_input_names == ["input_ids", "attention_mask"]
    assert template_ids(loaded, DIALOGUE) == template_ids(any_tokenizer, DIALOGUE)
    for text in [*ODD_TEXTS, *random_texts(30)]:
        assert loaded(text)["input_ids"] == any_tokenizer(text)["input_ids"]
        assert loaded.decode(ids(loaded, text)) == any_tokenizer.decode(ids(any_tokenizer, text))


@pytest.mark.parametrize("level", [*LOSSLESS, "word"])
def test_an_impossible_size_is_refused(level: str) -> None:
    reached = len(train_tokenizer(TEXTS, level=level))
    assert len(train_tokenizer(TEXTS, level=level, vocab_size=reached)) == reached
    with pytest.raises(
        ValueError, match=f"vocab_size={reached + 1}: .* these texts give {reached};"
    ):
        train_tokenizer(TEXTS, level=level, vocab_size=reached + 1)
    smallest = 7 if level == "word" else 262
    for size in (-1, 0, smallest - 1):
        with pytest.raises(ValueError, match=f"vocab_size={size}: .* needs at least {smallest}"):
            train_tokenizer(TEXTS, level=level, vocab_size=size)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="texts: there is no text"):
        train_tokenizer(texts)


def test_other_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="level='words': allowed are bpe, unigram, word, char"):
        train_tokenizer(TEXTS, level="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_frequency=0: must be at least 1"):
        train_tokenizer(TEXTS, min_frequency=0)


def test_context_is_the_template_when_nothing_is_cut(
    any_tokenizer: PreTrainedTokenizerFast,
) -> None:
    for text in [*ODD_TEXTS, *random_texts(30)]:
        messages = [*DIALOGUE, {"role": "assistant", "content": text}, DIALOGUE[0]]
        whole = template_ids(any_tokenizer, messages)
        assert encode_context(any_tokenizer, messages, len(whole)) == whole


def test_context_is_cut_at_turn_borders(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = encode_context(tokenizer, DIALOGUE, 100)
    turns = [encode_turn(tokenizer, m["role"], m["content"]) for m in DIALOGUE]
    without_first = [*turns[1], *turns[2], 5]
    assert encode_context(tokenizer, DIALOGUE, len(whole) - 1) == without_first
    assert encode_context(tokenizer, DIALOGUE, len(without_first)) == without_first
    assert encode_context(tokenizer, DIALOGUE, len(turns[2]) + 1) == [*turns[2], 5]
    assert encode_context(tokenizer, DIALOGUE, len(turns[2])) == [4, *turns[2][2:], 5]
    assert encode_context(tokenizer, DIALOGUE, 4) == [4, turns[2][-2], 3, 5]
    with pytest.raises(ValueError, match="max_source_tokens=3: must be at least 4"):
        encode_context(tokenizer, DIALOGUE, 3)


def test_reply_keeps_its_end(tokenizer: PreTrainedTokenizerFast) -> None:
    body = ids(tokenizer, "fine, thanks")
    assert encode_reply(tokenizer, "fine, thanks", 100) == [*body, 3]
    assert encode_reply(tokenizer, "fine, thanks", 3) == [*body[:2], 3]
    with pytest.raises(ValueError, match="max_target_tokens=1: must be at least 2"):
        encode_reply(tokenizer, "fine", 1)


def test_a_huge_message_after_a_long_history_is_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    huge = [*DIALOGUE * 10_000, {"role": "user", "content": "hello 你好" * 12_000}]
    context = encode_context(tokenizer, huge, 96)
    assert len(context) == 96
    assert (context[0], *context[-2:]) == (4, 3, 5)


def test_threads_share_a_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = encode_context(tokenizer, DIALOGUE, 96)
    results: list[list[int]] = []

    def encode() -> None:
        results.extend(encode_context(tokenizer, DIALOGUE, 96) for _ in range(50))

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 200


@pytest.mark.parametrize(
    ("lowered", "restored"),
    [
        ("", ""),
        ("hi. how are you? i am ok!", "Hi. How are you? I am ok!"),
        ("i'm sure i've said i'll go, i'd say", "I'm sure I've said I'll go, I'd say"),
        ("well... maybe i will", "Well... maybe I will"),
        ("yes, i. and you?", "Yes, I. And you?"),
        ("so do i", "So do I"),
        ('"really?" he said. "yes."', '"Really?" He said. "Yes."'),
        ("a plan, i.e. wi-fi in hawai'i", "A plan, i.e. wi-fi in hawai'i"),
        ("v2.0 is out\nélan", "V2.0 is out\nélan"),
        ("100 films. 3 books", "100 films. 3 books"),
    ],
)
def test_restore_case(lowered: str, restored: str) -> None:
    assert restore_case(lowered) == restored


def test_is_lowercasing(tokenizer: PreTrainedTokenizerFast) -> None:
    assert is_lowercasing(tokenizer)
    assert not is_lowercasing(train_tokenizer(TEXTS, lowercase=False))


def test_the_names_are_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (USER, END, BOT) == ("<user>", "<end>", "<bot>")
    assert tokenizer.decode(encode_context(tokenizer, DIALOGUE, 96)) == (
        "<user>hi<end><bot>hello<end><user>how are you?<end><bot>"
    )
