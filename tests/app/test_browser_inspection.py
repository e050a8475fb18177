"""Looking inside replies on the real page: what a person does, and what is seen."""

import csv
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import gradio as gr
import pytest
from browser_helpers import (
    HOST,
    PHONE,
    MakeBot,
    Visit,
    bots,
    box,
    button,
    finished,
    fits,
    free_port,
    picture,
    rows,
    say,
    status,
    text_of,
    users,
)
from playwright.sync_api import Locator, Page, expect

from chatbot.app import strings
from chatbot.app.launch import start
from chatbot.app.page import build_page

# The text of a reply before a word of it
BEFORE = """node => {
  let text = "";
  for (let part = node; (part = part.previousSibling); ) text = part.textContent + text;
  return text;
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def local_address(make_bot: MakeBot) -> Iterator[str]:
    """A page whose model has a window."""
    window = {"attention_window": "local-p", "attention_window_size": 2}
    page: gr.Blocks = build_page({"local": make_bot(attention="general", **window)}, secret="x")
    yield start(page, HOST, free_port())
    page.close(verbose=False)


def words(tab: Page) -> Locator:
    """Of the last reply."""
    return tab.locator(".message.bot").last.locator(".word")


def marks(tab: Page) -> Locator:
    return tab.locator("#history mark")


def lit(tab: Page) -> dict[str, float]:
    """The words that are lit, and how strongly."""
    found = "marks => marks.map(m => [m.textContent, Number(m.style.getPropertyValue('--weight'))])"
    return dict(marks(tab).evaluate_all(found))


def talk(tab: Page) -> None:
    say(tab, "How are you, <b>friend</b>?")
    finished(tab, 1)
    say(tab, "Tell me a JOKE")
    finished(tab, 2)


def panel(tab: Page) -> Locator:
    tab.get_by_text(strings.ATTENTION).click()
    return tab.locator("#inspection")


def test_a_word_lights_what_it_looked_at(visit: Visit) -> None:
    tab = visit()
    talk(tab)
    before = [text_of(users(tab).first), text_of(users(tab).last), text_of(bots(tab).first)]
    expect(marks(tab)).to_have_count(0)
    words(tab).nth(1).hover()
    expect(marks(tab).first).to_be_visible()
    seen = lit(tab)
    assert seen
    assert all(0 < weight <= 1 for weight in seen.values())
    assert "friend" in tab.locator(".message.user").first.inner_text()
    expect(users(tab)).to_have_text([before[0], before[1]])
    words(tab).nth(2).hover()
    expect(words(tab).nth(2)).to_have_class(re.compile("on"))
    assert lit(tab) != seen
    box(tab).hover()
    expect(marks(tab)).to_have_count(0)
    expect(bots(tab).first).to_have_text(before[2])
    rivals = tab.locator(".message.bot").first.locator(".word")
    rivals.first.hover()  # an earlier reply of this visit is looked into as well
    expect(marks(tab).first).to_be_visible()
    expect(users(tab).last.locator("mark")).to_have_count(0)  # it had not been said


def test_weights_in_the_conversation_are_those_of_the_heat_map(visit: Visit) -> None:
    tab = visit()
    say(tab, "how are you?")
    finished(tab, 1)
    inside = panel(tab)
    row = inside.locator(".heat tbody tr").nth(1)
    cells = row.locator("td").evaluate_all(
        "cells => cells.map(c => Number(c.style.getPropertyValue('--weight')))"
    )
    columns = inside.locator(".heat thead th").all_inner_texts()
    weights = {column.strip(): cell for column, cell in zip(columns, cells, strict=True)}
    row.hover()
    expect(marks(tab).first).to_be_attached()
    seen = lit(tab)
    assert {word: weights[word] for word in seen} == pytest.approx(seen)
    assert not set(seen) & {"<user>", "<end>", "<bot>"}


def test_everything_inside_by_keyboard(visit: Visit) -> None:
    tab = visit()
    talk(tab)
    reply = bots(tab).last
    for _ in range(30):
        tab.keyboard.press("Shift+Tab")
        if reply.evaluate("node => node === document.activeElement"):
            break
    expect(reply).to_be_focused()
    expect(words(tab).first).to_have_class(re.compile("on"))
    tab.keyboard.press("ArrowRight")
    expect(words(tab).nth(1)).to_have_class(re.compile("on"))
    expect(status(tab)).to_contain_text("looked at")
    tab.keyboard.press("Enter")
    others = tab.locator(".inside-word button.text")
    expect(others.first).to_be_visible()
    tab.keyboard.press("Escape")
    expect(others).to_have_count(0)
    expect(marks(tab).first).to_be_visible()
    box(tab).focus()
    expect(marks(tab)).to_have_count(0)
    expect(status(tab)).to_contain_text("tokens")


def test_another_word_begins_another_reply(visit: Visit) -> None:
    tab = visit()
    talk(tab)
    before = text_of(bots(tab).last)
    words(tab).nth(3).click()
    inside = tab.locator(".inside-word")
    expect(inside.locator("li")).to_have_count(5)
    picture(tab, "inside-word")
    begin = words(tab).nth(3).evaluate(BEFORE).strip()
    names = inside.locator("button.text").all_inner_texts()
    other = next(name for name in names if name.isalpha() and name != text_of(words(tab).nth(3)))
    inside.locator("button.text").get_by_text(other, exact=True).click()
    expect(bots(tab).last).not_to_have_text(before)
    finished(tab, 2)
    expect(inside).to_have_count(0)
    after = text_of(bots(tab).last).lower()
    assert begin
    assert after.startswith(begin.lower())
    assert after[len(begin) :].strip().startswith(other)


def test_an_earlier_reply_can_begin_otherwise(visit: Visit) -> None:
    tab = visit()
    talk(tab)
    tab.locator(".message.bot").first.locator(".word").nth(2).click()
    tab.locator(".inside-word button.text:enabled").last.click()
    expect(users(tab)).to_have_count(1)
    finished(tab, 1)


def test_why_this_reply(visit: Visit) -> None:
    tab = visit()
    say(tab, "how are you? " * 12)
    finished(tab, 1)
    say(tab, "tell me a joke, <i>please</i>")
    finished(tab, 2)
    inside = panel(tab)
    said = inside.locator("p").first.inner_text()
    cut = re.search(r"the last (\d) messages. Cut from its sight: the first (\d)\.", said)
    assert cut is not None
    read, unread = map(int, cut.groups())
    assert (read + unread, unread > 0) == (3, True)
    expect(inside).to_contain_text("your message “tell me a joke, <i>please</i>”")
    expect(inside).to_contain_text("nats on average")
    chips = inside.locator(".chip")
    assert text_of(chips.first.locator("small")).endswith("%")
    expect(tab.locator(".unread")).to_have_count(0)
    chips.nth(1).hover()
    expect(tab.locator(".unread")).to_have_count(unread)
    chips.nth(1).click()
    expect(tab.locator(".inside-word")).to_be_visible()
    button(tab, strings.CLOSE).click()
    expect(tab.locator(".inside-word")).to_have_count(0)


def test_the_heat_map_is_zoomed_and_saved(visit: Visit) -> None:
    tab = visit()
    say(tab, 'say "tea", <b>now</b>')
    finished(tab, 1)
    inside = panel(tab)
    table = inside.locator(".heat table")
    width = table.evaluate("node => node.offsetWidth")
    button(tab, strings.ZOOM_IN).click()
    assert table.evaluate("node => node.offsetWidth") > width
    for _ in range(2):
        button(tab, strings.ZOOM_OUT).click()
    assert table.evaluate("node => node.offsetWidth") < width
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    files = {}
    for kind in ("CSV", "SVG", "PNG"):
        with tab.expect_download() as download:
            button(tab, kind).click()
        files[download.value.suggested_filename] = download.value.path().read_bytes()
    assert list(files) == ["attention.csv", "attention.svg", "attention.png"]
    assert all(url.startswith(("blob:", "data:")) for url in requests)
    head, *lines = csv.reader(io.StringIO(files["attention.csv"].decode()))
    assert "".join(head[1:]) == '<user>say "tea", <b>now</b><end><bot>'
    for line in lines:
        assert sum(map(float, line[1:])) == pytest.approx(1, abs=1e-3)
    assert [line[0].strip() for line in lines] == inside.locator(".heat tbody th").all_inner_texts()
    svg = ElementTree.fromstring(files["attention.svg"])
    space = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{space}rect")) == 1 + len(lines) * (len(head) - 1)
    labels = [node.text for node in svg.findall(f"{space}text")]
    assert labels[: len(head) - 1] == [token.strip() or "␣" for token in head[1:]]
    assert files["attention.png"].startswith(b"\x89PNG")
    assert len(files["attention.png"]) > 2_000


def test_looks_of_this_visit_come_back(visit: Visit) -> None:
    tab = visit()
    say(tab, "first")
    finished(tab, 1)
    inside = panel(tab)
    expect(inside.locator(".heat")).to_be_visible()
    button(tab, strings.NEW).click()
    expect(inside).to_contain_text(strings.ATTENTION_EMPTY)
    say(tab, "second")
    finished(tab, 1)
    expect(inside).to_contain_text("your message “second”")
    rows(tab).get_by_text("first").click()
    expect(inside).to_contain_text("your message “first”")
    button(tab, strings.UNDO).click()
    expect(inside).to_contain_text(strings.ATTENTION_EMPTY)
    rows(tab).get_by_text("second").click()
    tab.reload()
    expect(users(tab)).to_have_text("second")
    panel(tab)
    expect(inside).to_contain_text(strings.ATTENTION_STOPPED)
    expect(tab.locator(".word")).to_have_count(0)


def test_a_fixed_text_says_so(visit: Visit) -> None:
    tab = visit()
    say(tab, "I want to kill myself")
    expect(bots(tab)).to_have_count(1)
    expect(tab.get_by_role("log")).to_have_attribute("aria-busy", "false")
    expect(panel(tab)).to_contain_text(strings.FIXED)
    expect(tab.locator("#inspection table, #history .word")).to_have_count(0)


def test_a_local_window_and_its_centre_are_seen(visit: Visit, local_address: str) -> None:
    tab = visit(local_address)
    say(tab, "how are you today, my friend? tell me a joke")
    finished(tab, 1)
    inside = panel(tab)
    expect(inside).to_contain_text("Local attention: 2 tokens on each side")
    reply_rows = inside.locator(".heat tbody tr")
    for at in range(3):
        assert 1 <= reply_rows.nth(at).locator("td.inside").count() <= 5
    words(tab).nth(1).click()
    expect(tab.locator(".inside-word")).to_contain_text("centre “")
    picture(tab, "local")


def test_inside_on_a_phone_in_the_dark(visit: Visit) -> None:
    tab = visit(viewport=PHONE, color_scheme="dark", has_touch=True)
    talk(tab)
    words(tab).nth(1).tap()
    expect(marks(tab).first).to_be_visible()
    inside_word = tab.locator(".inside-word")
    expect(inside_word).to_be_in_viewport(ratio=0.9)
    for at in range(5):
        fits(inside_word.locator("li").nth(at))
    expect(panel(tab).locator(".heat")).to_be_visible()
    for name in ("PNG", "SVG", "CSV", strings.ZOOM_IN):
        fits(button(tab, name))
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(tab, "inside-phone")
