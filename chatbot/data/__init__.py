"""From files of dialogues to a dataset that a model trains on.

In reading order: records (what a line holds), sources (other formats), splits, steps, cleaning,
duplicates, dullness, workers, selection (which dialogues are kept), examples, example_files,
preparation, report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chatbot.data.cleaning import Cleaning, DropReason, clean_dialogue, clean_text
from chatbot.data.records import (
    DataError,
    Dialogue,
    Message,
    SourceFile,
    find_files,
    read_dialogues,
)
from chatbot.data.splits import Split, is_test, normalized_text, split_of

if TYPE_CHECKING:
    from chatbot.data.examples import Example, dialogue_examples
    from chatbot.data.preparation import (
        REPORT_NAME,
        PreparationReport,
        dialogue_shards,
        load_prepared,
        natural_task,
        prepare,
        training_texts,
    )
    from chatbot.data.report import write_report
    from chatbot.data.sources import SourceOptions, find_sources, read_source

# These import `datasets`, which who only chats has no need of: found when first used.
_LATER = ("examples", "preparation", "report", "sources")

__all__ = [
    "REPORT_NAME",
    "Cleaning",
    "DataError",
    "Dialogue",
    "DropReason",
    "Example",
    "Message",
    "PreparationReport",
    "SourceFile",
    "SourceOptions",
    "Split",
    "clean_dialogue",
    "clean_text",
    "dialogue_examples",
    "dialogue_shards",
    "find_files",
    "find_sources",
    "is_test",
    "load_prepared",
    "natural_task",
    "normalized_text",
    "prepare",
    "read_dialogues",
    "read_source",
    "split_of",
    "training_texts",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in map(import_module, (f"{__name__}.{part}" for part in _LATER)):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
