"""What people type as a budget."""

import pytest

from mergepipe.errors import UsageError
from mergepipe.planner.budget import Budget


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (None, None),
        ("none", None),
        ("4096", 4096),
        ("2GiB", 2 << 30),
        ("1.5 KiB", 1536),
        ("25%", 250),
        (" 12.5 % ", 125),
        ("raw:10%", 1000),
        ("RAW: 10%", 1000),
        ("0%", 0),
        ("150%", 1500),
    ],
)
def test_limits(text: str | None, limit: int | None) -> None:
    assert Budget.parse(text).limit_bytes(full_bytes=1000, raw_bytes=10_000) == limit


@pytest.mark.parametrize("text", ["lots", "-5%", "raw:5GiB", "%", "raw"])
def test_nonsense_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError, match="not a budget") as caught:
        Budget.parse(text)
    assert "25%" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10", "--budget 10%"),
        ("10%%", "--budget 10%"),
        ("5 %%", "--budget 5%"),
        ("0.1", "--budget 10%"),
        ("raw:10", "--budget raw:10%"),
        ("raw10%", "--budget raw:10%"),
        ("10 percent", "raw:10%"),
    ],
)
def test_what_was_surely_meant(text: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        Budget.parse(text)
    assert meant in caught.value.hint
