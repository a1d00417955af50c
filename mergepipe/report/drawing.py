"""Charts to static SVG: no script, the text in the page's own colour, numbers where one points."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import altair as alt
import vl_convert

_NAMESPACE = "http://www.w3.org/2000/svg"
_DESCRIPTION = "aria-label"
_INK = "currentColor"
_COLOURS = {"fill", "stroke"}
_RGB = re.compile(r"rgb\((\d+), (\d+), (\d+)\)")


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart as an SVG element. What Vega writes for screen readers becomes titles to hover."""
    specification: dict[str, Any] = chart.to_dict()
    _drop_tooltips(specification)
    specification["config"] = _config()
    specification["background"] = "transparent"
    # Whoever reads it may have wider letters than those that it was laid out with.
    specification["padding"] = {"left": 16, "right": 24, "top": 6, "bottom": 6}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(specification))
    for element in root.iter():
        described = element.attrib.pop(_DESCRIPTION, "")
        role = element.attrib.pop("role", "")
        element.attrib.pop("aria-roledescription", None)
        element.attrib.pop("aria-hidden", None)
        if described and role == "graphics-symbol":
            title = ElementTree.Element(f"{{{_NAMESPACE}}}title")
            title.text = described
            element.insert(0, title)
        for name in _COLOURS & element.attrib.keys():
            element.set(name, _short_colour(element.attrib[name]))
    # It scales with the page, up to its width: the height follows from its view box.
    root.attrib.pop("height", None)
    ElementTree.register_namespace("", _NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def _drop_tooltips(specification: Any) -> None:
    """Where marks say what they show, tooltips say it again: most of the time of a large map."""
    if isinstance(specification, dict):
        if "description" in specification and "tooltip" in specification:
            del specification["tooltip"]
        for each in specification.values():
            _drop_tooltips(each)
    elif isinstance(specification, list):
        for each in specification:
            _drop_tooltips(each)


def _short_colour(colour: str) -> str:
    """`#rrggbb` for `rgb(r, g, b)`: half of the bytes, thousands of times."""
    match = _RGB.fullmatch(colour)
    return colour if match is None else "#" + "".join(f"{int(part):02x}" for part in match.groups())


def _config() -> dict[str, Any]:
    words = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "axis": {**words, "gridColor": "#88888844", "domainColor": "#888", "tickColor": "#888"},
        "header": words,
        # Letters may be wider here than where it was laid out: legends stand apart.
        "legend": {**words, "columnPadding": 24, "layout": {"top": {"margin": 40}}},
        "view": {"stroke": "transparent"},
        "title": {"color": _INK},
        "line": {"color": "#0072b2"},
        "point": {"color": "#0072b2"},
        "font": "system-ui, sans-serif",
    }
