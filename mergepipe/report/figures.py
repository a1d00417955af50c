"""Charts of a report's values: each function returns Altair's own chart, which notebooks show.

Altair, because its charts are declarations: they hold their data, are drawn by the same compiler to
SVG without a browser (`drawing`), and are kept up by the people of Vega.
"""

from collections.abc import Mapping, Sequence

import altair as alt
import msgspec

from mergepipe.report.values import (
    Cell,
    Commit,
    CurvePoint,
    Grown,
    Layer,
    Metric,
    Model,
    Pair,
    Stored,
    Value,
)

_WIDTH = 640
# Read in grey and by the colour-blind; dark is little in light pages and dark ones alike.
_SCALE = alt.Scale(scheme="viridis")
_SHARE = alt.Scale(scheme="viridis", domain=[0, 1])
_ABOVE = alt.Legend(orient="top")
_TITLE = 60  # characters of a commit's title
_ON_DARK, _ON_LIGHT = "#fff", "#111"


def _data(rows: Sequence[Value] | Sequence[Mapping[str, object]]) -> alt.InlineData:
    """Rows as one text of JSON: as objects, Altair would check each of thousands."""
    text = msgspec.json.encode(rows).decode()
    return alt.InlineData(values=text, format=alt.JsonDataFormat(type="json"))


def budget_curve(curve: Sequence[CurvePoint], chosen: CurvePoint | None) -> alt.LayerChart:
    """Energy kept against expert bytes read; the chosen point stands out."""
    x = alt.X("bytes:Q", title="expert bytes read", axis=alt.Axis(format="~s"))
    y = alt.Y("energy_kept:Q", title="energy kept", axis=alt.Axis(format="%"))
    tooltip = [alt.Tooltip("bytes:Q", format=","), alt.Tooltip("energy_kept:Q", format=".1%")]
    line: alt.Chart = alt.Chart(_data(curve)).mark_line(point=True).encode(x, y, tooltip=tooltip)
    marked = [] if chosen is None else [chosen]
    point: alt.Chart = (
        alt.Chart(_data(marked))
        .mark_point(size=160, filled=True, color="#d55e00")
        .encode(x, y, tooltip=tooltip)
    )
    return alt.LayerChart(layer=[line, point]).properties(width=_WIDTH, height=220)


def layer_map(layers: Sequence[Layer], field: str, title: str) -> alt.Chart:
    """Layers by experts; `field` of a layer is the colour."""
    inside = [each for each in layers if getattr(each, field) is not None]
    numbers = sorted({each.layer for each in inside})
    rows = [
        {**row, "shown": f"{row['expert']}, layer {row['layer']}: {_number(row[field], field)}"}
        for row in map(msgspec.structs.asdict, inside)
    ]
    experts = alt.Y("expert:N", title=None, sort=None, axis=alt.Axis(labelLimit=120))
    return _map(rows, numbers, experts, "expert:N", field, title).properties(height=alt.Step(16))


def heat_map(cells: Sequence[Cell], field: str, title: str) -> alt.FacetChart:
    """Layers by parts of a layer, one panel for each expert; `field` of a cell is the colour."""
    inside = [cell for cell in cells if cell.layer is not None and getattr(cell, field) is not None]
    numbers = sorted({cell.layer for cell in inside if cell.layer is not None})
    rows = [
        {
            "expert": cell.expert,
            "layer": cell.layer,
            "part": cell.part,
            field: getattr(cell, field),
            "shown": f"{cell.layer} {cell.part}: {_number(getattr(cell, field), field)}",
        }
        for cell in inside
    ]
    parts = alt.Y("part:N", title=None, sort=None, axis=alt.Axis(labelLimit=140))
    chart = _map(rows, numbers, parts, "part:N", field, title).properties(height=alt.Step(12))
    header = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="bold")
    row = alt.Row("expert:N", title=None, sort=None, header=header)
    panels: alt.FacetChart = chart.facet(row=row, spacing=8)
    return panels


def _map(
    rows: Sequence[Mapping[str, object]],
    numbers: Sequence[int],
    y: alt.Y,
    told: str,
    field: str,
    title: str,
) -> alt.Chart:
    """Rectangles by layer and `y`; `field` of a row is the colour, `told` names it on hovering."""
    chart: alt.Chart = (
        alt.Chart(_data(rows))
        .mark_rect()
        .encode(
            x=_layers(numbers),
            y=y,
            color=_colour(field, title),
            tooltip=[told, "layer:O", alt.Tooltip(f"{field}:Q", format=".3g")],
            description="shown:N",
        )
        .properties(width=_across(len(numbers)))
    )
    return chart


def expert_pairs(pairs: Sequence[Pair], field: str, title: str) -> alt.LayerChart:
    """Experts by experts: `field` of a pair as colour, and as a number."""
    known = [pair for pair in pairs if getattr(pair, field) is not None]
    rows = [
        {"one": one, "other": other, field: getattr(pair, field)}
        for pair in known
        for one, other in ((pair.first, pair.second), (pair.second, pair.first))
    ]
    order = list(dict.fromkeys(name for pair in known for name in (pair.first, pair.second)))
    axis = alt.Axis(labelAngle=-40, labelLimit=120)
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("one:N", title=None, sort=order, axis=axis),
        y=alt.Y("other:N", title=None, sort=order, axis=alt.Axis(labelLimit=120)),
    )
    marks = base.mark_rect().encode(
        color=_colour(field, title),
        tooltip=["one:N", "other:N", alt.Tooltip(f"{field}:Q", format=".3f")],
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text(f"{field}:Q", format=".2f"),
        color=alt.value(_ON_DARK)
        if field == "cosine"
        else alt.condition(f"datum.{field} > 0.6", alt.value(_ON_LIGHT), alt.value(_ON_DARK)),
    )
    size = max(44 * len(order), 120)
    return alt.LayerChart(layer=[marks, numbers]).properties(width=size, height=size * 5 // 8)


def _number(value: float, field: str) -> str:
    return f"{value:.3f}" if field == "cosine" else f"{100 * value:.3g}%"


def _layers(numbers: Sequence[int]) -> alt.X:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 10_000) if len(numbers) <= 20 * step)
    axis = alt.Axis(values=[each for each in numbers if each % step == 0], labelAngle=0)
    return alt.X("layer:O", title="layer", axis=axis)


def _across(columns: int) -> int:
    return min(_WIDTH, 28 * columns)


def _colour(field: str, title: str) -> alt.Color:
    shares = field in ("read", "kept", "conflict")
    return alt.Color(
        f"{field}:Q",
        title=title,
        scale=_SHARE if shares else _SCALE,
        legend=alt.Legend(
            format="%" if shares else ".2f" if field == "cosine" else ".2%",
            orient="top",
            gradientLength=160,
            titleLimit=400,
        ),
    )


def lineage_graph(commits: Sequence[Commit]) -> alt.LayerChart:
    """Commits as dots, the newest on top, with lines to their parents and what they began from."""
    places = {each.commit: row for row, each in enumerate(commits)}
    lanes = {each.commit: each.lane for each in commits}
    edges = [
        {
            "row": places[each.commit],
            "lane": each.lane,
            "below": places[other],
            "beside": lanes[other],
            "kind": kind,
        }
        for each in commits
        for other, kind in (
            *((parent, "parent") for parent in each.parents),
            *(((each.base, "trained from"),) if each.base not in (None, *each.parents) else ()),
        )
        if other is not None
    ]
    nodes = [
        {
            "row": places[each.commit],
            "lane": each.lane,
            "kind": "merge" if each.merge else "model",
            "text": _line(each),
            "shown": f"{each.commit[:12]} {each.title}",
        }
        for each in commits
    ]
    widest = max(lanes.values(), default=0) + 1
    x = alt.X("lane:Q", axis=None, scale=alt.Scale(domain=[-0.5, _WIDTH / 18]))
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[len(commits) - 0.5, -0.5]))
    lines = (
        alt.Chart(_data(edges))
        .mark_rule(strokeWidth=1.5, color="#888")
        .encode(
            x=x,
            y=y,
            x2="beside:Q",
            y2="below:Q",
            strokeDash=alt.StrokeDash(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=["parent", "trained from"], range=[[1, 0], [4, 3]]),
                legend=_ABOVE,
            ),
        )
    )
    dots = alt.Chart(_data(nodes))
    marks = dots.mark_point(size=70, filled=True, opacity=1).encode(
        x=x,
        y=y,
        shape=alt.Shape(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["model", "merge"], range=["circle", "diamond"]),
            legend=_ABOVE,
        ),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["model", "merge"], range=["#0072b2", "#d55e00"]),
            legend=_ABOVE,
        ),
        description="shown:N",
    )
    words = dots.mark_text(align="left", baseline="middle", color="currentColor").encode(
        x=alt.XDatum(widest, axis=None, scale=alt.Scale(domain=[-0.5, _WIDTH / 18])),
        y=y,
        text="text:N",
    )
    return alt.LayerChart(layer=[lines, marks, words]).properties(
        width=_WIDTH, height=24 * max(len(commits), 1)
    )


def _line(commit: Commit) -> str:
    title = commit.title if len(commit.title) <= _TITLE else f"{commit.title[: _TITLE - 3]}..."
    names = ", ".join(commit.names[:3]) + (", ..." if len(commit.names) > 3 else "")
    return f"{commit.commit[:12]}  {title}" + (f"  ({names})" if names else "")


def measured(metrics: Sequence[Metric], name: str) -> alt.LayerChart:
    """One metric of each revision: a dot, and its number."""
    rows = [msgspec.structs.asdict(each) for each in metrics if each.name == name]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "value:Q",
            title=name,
            scale=alt.Scale(zero=False, padding=24),
            axis=alt.Axis(format=".4~g", tickCount=4),
        ),
        y=alt.Y("revision:N", title=None, sort=None, axis=alt.Axis(grid=True, labelLimit=160)),
    )
    dots = base.mark_point(size=80, filled=True, opacity=1).encode(
        tooltip=["revision:N", alt.Tooltip("value:Q", format=".5g"), "source:N"]
    )
    words = base.mark_text(align="left", dx=8, color="currentColor").encode(
        text=alt.Text("value:Q", format=".4g")
    )
    return alt.LayerChart(layer=[dots, words]).properties(width=_WIDTH - 120, height=alt.Step(22))


def growth_lines(growth: Sequence[Grown]) -> alt.Chart:
    """What models would take as files, and what they take, commit after commit."""
    names = {"raw_bytes": "as files", "stored_bytes": "stored"}
    rows = [
        {
            "number": number,
            "what": label,
            "bytes": getattr(each, field),
            "shown": f"{each.date} {each.title}, {label}: {getattr(each, field):,} bytes",
        }
        for field, label in names.items()
        for number, each in enumerate(growth, 1)
    ]
    order = list(names.values())
    colour = alt.Color(
        "what:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order, range=["#8aa5c0", "#0072b2"]),
        legend=_ABOVE,
    )
    chart: alt.Chart = (
        alt.Chart(_data(rows))
        .mark_line(point=True, interpolate="step-after")
        .encode(
            x=alt.X("number:Q", title="models committed", axis=alt.Axis(format="d", tickMinStep=1)),
            y=alt.Y("bytes:Q", title="bytes", axis=alt.Axis(format="~s")),
            color=colour,
            description="shown:N",
        )
        .properties(width=_WIDTH, height=200)
    )
    return chart


def experts_read(models: Sequence[Model]) -> alt.Chart:
    """Bytes planned of each expert, beside those of the exact merge."""
    rows = [
        {"expert": model.name, "what": what, "bytes": size}
        for model in models
        if model.role == "expert"
        for what, size in (("planned", model.bytes_planned), ("exact merge", model.bytes_full))
    ]
    chart: alt.Chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X(
                "bytes:Q", title="bytes read", axis=alt.Axis(format="~s", tickCount=6), stack=None
            ),
            y=alt.Y("expert:N", title=None, sort=None),
            yOffset=alt.YOffset("what:N", sort=["planned", "exact merge"]),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(domain=["planned", "exact merge"], range=["#d55e00", "#8aa5c0"]),
                legend=_ABOVE,
            ),
            tooltip=["expert:N", "what:N", alt.Tooltip("bytes:Q", format=",")],
        )
        .properties(width=_WIDTH)
    )
    return chart


def storage_bars(storage: Sequence[Stored]) -> alt.Chart:
    """What each model takes: as files, stored alone, and what only it needs."""
    names = {
        "raw_bytes": "as files",
        "alone_bytes": "stored alone",
        "exclusive_bytes": "freed without it",
    }
    rows = [
        {"model": model.name, "what": label, "bytes": getattr(model, field)}
        for model in storage
        for field, label in names.items()
    ]
    order = list(names.values())
    chart: alt.Chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q", title="bytes", axis=alt.Axis(format="~s", tickCount=6), stack=None),
            y=alt.Y("model:N", title=None, sort=None),
            yOffset=alt.YOffset("what:N", sort=order),
            color=alt.Color(
                "what:N",
                title=None,
                sort=order,
                scale=alt.Scale(domain=order, range=["#8aa5c0", "#0072b2", "#d55e00"]),
                legend=_ABOVE,
            ),
            tooltip=["model:N", "what:N", alt.Tooltip("bytes:Q", format=",")],
        )
        .properties(width=_WIDTH)
    )
    return chart
