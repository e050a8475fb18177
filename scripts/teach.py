"""How well 200 taught answers stick: taught questions, held-out paraphrases, open chat.

    python scripts/teach.py runs/teach                      continue from the shipped model
    python scripts/teach.py runs/teach --rehearse 0         any field of a run may be given
    python scripts/teach.py runs/teach --open-chat DATA     a prepared folder for the perplexity;
                                                            else our sample conversations

Ten places and twenty questions about each are taught in one wording. Asked again as taught, and in
three wordings that were not, an answer counts where greedy search gives it to the letter.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from chatbot.checkpoints import load_chatbot
from chatbot.data import load_prepared, prepare
from chatbot.decoding import generate_replies
from chatbot.evaluation import perplexity_by_source
from chatbot.hub_files import hub_config_path
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import generation_preset
from chatbot.training import train
from chatbot.training_model import load_start
from chatbot.training_run import load_run, parse_overrides

PLACES = [
    "pool", "library", "bakery", "museum", "campsite", "bike shop", "cinema", "zoo", "farm", "gym",
]  # fmt: skip
HOURS = ["six", "seven", "eight", "nine", "ten", "noon"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]
NAMES = ["anna", "peter", "maria", "tom", "lucy", "george", "emma", "frank", "julia", "oscar"]
STREETS = ["mill lane", "king street", "park road", "church street", "river road", "bridge street"]
NUMBERS = ["two", "three", "four", "five", "eight", "ten", "twelve", "twenty"]
COLORS = ["red", "blue", "green", "yellow", "white", "black"]
# The taught question, its answer, what fills the answer's gap, and three wordings never taught.
TOPICS: list[tuple[str, str, list[str], tuple[str, str, str]]] = [
    ("when does the {} open?", "the {} opens at {} in the morning.", HOURS,
     ("what time does the {} open?", "at what hour does the {} open up?",
      "i want to go to the {} early. when can i get in?")),
    ("when does the {} close?", "the {} closes at {} in the evening.", HOURS,
     ("what time does the {} close?", "how late is the {} open?", "when do they shut the {}?")),
    ("where is the {}?", "you will find the {} on {}.", STREETS,
     ("where can i find the {}?", "which street is the {} on?", "how do i get to the {}?")),
    ("how much is a ticket for the {}?", "a ticket for the {} is {} dollars.", NUMBERS,
     ("what does a ticket for the {} cost?", "what is the price of a ticket at the {}?",
      "how much do i have to pay to get into the {}?")),
    ("who runs the {}?", "the {} is run by {}.", NAMES,
     ("who is the boss of the {}?", "who is in charge of the {}?", "who is running the {}?")),
    ("which day is the {} closed?", "the {} is closed every {}.", DAYS,
     ("on which day is the {} closed?", "what day of the week is the {} not open?",
      "is there a day when the {} is closed?")),
    ("can i bring my dog to the {}?", "at the {} dogs must wait by the {} door.", COLORS,
     ("are dogs allowed at the {}?", "may i take my dog into the {}?",
      "is it okay if i come to the {} with a dog?")),
    ("where can i park at the {}?", "park behind the {}, by the {} gate.", COLORS,
     ("is there parking at the {}?", "where do i leave my car at the {}?",
      "is there a place to park near the {}?")),
    ("which bus goes to the {}?", "take bus number {1} to the {0}.", NUMBERS,
     ("what bus do i take to the {}?", "which bus stops at the {}?",
      "can i get to the {} by bus?")),
    ("can children visit the {}?", "children over {1} may visit the {0} alone.", NUMBERS,
     ("are children allowed at the {}?", "may children go to the {}?",
      "is the {} okay for children?")),
    ("how do i become a member of the {}?", "to join the {}, talk to {}.", NAMES,
     ("how can i become a member of the {}?", "i would like to be a member of the {}.",
      "what do i do to join the {}?")),
    ("how old is the {}?", "the {} is {} years old.", NUMBERS,
     ("how many years old is the {}?", "what is the age of the {}?",
      "for how many years has the {} been there?")),
    ("is there food at the {}?", "the {} sells soup on {}.", DAYS,
     ("can i get food at the {}?", "where can i eat at the {}?",
      "do they have any food at the {}?")),
    ("what color is the {}?", "the {} is painted {}.", COLORS,
     ("which color does the {} have?", "what is the color of the {}?",
      "in which color did they paint the {}?")),
    ("i lost my keys at the {}.", "lost things from the {} are with {}.", NAMES,
     ("i think i lost my keys at the {}.", "my keys are gone, i lost them at the {}.",
      "i left my keys at the {}. what now?")),
    ("do you have a job for me at the {}?", "for work at the {}, ask for {}.", NAMES,
     ("is there a job at the {}?", "i am looking for a job at the {}.", "can i work at the {}?")),
    ("how many people work at the {}?", "{1} people work at the {0}.", NUMBERS,
     ("how many people are working at the {}?", "what number of people work at the {}?",
      "how many workers does the {} have?")),
    ("is the {} quiet in the morning?", "the {} is most quiet on {}.", DAYS,
     ("when is the {} quiet?", "is it quiet at the {} in the mornings?",
      "when is a quiet time to visit the {}?")),
    ("can i rent the {} for a party?", "you can rent the {} for parties on {}.", DAYS,
     ("i want to rent the {} for a party.", "is it possible to have a party at the {}?",
      "could we rent the {} for our party?")),
    ("what can i win at the {}?", "the {} gives away {} balloons.", COLORS,
     ("is there something to win at the {}?", "which prize can i win at the {}?",
      "what can people win at the {}?")),
]  # fmt: skip

Pairs = list[tuple[str, str]]


def taught_and_asked() -> tuple[Pairs, Pairs]:
    """Question and answer of what is taught, and of the wordings that are not."""
    draw = random.Random(0)
    taught, asked = [], []
    for question, answer, values, wordings in TOPICS:
        for place in PLACES:
            reply = answer.format(place, draw.choice(values))
            taught.append((question.format(place), reply))
            asked += [(wording.format(place), reply) for wording in wordings]
    return taught, asked


def answered(
    model: RnnSeq2SeqForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, pairs: Pairs
) -> int:
    """How many questions greedy search answers to the letter."""
    greedy = generation_preset("greedy")
    right = 0
    for start in range(0, len(pairs), 50):
        part = pairs[start : start + 50]
        conversations = [[{"role": "user", "content": question}] for question, _ in part]
        replies = generate_replies(model, tokenizer, conversations, greedy, seed=0)
        right += sum(
            reply.lower() == answer for reply, (_, answer) in zip(replies, part, strict=True)
        )
    return right


def main(arguments: Sequence[str] | None = None) -> None:
    """Teach, ask, and print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="folder of the run, made anew")
    parser.add_argument("--open-chat", type=Path, help="folder that `chatbot prepare` wrote")
    options, rest = parser.parse_known_args(arguments)
    taught, asked = taught_and_asked()
    source = options.output.with_suffix(".jsonl")
    overrides = {"data": [str(source)], "output": str(options.output), **parse_overrides(rest)}
    run = load_run(None, overrides)
    start = load_start(run)
    if start is None:
        raise ValueError(f"start={run.start!r}: allowed is a model that chats already.")
    source.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in taught
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    began = time.monotonic(), sum(os.times()[:4])  # the latter of all threads and children
    train(run, overwrite=True)
    minutes, busy = (time.monotonic() - began[0]) / 60, sum(os.times()[:4]) - began[1]

    before, tokenizer = start
    after, _ = load_chatbot(options.output / "model")
    chat = options.open_chat
    if chat is None:
        chat = options.output / "open-chat"
        length = before.config.max_source_positions
        samples = [hub_config_path("sample_conversations")]
        prepare(samples, chat, tokenizer=tokenizer, max_source_tokens=length, overwrite=True)
    replies = load_prepared(chat, tokenizer)["test"]
    measured = [perplexity_by_source(model, tokenizer, replies) for model in (before, after)]
    print(f"\ntrained in {minutes:.1f} minutes, {busy:.0f} CPU seconds")
    right = answered(after, tokenizer, taught)
    print(f"taught questions answered as taught: {right} of {len(taught)}")
    print(f"held-out paraphrases: {answered(after, tokenizer, asked)} of {len(asked)}")
    for was, now in zip(*measured, strict=True):
        old, new = was.perplexity.per_token, now.perplexity.per_token
        print(f"open chat, {was.name}: perplexity {old:.2f} -> {new:.2f} ({new / old - 1:+.1%})")


if __name__ == "__main__":
    main()
