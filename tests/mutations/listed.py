"""docs/mutations.md: which test misses each check."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/mutations.md"
_ROW = re.compile(r"\| (\w+) \| `([^`]+)` \| (?:`(tests/[^`]+)`|open) \|")


def row(kind: str, name: str, test: str) -> str:
    """A line of the page; without a test, it is open."""
    return f"| {kind} | `{name}` | {f'`{test}`' if test else 'open'} |"


def listed() -> dict[str, tuple[str, str]]:
    """The kind and the test (empty: open) of each check, by its name."""
    rows = (_ROW.fullmatch(line) for line in PAGE.read_text().splitlines())
    return {match[2]: (match[1], match[3] or "") for match in rows if match}
