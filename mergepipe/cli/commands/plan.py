"""`mp plan`: how deep a merge would read each expert, and what that costs."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergepipe.cli import completion, merge_options, recipe_options
from mergepipe.cli.command import command
from mergepipe.cli.merge_options import MergeOptions
from mergepipe.cli.panels import MERGING
from mergepipe.cli.session import Session
from mergepipe.cli.text import duration, short
from mergepipe.errors import UsageError
from mergepipe.names import escape_for_terminal

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.api.plan_request import PlanRequest
    from mergepipe.api.recipes import RecipeOptions
    from mergepipe.cli.plan_costs import PricedPlan


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp plan code math --base llama --density 0.5 --budget raw:10%
        mp plan code math --method linear --weight 0.7,0.3 --dry-run
        mp plan --recipe config.yml --budget 25%
        mp plan code math --sweep
    """
    command(app, "plan", MERGING, examples=examples)(plan)


def plan(
    session: Session,
    experts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERT...",
            help="A revision, or a path (./x is surely one), which is imported.",
            autocompletion=completion.revisions,
            show_default=False,
        ),
    ] = None,
    recipe: recipe_options.Recipe = None,
    base: merge_options.Base = None,
    method: merge_options.Method = None,
    weight: merge_options.Weight = None,
    density: merge_options.Density = None,
    parameters: merge_options.Parameters = None,
    budget: merge_options.Budget = None,
    budget_total: merge_options.BudgetTotal = None,
    max_share: merge_options.MaxShare = None,
    seed: merge_options.Seed = None,
    dtype: merge_options.DType = None,
    out_dtype: merge_options.OutDType = None,
    device: merge_options.Device = None,
    allow_missing: merge_options.AllowMissing = False,
    out_shard_size: recipe_options.ShardSize = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write the plan there too, for `mp merge --plan FILE`."
        ),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="List what budgets would keep, and store nothing.", show_default=False
        ),
    ] = False,
    dry_run: merge_options.DryRun = False,
) -> None:
    """Plan a merge: which blocks of which expert to read, and how deep.

    Works from the statistics that were kept when the models were committed, and reads no weights
    but for a pair that has none yet. The plan is stored; `mp merge --plan ID` carries it out.
    """
    options = MergeOptions(
        base=base,
        method=method,
        weight=weight,
        density=density,
        parameters=parameters,
        budget=budget,
        seed=seed,
        dtype=dtype,
        out_dtype=out_dtype,
        device=device,
        allow_missing=allow_missing,
        budget_total=budget_total,
        max_share=max_share,
    )
    recipe_options.check_alone(recipe, out_shard_size, experts, None, options)
    if sweep and any(each is not None for each in (budget, budget_total, max_share, out)):
        raise UsageError(
            "--sweep tries budgets itself, and writes no plan",
            "leave out --budget, --budget-total, --max-share and --out",
        )
    if recipe is None and not experts:
        raise UsageError("what shall be merged?", "mp plan EXPERT... --base REV, or --recipe FILE")
    asked = (
        options.request(experts or ())
        if recipe is None
        else recipe_options.recipe_options(options, out_shard_size, None)
    )
    options.checked_device()
    from mergepipe.api.plan_files import write_plan

    with session.repository() as repository:
        preview = make_plan(session, repository, asked, recipe, store=not (dry_run or sweep))
        if sweep:
            swept = repository.sweep(preview.plan)
            session.emit(swept.points, repr(swept))
            return
        if not dry_run:
            repository.store_plan(preview.plan)
        if out is not None:
            write_plan(repository.planning, preview.planned or preview.plan, out)
    document = preview.document(stored=not dry_run)
    if session.as_json:
        session.emit(document, "")
        return
    from mergepipe.cli.plan_text import plan_text

    text = plan_text(document, session.paint)
    session.emit(document, document.plan if session.quiet else f"{text}\n{_name(session, preview)}")
    if dry_run:
        session.say("a dry run: nothing was written")
    else:
        named = short(preview.id) if out is None else shlex.quote(str(out))
        session.say(f"next: mp merge --plan {escape_for_terminal(named)}")


def make_plan(
    session: Session,
    repository: "Repository",
    asked: "PlanRequest | RecipeOptions",
    recipe: Path | None = None,
    *,
    store: bool,
) -> "PricedPlan":
    """Plan, telling what is done on the way; also what `mp merge` begins with."""
    from mergepipe.api.plan_request import PlanRequest
    from mergepipe.cli.plan_costs import priced

    began = time.monotonic()
    with session.progress() as progress:
        if isinstance(asked, PlanRequest):
            planned = repository.planning.plan(
                asked, progress=progress, told=session.say, store=store
            )
        else:
            planned = repository.recipes.plan(
                recipe or Path(), asked, progress=progress, told=session.say, store=store
            )
    return priced(repository, planned, time.monotonic() - began)


def _name(session: Session, made: "PricedPlan") -> str:
    return f"plan {session.paint('yellow', made.id.hex())}, made in {duration(made.seconds)}"
