"""From files of dialogues to a dataset that a model trains on.

In reading order: records (what a line holds), cleaning, splits, examples, preparation.
"""

from chatbot.data.cleaning import DropReason, clean_dialogue, clean_text
from chatbot.data.examples import Example, dialogue_examples
from chatbot.data.preparation import (
    REPORT_NAME,
    PreparationReport,
    load_prepared,
    prepare,
    training_texts,
)
from chatbot.data.records import (
    DataError,
    Dialogue,
    Message,
    SourceFile,
    find_files,
    read_dialogues,
)
from chatbot.data.splits import Split, is_test, normalized_text, split_of

__all__ = [
    "REPORT_NAME",
    "DataError",
    "Dialogue",
    "DropReason",
    "Example",
    "Message",
    "PreparationReport",
    "SourceFile",
    "Split",
    "clean_dialogue",
    "clean_text",
    "dialogue_examples",
    "find_files",
    "is_test",
    "load_prepared",
    "normalized_text",
    "prepare",
    "read_dialogues",
    "split_of",
    "training_texts",
]
