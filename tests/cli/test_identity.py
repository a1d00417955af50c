"""Who commits and when, from the environment."""

from pathlib import Path

import pytest

from mergepipe import Repository
from mergepipe.api.identity import identity, parse_date
from mergepipe.errors import UsageError


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1700000000", (1_700_000_000, 0)),
        ("@1700000000", (1_700_000_000, 0)),
        ("1700000000 +0230", (1_700_000_000, 150)),
        ("1700000000 -0100", (1_700_000_000, -60)),
        ("2023-11-14T22:13:20+00:00", (1_700_000_000, 0)),
        ("2023-11-14T23:13:20+01:00", (1_700_000_000, 60)),
        ("2023-11-14T22:13:20Z", (1_700_000_000, 0)),
        ("-1", (-1, 0)),
    ],
)
def test_dates(text: str, moment: tuple[int, int]) -> None:
    assert parse_date(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "2023-13-40", "99999999999999999", "1 2 3", "+"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(UsageError, match="not a date"):
        parse_date(text)


@pytest.mark.parametrize(
    ("environment", "configured", "author"),
    [
        ({"MP_AUTHOR": "Ada"}, "Bob", "Ada"),
        ({}, "Bob <bob@example.org>", "Bob <bob@example.org>"),
        ({"MP_AUTHOR": " \n"}, "Bob", "Bob"),
        ({"MP_AUTHOR": "A\x1bd\na  <a@b>"}, "", "A d a <a@b>"),
    ],
)
def test_authors(environment: dict[str, str], configured: str, author: str) -> None:
    assert identity(environment)(configured).author == author


def test_the_login_name_is_better_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    assert identity({})("").author == "grace"


def test_the_commit_date_beats_the_source_date() -> None:
    environment = {"MP_AUTHOR_DATE": "5 +0100", "SOURCE_DATE_EPOCH": "7"}
    assert identity(environment)("x").time == 5
    del environment["MP_AUTHOR_DATE"]
    assert identity(environment)("x").time == 7


def test_a_source_date_that_is_none() -> None:
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        identity({"SOURCE_DATE_EPOCH": "today"})("x")


@pytest.mark.parametrize("who", ["Ada", "Ada <ada@example.org>", "  Ada\tL. <a@b>  ", None])
def test_who_acts_as_a_person_writes_it(committed: Path, who: str | None) -> None:
    with Repository.open(committed, who=who) as repository:
        name = repository.signature().author
    assert name == " ".join((who or "Ada <ada@example.org>").split())


@pytest.mark.parametrize(
    "who", ["", " \n", "Ada <ada@example.org", "Ada > x", "a" * 1001, ("Ada", "a@b"), 7, b"Ada"]
)
def test_what_is_nobody_is_refused_at_once(committed: Path, who: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Repository.open(committed, who=who)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Repository.init(tmp_path / "new", who=who)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
