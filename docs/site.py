"""The documentation as a site: the pages of this folder, and reference pages made from the code.

python docs/site.py [--pages-only]      pages to build/docs, then the site to build/site

Links are strict: one that leads nowhere fails. What is in the reference is what the program itself
says: help texts, settings and their defaults, exit codes, docstrings.
"""

import argparse
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import mergepipe
from mergepipe import errors
from mergepipe.cli.main import app
from mergepipe.repository import config

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "docs"


def collect(pages: Path) -> None:
    """Copy the written pages and write the generated ones."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    reference = pages / "reference"
    reference.mkdir()
    (reference / "commands.md").write_text(commands_page())
    (reference / "settings.md").write_text(settings_page())
    (reference / "exit-codes.md").write_text(exit_codes_page())
    (reference / "python.md").write_text(python_page())


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in order."""
    group: Any = typer.main.get_command(app)
    waiting = [("mp", group)]
    while waiting:
        name, command = waiting.pop(0)
        children = getattr(command, "commands", None)
        if children is None:
            if not command.hidden:
                yield name, command
            continue
        waiting += [(f"{name} {child}", children[child]) for child in sorted(children)]


def commands_page() -> str:
    """What `--help` says of every command."""
    lines = ["# Commands and options", "", "As `mp COMMAND --help` has them.", ""]
    for name, command in commands():
        lines += [f"## {name}", "", _plain(command.help or ""), ""]
        options = [each for each in command.params if not getattr(each, "hidden", False)]
        rows = [(_spelled(each), getattr(each, "help", None) or "") for each in options]
        lines += [
            "| | |",
            "|---|---|",
            *(f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows),
        ]
        lines += [""]
    return "\n".join(lines)


def settings() -> list[tuple[str, Any]]:
    """Every setting with its default."""
    return list(config.Config().items())


def settings_page() -> str:
    """Every setting that `mp config` takes."""
    lines = [
        "# Settings",
        "",
        "`mp config KEY VALUE`; what they mean is in [the command line](../cli.md).",
        "",
    ]
    rows = [f"| `{key}` | `{default}` |" for key, default in settings()]
    return "\n".join([*lines, "| setting | default |", "|---|---|", *rows, ""])


def exit_codes() -> dict[int, list[type[errors.MergepipeError]]]:
    """The errors by their exit code."""
    by_code: dict[int, list[type[errors.MergepipeError]]] = {}
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.MergepipeError):
            by_code.setdefault(kind.exit_code, []).append(kind)
    return dict(sorted(by_code.items()))


def exit_codes_page() -> str:
    """Every error that has a code of its own."""
    lines = ["# Exit codes", "", "0 is success; 130 after Ctrl-C.", ""]
    lines += ["| code | kind | |", "|---|---|---|"]
    for code, kinds in exit_codes().items():
        for kind in kinds:
            first = (inspect.getdoc(kind) or "").partition("\n")[0]
            lines.append(f"| {code} | `{kind.kind}` | {_cell(first)} |")
    return "\n".join([*lines, ""])


def python_page() -> str:
    """The docstrings of all public names, with signatures."""
    lines = [
        "# Python, name by name",
        "",
        "What `help()` says. [From Python](../python.md) shows it in use.",
        "",
    ]
    for name in sorted(mergepipe.__all__):
        value = getattr(mergepipe, name)
        if inspect.isclass(value):
            lines += _documented(f"mergepipe.{name}", value, "##")
            for method, function in inspect.getmembers(value, inspect.isroutine):
                if not method.startswith("_"):
                    lines += _documented(f"{name}.{method}", function, "###")
        elif callable(value):
            lines += _documented(f"mergepipe.{name}", value, "##")
    return "\n".join(lines)


def _documented(name: str, value: Any, level: str) -> list[str]:
    try:
        signature = str(inspect.signature(value))
    except (ValueError, TypeError):
        signature = ""
    text = inspect.getdoc(value) or ""
    return [
        f"{level} {name}",
        "",
        "```text",
        f"{name}{signature}",
        "```",
        "",
        "```text",
        text,
        "```",
        "",
    ]


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _plain(text: str) -> str:
    return "\n".join(
        "" if line.strip() == "\b" else line for line in inspect.cleandoc(text).splitlines()
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Collect the pages, and build the site unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--pages-only", action="store_true", help="do not build the site")
    options = parser.parse_args()
    collect(PAGES)
    if options.pages_only:
        return 0
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
