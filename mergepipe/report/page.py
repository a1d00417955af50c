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

_SMALL = 0.01
"""Of the energy of the part of layers that changes most: what holds less is not drawn."""
_FEW_CELLS = 300
"""Parts of experts in tensors that are shown without being asked for."""


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
    report = printable(report)
    # In a script element `</` ends the data, and `<!--` begins what hides its end.
    data = msgspec.json.encode(report).decode().replace("<", "\\u003c")
    return environment.from_string(source).render(
        report=report,
        figures=list(figures_of(report)),
        details=list(details(report)),
        few=len(report.cells) <= _FEW_CELLS,
        data=Markup(data),
        version=mergepipe.__version__,
    )


def printable(report: Report) -> Report:
    """The report with its names without what would turn the text around them, or is no text."""
    return msgspec.convert(_printable(msgspec.to_builtins(report)), Report)


def _printable(value: object) -> object:
    if isinstance(value, str):
        return escape_for_terminal(value)
    if isinstance(value, dict):
        return {key: _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_printable, value))
    return value


def figures_of(report: Report) -> Iterator[Figure]:
    """The pictures of what a `printable` report knows, but for `details`."""
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
    for name in dict.fromkeys(metric.name for metric in report.metrics):
        yield _drawn(
            f"Measured: {name}",
            figures.measured(report.metrics, name),
            "By the file of metrics and by notes.",
        )
    for map_ in _MAPS:
        known = [each for each in report.layers if getattr(each, map_.field) is not None]
        if known:
            chart = figures.layer_map(known, map_.field, map_.label)
            yield _drawn(map_.title, chart, f"Layers by experts: {map_.caption}")
    for field, label in (("conflict", "share in conflict"), ("cosine", "cosine of changes")):
        pairs = [pair for pair in report.pairs if getattr(pair, field) is not None]
        if len(pairs) > 1:
            yield _drawn(
                f"Experts to each other: {field}",
                figures.expert_pairs(pairs, field, label),
                f"Over all tensors. {_SAMPLED}",
            )
    if report.storage:
        yield _drawn(
            "What models take",
            figures.storage_bars(report.storage),
            "As files; stored alone, with what they lean on; and what removing one would free.",
        )
    if len(report.growth) > 1:
        yield _drawn(
            "How it grew",
            figures.growth_lines(report.growth),
            "The newest models, one after the other: their files, and the records that they need.",
        )
    if report.lineage:
        yield _drawn(
            "Lineage",
            figures.lineage_graph(report.lineage),
            "What came from what, the newest on top; the table below has links.",
        )


def details(report: Report) -> Iterator[Figure]:
    """Of each expert of a `printable` report, layers by parts: thousands of marks."""
    energies: dict[str, float] = {}
    for cell in report.cells:
        energies[cell.part] = energies.get(cell.part, 0.0) + (cell.energy or 0.0)
    small = {part for part, energy in energies.items() if energy < _SMALL * max(energies.values())}
    for map_ in _MAPS:
        known = [
            each
            for each in report.cells
            if each.layer is not None
            and each.part not in small
            and getattr(each, map_.field) is not None
        ]
        if known:
            chart = figures.heat_map(known, map_.field, map_.label)
            caption = f"An expert each: {map_.caption}"
            left_out = " Without parts that hardly change, like norms." if small else ""
            yield _drawn(f"{map_.title}, part by part", chart, caption + left_out)


class _Map(NamedTuple):
    """A heat map: of which field, how it is called, and what it shows."""

    field: str
    title: str
    label: str
    caption: str


_SAMPLED = (
    "Estimated from the signs that profiles keep of large changes, at up to 4,096 places of each "
    "tensor; no weight was read for it."
)
_MAPS = (
    _Map("energy", "Where the experts changed", "share of all energy", "share of all energy."),
    _Map("read", "What is read", "share of bytes read", "share of the exact merge's bytes."),
    _Map("kept", "What is kept", "share of energy kept", "share of its energy that is kept."),
    _Map(
        "conflict",
        "Where experts disagree",
        "share in conflict",
        "of the weights that it and another expert change much, the share that they change in "
        f"opposite directions; half where changes have nothing to do with each other. {_SAMPLED}",
    ),
    _Map(
        "cosine",
        "Where experts agree",
        "mean cosine",
        f"mean cosine of its change with those of the others. {_SAMPLED}",
    ),
)


def _drawn(title: str, chart: alt.TopLevelMixin, caption: str) -> Figure:
    return Figure(title, Markup(svg(chart)), caption)
