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

# Looking inside a reply; numbers are filled in where braces stand
ATTENTION = "Look inside"
ATTENTION_EMPTY = "Send a message to see which words the reply looks at."
ATTENTION_NONE = (
    "This model has no attention: a single vector holds all that it has read, so there are no "
    "weights to show."
)
ATTENTION_STOPPED = "There is no look inside a reply that was stopped, or is from an earlier visit."
FIXED = "This is a fixed text: the model did not say it, so there is nothing to see inside."
INSTEAD = "A fixed text stands in the conversation. This is what the model itself would have said."
WORDS = "Reply. Arrow keys go from word to word and light what each looked at; Enter shows more."
WHY = "Why this reply?"
READ_ALL = "The model read the whole conversation: {} tokens (words and pieces of words)."
READ_SOME = "The model read {} tokens: the last {} messages. Cut from its sight: the first {}."
READ_PART = "The model read {} tokens: the end of your message. Everything before was cut."
DREW_ON = "The reply drew most on {}: {} of its attention."
YOUR_MESSAGE = "your message “{}”"
OWN_MESSAGE = "its own reply “{}”"
SPREAD = "Its attention had an entropy of {} nats on average: 0 is one token alone, {} all alike."
SURE = "Its words, and how likely the model found each. The stronger the colour, the likelier."
WINDOWS = {
    "recent": "Attention sees the newest tokens alone.",
    "local-m": "Local attention: {} tokens on each side of a centre, which moves on by one a word.",
    "local-p": "Local attention: {} tokens on each side of a centre that the model picks.",
}
CENTRE = "centre {}"
HEAT_MAP = "What each word looked at"
HEAT_HINT = "A row is a word of the reply, a column one that was read; colour is weight."
PROBABILITY = "{}: probability {}"
LOOKED_AT = "looked at {}"
ENTROPY = "entropy {} nats"
INSTEAD_OF = "Likeliest here. Click one and the reply goes on from there:"
CLOSE = "Close"
ZOOM_IN = "Larger"
ZOOM_OUT = "Smaller"
CANDIDATES = "All replies that were compared, best first"
CANDIDATE = "Reply"
SCORE = "log p"
RANK = "score"

BLANK = "Write something first: there was no text in that message."
THINKING = "…"
STOPPED = "Stopped."
NOTHING_TO_RETRY = "There is no message to answer again."
NOTHING_TO_UNDO = "There is nothing to take back."
NOTHING_TO_EDIT = "There is no such message to edit."
NOTHING_TO_CONTINUE = "There is no reply to go on with."
FULL = "This reply is too long to go on."
FAILED = "Something went wrong and there is no reply. Please try again, or clear the conversation."
BUSY = "Very many people are talking here just now. Please try again in a moment."
GOODBYE = "Goodbye."


# Who may use the server
AUTH_NEEDED = (
    "host={!r} lets other computers in. Say who may come: --auth USER:PASSWORD (or CHATBOT_AUTH), "
    "or --no-auth for everybody."
)
AUTH_TWICE = "auth and no_auth exclude each other; allowed: one of them."
BAD_AUTH = "auth: allowed is USER:PASSWORD, or @FILE with one a line, none of them empty."
ROUTES_OFF = (
    "OpenAI's routes are off: they need a key where others can come in (--api-key or "
    "CHATBOT_API_KEY)."
)
TOO_MANY = "That was more than {} messages in a minute. Please wait a little."
TOO_MANY_CALLS = "That was more than {} calls in a minute. Please wait a little."
BAD_CALL = "This call makes no sense here."

# How it works
HOW_IT_WORKS = "How it works"
CHAT = "Chat"
LESSON_ASKED = "Allowed: text, and a model of these: {}."
LESSON_BLANK = "Write a sentence first."
LESSON_CHARACTERS = "That has {:,} characters; allowed here: {}. Take one short sentence."
LESSON_LONG = "That is {} pieces of words; allowed here: {}. Take a shorter sentence."
LESSON_UNSEEN = "This word's weight is fixed: it is out of the window, or alone in it."
LESSON_NO_CHANGE = "This model has no attention that could be changed."
LESSON_CHANGE = "A change is attention off, or a weight from 0 to 1 of one word at one step."
LESSON_EXAMPLES = [  # what is read, what the articles have it answered, and what they say of it
    (
        "Which sport do you like the most?",
        "I love cricket",
        "In the article “I” looks at “you”, and “love” at “like”. Look where this model looks.",
    ),
    ("How are you", None, ""),
]
LESSON_TRANSLATIONS = [
    ("Stai attento Thomas", "Be careful Thomas", ""),
    ("Cosa vorresti ordinare?", "What would you like to order?", ""),
]
NO_CHAT = "None of these models chats: {}. Allowed: one that does, and these beside it."
LESSON_NO_TRANSLATOR = (
    "The articles translate too: “Stai attento Thomas” → “Be careful Thomas”. No model here knows "
    "Italian. Train one (docs/translation.md, 15 minutes), then start the page with both: "
    "chatbot serve hub_config/pretrained runs/it-en/model"
)
LESSON_FORMULAS = {
    "dot": "score = state · encoder state",
    "general": "score = state · W · encoder state",
    "concat": "score = v · tanh(W [state; encoder state])",
    "additive": "score = v · tanh(W · state before + U · encoder state)",
}
LESSON_PARTS = {  # title, and what happens there
    "words": (
        "Pieces",
        "The sentence is cut into pieces that the model knows; each is a number in its vocabulary. "
        "Marks such as <user> and <end> say who speaks and where a turn ends.",
    ),
    "encoder": (
        "Encoder",
        "It reads the pieces one by one{both}. After each it has a state: {memory_size} numbers "
        "for what it has read. The colours are the first eight. Pick a piece to see its numbers.",
    ),
    "fixed": (
        "Fixed vector",
        "What the encoder ends with is what the decoder begins with. It is as long for ten pieces "
        "as for a thousand: without attention, all that the decoder ever has of the sentence.",
    ),
    "decoder": (
        "Decoder",
        "It reads “{input}”, the piece before, and gets a new state of {hidden_size} numbers.",
    ),
    "scores": (
        "Scores",
        "How well does each encoder state fit what the decoder needs for its next piece? One score "
        "for each, higher is better.",
    ),
    "softmax": (
        "Softmax",
        "Scores become weights: each between 0 and 1, all together 1. The highest takes most.",
    ),
    "context": (
        "Context",
        "The encoder states, each times its weight, are added up: a new vector at every step.",
    ),
    "word": (
        "Next piece",
        "From state and context come the probabilities of all {decoder_vocab_size} pieces. "
        "{chosen}",
    ),
    "whole": (
        "The whole reply",
        "Each row is a piece of the reply, each column one that was read.",
    ),
}
LESSON = {
    "about": "Follow a sentence through the network. Every number here is computed now.",
    "sentence": "Your sentence",
    "model": "Model",
    "follow": "Reply",
    "own": "The model's own",
    "given": "This one:",
    "given_hint": "A reply to lead it along",
    "start": "Show",
    "examples": "From the articles",
    "reads": "It reads",
    "writes": "It writes",
    "back": "Back",
    "next": "Next",
    "step": "{at} of {all}",
    "keys": "← and → step, Home begins again",
    "screen": "Full screen",
    "parts": "Parts of the network",
    "embedding": "Embedding of “{word}”",
    "state": "State after “{word}”",
    "hidden": "Hidden state",
    "cell": "Cell state",
    "layer": ", layer {layer}",
    "decoder_state": "Decoder state",
    "both": ", in both directions",
    "first": "the first of {all} numbers",
    "zero": "This model's decoder begins with zeros: nothing passes but through attention.",
    "before": "The state before the step asks: the context then joins its input (Bahdanau).",
    "after": "The state after the step asks, then meets the context (Luong).",
    "window": "Crossed out: outside the window of this local attention.",
    "none": "No attention: there are no scores, no softmax and no context, and each piece of the "
    "reply has to come from the fixed vector and what was written since.",
    "chose": "It says the likeliest.",
    "forced": "The reply goes on with “{word}”, its choice number {rank}.",
    "copying": "Copying: {gate} of the probability comes from the vocabulary, the rest points at "
    "pieces that were read.",
    "says": "By itself it says: “{own}”",
    "says_changed": "After your change it says: “{own}”",
    "try": "Change something",
    "off": "Attention off",
    "off_said": "The context is all zeros at every step. Of the sentence, the decoder has only the "
    "fixed vector it began with. A model that was trained without attention makes more of that.",
    "weight": "Weight of “{word}” while it writes “{said}”",
    "weight_hint": "Pick a piece above and give it another weight: the others share the rest as "
    "before.",
    "weight_said": "You changed a weight at the step that writes “{word}”.",
    "undo": "Undo the change",
    "was": "before: {p}",
    "now": "After your change: {weight}",
    "sum": "Number {at}: {terms} + … = {sum}",
    "jump": "Go to this step",
    "nothing": "(nothing)",
}

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
