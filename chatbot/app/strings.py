"""Every text that a person sees in the web chat, in one place."""

import reprlib

TITLE = "Wren"
TAGLINE = (
    "A small recurrent network with attention. It runs on this computer alone and makes things up."
)
WELCOME = "Say something, or pick a line to begin with."
EXAMPLES = [
    "Hello! How are you today?",
    "What do you like to eat?",
    "I had a long day at work.",
    "Tell me a joke.",
]

CONVERSATION = "Conversation"
MESSAGE = "Message"
MESSAGE_HINT = "Write a message …"
SEND = "Send"
STOP = "Stop"
RETRY = "Retry"
UNDO = "Undo"
CLEAR = "Clear"

SETTINGS = "How it answers"
PRESET = "Preset"
PRESET_HINT = (
    "lively: varied · careful: closer to the likely · precise: compares whole replies, so nothing "
    "streams · greedy: always the likeliest word"
)
TEMPERATURE = "Temperature"
TEMPERATURE_HINT = "Higher is bolder. 0: nothing is left to chance."
TOP_P = "Top-p"
TOP_P_HINT = "Draws from the likeliest words of this joint probability."
MAX_NEW_TOKENS = "Longest reply"
MAX_NEW_TOKENS_HINT = "In tokens: words and pieces of words."
NUM_BEAMS = "Beams"
NUM_BEAMS_HINT = "Replies that are compared."

ATTENTION = "Attention of the last reply"
ATTENTION_EMPTY = "Send a message to see which words the reply looks at."
ATTENTION_CAPTION = (
    "Each row is a word of the reply, each column a word that the network had read. The stronger "
    "the colour, the more it looked there while it wrote. Point at a cell for its weight."
)
ATTENTION_NONE = "This model has no attention: a single vector holds all that it has read."
ATTENTION_STOPPED = "A reply that was stopped is not looked into."
CANDIDATES = "All replies that were compared, best first"
CANDIDATE = "Reply"
SCORE = "log p"

BLANK = "Write something first: there was no text in that message."
THINKING = "…"
STOPPED = "Stopped."
NOTHING_TO_RETRY = "There is no message to answer again."
NOTHING_TO_UNDO = "There is nothing to take back."
FAILED = "Something went wrong and there is no reply. Please try again, or clear the conversation."
GOODBYE = "Goodbye."


def cut(limit: int) -> str:
    """Said when a message was too long to be read."""
    return f"That was long: only its last {limit:,} characters were read."


def timing(tokens: int, first: float, total: float) -> str:
    """How long a reply took, as a quiet line."""
    return f"{tokens} tokens in {total:.2f} s, the first after {first:.2f} s"


def weight(source: str, reply: str, value: float) -> str:
    """What a cell of the heat map says."""
    return f"“{reply}” looks at “{source}”: {value:.3f}"


def unknown_history(value: object) -> str:
    """Said to a program whose history is none."""
    return (
        "history: allowed is a list of {'role': 'user' or 'assistant', 'content': text}; "
        f"found {reprlib.repr(value)}."
    )


def not_text(value: object) -> str:
    """Said to a program whose message is none."""
    return f"message: must be text; found {reprlib.repr(value)}."


def port_busy(port: int, instead: int) -> str:
    """Said when the usual port is taken."""
    return f"Port {port} is busy; using {instead}."


def port_taken(port: int, host: str, reason: str) -> str:
    """Said when the port that was asked for cannot be had."""
    return (
        f"Port {port} on {host} cannot be used ({reason}). Stop the program that uses it, or name "
        "another one with --port."
    )


def no_port(first: int, last: int, host: str) -> str:
    """Said when the search for a port finds none."""
    return f"No port from {first} to {last} on {host} is free. Name one with --port."


def address(url: str) -> str:
    """Said when the page can be opened."""
    return f"The chat is at {url} (Ctrl-C ends it)"
