"""What each kind of page is filled with: a template, and the values that it shows."""

import shlex
from collections.abc import Mapping
from typing import Any

from mergepipe.api import Repository
from mergepipe.errors import MergepipeError
from mergepipe.hub.errors import no_repository, no_revision
from mergepipe.hub.files import Files, Recent
from mergepipe.hub.models import MAIN, Model, commit_of, find_model, spelled
from mergepipe.hub.pages import commits, models
from mergepipe.hub.pages.addresses import Place
from mergepipe.hub.pages.cards import Cards
from mergepipe.hub.pages.differences import MOST_ROWS, Differences
from mergepipe.hub.pages.merges import Merges
from mergepipe.hub.pages.pictures import AT_ONCE, MOST_CELLS, Pictures
from mergepipe.hub.repositories import Repositories
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Commit

_PREVIEW, _PAGE, _LATEST, _CHOICES = 20, 100, 10, 200
_MOST_REPOSITORIES = 200
_SIZES = 8192

Values = dict[str, Any]


class Views:
    """The pages of all repositories."""

    def __init__(self, repositories: Repositories, files: Files, *, at_once: int = AT_ONCE) -> None:
        """`at_once`: parts of a merge that are drawn without being asked for."""
        self._at_once = at_once
        self._repositories = repositories
        self._files = files
        self._sizes: models.Sizes = Recent(_SIZES)
        self._costs = models.Costs()
        self._cards = Cards(files)
        self._merges = Merges()
        self._differences = Differences(files)
        self._pictures = Pictures()

    def of(self, place: Place, query: Mapping[str, str], base_url: str) -> tuple[str, Values]:
        """The template of a place and what fills it. Raises HubError, Corruption."""
        if not place.name:
            return "index.html", self._index(base_url)
        model = find_model(self._repositories, place.name)
        if model.branch is not None:
            raise no_repository(place.name)
        first = _number(query.get("after"))
        if place.kind == "":
            return "repository.html", self._repository(model, first)
        if place.kind == "storage":
            return "storage.html", self._storage(model)
        if place.kind == "log":
            return "log.html", self._log(model, place, first)
        if place.kind == "diff":
            return "difference.html", self._difference(model, *place.revisions)
        [revision] = place.revisions
        if place.kind == "model":
            return "model.html", self._model(model, revision, base_url)
        if place.kind == "commit":
            return "commit.html", self._commit(model, revision)
        return "merge.html", self._merge(model, revision, asked="pictures" in query)

    def _index(self, base_url: str) -> Values:
        listed = []
        names = self._repositories.names()
        for name in names[:_MOST_REPOSITORIES]:
            repository = self._repositories.find(name)
            if repository is None:
                continue
            branches, count = models.branches(self._sizes, repository, {}, 0, _PREVIEW)
            listed.append((name, branches, count))
        return {
            "repositories": listed,
            "more": len(names[_MOST_REPOSITORIES:]),
            "base_url": base_url,
        }

    def _repository(self, model: Model, first: int) -> Values:
        repository = model.repository
        names = commits.names_of(repository)
        branches, count = models.branches(self._sizes, repository, names, first, _PAGE)
        rows, more = commits.graph(repository, None, names, 0, _LATEST)
        return {
            "branches": branches,
            "count": count,
            "first": first,
            "following": first + _PAGE if first + _PAGE < count else None,
            "tags": list(repository.tags())[:_CHOICES],
            "rows": rows,
            "more": more,
            "choices": list(repository.branches())[:_CHOICES],
        }

    def _model(self, model: Model, revision: str, base_url: str) -> Values:
        repository = model.repository
        names = commits.names_of(repository)
        view = models.model_view(self._files, self._cards, model, revision, names)
        rows, more = commits.graph(repository, view.commit.hex, names, 0, _LATEST)
        quoted = shlex.quote(view.hub_revision)
        at = "" if view.hub_revision == MAIN else f" --revision {quoted}"
        return {
            "view": view,
            "cost": self._costs.of_model(repository, view.commit.id),
            "rows": rows,
            "more": more,
            "named": _named(repository, names),
            "choices": list(repository.branches())[:_CHOICES],
            "commands": [
                f"export HF_ENDPOINT={shlex.quote(base_url)}",
                f"hf download {view.hub_name}{at}",
            ],
        }

    def _commit(self, model: Model, revision: str) -> Values:
        repository = model.repository
        identity, commit = _commit_of(model, revision)
        names = commits.names_of(repository)
        there = repository.has_model(identity)
        stone = repository.tombstone_of(identity)
        return {
            "commit": commits.shown(identity, commit, names),
            "there": there,
            "purged": None if stone is None else str(stone),
            "notes": repository.notes(identity.hex()),
            "named": _named(repository, names),
            "files": self._files_changed(repository, commit) if there else None,
        }

    def _files_changed(self, repository: Repository, commit: Commit) -> Any:
        """Files that are not as the first parent has them; None where that one's are not here."""
        if commit.parents and not repository.has_model(commit.parents[0]):
            return None
        parent = repository.objects.commit(commit.parents[0]).snapshot if commit.parents else None
        return self._differences.changed_files(repository, parent, commit.snapshot)

    def _merge(self, model: Model, revision: str, *, asked: bool) -> Values:
        repository = model.repository
        identity, commit = commit_of(model, revision)
        view = self._merges.of(repository, identity)
        parts = len(view.report.cells)
        too_many, later = parts > MOST_CELLS, parts > self._at_once and not asked
        key = str(repository.directory), "merge", identity
        return {
            "view": view,
            "commit": commits.shown(identity, commit, commits.names_of(repository)),
            "pictures": self._pictures.of(key, view.report),
            "details": []
            if too_many or later
            else self._pictures.of(key, view.report, part_by_part=True),
            "too_many": too_many,
            "later": later,
        }

    def _storage(self, model: Model) -> Values:
        from mergepipe.report.lineage import storage
        from mergepipe.report.values import Report

        usage = self._costs.of(model.repository)
        report = Report("repository", model.id, (), (), storage=tuple(storage(usage))[:_PAGE])
        key = str(model.repository.directory), "storage", report.storage
        return {"usage": usage, "pictures": self._pictures.of(key, report)}

    def _log(self, model: Model, place: Place, first: int) -> Values:
        revision = place.revisions[0] if place.revisions else None
        names = commits.names_of(model.repository)
        start = None if revision is None else _commit_of(model, revision)[0].hex()
        rows, more = commits.graph(model.repository, start, names, first, _PAGE)
        return {
            "rows": rows,
            "first": first,
            "following": first + _PAGE if more else None,
            "revision": revision,
        }

    def _difference(self, model: Model, a: str, b: str) -> Values:
        repository = model.repository
        (before, _), (after, _) = commit_of(model, a), commit_of(model, b)
        return {
            "a": a,
            "b": b,
            "found": self._differences.of(repository, before, after),
            "most": MOST_ROWS,
            "command": shlex.join(("mp", "diff", a, b)),
        }


def _commit_of(model: Model, revision: str) -> tuple[ObjectId, Commit]:
    """The commit of a revision, whose model may have been let go. Raises HubError."""
    try:
        return model.repository.commit_of(spelled(model, revision))
    except MergepipeError as error:
        raise no_revision(revision, error) from error


def _named(repository: Repository, names: commits.Names) -> Any:
    """A function that says what a commit is called: by what stands at it, or its id."""

    def called(identity: ObjectId) -> str:
        there = names.get(identity)
        return there[0].removeprefix("tag: ") if there else identity.hex()[:12]

    return called


def _number(text: str | None) -> int:
    fit = text is not None and text.isascii() and text.isdecimal() and len(text) < 7
    return int(text) if text is not None and fit else 0
