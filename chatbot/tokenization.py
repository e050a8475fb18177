"""Text to ids and back: training a tokenizer, the chat template, and the encoding of turns.

The result is a plain `PreTrainedTokenizerFast`, which needs none of this code to load. For user
"hi", bot "hello", user "how are you?" the encoder reads

    <user>hi<end><bot>hello<end><user>how are you?<end><bot>

and the labels of the next reply are `fine, thanks<end>`. Whatever a person types stays text: a
special token spelled in a message is broken up (`<end>` becomes `< end>`) before it is tokenized.
Parallel text has no speakers and no history: the encoder reads `ciao<end>`, and the labels are
`hi<end>`. This module knows nothing of models.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

PAD, UNK, GO, END, USER, BOT = "<pad>", "<unk>", "<go>", "<end>", "<user>", "<bot>"
SPECIAL_TOKENS = (PAD, UNK, GO, END, USER, BOT)  # in the order of their ids, 0 to 5
SPEAKERS = {"user": USER, "assistant": BOT}
DEFAULT_VOCAB_SIZE = 4096
TARGET_TOKENIZER = "target_tokenizer"  # in a tokenizer's folder: that of what is written

Level = Literal["bpe", "unigram", "word", "char"]
Tokenizers = list[
    PreTrainedTokenizerFast
]  # one, or that of what is read and that of what is written

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['user', 'assistant'] %}"
    "{{- raise_exception('The role of a message must be user or assistant, not '"
    " ~ message['role']) }}"
    "{%- endif %}"
    f"{{{{- '{USER}' if message['role'] == 'user' else '{BOT}' }}}}"
    "{{- message['content']"
    + "".join(f".replace('{token}', '< {token[1:]}')" for token in SPECIAL_TOKENS)
    + " }}"
    f"{{{{- '{END}' }}}}"
    "{%- endfor %}"
    f"{{%- if add_generation_prompt %}}{{{{- '{BOT}' }}}}{{%- endif %}}"
)

# A word, a number, what follows an apostrophe inside a word ("don" "'t"), or one sign.
_WORD = r"\d+(?:[.,:]\d+)+|\w+|(?<=\w)['’]\w+|[^\w\s]"
_NO_SPACE_BEFORE = r" (?=[.,!?;:%)\]}…]|['’]\w)"
_NO_SPACE_AFTER = r"(?<=[(\[{]) "


def train_tokenizer(
    texts: Iterable[str],
    *,
    level: Level = "bpe",
    vocab_size: int | None = None,
    lowercase: bool = True,
    min_frequency: int = 2,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`, which are read once.

    - `bpe`, `unigram`: subwords over bytes. `char`: one token a character, bytes for characters
      that training has not kept. These three decode any text to itself, white space included; with
      `lowercase`, to its lower-cased form: `str.lower()`, but for a sigma at the end of a word (σ,
      not ς) and for rare letters newer than the Unicode tables of `tokenizers`.
    - `word`: words, numbers and signs; the rest is `<unk>`, and white space is not kept.

    `vocab_size` counts everything, special tokens and bytes too. A number is met exactly; None
    means 4,096, or all that the texts give when that is less. `min_frequency` is how often a merge,
    word or character must occur to be kept; unigram goes by likelihood and ignores it.

    Calling the tokenizer appends `<end>`; `apply_chat_template` adds nothing to the template.

    Raises:
        ValueError: an unknown level, a size that is too small or that the texts do not reach,
            a `min_frequency` below 1, or no text at all.
    """
    if level not in get_args(Level):
        raise ValueError(f"level={level!r}: allowed are {', '.join(get_args(Level))}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency={min_frequency}: must be at least 1")
    # A vocabulary without a single word would be all <unk>; the other levels can rest on bytes.
    smallest = len(SPECIAL_TOKENS) + (1 if level == "word" else 256)
    if vocab_size is not None and vocab_size < smallest:
        raise ValueError(f"vocab_size={vocab_size}: level {level!r} needs at least {smallest}")

    size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
    normalizer = normalizers.Lowercase() if lowercase else None
    texts = _without_blank(texts)
    if level == "char":
        tokenizer = _train_characters(texts, size, min_frequency, normalizer)
    else:
        tokenizer = _train_pieces(texts, level, size, min_frequency, normalizer)
    reached = tokenizer.get_vocab_size()
    if vocab_size is not None and reached != vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size}: with level {level!r} and min_frequency={min_frequency} "
            f"these texts give {reached}; ask for that, give more text, or leave it None"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}",
        pair=f"$A {END} $B {END}",
        special_tokens=[(END, SPECIAL_TOKENS.index(END))],
    )
    return _wrap(tokenizer)


def is_lowercasing(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer loses capitals, so that replies need `restore_case`."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("A") == "a"


def is_chat(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether it reads conversations: that of parallel text has no chat template. So a folder of
    a model, or of data, tells its task."""
    return tokenizer.chat_template is not None


def load_tokenizers(folder: Path) -> Tokenizers:
    """The tokenizer of what is read, and, where there is one, that of what is written."""
    folders = [folder, folder / TARGET_TOKENIZER]
    return [PreTrainedTokenizerFast.from_pretrained(each) for each in folders if each.is_dir()]


def encode_turn(tokenizer: PreTrainedTokenizerFast, role: str, text: str) -> list[int]:
    """Ids of one turn, `<user>hi<end>`. Raises ValueError for an unknown role."""
    return encode_turns(tokenizer, [{"role": role, "content": text}])[0]


def encode_turns(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, Any]]
) -> list[list[int]]:
    """Ids of each message as a turn, tokenized in one call. Errors as in `encode_turn`."""
    if not messages:
        return []
    for message in messages:
        if message["role"] not in SPEAKERS:
            raise ValueError(f"role={message['role']!r}: allowed are {', '.join(SPEAKERS)}")
    texts = [_break_special_tokens(message["content"]) for message in messages]
    bodies = tokenizer(texts, add_special_tokens=False)["input_ids"]
    speakers = [_id(tokenizer, SPEAKERS[message["role"]]) for message in messages]
    end = _id(tokenizer, END)
    return [[speaker, *body, end] for speaker, body in zip(speakers, bodies, strict=True)]


def encode_context(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Mapping[str, Any]],
    max_source_tokens: int,
) -> list[int]:
    """Ids of what the encoder reads before it answers `messages`: at most `max_source_tokens`.

    The ids of `apply_chat_template(messages, add_generation_prompt=True)` where those fit, else cut
    as in `join_turns`; turns older than the cut are not tokenized.

    Of parallel text it is the last message alone, `ciao<end>`, cut like a reply.
    """
    if not is_chat(tokenizer):
        return encode_reply(tokenizer, messages[-1]["content"], max_source_tokens)
    newest_first = (encode_turn(tokenizer, m["role"], m["content"]) for m in reversed(messages))
    return join_turns(tokenizer, newest_first, max_source_tokens)


def join_turns(
    tokenizer: PreTrainedTokenizerFast,
    newest_first: Iterable[Sequence[int]],
    max_source_tokens: int,
) -> list[int]:
    """Join encoded turns, given newest first, and the generation prompt into one context.

    Whole turns are kept, from the newest back, while they fit. If the newest alone does not, its
    speaker and its last tokens stay. Raises ValueError for a budget below 4, which has no room for
    them.
    """
    if max_source_tokens < 4:
        raise ValueError(f"max_source_tokens={max_source_tokens}: must be at least 4")
    room = max_source_tokens - 1  # for <bot>
    kept: list[Sequence[int]] = []
    for turn in newest_first:
        if len(turn) > room:
            if not kept:
                kept.append([turn[0], *turn[len(turn) - room + 1 :]])
            break
        kept.append(turn)
        room -= len(turn)
    return [*chain.from_iterable(reversed(kept)), _id(tokenizer, BOT)]


def encode_reply(
    tokenizer: PreTrainedTokenizerFast, text: str, max_target_tokens: int
) -> list[int]:
    """Labels of a reply: its first tokens and `<end>`, at most `max_target_tokens` (2 or more)."""
    return cut_reply(encode_turn(tokenizer, "assistant", text), max_target_tokens)


def cut_reply(turn: Sequence[int], max_target_tokens: int) -> list[int]:
    """Labels of an encoded assistant turn: without its speaker, cut to fit, `<end>` kept."""
    if max_target_tokens < 2:
        raise ValueError(f"max_target_tokens={max_target_tokens}: must be at least 2")
    return [*turn[1:-1][: max_target_tokens - 1], turn[-1]]


def restore_case(text: str) -> str:
    """Put back what a lower-casing tokenizer lost and a rule can find: sentence capitals and "I".

    >>> restore_case("yes. i'm fine, i think!")
    "Yes. I'm fine, I think!"
    """
    text = _FIRST_PERSON.sub("I", text)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].title(), text)


# Not the i of "i.e.", "wi-fi" or "hawai'i".
_FIRST_PERSON = re.compile(r"(?<![\w'’.-])i(?=(?:['’](?:m|ve|ll|d)\b)|(?![\w'’-]|\.\w))")
# Neither an ellipsis nor an abbreviation such as "i.e." ends a sentence.
_SENTENCE_START = re.compile(r"((?:^|(?<!\.[.\w])[.!?][\"'”’)\]]*\s)[^\w]*)([^\W\d_])")


def _without_blank(texts: Iterable[str]) -> Iterator[str]:
    """Those texts that hold something. Raises ValueError when none does."""
    kept = (text for text in texts if text.strip())
    first = next(kept, None)
    if first is None:
        raise ValueError("texts: there is no text to train a tokenizer on")
    return chain([first], kept)


def _special_tokens() -> list[AddedToken]:
    return [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]


def _train_pieces(
    texts: Iterable[str],
    level: Level,
    size: int,
    min_frequency: int,
    normalizer: normalizers.Normalizer | None,
) -> Tokenizer:
    """Byte-level subwords, or whole words."""
    tokenizer, trainer = _untrained(level, size, min_frequency)
    # Both pre-tokenizers part `<` from letters: no learned piece can spell a special token.
    if level == "word":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.WordPiece(cleanup=False),  # joins with spaces; no word starts with "##"
                decoders.Fuse(),
                decoders.Replace(Regex(_NO_SPACE_BEFORE), ""),
                decoders.Replace(Regex(_NO_SPACE_AFTER), ""),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _untrained(
    level: Level, size: int, min_frequency: int
) -> tuple[Tokenizer, trainers.BpeTrainer | trainers.UnigramTrainer | trainers.WordLevelTrainer]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special_tokens = _special_tokens()
    if level == "bpe":
        return Tokenizer(models.BPE()), trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=min_frequency,
            initial_alphabet=alphabet,
            special_tokens=special_tokens,
            show_progress=False,
        )
    if level == "unigram":
        return Tokenizer(models.Unigram()), trainers.UnigramTrainer(
            vocab_size=size,
            initial_alphabet=alphabet,
            special_tokens=special_tokens,
            unk_token=UNK,
            show_progress=False,
        )
    return Tokenizer(models.WordLevel(unk_token=UNK)), trainers.WordLevelTrainer(
        vocab_size=size,
        min_frequency=min_frequency,
        special_tokens=special_tokens,
        show_progress=False,
    )


def _train_characters(
    texts: Iterable[str],
    size: int,
    min_frequency: int,
    normalizer: normalizers.Normalizer | None,
) -> Tokenizer:
    """A BPE without merges: one token a character, and its UTF-8 bytes where it is not known."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer is not None else text)
    frequent = sorted(
        (c for c in counts if counts[c] >= min_frequency), key=lambda c: (-counts[c], c)
    )
    tokens = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *frequent][:size]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token=UNK, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens(_special_tokens())
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    pad, unk, go, end, user, bot = _special_tokens()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        bos_token=go,
        eos_token=end,
        additional_special_tokens=[user, bot],
        chat_template=CHAT_TEMPLATE,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _break_special_tokens(text: str) -> str:
    """What the chat template does to the content of a message."""
    for token in SPECIAL_TOKENS:
        text = text.replace(token, f"< {token[1:]}")
    return text


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    index = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(index, int)
    return index
