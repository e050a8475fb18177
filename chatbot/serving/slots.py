"""Conversations side by side in one batch: a row of fixed size for each, all stepped together.

The rows in use come first, so that a step runs on slices and copies nothing: where one leaves, the
last takes its place. What a row held is wiped. N is the number of rows in use, V the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from chatbot.decoding import unspoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.modeling.attention_rnn_seq2seq import AttentionMemory
from chatbot.modeling.copying_rnn_seq2seq import Pointing, mixed_log_probabilities
from chatbot.presets import GenerationPreset

LONGEST_REPLY = 512  # the most that a preset allows
LIKELIEST = 32  # tokens that a draw looks at first; it looks at more where they do not suffice
NEVER = float("-inf")


@dataclass(eq=False)
class Request:
    """A reply that was asked for: what to read, how to choose, and who waits."""

    context: list[int]
    preset: GenerationPreset
    generator: torch.Generator
    deliver: Callable[[int | Exception | None], object]  # each token, then None or an error
    begin: Sequence[int] = ()  # tokens that the reply begins with
    stopped: bool = False
    tokens: int = 0

    @property
    def longest(self) -> int:
        """Tokens after which the reply ends."""
        return len(self.begin) + self.preset.max_new_tokens


@dataclass
class SlotMemory(AttentionMemory):
    """What the rows may look at, the places of tokens, (N, S), and their counts, (N, 1), known.

    Rows are at different steps. For local-m, whose window moves with them, places are counted from
    the row's own step, `moved`, (N, 1), so that all rows ask for step 0.
    """

    places: Tensor
    counts: Tensor
    moved: Tensor | None

    @property
    def positions(self) -> Tensor:
        moved = self.moved
        return self.places if moved is None else self.places - moved.minimum(self.counts - 1)

    @property
    def lengths(self) -> Tensor:
        return self.counts


class Slots:
    """`count` rows for contexts of at most `width` tokens. The model is only read: all that
    changes belongs to the rows."""

    def __init__(
        self,
        model: RnnSeq2SeqForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        count: int,
        width: int,
    ):
        self.model, self.decoder, self.count, self.width = model, model.model.decoder, count, width
        self.table = model.model.get_decoder_input_embeddings()
        self.weights = self.decoder.stack.weights()
        self.pad, self.go, self.end = (
            int(tokenizer.convert_tokens_to_ids(token))
            for token in (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token)
        )
        self.forbidden = torch.zeros(len(model.lm_head.weight), device=model.device)
        self.forbidden[unspoken_tokens(tokenizer)] = NEVER
        self.requests: list[Request] = []
        example = Request([self.end] * width, GenerationPreset(), torch.Generator(), print)
        rows = self._read([example])
        self.tensors = {name: row.new_zeros(count, *row.shape[1:]) for name, row in rows.items()}
        self._use(0)

    def join(self, requests: Sequence[Request]) -> None:
        """Read new contexts, best of like length, into free rows."""
        used = len(self.requests)
        for name, rows in self._read(requests).items():
            self.tensors[name][used : used + len(requests), : rows.shape[1]] = rows
        self.requests += requests
        self._use(len(self.requests))

    def leave(self, rows: Sequence[int]) -> None:
        """Wipe rows; the last ones take their places."""
        used, left = len(self.requests), len(self.requests) - len(rows)
        holes = [row for row in rows if row < left]
        movers = sorted(set(range(left, used)).difference(rows))
        for hole, mover in zip(holes, movers, strict=True):
            self.requests[hole] = self.requests[mover]
        del self.requests[left:]
        to, of = torch.tensor(holes, dtype=torch.long), torch.tensor(movers, dtype=torch.long)
        for tensor in self.tensors.values():
            tensor[to] = tensor[of]
            tensor[left:used] = 0
        self._use(left)

    def step(self) -> list[int]:
        """The next token of every row."""
        said, history = self.rows["said"], self.rows["history"]
        embeddings = self.table(history.gather(1, said)[:, 0])
        reading = self.decoder.read_step(embeddings, self.states, 0, self.memory, self.weights)
        for kept, after in zip(self.states, reading.states[-1], strict=True):
            kept[0].copy_(after[0])
            kept[1].copy_(after[1])
        scores = self.model.lm_head(reading.outputs)
        if reading.gates is not None and reading.weights is not None:
            pointing = Pointing(reading.gates, reading.weights, self.rows["source_ids"])
            scores = mixed_log_probabilities(scores, pointing)
        tokens = self._choose(scores[:, 0].float().add_(self.forbidden))
        if self.most[5]:
            begun = said < self.rows["settings"][:, 5:]
            tokens = tokens.where(~begun, history.gather(1, said + 1))
        said += 1
        history.scatter_(1, said, tokens)
        return tokens[:, 0].tolist()

    def _read(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """What the rows of new conversations hold, each (requests, ...)."""
        lengths = torch.tensor([[len(request.context)] for request in requests])
        width, device = int(lengths.max()), self.model.device
        padded = [r.context + [self.pad] * (width - len(r.context)) for r in requests]
        ids, mask = torch.tensor(padded, device=device), torch.arange(width) < lengths
        mask = mask.to(device)
        encoded = self.model.model.encoder(ids, None if mask.all() else mask)
        states = self.decoder.bridge(encoded.final_hidden, encoded.final_cell)
        if self.model.config.input_feeding:
            states.append((torch.zeros_like(states[0][0]), states[0][0][..., :0]))
        history = torch.zeros(len(requests), 1 + LONGEST_REPLY, dtype=torch.long)
        for row, request in enumerate(requests):
            begun = [self.go, *request.begin]
            history[row, : len(begun)] = torch.tensor(begun)
        noise = [torch.rand(LONGEST_REPLY, generator=request.generator) for request in requests]
        settings = torch.tensor([_settings(request) for request in requests])
        rows = {"history": history, "said": torch.zeros_like(history[:, :1])}
        rows |= {"noise": torch.stack(noise), "settings": settings}
        for place, (hidden, cell) in enumerate(states):
            rows |= {f"hidden{place}": hidden, f"cell{place}": cell}
        if self.decoder.attention is not None:
            memory = self.decoder.attention.remember(encoded.last_hidden_state, mask)
            rows |= {"values": memory.values, "keys": memory.keys, "mask": mask}
            rows |= {"places": memory.positions, "counts": memory.lengths}
        if self.model.config.copy:
            rows["source_ids"] = ids
        return {name: tensor.to(device) for name, tensor in rows.items()}

    def _use(self, count: int) -> None:
        """Let steps run on the first rows; their slices are made here, not at each step."""
        rows = self.rows = {name: tensor[:count] for name, tensor in self.tensors.items()}
        depth = sum(name.startswith("hidden") for name in rows)
        self.states = [(rows[f"hidden{i}"], rows[f"cell{i}"]) for i in range(depth)]
        self.memory = None
        if self.decoder.attention is not None:
            moved = rows["said"] if self.model.config.attention_window == "local-m" else None
            seen = rows["values"], rows["keys"], rows["mask"]
            self.memory = SlotMemory(*seen, rows["places"], rows["counts"], moved)
        # what no row asks for is left out of a step
        settings = rows["settings"] if count else torch.zeros(1, 6)
        self.least, self.most = settings.amin(0).tolist(), settings.amax(0).tolist()

    def _choose(self, scores: Tensor) -> Tensor:
        """The next token of each row, (N, 1), from its scores, (N, V), which are changed."""
        said = self.rows["said"]
        warmth, mass, among, run, shortest, _ = self.rows["settings"].split(1, dim=1)
        if self.most[4]:
            scores[:, self.end : self.end + 1].masked_fill_(said < shortest, NEVER)
        if self.most[3]:
            self._forbid_repeats(scores, run)
        if not self.most[0]:
            return scores.argmax(-1, keepdim=True)
        likelihood = torch.softmax(scores / warmth.where(warmth > 0, 1.0), dim=-1)
        drawn = draw(likelihood, self.rows["noise"].gather(1, said), mass, among)
        return drawn if self.least[0] else drawn.where(warmth > 0, scores.argmax(-1, keepdim=True))

    def _forbid_repeats(self, scores: Tensor, run: Tensor) -> None:
        """Rule out each token that would end a run of `run` tokens, (N, 1), a second time."""
        last = self.rows["said"]
        words = self.rows["history"][:, : int(last.max()) + 1]
        place = torch.arange(words.shape[1], device=words.device)
        again = (place <= last) & (place >= run - 1) & (run > 0)
        for back in range(1, int(self.most[3])):
            heard = words.gather(1, (last - back + 1).clamp(min=0))
            again[:, back:] &= (words[:, :-back] == heard) | (run <= back)
        scores.scatter_(1, words.masked_fill(~again, self.pad), NEVER)


def _settings(request: Request) -> list[float]:
    """As `Slots._choose` takes them apart."""
    preset, begun = request.preset, len(request.begin)
    drawing = [preset.temperature, preset.top_p, preset.top_k or 2**24]
    return [*drawing, preset.no_repeat_ngram_size, begun + preset.min_new_tokens, begun]


def draw(
    likelihood: Tensor, noise: Tensor, mass: Tensor, among: Tensor, size: int = LIKELIEST
) -> Tensor:
    """Draw a token of each row, (N, 1), of the top-k those of top-p (Holtzman et al. 2020).

    A row's token depends on nothing but the row: its neighbours cannot change it.

    Args:
        likelihood: p of each token, (N, V).
        noise, mass, among: Even draws from 0 to 1, top_p and top_k, (N, 1) each.
        size: How many of the likeliest are looked at; more, where a row needs more.
    """
    size = min(size, likelihood.shape[1])
    top, tokens = likelihood.topk(size)
    top = top.masked_fill(torch.arange(size, device=top.device) >= among, 0.0)
    sums, limited = top.cumsum(-1), among <= size
    kept = sums - top < mass * sums[:, -1:].where(limited, 1.0)
    sums = (top * kept).cumsum(-1)
    place = (sums < noise * sums[:, -1:]).sum(-1, keepdim=True)
    chosen = tokens.gather(1, place)
    rows = (kept[:, -1:] & ~limited)[:, 0].nonzero()[:, 0]
    if len(rows) and size < likelihood.shape[1]:
        wider = likelihood[rows], noise[rows], mass[rows], among[rows], 16 * size
        chosen[rows] = draw(*wider)
    return chosen
