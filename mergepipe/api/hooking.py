"""What the hooks of a repository are told, and when they have a say (docs/cli.md, "Hooks")."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergepipe.errors import HookFailed
from mergepipe.ids import ID_BYTES, ObjectId
from mergepipe.repository.hooks import POST_MERGE, PRE_COMMIT, PRE_MERGE, PRE_PUSH, Hooks
from mergepipe.repository.refnames import HEADS

if TYPE_CHECKING:
    from mergepipe.api.asked import Asked
    from mergepipe.engine.result import MergeResult
    from mergepipe.formats.tree import SourceFile
    from mergepipe.objects.merging import Plan
    from mergepipe.transfer.push_refs import Decision

NO_COMMIT = "0" * (2 * ID_BYTES)


def _on(ref: str) -> dict[str, str]:
    return {"MP_REF": ref, "MP_BRANCH": ref.removeprefix(HEADS) if ref.startswith(HEADS) else ""}


def ask_before_commit(
    hooks: Hooks,
    path: Path | None,
    sources: "Sequence[SourceFile]",
    ref: str,
    message: str,
    base: str | None,
) -> None:
    """Let pre-commit look at files before any of them is stored. Raises HookFailed."""
    told = {"MP_PATH": "" if path is None else str(path.absolute())}
    told |= {**_on(ref), "MP_MESSAGE": message, "MP_BASE": base or ""}
    hooks.run(PRE_COMMIT, told, [str(file.location.absolute()) for file in sources])


def ask_before_merge(
    hooks: Hooks,
    plan: "Plan",
    identity: ObjectId,
    asked: "Asked",
    inputs: Iterable[tuple[str, ObjectId, str]],
    ref: str,
    message: str,
) -> None:
    """Let pre-merge look at a stored plan. inputs: role, commit and name. Raises HookFailed."""
    told = {
        "MP_PLAN": identity.hex(),
        "MP_METHOD": plan.method,
        "MP_BUDGET": asked.budget or asked.budget_total or "",
        "MP_MESSAGE": message,
    }
    lines = [f"{role} {commit.hex()} {name}" for role, commit, name in inputs]
    hooks.run(PRE_MERGE, {**told, **_on(ref)}, lines)


def tell_after_merge(hooks: Hooks, result: "MergeResult") -> str | None:
    """Tell post-merge. Returns whether it `ran`, why it failed (the merge stands), or None."""
    told = {
        "MP_COMMIT": result.commit.hex(),
        "MP_SNAPSHOT": result.snapshot.hex(),
        "MP_PLAN": result.plan_id.hex(),
        "MP_BRANCH": result.branch or "",
    }
    try:
        return "ran" if hooks.run(POST_MERGE, told) else None
    except HookFailed as error:
        return error.message


def ask_before_push(hooks: Hooks, remote: str, url: str, moves: "Sequence[Decision]") -> None:
    """Let pre-push look at the refs that will move. Raises HookFailed."""
    lines = [" ".join((_commit(move.old), _commit(move.new), move.name)) for move in moves]
    hooks.run(PRE_PUSH, {"MP_REMOTE": remote, "MP_URL": url}, lines)


def _commit(identity: ObjectId | None) -> str:
    return NO_COMMIT if identity is None else identity.hex()
