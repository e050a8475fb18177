"""A Gradio server that keeps nothing of what the page shows.

Gradio remembers for each open page, and an hour longer, the last value of each part, so that a link
to the state of a page can be made. And its queue holds the last request until the next one comes.
Here both are conversations.
"""

from typing import Any

from gradio.state_holder import SessionState, StateHolder

KNOWN_PAGES = 64  # one that is known no more is begun anew, and loses nothing


class ForgetfulState(SessionState):
    """What the server knows of one open page: which parts it has, and not what they show."""

    @property
    def config_values(self) -> dict[int, Any]:
        """What a link to the state of a page is made of: written here, and gone."""
        return {}

    @config_values.setter
    def config_values(self, values: dict[int, Any]) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


class ForgetfulHolder(StateHolder):
    """The pages that are open."""

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = ForgetfulState(self.blocks)
        return super().__getitem__(session_id)


def forget_values(app: Any, page: Any) -> None:
    """Make a server that has just been started forget; `app` serves `page`."""
    app.state_holder = ForgetfulHolder()
    page.state_session_capacity = KNOWN_PAGES
    app.state_holder.set_blocks(page)
    process_events = page._queue.process_events

    async def process_and_forget(events: list[Any], *details: Any) -> None:
        try:
            await process_events(events, *details)
        finally:
            for event in events:
                event.data = event.request = None

    page._queue.process_events = process_and_forget
