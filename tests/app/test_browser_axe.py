"""axe-core looks at the page as a screen reader meets it: nothing serious, nothing critical."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser_helpers import DESKTOP, PHONE, Visit, button, finished, say
from playwright.sync_api import Page, expect

from chatbot.app import strings

pytestmark = pytest.mark.browser


def faults(tab: Page) -> list[str]:
    """What axe finds that keeps people out."""
    found: Any = Axe().run(tab).response
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_keeps_people_out(visit: Visit, width: Any, colours: str) -> None:
    tab = visit(viewport=width, color_scheme=colours)
    assert faults(tab) == []
    say(tab, "hello there")
    finished(tab, 1)
    assert faults(tab) == []
    if width is PHONE:  # elsewhere it is open
        button(tab, strings.SIDE_BAR).click()
    tab.get_by_text(strings.SETTINGS).click()
    assert faults(tab) == []
    if width is PHONE:
        button(tab, strings.SIDE_BAR).click()
    tab.get_by_text(strings.ATTENTION).click()
    expect(tab.locator("#inspection tbody td[title]").first).to_be_visible()
    assert faults(tab) == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_how_it_works_keeps_nobody_out(visit: Visit, colours: str) -> None:
    tab = visit(color_scheme=colours)
    tab.get_by_role("link", name=strings.HOW_IT_WORKS).click()
    for part, _ in strings.LESSON_PARTS.values():
        button(tab, part).click()
        expect(tab.locator("#lesson h2")).to_have_text(part)
        assert faults(tab) == []


def test_axe_finds_what_is_wrong(visit: Visit) -> None:
    tab = visit()
    tab.evaluate("document.body.append(document.createElement('img'))")
    assert any("image-alt (critical)" in fault for fault in faults(tab))
