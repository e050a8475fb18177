"""The page: its parts, and which handler of `conversation` each button calls.

The conversation and the list of conversations are drawn by scripts (transcript.js, library.js):
what is typed or said is never markup, and conversations stay in the browser.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from chatbot.app import conversation, strings
from chatbot.app.conversation import Bot, View, read_history, without_surrogates
from chatbot.app.feedback import rating_function
from chatbot.app.lesson import MAX_CHARACTERS, Subject, lesson_function
from chatbot.app.library import (
    MAX_CONVERSATIONS,
    MAX_STORED_CHARACTERS,
    MAX_TITLE,
    STORAGE_KEY,
    read_conversation,
    write_json,
    write_markdown,
)
from chatbot.presets import DEFAULT_GENERATION_PRESET, generation_presets
from chatbot.serving.engine import EngineFullError
from chatbot.serving.guard import Rate, client_of

FOLDER = Path(__file__).parent
STYLE = FOLDER / "style.css"
# Replies at once, and requests that wait. Gradio's own limits are 1 and none.
CONCURRENT_REPLIES = 32
WAITING_REQUESTS = 128
CALLS = 10  # of the page's other functions, for each message that a client may send
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
SAME = "(...values) => values.length > 1 ? values : values[0]"
# the server that owed us the rest of a reply is gone; the browser has what was said
RELOAD_IF_RESTARTED = """async () => {
  const { root, app_id: ours } = window.gradio_config;
  const found = await fetch(`${root}/gradio_api/app_id`).then((it) => it.json(), () => null);
  if (found && found.app_id !== ours) window.location.reload();
}"""
SLIDERS = {  # of "my own": label, hint, least, most, step
    "temperature": (strings.TEMPERATURE, strings.TEMPERATURE_HINT, 0, 2, 0.05),
    "top_p": (strings.TOP_P, strings.TOP_P_HINT, 0.05, 1, 0.05),
    "max_new_tokens": (strings.MAX_NEW_TOKENS, strings.MAX_NEW_TOKENS_HINT, 4, 128, 1),
    "num_beams": (strings.NUM_BEAMS, strings.NUM_BEAMS_HINT, 1, 16, 1),
}

Update = Any  # what Gradio takes as the next value of a part of the page


def theme() -> gr.themes.Base:
    """Fonts of the system only, so that no other host is asked for one."""
    base = gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        radius_size="lg",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # darker than the theme has them: small text needs a contrast of 4.5
    return base.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        input_border_color="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_600",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
    )


def build_page(
    bots: Mapping[str, Bot],
    *,
    secret: str,
    feedback: Path | None = None,
    rate: Rate | None = None,
    translators: Mapping[str, Subject] | None = None,
) -> gr.Blocks:
    """The chat with some models, ready to be launched.

    Args:
        bots: By their names; the first answers unless another is picked.
        secret: Under which browsers keep conversations; another one cannot read them.
        feedback: File that ratings are appended to. None: there are none.
        rate: How many messages a client may send. None: any number.
        translators: Models of parallel text, by their names, for "How it works".
    """
    calls = None if rate is None else Rate(CALLS * rate.most)
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False) as page:
        store = gr.BrowserState(None, storage_key=STORAGE_KEY, secret=secret)
        with gr.Sidebar(label=strings.CONVERSATIONS, open=False, width=300, elem_id="side"):
            shelf = _shelf(feedback, calls)
            with gr.Accordion(strings.SETTINGS, open=False, elem_id="settings"):
                names = list(bots)
                visible = {"visible": len(names) > 1, "elem_id": "model"}
                model = gr.Dropdown(names, value=names[0], label=strings.MODEL, **visible)
                settings = _settings()
        gr.HTML(
            f"<header><h1>{strings.TITLE}</h1><p>{strings.TAGLINE}</p></header>", elem_id="head"
        )
        _Parts(feedback, calls).connect(bots, [model, *settings], rate)
        # without a function these run in the browser alone: no stored conversation reaches us
        page.load(None, store, shelf, js=SAME, **PRIVATE)
        shelf.change(None, shelf, store, js=SAME, **PRIVATE)
        gr.Navbar(main_page_name=strings.CHAT)
        gr.api(_program(bots, rate), api_name="chat", concurrency_limit=CONCURRENT_REPLIES)
    with page.route(strings.HOW_IT_WORKS, "how-it-works"):
        gr.Navbar(main_page_name=strings.CHAT)
        _lesson(bots, translators or {}, calls)
    # closed: no request gets past the queue
    page.queue(
        api_open=False, max_size=WAITING_REQUESTS, default_concurrency_limit=CONCURRENT_REPLIES
    )
    return page


class _Parts:
    """The parts of the page that a reply changes, in the order in which they are seen."""

    def __init__(self, feedback: Path | None, calls: Rate | None) -> None:
        self.transcript = _drawn_by(
            "transcript.js",
            {"messages": [], "status": "", "running": False, "done": True},
            elem_id="history",
            consent=feedback and strings.CONSENT_WHAT.format(feedback.absolute()),
            server_functions=[_called(rating_function(feedback), calls)] if feedback else None,
        )
        with gr.Row(elem_id="compose"):
            self.box = gr.Textbox(
                label=strings.MESSAGE,
                show_label=False,
                container=False,
                placeholder=strings.MESSAGE_HINT,
                lines=1,
                max_lines=6,
                scale=1,
                min_width=120,
                autofocus=True,
                elem_id="message",
            )
            small: dict[str, Any] = {"scale": 0, "min_width": 84}
            self.send = gr.Button(strings.SEND, variant="primary", elem_id="send", **small)
            self.stop = gr.Button(
                strings.STOP, variant="stop", visible=False, elem_id="stop", **small
            )
        self.inspection = _drawn_by("inspection.js", None, elem_id="inspection")
        self.outputs = [self.transcript, self.inspection, self.box, self.send, self.stop]

    def connect(self, bots: Mapping[str, Bot], settings: list[Any], rate: Rate | None) -> None:
        """Tell each button what to do."""

        def reply(
            event: gr.EventData,
            request: gr.Request,
            text: str,
            shown: Any,
            model: str,
            *choice: Any,
        ) -> Iterator[list[Update]]:
            if not _allowed(rate, request.request.scope):
                # without the conversation: what nobody fetches would be held
                raise gr.Error(strings.TOO_MANY.format(rate and rate.most), print_exception=False)
            # Gradio makes parts anew when it updates them: compared by name
            by_button = event.target.elem_id == self.transcript.elem_id
            asked = event._data if by_button else {"act": "send", "text": text}
            for view in _answered(asked, bots[model], _messages(shown), choice):
                yield _show(view, shown)

        # one event for all, so that only one reply at a time can be on its way
        replies = gr.on(
            [self.box.submit, self.send.click, self.transcript.submit],
            reply,
            [self.box, self.transcript, *settings],
            self.outputs,
            trigger_mode="once",
            **PRIVATE,
        )
        replies.then(_settle, self.transcript, self.outputs, **PRIVATE)
        self.stop.click(None, cancels=replies)
        self.stop.click(None, None, None, js=RELOAD_IF_RESTARTED, **PRIVATE)


def _drawn_by(script: str, value: Any, **options: Any) -> gr.HTML:
    """A part that a script of ours draws, with all our texts at hand."""
    words = {name: text for name, text in vars(strings).items() if name.isupper()}
    code = [(FOLDER / name).read_text("utf-8") for name in ("elements.js", script)]
    return gr.HTML(
        value,
        html_template="",
        js_on_load="\n".join(code),
        apply_default_css=False,
        words=words,
        **options,
    )


def _called(function: Callable[[Any], dict[str, Any]], calls: Rate | None) -> Callable[..., Any]:
    """A function for the page, to which anyone may send anything, often: what does not make sense,
    or is too much, is said."""

    def call(given: Any, request: gr.Request) -> dict[str, Any]:
        # here Gradio passes on what the web framework has, whatever the annotation
        if not _allowed(calls, request.scope):
            return {"error": strings.TOO_MANY_CALLS.format(calls and calls.most)}
        try:
            return function(given)
        except ValueError as error:
            return {"error": str(error)}
        except (AttributeError, LookupError, TypeError):
            return {"error": strings.BAD_CALL}

    call.__name__ = function.__name__
    return call


def _lesson(
    bots: Mapping[str, Bot], translators: Mapping[str, Subject], calls: Rate | None
) -> gr.HTML:
    """The page "How it works"."""
    chats = {name: Subject(bot.model, bot.tokenizer, bot.tokenizer) for name, bot in bots.items()}
    return _drawn_by(
        "lesson.js",
        None,
        elem_id="lesson",
        css_template=(FOLDER / "lesson.css").read_text("utf-8"),
        server_functions=[_called(lesson_function({**chats, **translators}), calls)],
        chats=list(chats),
        translators=list(translators),
        most=MAX_CHARACTERS,
    )


def _shelf(feedback: Path | None, calls: Rate | None) -> gr.HTML:
    """The list of conversations."""

    def read_file(text: Any) -> dict[str, Any]:
        """A conversation out of a file that was exported."""
        try:
            return {**read_conversation(str(text))}
        except ValueError as error:
            return {"error": str(error)}

    def write_file(asked: Any) -> dict[str, str]:
        """A conversation as the text of a file, `kind` json or md."""
        try:
            messages: Any = read_history(asked["messages"])
        except ValueError as error:
            return {"error": str(error)}
        write = write_markdown if asked["kind"] == "md" else write_json
        title = without_surrogates(str(asked["title"]))
        return {"text": write({"title": title, "messages": messages})}

    return _drawn_by(
        "library.js",
        None,
        elem_id="library",
        server_functions=[_called(function, calls) for function in (read_file, write_file)],
        rated=feedback is not None,
        note=strings.STORED.format(MAX_CONVERSATIONS),
        limits={
            "conversations": MAX_CONVERSATIONS,
            "characters": MAX_STORED_CHARACTERS,
            "title": MAX_TITLE,
        },
    )


def _settings() -> list[Any]:
    """The preset, what is one's own, and the seed, in the order of `choose_preset`."""
    presets = generation_presets()
    name = gr.Radio(
        [*presets, strings.MY_OWN],
        value=DEFAULT_GENERATION_PRESET,
        label=strings.PRESET,
        info=strings.PRESET_HINT,
        elem_id="preset",
    )

    def values(chosen: str) -> list[Any]:
        return [getattr(presets[chosen], field) for field in SLIDERS]

    with gr.Column(visible=False, elem_id="own") as own:
        initial = values(DEFAULT_GENERATION_PRESET)
        sliders = [
            gr.Slider(
                *(low, high, value),
                step=step,
                precision=0 if step == 1 else None,
                label=label,
                info=info,
                elem_id=field,
            )
            for (field, (label, info, low, high, step)), value in zip(
                SLIDERS.items(), initial, strict=True
            )
        ]
        seed = gr.Number(
            None, label=strings.SEED, info=strings.SEED_HINT, precision=0, elem_id="seed"
        )
    reset = gr.Button(strings.RESET, size="sm", elem_id="reset")

    def pick(chosen: str) -> list[Update]:
        """A preset's values are where one's own begin."""
        if chosen == strings.MY_OWN:
            return [gr.update(visible=True), *[gr.skip()] * len(sliders)]
        return [gr.update(visible=False), *values(chosen)]

    name.change(pick, name, [own, *sliders], queue=False, **PRIVATE)
    settings = [name, *sliders, seed]
    defaults = json.dumps([DEFAULT_GENERATION_PRESET, *initial, None])
    reset.click(None, None, settings, js=f"() => {defaults}", **PRIVATE)
    return settings


def _answered(
    asked: Any, bot: Bot, messages: list[dict[str, Any]], choice: tuple[Any, ...]
) -> Iterator[View]:
    """The views of what a person asked for. Closing this ends the model."""
    try:
        chosen = conversation.choose_preset(*choice)
    except ValueError as error:
        yield View(status=str(error))
        return
    act, text = asked.get("act"), str(asked.get("text", ""))
    if act == "retry":
        yield from conversation.retry(bot, messages, chosen)
    elif act == "continue":
        yield from conversation.go_on(bot, messages, chosen)
    elif act == "branch":
        yield from conversation.branch(bot, asked.get("index"), text, messages, chosen)
    elif act == "edit":
        yield from conversation.edit(bot, asked.get("index"), text, messages, chosen)
    else:
        yield from conversation.send(bot, text, messages, chosen)


def _messages(shown: Any) -> list[dict[str, Any]]:
    return read_history((shown or {}).get("messages"))


def _show(view: View, shown: Any, *, settled: bool = False) -> list[Update]:
    """Values for `_Parts.outputs`, when `shown` was on the page before.

    A whole reply is `done`, but runs until `_settle`: before that Gradio takes no other message.
    """
    messages = _messages(shown) if view.history is None else view.history
    running = view.history is not None and not settled
    done = not view.running
    return [
        {"messages": messages, "status": view.status, "running": running, "done": done},
        # as text: Gradio copies all values many times, number by number
        gr.skip() if view.inspection is None else {"json": json.dumps(view.inspection)},
        gr.skip() if view.box is None else view.box,
        gr.update(visible=not running),
        gr.update(visible=running),
    ]


def _settle(shown: Any) -> Update:
    """After a reply: one that was not done was stopped.

    Gradio calls this when the reply's last words have reached the page. What a Stop button itself
    sets may reach it before them, and is then overwritten.
    """
    if not (shown or {}).get("running"):
        return gr.skip()
    messages = _messages(shown)
    view = View(messages, str(shown["status"])) if shown["done"] else conversation.stop(messages)
    return _show(view, shown, settled=True)


def _allowed(rate: Rate | None, scope: Any) -> bool:
    """Whether the client of a request may send one more."""
    return rate is None or rate.allows(client_of(scope))


def _program(bots: Mapping[str, Bot], rate: Rate | None) -> Any:
    """What `gradio_client` calls as `/chat`."""

    def chat(
        message: str,
        history: list[dict[str, Any]] | None = None,
        preset: str | None = None,
        model: str | None = None,
        request: gr.Request | None = None,
    ) -> Iterator[str]:
        """Answer a message.

        Streams the reply as it grows, each time all of it; with a preset that compares whole
        replies, the reply at once.
        """
        try:
            if request is not None and not _allowed(rate, request.request.scope):
                raise ValueError(strings.TOO_MANY.format(rate and rate.most))
            if model is not None and model not in bots:
                raise ValueError(strings.UNKNOWN_MODEL.format(model, ", ".join(bots)))
            bot = bots[model or next(iter(bots))]
            yield from conversation.answer(bot, message, history, preset)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except EngineFullError as error:
            raise gr.Error(strings.BUSY, print_exception=False) from error

    # Gradio describes what one step yields
    chat.__annotations__["return"] = str
    return chat
