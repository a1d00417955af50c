"""What pages, tours and messages name is there: modules, and commands with their options."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mergepipe.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mergepipe"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HABITS = PACKAGE / "cli/habits.py"
"""Where what people type is understood that is no command."""
PACKAGES = {path.parent.name for path in PACKAGE.rglob("__init__.py")}
SPAN = re.compile(r"`([^`]+)`")
FILE = re.compile(r"(?P<folders>(?:[a-z_]\w*/)+)(?P<name>\w+)(?:\.(?P<ending>\w+))?")
TYPED = re.compile(r"^    (?:\$ )?(mp .*)$|`(mp\s[^`]+)`", re.M)
# What ends a command in a line of a shell, or is no word of it.
ENDS = re.compile(r"[|;&#>]")


def problem_of_file(text: str) -> str:
    """What is wrong with `packs/index`, `docs/cli.md`, `objects/grid.Grid`; nothing for no file."""
    match = FILE.fullmatch(text)
    if match is None or match["folders"].split("/")[0] not in {
        *PACKAGES, "docs", "tests", "benchmarks", "examples",
    }:  # fmt: skip
        return ""
    stem, ending = match["folders"] + match["name"], match["ending"]
    places = [root / stem for root in (ROOT, PACKAGE)]
    if ending is None:
        there = any(place.is_dir() or place.with_suffix(".py").is_file() for place in places)
        return "" if there else f"there is no {text}"
    if any(place.with_suffix(f".{ending}").is_file() for place in places):
        return ""
    for place in places:
        if place.with_suffix(".py").is_file():
            source = place.with_suffix(".py").read_text()
            there = re.search(rf"^(?:class|def) {ending}\b|^{ending}\b", source, re.M) is not None
            return "" if there else f"{stem} has no {ending}"
    return f"there is no {text}"


def problem_of_command(text: str) -> str:
    """What is wrong with `mp merge --dry-run A`."""
    command: Any = typer.main.get_command(app)
    options = {"--help", *spellings(command)}
    words = iter(ENDS.split(" ".join(text.split()), maxsplit=1)[0].split()[1:])
    for word in words:
        word = word.strip("[],.:)")
        if word.startswith("--"):
            option = re.split(r"[=\[]", word)[0]
            if len(option) > 2 and option not in options:
                return f"{text}: it has no {option}"
        elif word == "-C":
            next(words, None)
        elif re.fullmatch(r"[a-z][a-z-]*", word) and hasattr(command, "commands"):
            if word not in command.commands:
                return f"{text}: there is no {word}"
            command = command.commands[word]
            options |= spellings(command)
    return ""


def spellings(command: Any) -> set[str]:
    return {each for option in command.params for each in (*option.opts, *option.secondary_opts)}


def shown(text: str) -> Iterator[str]:
    """The commands that a page shows."""
    for line, span in TYPED.findall(text):
        yield line or span


def test_modules_and_files_that_pages_name_are_there() -> None:
    problems = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in PAGES
        for span in SPAN.findall(page.read_text())
        if (problem := problem_of_file(span))
    ]
    assert problems == []


def test_commands_that_pages_show_are_there() -> None:
    commands = [(page, command) for page in PAGES for command in shown(page.read_text())]
    assert len(commands) > 300
    problems = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page, command in commands
        if (problem := problem_of_command(command))
    ]
    assert problems == []


def test_the_checks_miss_nothing() -> None:
    assert problem_of_file("packs/gone") == "there is no packs/gone"
    assert problem_of_file("packs/index.Gone") == "packs/index has no Gone"
    assert problem_of_file("docs/gone.md") == "there is no docs/gone.md"
    assert problem_of_file("packs/index") == problem_of_file("objects/grid.Grid") == ""
    assert problem_of_command("mp -C there gone").endswith("there is no gone")
    assert problem_of_command("mp merge --gone A").endswith("it has no --gone")
    assert problem_of_command("mp remote add origin URL | mp gone") == ""


@pytest.mark.parametrize("package", sorted(PACKAGES - {"mergepipe"}))
def test_modules_that_a_tour_names_are_there(package: str) -> None:
    """`Who lives here`, at the head of a package: first words of its own."""
    [tour] = [path for path in PACKAGE.rglob("__init__.py") if path.parent.name == package]
    text = ast.get_docstring(ast.parse(tour.read_text())) or ""
    lives = re.search(r"Who lives here:(.*?)(?:\n\n|$)", text, re.DOTALL)
    if lives is None:
        return
    named = {span for span in SPAN.findall(lives[1]) if re.fullmatch(r"[a-z]\w*", span)}
    there = {path.stem for path in tour.parent.iterdir()} | PACKAGES
    sources = "\n".join(path.read_text() for path in tour.parent.glob("*.py") if path != tour)
    # Or what a module defines: a decorator, a codec by its name in records.
    there |= {name for name in named if re.search(rf'^def {name}\b|"{name}"', sources, re.M)}
    assert named - there == set()


def test_commands_that_messages_name_are_there() -> None:
    problems = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != HABITS
        for command in commands_in(ast.parse(path.read_text()))
        if (problem := problem_of_command(command))
    ]
    assert problems == []


def commands_in(source: ast.Module) -> Iterator[str]:
    """The commands in quotes of a source's strings."""
    for node in ast.walk(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"`(mp [a-z][^`]*)`", node.value)
