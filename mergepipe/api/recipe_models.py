"""The models that a recipe names: revisions of a repository, and directories beside the recipe.

A directory that was never imported is looked at before it is (`unstored_models`), so that a recipe
that cannot be merged is refused before hours of reading.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mergepipe.api.catalog import as_path, looks_like_path
from mergepipe.api.conversions import Conversions
from mergepipe.api.opened import OpenRepository
from mergepipe.api.unstored_models import UnstoredModels
from mergepipe.checkpoints.imports import Fingerprints
from mergepipe.checkpoints.small_files import read_stored_file
from mergepipe.errors import MergeInputError, RevisionNotFound
from mergepipe.formats.tree import scan
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.records import Blob, Snapshot, Tensor
from mergepipe.planner.model_files import read_model_files
from mergepipe.progress import SILENT, Progress
from mergepipe.vocabularies import StoredTokenizer, read_tokenizer


class RecipeModels:
    """What a recipe names, as far as it can be known without reading a weight.

    unknown  directories that would have to be imported, and the snapshots that stand for them
    commits  the commit of each stored model, by snapshot
    """

    def __init__(
        self,
        repository: OpenRepository,
        conversions: Conversions,
        directory: Path,
        imported: Mapping[Path, ObjectId] | None = None,
        stages: Mapping[str, ObjectId] | None = None,
        *,
        progress: Progress = SILENT,
        told: Callable[[str], None] = lambda _: None,
        store: bool = True,
    ) -> None:
        """Look in a repository, then below a directory.

        imported  commits of directories
        stages    commits of the recipe's own stages, by name; they beat all other models
        told      takes what a user should know of how models are read
        store     False: nothing is written, and models that need a converted copy are refused
        """
        self._told = told
        self._progress = progress
        self._store = store
        self.unknown: dict[Path, ObjectId] = {}
        self.commits: dict[ObjectId, ObjectId] = {}
        self._repository = repository
        self._conversions = conversions
        self._directory = directory
        self._imported = imported or {}
        self._stages = stages or {}
        self._unstored = UnstoredModels(repository.config.store.block_size, told)

    def find(self, path: str, revision: str | None, /) -> ObjectId:
        """The snapshot of a revision, or else of a directory. Raises MergeInputError."""
        if revision is None and path in self._stages:
            return self._stored(self._stages[path])
        if not looks_like_path(path):
            text = path if revision is None else f"{path}@{revision}"
            commit = self._revision(text)
            if commit is not None:
                readable = self._conversions.readable(
                    commit,
                    label=text,
                    told=self._told,
                    store=self._store,
                    progress=self._progress,
                )
                return self._stored(readable)
        location = self._location(path)
        if location is None:
            raise MergeInputError(
                f"{quoted(path)} is no revision here, and no directory",
                _not_here(path),
            )
        sources = scan(location)
        known = self._imported.get(location)
        if known is None:
            known = Fingerprints(self._repository.storage).find(location, sources)
        if known is not None and self._repository.objects.has(known):
            return self._stored(known)
        self.unknown[location] = self._unstored.add(location, sources, path)
        return self.unknown[location]

    def check(self, path: str) -> ObjectId:
        """The snapshot of a model; what can be said against merging it by its headers is raised."""
        model = self.find(path, None)
        read_model_files(self.snapshot(model), self.tensor, self.read_file, path)
        return model

    def snapshot(self, identity: ObjectId, /) -> Snapshot:
        """A stored snapshot, or that of a directory that was looked at."""
        return self._unstored.snapshot(identity) or self._repository.objects.snapshot(identity)

    def tensor(self, identity: ObjectId, /) -> Tensor:
        """A stored tensor, or one in a directory that was looked at."""
        return self._unstored.tensor(identity) or self._repository.objects.tensor(identity)

    def read_file(self, snapshot: Snapshot, path: str, /) -> bytes | None:
        """The bytes of a small file; None if there is none. Raises MalformedFile if it is large."""
        entry = next((file for file in snapshot.files if file.path == path), None)
        if entry is None or not isinstance(entry.content, Blob):
            return None
        if self._unstored.holds(snapshot):
            return self._unstored.read_file(snapshot, path)
        objects, reader = self._repository.objects, self._repository.blocks
        return read_stored_file(snapshot, path, objects, reader)

    def tokenizer(self, snapshot: ObjectId, label: str, /) -> StoredTokenizer:
        """The tokenizer of a model. Raises MalformedFile."""
        tokenizer = self._unstored.tokenizer(snapshot, label)
        if tokenizer is not None:
            return tokenizer
        objects, reader = self._repository.objects, self._repository.blocks
        return read_tokenizer(objects.snapshot(snapshot), label, objects, reader)

    def _revision(self, text: str) -> ObjectId | None:
        try:
            return self._repository.resolve(text)
        except RevisionNotFound:
            return None

    def _stored(self, commit: ObjectId) -> ObjectId:
        snapshot = self._repository.model_at(commit).snapshot
        self.commits.setdefault(snapshot, commit)
        return snapshot

    def _location(self, path: str) -> Path | None:
        """A directory or file: beside the recipe, or where the command runs."""
        typed = as_path(path)
        for location in (self._directory / typed, typed):
            if location.exists():
                return location
        return None


def _not_here(path: str) -> str:
    """What to do about a model that is nowhere. `org/name` is how the hub calls its models."""
    if re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", path, re.ASCII):
        return (
            "nothing is downloaded: `mp commit hf://"
            + path
            + " -b NAME` stores a model of the hub, "
            "and NAME stands for it in the recipe"
        )
    return "nothing is downloaded: commit the model, or put it beside the recipe"
