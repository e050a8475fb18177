"""What an Inference Endpoint calls: a text, or messages, in; the reply out, as in the chat.

{"inputs": "hello!"} or {"inputs": [{"role": "user", "content": "hello!"}]}, and if wanted
{"parameters": {"preset": "careful", "seed": 1}}, give [{"generated_text": "Hello!"}].
"""

from typing import Any

from chatbot.chat import ChatSession


class EndpointHandler:
    """The endpoint: made once, called for each request."""

    def __init__(self, path: str = ""):
        first = ChatSession.from_pretrained(path)
        self.model, self.tokenizer = first.model, first.tokenizer

    def __call__(self, data: dict[str, Any]) -> list[dict[str, str]]:
        inputs, parameters = data["inputs"], data.get("parameters") or {}
        messages = [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs
        if not messages or messages[-1].get("role") != "user":
            raise ValueError(f"inputs={inputs!r}: allowed: a text, or messages up to a user's")
        session = ChatSession(self.model, self.tokenizer, messages=messages[:-1], **parameters)
        return [{"generated_text": session.reply(messages[-1]["content"]).text}]
