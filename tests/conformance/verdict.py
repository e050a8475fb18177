"""What a run of transformers' tests says: a line for each variant, and what is wrong with it."""

from fnmatch import fnmatch

import pytest
from conformance.skips import SKIPS

LEAST_PASSES = 60
# What a test and its subtests come to; the last that occurs counts.
OUTCOMES = ("passed", "skipped", "failed")
Outcomes = dict[str, str]  # of each test of a variant


def problems(outcomes: Outcomes) -> list[str]:
    """What keeps a variant from conforming."""
    if not outcomes:
        return ["no test ran"]
    found = [f"{test} failed" for test in outcomes if outcomes[test] == "failed"]
    passes = list(outcomes.values()).count("passed")
    if passes < LEAST_PASSES:
        found.append(f"{passes} tests passed; at least {LEAST_PASSES} should")
    unlisted = {test for test in outcomes if outcomes[test] == "skipped"}
    for kind, reasons in SKIPS.items():
        for pattern in reasons:
            tests = {test for test in outcomes if fnmatch(test, pattern)}
            unlisted -= tests
            if not tests:
                found.append(f"skips.py lists {pattern}, which is no test")
            elif kind != "hardware" and any(outcomes[test] != "skipped" for test in tests):
                found.append(f"skips.py lists {pattern}, which ran")
    return found + [f"{test} was skipped, which skips.py does not list" for test in unlisted]


class Verdict:
    """A plugin of pytest that judges a run and fails it."""

    def __init__(self, variants: list[str]) -> None:
        self.variants: dict[str, Outcomes] = {variant: {} for variant in variants}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        _, variant, test = report.nodeid.split("::")
        before = self.variants[variant].get(test, "passed")
        self.variants[variant][test] = max(before, report.outcome, key=OUTCOMES.index)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if any(problems(outcomes) for outcomes in self.variants.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("conformance")
        for variant, outcomes in self.variants.items():
            counts = [f"{list(outcomes.values()).count(kind)} {kind}" for kind in OUTCOMES]
            terminalreporter.line(f"{variant:<20} {', '.join(counts)}")
            for problem in sorted(problems(outcomes)):
                terminalreporter.line(f"    {problem}", red=True)
