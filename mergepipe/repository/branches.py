"""Making and removing branches and tags, as users may."""

from mergepipe.errors import RevisionNotFound, UsageError
from mergepipe.ids import ObjectId
from mergepipe.repository.history import Commits, is_ancestor
from mergepipe.repository.reflog import Signature
from mergepipe.repository.refnames import HEADS, TAGS, short_name
from mergepipe.repository.refs import ANY, RefStore

_SAID = ", saying: "


def make_ref(
    refs: RefStore,
    ref: str,
    at: ObjectId,
    *,
    force: bool,
    who: Signature,
    revision: str,
    message: str = "",
) -> ObjectId:
    """Make the branch or tag `ref` (full name) at a commit, which users called `revision`.

    A message stands in its log. Returns the commit. Raises RefExists, unless `force` moves it.
    """
    expected = ANY if force else None
    why = f"{_kind(ref)}: made at {revision}"
    if message:
        why += _SAID + message
    refs.update(ref, at, expected=expected, who=who, why=why)
    return at


def tag_message(refs: RefStore, ref: str) -> str:
    """What was said when a tag was made; nothing of one that came from elsewhere."""
    last = next(iter(refs.reflog.read(ref)), None) if refs.reflog is not None else None
    return "" if last is None else last.why.partition(_SAID)[2]


def delete_branch(
    refs: RefStore, objects: Commits, ref: str, *, force: bool, who: Signature
) -> ObjectId:
    """Remove a branch and return its tip. Raises RevisionNotFound.

    Raises UsageError for the current branch, and without `force` for one whose commits no other ref
    reaches.
    """
    tip = _existing(refs, ref)
    head = refs.head()
    if head.branch == ref:
        raise UsageError(
            f"{short_name(ref)!r} is the current branch",
            f"switch to another one first: {_other(refs, ref)}",
        )
    if not force:
        others = [at for other, at in refs.list().items() if other != ref]
        if head.commit is not None:
            others.append(head.commit)
        if not any(is_ancestor(objects, tip, other) for other in others):
            raise UsageError(
                f"no other branch or tag holds the commits of {short_name(ref)!r}",
                f"add --force to remove it; `mp branch NAME {tip.hex()[:12]}` undoes it",
            )
    why = f"branch: deleted {short_name(ref)}"
    refs.delete(ref, expected=tip, who=who, why=why, keep_log=True)
    return tip


def rename_branch(refs: RefStore, old: str, new: str, *, who: Signature) -> ObjectId | None:
    """Rename a branch (full names), the current one too; its log goes along.

    Returns its tip, None for one that is unborn. Raises RevisionNotFound, RefExists.
    """
    if refs.head().branch != old:
        _existing(refs, old)
    why = f"branch: renamed {short_name(old)} to {short_name(new)}"
    return refs.rename(old, new, who=who, why=why)


def delete_tag(refs: RefStore, ref: str, *, who: Signature) -> ObjectId:
    """Remove a tag and return the commit it was at. Raises RevisionNotFound."""
    at = _existing(refs, ref)
    why = f"tag: deleted {short_name(ref)}"
    refs.delete(ref, expected=at, who=who, why=why, keep_log=True)
    return at


def _existing(refs: RefStore, ref: str) -> ObjectId:
    tip = refs.read(ref)
    if tip is None:
        kind = _kind(ref)
        raise RevisionNotFound(f"there is no {kind} {short_name(ref)!r}", f"mp {kind} lists them")
    return tip


def _kind(ref: str) -> str:
    return "tag" if ref.startswith(TAGS) else "branch"


def _other(refs: RefStore, ref: str) -> str:
    others = [short_name(other) for other in refs.names(HEADS) if other != ref]
    return f"mp switch {others[0]}" if others else "mp switch -c NAME makes one"
