"""The figures that README.md prints of the demo's models, and what a run of it comes to."""

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
TOLERANCE = 1.0
"""Points of a percent: text and steps are the same everywhere, how processors round is not."""

# In the tour of README.md, and once more in its table.
_PRINTED = {
    "the base, stored": (
        r"\[main \w+\] Base model\n.* stored \(([\d.]+)%\)",
        r"a small Llama, stored \| ([\d.]+)% of its size",
    ),
    "a fine-tune, stored": (
        r"\[code \w+\] Fine-tuned on code\n.* stored \(([\d.]+)%\)",
        r"stored over it \| ([\d.]+)% of its size",
    ),
    "a merge at raw:10%, read": (
        r"\n    total  .*?([\d.]+)%",
        r"reads ([\d.]+)% of their bytes",
    ),
    "of what the exact merge reads": (
        r"of the experts, this ([\d.]+)% of that",
        r"bytes, ([\d.]+)% of what the exact merge reads",
    ),
    "energy of the changes kept": (
        r"\n    total  .* ([\d.]+)%\n",
        r"keeps ([\d.]+)% of the energy",
    ),
}


def printed(readme: str) -> dict[str, tuple[float, float]]:
    """Each figure as the tour has it, and as the table has it, in percent."""
    found = {}
    for name, patterns in _PRINTED.items():
        tour, table = (re.search(pattern, readme) for pattern in patterns)
        assert tour is not None and table is not None, f"README.md does not say: {name}"
        found[name] = (float(tour[1]), float(table[1]))
    return found


def measured(stored: dict[str, str], plan: dict[str, Any]) -> dict[str, float]:
    """The same of a run, in percent: of what its commits printed, and of a plan's JSON."""
    base, tuned = (re.search(r"stored \(([\d.]+)%\)", stored[name]) for name in ("main", "code"))
    assert base is not None and tuned is not None
    read = 100 * plan["expert_bytes_planned"]
    values = (
        float(base[1]),
        float(tuned[1]),
        read / plan["expert_bytes_raw"],
        read / plan["expert_bytes_full"],
        100 * plan["energy_kept"],
    )
    return dict(zip(_PRINTED, values, strict=True))


def compared(run: dict[str, float]) -> str:
    """A table of both."""
    said = printed(README.read_text(encoding="utf-8"))
    lines = ["\nWhat README.md says of these models, and this run", ""]
    for name, value in run.items():
        differs = "" if abs(said[name][0] - value) <= TOLERANCE else "  differs"
        lines.append(f"  {name:32}{said[name][0]:6.1f}%{value:8.1f}%{differs}")
    return "\n".join([*lines, ""])
