"""With CTXPRUNE_ALL_TESTS=1 a test that would be skipped fails instead, so that no test goes unrun unnoticed."""

import os
from collections.abc import Generator

import pytest

VARIABLE = "CTXPRUNE_ALL_TESTS"


def refused(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that says why it was one; what fails as expected stays as it is."""
    if not os.environ.get(VARIABLE) or not report.skipped or hasattr(report, "wasxfail"):
        return
    path, line, reason = report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{path}:{line}: {reason}\n{VARIABLE} is set, so every test must run: install what it needs"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refused(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a file that needs a package as a whole."""
    report = yield
    refused(report)
    return report
