"""Our client of the routes: OpenAI's package, which asks again for what was not answered.

It does so after a lost connection and after 408, 429 and 5xx, waiting longer each time. A stream
that breaks it leaves to us: before the first word it is asked again, after it never.
"""

from collections.abc import Iterator
from typing import Any

import openai

# With waits of 0.5 to 8 seconds about a minute: a new replica has loaded its model by then.
RETRIES = 10


class BrokenReplyError(ConnectionError):
    """A reply ended in the middle. `text` is what came of it."""

    def __init__(self, text: str):
        super().__init__(f"The reply broke off after {len(text)} characters.")
        self.text = text


def connect(url: str, api_key: str | None = None, retries: int = RETRIES) -> openai.OpenAI:
    """A client whose requests are sent again, at most `retries` times, until they are answered.

    Args:
        url: Of the routes, with `/v1`.
        api_key: That of the server. None: it has none.
    """
    return openai.OpenAI(base_url=url, api_key=api_key or "none", max_retries=retries)


def stream_reply(
    client: openai.OpenAI, model: str, messages: list[Any], **options: Any
) -> Iterator[str]:
    """The parts of a reply as they come; `options` are those of `chat.completions.create`.

    Raises:
        BrokenReplyError: It ended in the middle.
        openai.APIError: There is no answer, or a refusal.
    """
    asked: dict[str, Any] = {"model": model, "messages": messages, "stream": True, **options}
    for left in reversed(range(client.max_retries + 1)):
        text, cause = "", None
        with client.chat.completions.create(**asked) as chunks:
            try:
                for chunk in chunks:
                    [choice] = chunk.choices
                    if choice.delta.content:
                        text += choice.delta.content
                        yield choice.delta.content
                    if choice.finish_reason is not None:
                        return
            except openai.APIError as error:
                cause = error
        if text or not left:
            raise BrokenReplyError(text) from cause
