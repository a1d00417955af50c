"""What a config that is compared consists of, and how those of `models:` are written.

`{base}`, `{math}`... stand for the paths of models (models.py). How results are compared is told by
`check`: `same` numbers within rounding; `statistics` for random masks; `refused` by both; `ours`
where mergekit fails or is wrong, and ours has to work.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One config. `options` are mergekit's command-line options, and ours by the same meaning."""

    name: str
    text: str
    check: str = "same"
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    options: dict[str, object] = field(default_factory=dict)
    loads: bool = True


def models(method: str, *lines: str, base: bool = True, settings: str = "", top: str = "") -> str:
    """A config of `models:`; each line is a model and its parameters."""
    text = f"merge_method: {method}\n"
    if base:
        text += "base_model: {base}\n"
    text += "models:\n"
    for line in lines:
        name, _, own = line.partition(" ")
        text += f"  - model: {{{name}}}\n"
        if own:
            text += f"    parameters: {own}\n"
    if settings:
        text += f"parameters: {settings}\n"
    return text + (top or "dtype: {dtype}\n")


# Parameters in flow style: doubled braces, since names of models are filled in.
def _(text: str) -> str:
    return "{{" + text + "}}"


W = _("weight: 0.6"), _("weight: 0.9"), _("weight: -0.3")
THREE = (f"math {W[0]}", f"code {W[1]}", f"chat {W[2]}")
