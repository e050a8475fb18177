"""A Gradio server that keeps nothing of what the page shows.

Gradio remembers for each open page, and an hour longer, the last value of each part, so that a link
to the state of a page can be made. Its queue holds the last request until the next one comes, and
what a closed tab did not fetch until 2,000 other pages have come. Here all of it is conversations.
"""

import asyncio
from typing import Any

from gradio.state_holder import SessionState, StateHolder

KNOWN_PAGES = 64  # one that is known no more is begun anew, and loses nothing
SECONDS_TO_FETCH = 60.0  # what a page asked for, once it is there


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
    queue, process_events = page._queue, page._queue.process_events
    timers: dict[str, asyncio.TimerHandle] = {}

    def drop(session: str) -> None:
        """What a page did not fetch since its last reply ended, unless more is on its way."""
        del timers[session]
        if all(event.session_hash != session for event in queue.event_ids_to_events.values()):
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)

    async def process_and_forget(events: list[Any], *details: Any) -> None:
        try:
            await process_events(events, *details)
        finally:
            for event in events:
                event.data = event.request = None
                session, loop = event.session_hash, asyncio.get_running_loop()
                if session in timers:
                    timers[session].cancel()
                timers[session] = loop.call_later(SECONDS_TO_FETCH, drop, session)

    page._queue.process_events = process_and_forget
