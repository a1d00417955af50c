"""Charts of a report's values: each function returns Altair's own chart, which notebooks show.

Altair, because its charts are declarations: they hold their data, are drawn by the same compiler to
SVG without a browser (`drawing`), and are kept up by the people of Vega.
"""

from collections.abc import Sequence

import altair as alt
import msgspec

from mergepipe.report.values import Cell, CurvePoint, Model, Stored, Value

_WIDTH = 640
# Read in grey and by the colour-blind; dark is little in light pages and dark ones alike.
_SCALE = alt.Scale(scheme="viridis")
_SHARE = alt.Scale(scheme="viridis", domain=[0, 1])
_ABOVE = alt.Legend(orient="top")


def _data(values: Sequence[Value]) -> alt.InlineData:
    return alt.InlineData(values=[msgspec.structs.asdict(value) for value in values])


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


def heat_map(cells: Sequence[Cell], field: str, title: str, *, shares: bool) -> alt.FacetChart:
    """Layers by parts of a layer, one panel for each expert; `field` of a cell is the colour."""
    inside = [cell for cell in cells if cell.layer is not None and getattr(cell, field) is not None]
    layers = len({cell.layer for cell in inside})
    parts = len({cell.part for cell in inside})
    base = alt.Chart(_data(inside)).mark_rect()
    chart = base.encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelOverlap=True, labelAngle=0)),
        y=alt.Y("part:N", title=None, sort=None),
        color=alt.Color(
            f"{field}:Q",
            title=title,
            scale=_SHARE if shares else _SCALE,
            legend=alt.Legend(format="%" if shares else ".2%", orient="top", gradientLength=160),
        ),
        tooltip=["tensor:N", alt.Tooltip(f"{field}:Q", format=".3%" if shares else ".3g")],
    ).properties(width=min(_WIDTH - 120, 28 * layers), height=14 * parts)
    header = alt.Header(labelOrient="top", labelAnchor="start", labelFontWeight="bold")
    row = alt.Row("expert:N", title=None, sort=None, header=header)
    panels: alt.FacetChart = chart.facet(row=row)
    return panels


def experts_read(models: Sequence[Model]) -> alt.Chart:
    """Bytes planned of each expert, beside those of the exact merge."""
    rows = [
        {"expert": model.name, "what": what, "bytes": size}
        for model in models
        if model.role == "expert"
        for what, size in (("planned", model.bytes_planned), ("exact merge", model.bytes_full))
    ]
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q", title="bytes read", axis=alt.Axis(format="~s"), stack=None),
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
        {"model": one.name, "what": label, "bytes": getattr(one, field)}
        for one in storage
        for field, label in names.items()
    ]
    order = list(names.values())
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q", title="bytes", axis=alt.Axis(format="~s"), stack=None),
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
