"""The page: its parts, and which handler of `conversation` each button calls."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import PreTrainedTokenizerFast

from chatbot.app import conversation, strings
from chatbot.app.conversation import Bot, View
from chatbot.app.inspection import hint
from chatbot.modeling import RnnSeq2SeqForConditionalGeneration
from chatbot.presets import DEFAULT_GENERATION_PRESET, generation_presets

STYLE = Path(__file__).with_name("style.css")
# Replies at once, and requests that wait. Gradio's own limits are 1 and none.
CONCURRENT_REPLIES = 16
WAITING_REQUESTS = 128
RUNNING = "running"  # marks the status line while a reply is on its way
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

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
    model: RnnSeq2SeqForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    **confidence: Any,
) -> gr.Blocks:
    """The chat with a model, ready to be launched; `confidence` as of `launch_app`."""
    bot = Bot(model, tokenizer, **confidence)
    with gr.Blocks(title=strings.TITLE, analytics_enabled=False) as page:
        gr.HTML(
            f"<header><h1>{strings.TITLE}</h1><p>{strings.TAGLINE}</p></header>", elem_id="head"
        )
        parts = _Parts()
        parts.connect(bot)
        gr.api(_program(bot), api_name="chat", concurrency_limit=CONCURRENT_REPLIES)
    page.queue(max_size=WAITING_REQUESTS, default_concurrency_limit=CONCURRENT_REPLIES)
    return page


class _Parts:
    """The parts of the page that change, in the order in which they are seen."""

    def __init__(self) -> None:
        self.history = gr.Chatbot(
            label=strings.CONVERSATION,
            show_label=False,
            elem_id="history",
            height=None,
            buttons=[],
            # with escaped text: nothing that is typed or said is ever markup
            render_markdown=False,
            latex_delimiters=[],
            sanitize_html=True,
            feedback_options=None,
            placeholder=f"<p>{strings.WELCOME}</p>",
            examples=[{"text": text} for text in strings.EXAMPLES],
        )
        self.status = gr.HTML(_status(""), elem_id="status")
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
            self.send = gr.Button(
                strings.SEND, variant="primary", scale=0, min_width=84, elem_id="send"
            )
            self.stop = gr.Button(
                strings.STOP, variant="stop", scale=0, min_width=84, visible=False, elem_id="stop"
            )
        with gr.Row(elem_id="tools"):
            small: dict[str, Any] = {"variant": "secondary", "size": "sm", "min_width": 72}
            self.retry = gr.Button(strings.RETRY, elem_id="retry", **small)
            self.undo = gr.Button(strings.UNDO, elem_id="undo", **small)
            self.clear = gr.Button(strings.CLEAR, elem_id="clear", **small)
        with gr.Accordion(strings.ATTENTION, open=False, elem_id="attention"):
            self.inspection = gr.HTML(hint(strings.ATTENTION_EMPTY), elem_id="inspection")
        with gr.Accordion(strings.SETTINGS, open=False, elem_id="settings"):
            self.settings = _settings()

    @property
    def outputs(self) -> list[Any]:
        """What `show` gives values for."""
        return [
            self.history,
            self.status,
            self.inspection,
            self.box,
            self.send,
            self.stop,
            self.retry,
            self.undo,
            self.clear,
        ]

    def connect(self, bot: Bot) -> None:
        """Tell each button what to do."""

        def reply(
            event: gr.EventData, text: str, history: Any, *settings: Any
        ) -> Iterator[list[Update]]:
            # Gradio makes parts anew when it updates them: compared by name
            if event.target.elem_id == self.retry.elem_id:
                yield from _shown(conversation.retry, bot, history, settings=settings)
                return
            if event.target.elem_id == self.history.elem_id:  # an example was picked
                text = event.value["text"]
            yield from _shown(conversation.send, bot, text, history, settings=settings)

        outputs = self.outputs
        # one event for all, so that only one reply at a time can be on its way
        replies = gr.on(
            [self.box.submit, self.send.click, self.retry.click, self.history.example_select],
            reply,
            [self.box, self.history, *self.settings],
            outputs,
            trigger_mode="once",
            **PRIVATE,
        )
        replies.then(_settle, [self.history, self.status], outputs, **PRIVATE)
        self.stop.click(None, cancels=replies)
        self.undo.click(
            lambda history: _show(conversation.undo(history)), self.history, outputs, **PRIVATE
        )
        self.clear.click(lambda: _show(conversation.clear()), None, outputs, **PRIVATE)


def _settings() -> list[Any]:
    """The preset and its sliders, in the order of `choose_preset`."""
    presets = generation_presets()
    default = presets[DEFAULT_GENERATION_PRESET]
    name = gr.Radio(
        list(presets),
        value=DEFAULT_GENERATION_PRESET,
        label=strings.PRESET,
        info=strings.PRESET_HINT,
        elem_id="preset",
    )
    with gr.Row():
        temperature = gr.Slider(
            0,
            2,
            default.temperature,
            step=0.05,
            label=strings.TEMPERATURE,
            info=strings.TEMPERATURE_HINT,
            elem_id="temperature",
        )
        top_p = gr.Slider(
            0.05,
            1,
            default.top_p,
            step=0.05,
            label=strings.TOP_P,
            info=strings.TOP_P_HINT,
            elem_id="top-p",
        )
        beams = gr.Slider(
            2,
            16,
            4,
            step=1,
            label=strings.NUM_BEAMS,
            info=strings.NUM_BEAMS_HINT,
            visible=not default.can_stream,
            elem_id="beams",
        )
        longest = gr.Slider(
            4,
            128,
            default.max_new_tokens,
            step=1,
            label=strings.MAX_NEW_TOKENS,
            info=strings.MAX_NEW_TOKENS_HINT,
            elem_id="longest",
        )
    sliders = [temperature, top_p, longest, beams]

    def pick(chosen: str) -> list[Update]:
        preset = presets[chosen]
        return [
            gr.update(value=preset.temperature, visible=preset.can_stream),
            gr.update(value=preset.top_p, visible=preset.can_stream),
            preset.max_new_tokens,
            gr.update(value=max(2, preset.num_beams), visible=not preset.can_stream),
        ]

    name.change(pick, name, sliders, queue=False, **PRIVATE)
    return [name, *sliders]


def _shown(handler: Any, *arguments: Any, settings: tuple[Any, ...]) -> Iterator[list[Update]]:
    """The views of a handler that answers. Closing this ends the model."""
    try:
        preset = conversation.choose_preset(*settings)
    except ValueError as error:
        yield _show(View(status=str(error)))
        return
    for view in handler(*arguments, preset):
        yield _show(view)


def _show(view: View) -> list[Update]:
    """Values for `_Parts.outputs`."""
    return [
        gr.skip() if view.history is None else view.history,
        _status(view.status, view.running),
        gr.skip() if view.inspection is None else view.inspection,
        gr.skip() if view.box is None else view.box,
        gr.update(visible=not view.running),
        gr.update(visible=view.running),
        *[gr.update(interactive=not view.running)] * 3,
    ]


def _status(text: str, running: bool = False) -> str:
    return f'<p role="status" class="{RUNNING if running else ""}">{escape(text)}</p>'


def _settle(history: Any, status: str) -> Update:
    """After a reply: if it was still running, it was stopped.

    Gradio calls this when the reply's last words have reached the page. What a Stop button itself
    sets may reach it before them, and is then overwritten.
    """
    if RUNNING not in status:
        return gr.skip()
    return _show(conversation.stop(history))


def _program(bot: Bot) -> Any:
    """What `gradio_client` calls as `/chat`."""

    def chat(
        message: str, history: list[dict[str, Any]] | None = None, preset: str | None = None
    ) -> Iterator[str]:
        """Answer a message.

        Streams the reply as it grows, each time all of it; with a preset that compares whole
        replies, the reply at once.
        """
        try:
            yield from conversation.answer(bot, message, history, preset)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    # Gradio describes what one step yields
    chat.__annotations__["return"] = str
    return chat
