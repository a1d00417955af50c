"""The README.md of a model: of a merged one, what it is made of; of any, the base that it names."""

import json
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

CARD_NAME = "README.md"
CARD_BYTES = 64 << 10
"""How much of a card is looked at for its front matter."""
RECIPE_NAME = "mergekit_config.yml"


class CardInput(Struct, frozen=True):
    """A model that went in: as the recipe calls it, its role, and the commit (hex) it was."""

    label: str
    role: str
    commit: str | None


class Card(Struct, frozen=True):
    """What a card tells.

    recipe  as text (YAML), or empty where the merge was typed as options
    budget  as it was given; None: everything was read
    """

    title: str
    methods: Sequence[str]
    inputs: Sequence[CardInput]
    budget: str | None
    recipe: str


def base_model_of(start: bytes) -> str | None:
    """The one model that a card's front matter names as its base (`base_model`), if it does.

    start  the card's first `CARD_BYTES`. Several names are those of a merge: none of them is what
           the model was trained from. So is a relation other than a fine-tune's.
    """
    import yaml

    text = start.decode("utf-8", "replace")
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    ends = [number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"]
    if not ends:
        return None
    try:
        front = yaml.safe_load("\n".join(lines[1 : ends[0]]))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # a card is prose for people: one that is broken says nothing
    if not isinstance(front, dict):
        return None
    if front.get("base_model_relation", "finetune") != "finetune":
        return None
    named = front.get("base_model")
    if isinstance(named, list) and len(named) == 1:
        named = named[0]
    return named if isinstance(named, str) and named else None


def model_card(card: Card) -> bytes:
    """The card as Markdown with the front matter that model hubs read. Same card, same bytes.

    Of models that are named by their path only the last part is told: where it lies on somebody's
    machine is nobody else's business, and of no use to them.
    """
    card = _without_paths(card)
    lines = [
        "---",
        *_front_matter(card),
        "---",
        "",
        f"# {_inline(card.title)}",
        "",
        f"A merge of {len(card.inputs)} model{'s' if len(card.inputs) != 1 else ''}, made with "
        f"mergepipe by {_listed(card.methods)}.",
        "",
        "| model | role | commit |",
        "|---|---|---|",
        *(
            f"| {_inline(model.label)} | {_inline(model.role)} | "
            f"{f'`{model.commit}`' if model.commit else 'not committed'} |"
            for model in card.inputs
        ),
        "",
        f"Expert weights read: at most {_inline(card.budget)} (a budget)."
        if card.budget
        else "Every expert weight was read: this is the exact merge.",
    ]
    if card.recipe:
        fence = _fence(card.recipe)
        lines += ["", "## Recipe", "", f"{fence}yaml", card.recipe.rstrip("\n"), fence]
    return ("\n".join(lines) + "\n").encode()


def _without_paths(card: Card) -> Card:
    paths = {model.label: _last_part(model.label) for model in card.inputs if _is_path(model.label)}
    recipe, title = card.recipe, card.title
    for path in sorted(paths, key=len, reverse=True):
        recipe = recipe.replace(path, paths[path])
        title = title.replace(path, paths[path])
    inputs = [replace(model, label=paths.get(model.label, model.label)) for model in card.inputs]
    return replace(card, title=title, inputs=inputs, recipe=recipe)


def _is_path(label: str) -> bool:
    """Whether a name can only be a path: `org/name` is one of a hub."""
    return label.startswith(("/", "./", "../", "~")) or label.count("/") > 1


def _last_part(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".", "..", "~")]
    return parts[-1] if parts else "model"


def _front_matter(card: Card) -> list[str]:
    # JSON strings are YAML strings: nothing in a label can leave its quotes.
    named = [f"- {json.dumps(model.label, ensure_ascii=True)}" for model in card.inputs]
    return ["base_model:", *named, "library_name: transformers", "tags:", "- mergepipe", "- merge"]


def _listed(methods: Sequence[str]) -> str:
    return ", then ".join(f"`{method}`" for method in methods)


def _inline(text: str) -> str:
    """Text that stays one cell of a table and starts no markup."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    for char in "\\`*_{}[]<>#|":
        plain = plain.replace(char, "\\" + char)
    return plain


def _fence(text: str) -> str:
    """A fence longer than any run of backticks inside."""
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    return "`" * max(3, longest + 1)
