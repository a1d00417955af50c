"""What the pages of the format print, and what the code has, are the same."""

import re
from pathlib import Path

from mergepipe.codecs.registry import TAGS
from mergepipe.methods.randomness import element_number, keep_limit, mask_keys, tensor_key
from mergepipe.methods.registry import METHODS, VARIANTS
from mergepipe.methods.terms import ExpertScalars, Scalars
from mergepipe.objects.merging import (
    InputNumbers,
    LineNumbers,
    LinePlan,
    Manifest,
    Plan,
    PlanInput,
    Profile,
    TensorProfile,
)
from mergepipe.objects.records import Snapshot, Tensor

from .merging import NUMBERS, mask

DOCS = Path(__file__).parents[2] / "docs"
MERGE = (DOCS / "format-merge.md").read_text()


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading begins with this."""
    table = page[page.index(f"| {heading}") :].split("\n\n")[0]
    return [[cell.strip() for cell in row.split(" | ")] for row in table.splitlines()[2:]]


def test_numbers_of_a_plan() -> None:
    line = [row[0].removeprefix("| ") for row in rows(MERGE, "`numbers`")]
    given = tuple(row[0].removeprefix("| ") for row in rows(MERGE, "`input_numbers`"))
    assert tuple(line) == LineNumbers.__struct_fields__
    assert given == InputNumbers.__struct_fields__ == NUMBERS
    # The divisor is what sums that begin half way are divided by: no number of a plan.
    assert {*Scalars.__struct_fields__} - {"divisor"} == {*line, "experts"}
    assert {*ExpertScalars.__struct_fields__} == set(given)


def test_every_method_with_extras_is_in_their_table() -> None:
    named = {
        name
        for row in rows(MERGE, "method ")
        for name in row[0].removeprefix("| ").split(", ")
        if name != "all others"
    }
    assert named <= METHODS.keys() | VARIANTS.keys()


def test_versions_of_objects() -> None:
    for kind in (Plan, Profile, Manifest):
        assert f"## {kind.KIND} {kind.VERSION}:" in MERGE
    page = (DOCS / "format.md").read_text()
    for other in (Tensor, Snapshot):
        assert f"{other.KIND} {other.VERSION}  " in page


def test_fields_stand_in_the_order_of_the_page() -> None:
    for kind in (Plan, LinePlan, PlanInput, TensorProfile):
        places = []
        start = {Plan: "## plan", LinePlan: "    line:", PlanInput: "    input:"}
        at = MERGE.index(start.get(kind, "    tensor:"))
        for name in kind.__struct_fields__:
            found = re.compile(rf"^ {{4,6}}(\w+, )*{name}(?=,| )", re.MULTILINE).search(MERGE, at)
            assert found, name
            places.append(found.end())
        assert places == sorted(places)


def test_random_masks() -> None:
    keys = mask_keys(7, tensor_key("layer.w"), 3)
    start = (1 << 32) - 50  # both words of the index count
    ours = [element_number(keys, start + i) < keep_limit(0.3) for i in range(100)]
    assert mask(7, "layer.w", 3, start, 100, 0.3).tolist() == ours
    constants = set(re.findall(r"0x[0-9A-F]{8,}", MERGE))
    source = (Path(__file__).parent / "merging.py").read_text()
    assert constants == set(re.findall(r"0x[0-9A-F]{8,}", source)) - {"0x7FFFFFFF"}


def test_codec_tags() -> None:
    page = (DOCS / "format-codecs.md").read_text()
    table = {row[1].strip("`"): int(row[0].removeprefix("| ")) for row in rows(page, "tag")}
    assert table == TAGS
