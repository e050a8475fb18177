"""Reading Markdown: code blocks, tables, links, and pages whose Python is run."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PRINT = re.compile(r"^ *print\(.*\)  # (.+)$", flags=re.MULTILINE)
TABLE = re.compile(r"(?:^\|.*\|\n)+", flags=re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(text) if name == language]


def links(text: str) -> list[str]:
    """Targets within the repository; code may hold what looks like a link."""
    prose = re.sub(r"`[^`\n]+`", "", FENCE.sub("", text))
    return [target for target in LINK.findall(prose) if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """What GitHub makes of headings."""
    titles = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(text: str, *columns: str) -> list[dict[str, str]]:
    """Rows of the tables that have these columns, cells without their backticks."""
    found: list[dict[str, str]] = []
    for lines in TABLE.findall(FENCE.sub("", text)):
        header, _, *rows = (
            [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in lines.splitlines()
        )
        if set(columns) <= set(header):
            found += [dict(zip(header, row, strict=True)) for row in rows]
    return found


def run_page(page: Path) -> dict[str, Any]:
    """Run the Python of a page from top to bottom; comments behind `print` say what it prints."""
    names: dict[str, Any] = {"__name__": page.stem}
    for program in blocks(page.read_text("utf-8"), "python"):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(program, page.name, "exec"), names)
        lines = iter(printed.getvalue().splitlines())
        for promise in PRINT.findall(program):
            assert promise in lines, f"{page.name}: {promise!r} is not printed (in this order)"
    return names
