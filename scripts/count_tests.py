"""Say in one line how many tests a JUnit file holds: ``count_tests.py LABEL FILE``."""

import sys
from xml.etree import ElementTree


def count(path: str) -> tuple[int, int]:
    """Return how many tests passed and how many were skipped; the file is pytest's own, so that it can be trusted."""
    suites = ElementTree.parse(path).getroot().iter("testsuite")
    totals = [{key: int(suite.get(key, 0)) for key in ("tests", "errors", "failures", "skipped")} for suite in suites]
    skipped = sum(t["skipped"] for t in totals)
    return sum(t["tests"] - t["errors"] - t["failures"] for t in totals) - skipped, skipped


if __name__ == "__main__":
    label, path = sys.argv[1:]
    passed, skipped = count(path)
    print(f"{label}: {passed} passed" + (f", {skipped} skipped" if skipped else ""))
