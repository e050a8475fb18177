"""The web chat: a Gradio page over `ChatSession`. Only this folder knows of Gradio."""

from chatbot.app.launch import launch_app

__all__ = ["launch_app"]
