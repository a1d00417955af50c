"""`mp merge`: merge experts into a base, within a budget, and commit the result."""

import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergepipe.cli import completion, merge_options, recipe_options
from mergepipe.cli.command import command
from mergepipe.cli.commands.plan import make_plan
from mergepipe.cli.finite_text import warning
from mergepipe.cli.merge_options import MergeOptions
from mergepipe.cli.merge_text import merge_document, next_steps, summary, unchanged_document
from mergepipe.cli.panels import MERGING
from mergepipe.cli.plan_costs import PlanDocument, PricedPlan, priced_again
from mergepipe.cli.session import Session
from mergepipe.cli.text import listed, short
from mergepipe.errors import MergepipeError, RefMoved, RevisionNotFound, UsageError, WorktreeDirty
from mergepipe.names import escape_for_terminal, quoted

if TYPE_CHECKING:
    from mergepipe.api import Repository
    from mergepipe.api.plan_request import PlanRequest
    from mergepipe.api.recipes import RecipeOptions
    from mergepipe.engine.result import MergeResult
    from mergepipe.ids import ObjectId
    from mergepipe.objects.merging import Plan

# Of a result that --out writes, what stays in memory until it is written; the rest is decoded.
_MADE_BYTES = 256 << 20


def add(app: typer.Typer) -> None:
    """Register the command."""
    examples = """
        mp merge code math --base llama --density 0.5 -b merged
        mp merge code math --budget raw:10% --dry-run     what would that read?
        mp merge ./code-v2 math --weight 0.7,0.3 --out /tmp/merged
        mp merge --plan 3fa9c2 -b merged                  what `mp plan` printed
        mp merge --recipe config.yml --out /tmp/merged    a mergekit config
    """
    command(app, "merge", MERGING, examples=examples)(merge)


def merge(
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
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="Carry out this stored plan instead, or that of a file of `mp plan --out`.",
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
    allow_nonfinite: merge_options.AllowNonFinite = False,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="MSG", help="What this is.")
    ] = "",
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch",
            "-b",
            metavar="BRANCH",
            help="Commit there, made if it is not there, instead of on the current branch.",
            autocompletion=completion.branches,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the result's files there too."),
    ] = None,
    out_shard_size: recipe_options.ShardSize = None,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="Do nothing where the branch holds the result of this very plan, or was rolled "
            "back from it.",
            show_default=False,
        ),
    ] = False,
    fail_if_moved: Annotated[
        bool,
        typer.Option(
            "--fail-if-moved",
            help="With --plan: refuse where a name it was made with stands for another model now.",
            show_default=False,
        ),
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Skip the pre-merge hook.", show_default=False)
    ] = False,
    on: merge_options.On = None,
    dry_run: merge_options.DryRun = False,
) -> None:
    """Merge models, and commit the result.

    Reads the expert blocks that a plan chose under --budget, and no others. The worktree is not
    touched; `mp checkout`, or --out, writes the files.
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
    if fail_if_moved and plan is None:
        raise UsageError(
            "--fail-if-moved is about a plan that was made before", "give it with --plan"
        )
    recipe_options.check_alone(recipe, out_shard_size, experts, plan, options)
    request: PlanRequest | RecipeOptions | None = None
    if recipe is not None:
        request = recipe_options.recipe_options(options, out_shard_size, branch)
    else:
        _check_usage(experts, plan, options)
        request = None if plan is not None else options.request(experts or ())
    from mergepipe.plans.left_out import lines

    device = options.checked_device()
    # What planning read, merging needs again.
    with session.repository() as repository, repository.on(on), repository.objects.keeping():
        _check_target(repository, branch, out)
        if request is not None:
            preview = make_plan(session, repository, request, recipe, store=not dry_run)
        else:
            identity, stored = _stored_plan(repository, plan or "")
            if fail_if_moved:
                _refuse_moved(repository, stored)
            preview = priced_again(repository, identity, stored)
            for line in lines(preview.left_out):
                session.say(line)
        costs = preview.document(stored=not dry_run or plan is not None)
        _show(session, costs)
        if dry_run:
            session.emit(costs, preview.id.hex() if session.quiet else "")
            session.say("a dry run: nothing was written")
            return
        held = _held(repository, preview.id, branch) if if_changed else None
        if held is not None:
            commit = repository.objects.commit(held)
            where = branch or repository.refs.head().short_branch
            if out is not None and not _is_filled(out):
                repository.checkout(held.hex(), to=out)
            told = f"{where or 'HEAD'} holds this already, as {short(held)}: nothing to do"
            if repository.merging.result_of(preview.id, branch) is None:
                told = (
                    f"{where or 'HEAD'} held this and was rolled back, to what {short(held)} has: "
                    "nothing to do; without --if-changed it is made again"
                )
            document = unchanged_document(costs, held, commit, where)
            session.emit(document, "" if session.quiet else escape_for_terminal(told))
            return
        # Files are written of what was just made, and not decoded again.
        remembering = nullcontext() if out is None else repository.blocks.remembering(_MADE_BYTES)
        with remembering:
            with session.progress() as progress:
                result = repository.merge(
                    preview.plan,
                    branch=branch,
                    message=message or _message(preview, recipe),
                    device=device,
                    host=platform.node(),
                    import_bytes=preview.import_bytes,
                    allow_nonfinite=allow_nonfinite,
                    names=preview.names,
                    verify=not no_verify,
                    progress=progress,
                )
            _warn(session, result.hook)
            if out is not None:
                _write_out(session, repository, result, out)
        written = repository.objects.commit(result.commit).message
        here = repository.worktree.snapshot() is not None and branch is None
    document = merge_document(costs, preview, result, out)
    session.emit(document, summary(session, document, result, written))
    session.warn(warning("the result", document.output_nonfinite, session.paint_errors))
    next_steps(session, document, here)


def _held(repository: "Repository", plan: "ObjectId", branch: str | None) -> "ObjectId | None":
    """The tip of a branch that holds the result of a plan, or was rolled back from it."""
    return repository.merging.result_of(plan, branch) or repository.merging.taken_back(plan, branch)


def _stored_plan(repository: "Repository", text: str) -> "tuple[ObjectId, Plan]":
    """A plan by id, or from a file."""
    from mergepipe.api.plan_files import read_plan

    try:
        return repository.planning.find_plan(text)
    except RevisionNotFound:
        if not Path(text).is_file():
            raise
    return read_plan(repository.planning, Path(text))


def _refuse_moved(repository: "Repository", plan: "Plan") -> None:
    """Raise RefMoved if a model is not any more what a plan was made of."""
    moved = repository.planning.moved(plan)
    if moved:
        told = [f"{quoted(name)} was {then} and is {now}" for name, then, now in moved]
        raise RefMoved(
            f"since the plan was made, {listed(told)}",
            "make the plan again, and have it approved; or leave out --fail-if-moved",
        )


def _write_out(
    session: Session, repository: "Repository", result: "MergeResult", out: Path
) -> None:
    from mergepipe.transfer.clone import whole_or_nothing

    commit = result.commit.hex()
    if _is_filled(out) and not repository.contents.verify(out, commit):
        return  # an earlier run was killed once it had written all
    try:
        # Under its name once it is whole: a killed merge can be typed again.
        with session.progress() as progress, whole_or_nothing(out, "merge") as building:
            repository.checkout(commit, to=building.path, progress=progress)
    except MergepipeError as error:
        at = short(result.commit)
        raise type(error)(
            error.message, f"the merge is made, as {at}: mp checkout {at} --to DIR writes its files"
        ) from error


def _check_usage(experts: list[str] | None, plan: str | None, options: MergeOptions) -> None:
    if plan is None:
        if not experts:
            raise UsageError(
                "what shall be merged?",
                "mp merge EXPERT... --base REV, or mp merge --recipe FILE, or --plan PLAN",
            )
        return
    if experts:
        raise UsageError("a stored plan has its experts in it", "leave out --plan, or the experts")
    if given := options.given():
        raise UsageError(
            f"a stored plan has all of this in it: {', '.join(given)}",
            "with --plan go -m, -b, --out, --device and --dry-run",
        )


def _check_target(repository: "Repository", branch: str | None, out: Path | None) -> None:
    """What would stop the merge after its work, before it begins."""
    from mergepipe.repository.refnames import branch_ref
    from mergepipe.transfer.clone import finish_moving

    if branch is not None:
        branch_ref(branch)
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{quoted(str(out))} is a file, not a directory", "name a new directory")
    finish_moving(out.absolute(), "merge")
    if _is_filled(out) and not _holds_a_merge(repository, branch, out):
        raise WorktreeDirty(
            f"{quoted(str(out))} is not empty",
            "name a new directory; or merge, then mp checkout REV --to DIR --force",
        )


def _is_filled(out: Path) -> bool:
    return out.is_dir() and any(out.iterdir())


def _holds_a_merge(repository: "Repository", branch: str | None, out: Path) -> bool:
    """Whether `out` is what the last merge on this branch made: the same one may be typed again."""
    from mergepipe.repository.refnames import branch_ref

    tip = repository.refs.read("HEAD" if branch is None else branch_ref(branch))
    if tip is None or repository.objects.commit(tip).manifest is None:
        return False
    try:
        return not repository.contents.verify(out, tip.hex())
    except MergepipeError:
        return False  # what lies there could be nobody's merge


def _message(made: PricedPlan, recipe: Path | None) -> str:
    from mergepipe.api.catalog import looks_like_path
    from mergepipe.cli.plan_text import called

    # Where a model lay on this machine says nothing to others; what its directory is called does.
    names = listed(
        [(looks_like_path(name) and Path(name).name) or called(name) for name in made.experts]
    )
    budget = made.asked.budget or made.asked.budget_total
    limit = f", budget {budget}" if budget else ""
    if recipe is not None:
        return f"Merge {names} as {recipe.name} says{limit}"
    return f"Merge {names} by {made.plan.method}{limit}"


def _show(session: Session, costs: PlanDocument) -> None:
    """The plan's table, before the merge takes its time."""
    if session.quiet or session.as_json:
        return
    from mergepipe.cli.plan_text import plan_text

    print(plan_text(costs, session.paint))
    sys.stdout.flush()


def _warn(session: Session, hook: str | None) -> None:
    """Say why the post-merge hook failed. Also with --quiet: nobody else says it."""
    if hook not in (None, "ran") and not session.as_json:
        print(f"warning: {hook}; the merge stands", file=sys.stderr)
