"""The chat in the browser, with the model that lies beside this file."""

import os
from pathlib import Path

from chatbot.app import launch_app

# the Hub's proxy says who calls
os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")
launch_app(
    Path(__file__).parent / "model",
    host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
    port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
    open_browser=False,
    no_auth=True,
)
