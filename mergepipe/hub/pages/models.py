"""Models as pages show them: lists of branches, files with what they cost to keep."""

import threading
from collections.abc import Sequence

from msgspec import Struct

from mergepipe.api import Repository
from mergepipe.errors import MissingObject, RevisionNotFound
from mergepipe.hub.addresses import ACTIONS, FILES, is_fit
from mergepipe.hub.files import Files, Recent
from mergepipe.hub.models import MAIN, Model, commit_of
from mergepipe.hub.pages.cards import CARD, Card, Cards
from mergepipe.hub.pages.commits import Names, Shown, shown
from mergepipe.ids import ObjectId
from mergepipe.objects.records import FileEntry
from mergepipe.repository.refnames import HEADS
from mergepipe.repository.revisions import find_ref
from mergepipe.repository.usage import ModelUsage, Usage, default_revisions

MOST_FILES = 1000
_USAGES = 16
_FRESH_S = 600


class Branch(Struct, frozen=True):
    """A branch in a list. `size`: bytes of its files; None where its model was let go.

    revision  by which it is found: its whole name where a tag has the short one
    """

    name: str
    revision: str
    commit: Shown
    size: int | None


class ModelView(Struct, frozen=True):
    """A model at a revision. `files`: the first of them; `card`: None where none is to be shown."""

    commit: Shown
    files: Sequence[FileEntry]
    more_files: int
    size: int
    card: Card | None
    has_card: bool
    hub_name: str
    hub_revision: str


Sizes = Recent[ObjectId, int | None]
"""Bytes of the files of snapshots: a list of many models looks at each once."""


def branches(
    sizes: Sizes, repository: Repository, names: Names, first: int, count: int
) -> tuple[list[Branch], int]:
    """`count` branches after `first`, the last changed before others, and how many there are."""
    tips = [
        (name, tip, repository.objects.commit(tip)) for name, tip in repository.branches().items()
    ]
    tips.sort(key=lambda each: (-each[2].time, each[0]))
    listed = [
        Branch(
            name,
            name if find_ref(name, repository.refs) == HEADS + name else HEADS + name,
            shown(tip, commit, names),
            _size(sizes, repository, tip, commit.snapshot),
        )
        for name, tip, commit in tips[first : first + count]
    ]
    return listed, len(tips)


def _size(
    sizes: Sizes, repository: Repository, identity: ObjectId, snapshot: ObjectId
) -> int | None:
    if not repository.has_model(identity):
        return None
    return sizes.get(
        snapshot, lambda: sum(entry.size for entry in repository.objects.snapshot(snapshot).files)
    )


def model_view(files: Files, cards: Cards, model: Model, revision: str, names: Names) -> ModelView:
    """A model of a repository at a revision. Raises HubError."""
    repository = model.repository
    identity, commit = commit_of(model, revision)
    entries = files.of_snapshot(repository, commit.snapshot)
    card = entries.get(CARD)
    hub_name, hub_revision = model.id, revision
    branch = revision.removeprefix(HEADS)
    if (
        repository.branches().get(branch) == identity
        and is_fit(branch)
        and branch not in ACTIONS | FILES
    ):
        hub_name, hub_revision = f"{model.id}/{branch}", MAIN
    listed = list(entries.values())
    return ModelView(
        shown(identity, commit, names),
        listed[:MOST_FILES],
        len(listed[MOST_FILES:]),
        sum(entry.size for entry in listed),
        None if card is None else cards.of(repository, card),
        card is not None,
        hub_name,
        hub_revision,
    )


class Costs:
    """What models cost to keep, counted again when a branch moves, or ten minutes later."""

    def __init__(self) -> None:
        self._usages: Recent[object, Usage] = Recent(_USAGES)
        self._lock = threading.Lock()

    def of(self, repository: Repository) -> Usage:
        """What all branches, tags and imports take."""
        with self._lock:  # who else asks has it from memory then
            return self._usages.get(_state(repository), repository.usage)

    def of_model(self, repository: Repository, identity: ObjectId) -> ModelUsage | None:
        """What one model takes beside all that branches and tags hold."""
        usage = self.of(repository)
        listed = _find(usage, identity)
        if listed is not None:
            return listed

        def with_it() -> Usage:
            others = [
                tip.hex()
                for _, tip in default_revisions(repository.refs)
                if repository.has_model(tip)
            ]
            return repository.usage([identity.hex(), *others])

        try:
            return _find(self._usages.get((_state(repository), identity), with_it), identity)
        except (RevisionNotFound, MissingObject):
            return None


def _find(usage: Usage, identity: ObjectId) -> ModelUsage | None:
    return next((each for each in usage.models if each.commit == identity), None)


def _state(repository: Repository) -> object:
    """What is the same only as long as every ref is where it was, and for ten minutes: gc."""
    age = repository.clock().now // _FRESH_S
    return str(repository.directory), age, frozenset(repository.refs.list().items())
