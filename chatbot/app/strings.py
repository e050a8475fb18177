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
YOU = "You"

# On the buttons of a message, and of the conversation
RETRY = "Retry"
CONTINUE = "Continue"
UNDO = "Undo"
CLEAR = "Clear"
EDIT = "Edit"
COPY = "Copy"
COPIED = "Copied."
NOT_COPIED = "The browser did not let the text be copied."
SAVE_EDIT = "Send"
CANCEL = "Cancel"
EDITING = "Edit your message. What came after it is dropped."
LIKE = "Good reply"
DISLIKE = "Bad reply"
CORRECT = "It should have said …"
CORRECTING = "It should have said:"
SAVE_CORRECTION = "Keep"
CORRECTED = "Corrected by you"

# The side bar
CONVERSATIONS = "Conversations"
SIDE_BAR = "Show or hide the conversations and settings"
NEW = "New conversation"
UNTITLED = "New conversation"
RENAME = "Rename"
DELETE = "Delete"
REALLY_DELETE = "Delete it for good"
KEEP = "Keep it"
NEW_NAME = "Name of the conversation"
IMPORT = "Import"
EXPORT_JSON = "JSON"
EXPORT_MARKDOWN = "Markdown"
EXPORT = "Export"
NO_CONVERSATIONS = "Conversations appear here, and stay in this browser."
STORED = "Kept in this browser alone: the newest {}."
NOTHING_TO_EXPORT = "There is nothing to export yet."
DROPPED = "The oldest conversations were dropped: the browser holds no more."
TOO_BIG = "This file is larger than a conversation can be."
UNREACHABLE = "The server does not answer. Please try again."
IMPORTED = "Imported."
KEEP_RATINGS = "Keep my ratings for training"

CONSENT = "May your ratings be kept?"
CONSENT_WHAT = (
    "The conversation up to a reply that you rate is written, with your rating, to a file on the "
    "computer that runs this page: {}. The model can be trained on it. You can change your mind in "
    "the side bar; what was written stays in that file."
)
CONSENT_YES = "Keep them"
CONSENT_NO = "No"
THANKS = "Kept. Thank you."
NOT_KEPT = "Not kept: “Keep my ratings for training” in the side bar is off."

SETTINGS = "How it answers"
MODEL = "Model"
PRESET = "Preset"
MY_OWN = "my own"
PRESET_HINT = (
    "lively: varied, word by word · careful: draws some replies and gives the best · precise: "
    "searches the likeliest reply · greedy: always the likeliest word"
)
RESET = "Reset"
SEED = "Seed"
SEED_HINT = "A number makes replies repeatable: a retry then says the same. Empty: chance."
TEMPERATURE = "Temperature"
TEMPERATURE_HINT = "Higher is bolder. 0: nothing is left to chance."
TOP_P = "Top-p"
TOP_P_HINT = "Draws from the likeliest words of this joint probability."
MAX_NEW_TOKENS = "Longest reply"
MAX_NEW_TOKENS_HINT = "In tokens: words and pieces of words."
NUM_BEAMS = "Beams"
NUM_BEAMS_HINT = "Replies that are compared. From 2 on nothing is left to chance."

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
NOTHING_TO_EDIT = "There is no such message to edit."
NOTHING_TO_CONTINUE = "There is no reply to go on with."
FAILED = "Something went wrong and there is no reply. Please try again, or clear the conversation."
GOODBYE = "Goodbye."


# Said when something cannot be done; what stands in braces is filled in
BAD_SEED = "seed={} is not possible; allowed: a whole number from 0, or nothing."
UNKNOWN_MODEL = "model {!r} is unknown; allowed: {}."
SAME_MODEL = "models: {}; allowed: each folder once."
UNKNOWN_RATING = (
    "feedback: allowed is {'messages': up to a reply, 'rating': 'like' or 'dislike', "
    "'correction': text or nothing}."
)
FILE = "the file"
BAD_FILE = (
    "This is no conversation: {}. Allowed: a file that was exported here, as JSON or as Markdown."
)
MARKDOWN_LINE = "line {} is {}"
FILE_PARTS = "it holds what cannot be shown ({})"
FILE_MESSAGES = "The file holds {} messages; allowed: 1 to {}."
FILE_LENGTH = "Message {} of the file has {:,} characters; allowed: 1 to {:,}."
FILE_TURNS = (
    "Message {} of the file is by the wrong speaker; allowed: you and the bot by turns, you first."
)


def cut(limit: int) -> str:
    """Said when a message was too long to be read."""
    return f"That was long: only its last {limit:,} characters were read."


def timing(tokens: int, first: float, total: float) -> str:
    """How long a reply took, as a quiet line."""
    return f"{tokens} tokens · {tokens / total:.0f} a second · the first after {first:.2f} s"


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
