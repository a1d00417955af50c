"""A report as one HTML page: `page.html`, filled."""

from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import altair as alt
import jinja2
import msgspec
from markupsafe import Markup

import mergepipe
from mergepipe.names import escape_for_terminal
from mergepipe.report import figures
from mergepipe.report.drawing import svg
from mergepipe.report.values import Report
from mergepipe.sizes import format_size

_LANES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


class Figure(NamedTuple):
    """A picture with what stands above and below it."""

    title: str
    picture: Markup
    caption: str


def page(report: Report) -> str:
    """The page, whole: no request to anywhere, no script; the data as JSON at its end."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["size"] = format_size
    source = resources.files("mergepipe.report").joinpath("page.html").read_text("utf-8")
    report = msgspec.convert(_printable(msgspec.to_builtins(report)), Report)
    # In a script element `</` ends the data, and `<!--` begins what hides its end.
    data = msgspec.json.encode(report).decode().replace("<", "\\u003c")
    return environment.from_string(source).render(
        report=report,
        figures=list(figures_of(report)),
        data=Markup(data),
        version=mergepipe.__version__,
    )


def _printable(value: object) -> object:
    """Names without what would turn the text around them, or is no text at all."""
    if isinstance(value, str):
        return escape_for_terminal(value)
    if isinstance(value, dict):
        return {key: _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_printable, value))
    return value


def figures_of(report: Report) -> Iterator[Figure]:
    """The pictures of what a report knows."""
    if report.curve:
        yield _drawn(
            "What a budget buys",
            figures.budget_curve(report.curve, report.chosen),
            "The most energy that can be kept with so many bytes of the experts. "
            "The large point is this one.",
        )
    if any(model.role == "expert" for model in report.models):
        yield _drawn(
            "What is read of each expert",
            figures.experts_read(report.models),
            "Beside what the exact merge reads.",
        )
    maps = (
        ("energy", "Where the experts changed", "share of all energy", True),
        ("read", "What is read", "share of bytes read", True),
        ("kept", "What is kept", "share of energy kept", True),
    )
    for field, title, label, shares in maps:
        known = [
            each
            for each in report.cells
            if each.layer is not None and getattr(each, field) is not None
        ]
        if known:
            chart = figures.heat_map(known, field, label, shares=field != "energy" and shares)
            yield _drawn(title, chart, f"Layers by parts, an expert each: {label}.")
    if report.storage:
        yield _drawn(
            "What models take",
            figures.storage_bars(report.storage),
            "As files; stored alone, with what they lean on; and what removing one would free.",
        )


def _drawn(title: str, chart: alt.TopLevelMixin, caption: str) -> Figure:
    return Figure(title, Markup(svg(chart)), caption)
