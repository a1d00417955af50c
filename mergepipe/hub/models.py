"""Models: branches of repositories by the names that the hub's clients know, and revisions."""

import re
from collections.abc import Iterator

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.errors import (
    AmbiguousRevision,
    InvalidRefName,
    MissingObject,
    RevisionNotFound,
    UsageError,
)
from mergepipe.hub.addresses import ACTIONS, FILES, is_fit
from mergepipe.hub.errors import no_repository, no_revision
from mergepipe.hub.repositories import Repositories
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit
from mergepipe.repository.refnames import HEADS, TAGS, branch_ref

MAIN = "main"
COMMIT_DIGITS = 40
"""Hex digits of a commit's id on the hub; ours has 64 and begins with them."""
_HEX = re.compile(r"[0-9a-f]{4,64}")
_STEPS = re.compile(r"main(?P<steps>[~^@].*)", re.DOTALL)
_NEVER = (RevisionNotFound, AmbiguousRevision, InvalidRefName, UsageError, MissingObject)


class Model(Struct, frozen=True):
    """What a name stands for: a branch (its short name), or with None a repository as it is."""

    id: str
    repository: Repository
    branch: str | None

    @property
    def is_empty(self) -> bool:
        """Whether there is a branch to be, and no commit yet."""
        refs = self.repository.refs
        if self.branch is None:
            return refs.head().commit is None and not self.repository.branches()
        return refs.read(HEADS + self.branch) is None


def find_model(repositories: Repositories, name: str, *, new: bool = False) -> Model:
    """The model of a name. Raises HubError where there is none.

    new  it may be a branch that is not there yet
    """
    first, _, branch = name.partition("/")
    repository = repositories.find(first)
    if repository is None:
        raise no_repository(name)
    if branch:
        try:
            there = repository.refs.read(branch_ref(branch)) is not None
        except InvalidRefName as error:
            raise no_repository(name) from error
        if not there and not new and not repositories.is_announced(name):
            raise no_repository(name)
    return Model(name, repository, branch or None)


def list_models(repositories: Repositories) -> Iterator[Model]:
    """Every branch that has a name there, by repository."""
    for name in repositories.names():
        repository = repositories.find(name)
        if repository is None:
            continue
        for branch in repository.branches():
            if is_fit(branch) and branch not in ACTIONS and branch not in FILES:
                yield Model(f"{name}/{branch}", repository, branch)


def commit_of(model: Model, revision: str) -> tuple[ObjectId, Commit]:
    """The commit of a revision of a model, whose files are here. Raises HubError."""
    try:
        return model.repository.model_of(spelled(model, revision))
    except _NEVER as error:
        raise no_revision(revision, error) from error


def spelled(model: Model, revision: str) -> str:
    """A revision of a model as `mp` would be given it. Raises HubError."""
    refs = model.repository.refs
    if model.branch is None:
        return "HEAD" if revision == MAIN and refs.read(HEADS + MAIN) is None else revision
    tip = HEADS + model.branch
    if revision in (MAIN, tip, HEADS + MAIN):
        return tip
    if steps := _STEPS.fullmatch(revision):
        return tip + steps["steps"]
    if _HEX.fullmatch(revision):
        return revision
    try:
        if refs.read(TAGS + revision) is not None:
            return TAGS + revision
    except InvalidRefName as error:
        raise no_revision(revision) from error
    if revision == model.branch:
        return tip
    raise no_revision(revision)


def hub_id(identity: ObjectId) -> str:
    """A commit's id as the hub's clients see it."""
    return identity.hex()[:COMMIT_DIGITS]
