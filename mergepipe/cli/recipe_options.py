"""The options of `mp plan` and `mp merge` that take a recipe file instead of experts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergepipe.cli.merge_options import MergeOptions
from mergepipe.errors import UsageError

if TYPE_CHECKING:
    from mergepipe.api.recipes import RecipeOptions

Recipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE.yaml",
        help="A mergekit config: it says what is merged, and how (docs/mergekit.md).",
    ),
]
ShardSize = Annotated[
    str | None,
    typer.Option(
        "--out-shard-size",
        metavar="SIZE",
        help="With --recipe: bytes of a safetensors file of the result at most, such as 5GB.",
    ),
]
# What a recipe does not say, and so goes with one.
_BESIDE = ("--budget", "--budget-total", "--max-share", "--seed", "--allow-missing")


def check_alone(
    recipe: Path | None,
    shard_size: str | None,
    experts: Sequence[str] | None,
    plan: str | None,
    options: MergeOptions,
) -> None:
    """Raise UsageError for options that say the same twice, or nothing."""
    if recipe is None:
        if shard_size is not None:
            raise UsageError(
                "--out-shard-size goes with --recipe",
                "other merges have the files of their base",
            )
        return
    if plan is not None:
        raise UsageError("a stored plan has its recipe in it", "leave out --plan, or --recipe")
    if experts:
        raise UsageError(
            "a recipe has its models in it", "leave out --recipe, or the experts beside it"
        )
    if given := [option for option in options.given() if option not in _BESIDE]:
        raise UsageError(
            f"a recipe has all of this in it: {', '.join(given)}",
            f"with --recipe go {', '.join(_BESIDE)} and --out-shard-size",
        )


def recipe_options(
    options: MergeOptions, shard_size: str | None, branch: str | None
) -> "RecipeOptions":
    """What is asked of a recipe's merge. Raises UsageError."""
    from mergepipe.api.recipes import RecipeOptions
    from mergepipe.sizes import parse_size

    found = RecipeOptions(
        budget=options.budget,
        seed=options.seed or 0,
        allow_missing=options.allow_missing,
        shard_bytes=None if shard_size is None else parse_size(shard_size),
        **({} if branch is None else {"title": branch}),
        budget_total=options.budget_total,
        max_share=options.max_share,
    )
    found.check()
    return found
