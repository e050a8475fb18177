"""What a continued model keeps of the one it was, and how it takes a question in other words.

The model as it was talks with itself. What it says there is rehearsed while the new is learned
(pseudo-rehearsal, Robins 1995), with its own probabilities as targets (learning without forgetting,
Li and Hoiem 2016). And contexts are read with words missing and strange words between (random
deletion and insertion, Wei and Zou 2019), so that the telling words of a question decide.
"""

from collections.abc import Mapping, Sequence

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from chatbot.decoding import generate, spoken_tokens
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import GenerationPreset
from chatbot.tokenization import BOT, USER, join_turns

TURNS = 8  # of a talk, after its opening
TALKS = 128  # held side by side
FREELY = GenerationPreset(temperature=1.0, no_repeat_ngram_size=0, min_new_tokens=1)


def talk_with_itself(
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[list[int]],
    seed: int,
) -> Dataset:
    """What a model says in talks with itself, drawn from its own probabilities.

    Args:
        contexts: Their last turns open the talks.
        seed: Of the draws.

    Returns:
        `input_ids` and `labels`, as of examples: TURNS for each opening.
    """
    user, bot = tokenizer.convert_tokens_to_ids([USER, BOT])
    generator, longest = torch.Generator().manual_seed(seed), model.config.max_source_positions
    rows = []
    for first in range(0, len(contexts), TALKS):
        # turns without their speaker, newest first: whoever answers reads the other as the user
        talks = [[_last_turn(context, user)] for context in contexts[first : first + TALKS]]
        for _ in range(TURNS):
            heard = [
                join_turns(
                    tokenizer,
                    ([bot if place % 2 else user, *turn] for place, turn in enumerate(talk)),
                    longest,
                )
                for talk in talks
            ]
            said = generate(model, tokenizer, heard, FREELY, generator).sequences.tolist()
            for talk, context, sequence in zip(talks, heard, said, strict=True):
                talk.insert(0, spoken_tokens(tokenizer, sequence))
                rows.append({"input_ids": context, "labels": talk[0]})
    return Dataset.from_list(rows)


def _last_turn(context: list[int], user: int) -> list[int]:
    """What stands between the last `<user>` of a context and the `<bot>` at its end."""
    return context[len(context) - context[::-1].index(user) : -1]


class Retention:
    """Noise for the contexts that are learned, and the loss of what must not be forgotten.

    Args:
        before: The model as it was.
        tokenizer: Of both.
        talks: What it said: `talk_with_itself`.
        weight: Of the divergence from it, beside the loss of what is learned. 0: none.
        noise: The largest share of a context's words that go missing, and of strange ones. 0: none.
        batch_size: Replies that are rehearsed in a step.
        seed: Of their order.
    """

    def __init__(
        self,
        before: RnnSeq2SeqForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        talks: Dataset,
        *,
        weight: float,
        noise: float,
        batch_size: int,
        seed: int,
    ):
        self.before = before.eval().requires_grad_(False)
        self.talks, self.weight, self.noise = talks, weight, noise
        self.batch_size, self.seed = min(batch_size, len(talks)), seed
        self.collate = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
        special = torch.tensor(tokenizer.all_special_ids)
        said = torch.tensor([token for row in talks["input_ids"] for token in row])
        self.words = said[~torch.isin(said, special)]  # each as often as it is said
        self.is_special = torch.isin(torch.arange(len(tokenizer)), special)

    def disturb(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts with words left out and others put between, each another share of both.

        Special tokens stay. Draws are torch's own, as those of dropout are.

        Args:
            input_ids: Contexts, (B, S).
            attention_mask: 1 where a token is real, (B, S).

        Returns:
            Tokens and mask, (B, longest), real tokens first.
        """
        real = attention_mask.bool()
        may_go = real & ~self.is_special.to(real.device)[input_ids]
        gone, strange = self.noise * torch.rand(2, len(input_ids), 1, device=real.device)
        stay = real & ~(may_go & (torch.rand_like(gone.expand_as(real)) < gone))
        come = may_go & (torch.rand_like(gone.expand_as(real)) < strange)
        drawn = torch.randint(len(self.words), input_ids.shape)
        strangers = self.words[drawn].to(real.device)
        tokens = torch.stack([strangers, input_ids], dim=2).flatten(1)
        mask = torch.stack([come, stay], dim=2).flatten(1)
        longest = int(mask.sum(1).max())
        order = (~mask).byte().argsort(dim=1, stable=True)[:, :longest]
        return tokens.gather(1, order), mask.gather(1, order).long()

    def loss(self, model: RnnSeq2SeqForConditionalGeneration, step: int) -> Tensor:
        """KL divergence from the model as it was, a token of a reply, on the batch of a step."""
        if not self.weight:
            return torch.zeros(())
        batch = self.collate(self._rows(step)).to(model.device)
        said = batch["labels"] != -100
        start = model.prepare_decoder_input_ids_from_labels(batch.pop("labels"))
        with torch.no_grad():
            self.before.to(model.device)
            targets = self._log_probabilities(self.before, batch, start, said)
        model.eval()  # dropout would be measured too
        with torch.backends.cudnn.flags(enabled=False):  # which learns in training mode alone
            predicted = self._log_probabilities(model, batch, start, said)
        model.train()
        return self.weight * F.kl_div(predicted, targets, log_target=True, reduction="batchmean")

    def _log_probabilities(
        self,
        model: RnnSeq2SeqForConditionalGeneration,
        batch: Mapping[str, Tensor],
        start: Tensor,
        said: Tensor,
    ) -> Tensor:
        logits = model(**batch, decoder_input_ids=start, use_cache=False).logits
        return logits[said].float().log_softmax(-1)

    def _rows(self, step: int) -> list[dict[str, list[int]]]:
        """Other rows in every step, until all had their turn: a function of seed and step."""
        epoch, place = divmod(step, len(self.talks) // self.batch_size)
        order = torch.randperm(
            len(self.talks), generator=torch.Generator().manual_seed(self.seed + epoch)
        )
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        return self.talks.select(chosen.tolist()).to_list()
