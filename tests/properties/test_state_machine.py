"""A repository beside a dict: commit, branch, checkout, switch, tag, reset, delete.

The model keeps trees, parents and names in plain dicts; after every step the repository must say
the same. The repository is closed and opened again, and its index is deleted, as it goes.
"""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mergepipe.api import Repository
from mergepipe.checkpoints.layout import is_tensor_file
from mergepipe.errors import (
    NothingToCommit,
    RefExists,
    RevisionNotFound,
    UsageError,
    WorktreeDirty,
)
from mergepipe.repository.reflog import Signature
from tests.properties.trees import (
    BLOCK_BYTES,
    Tree,
    blobs,
    read_tree,
    replace_tree,
    scratch,
    tensor_files,
    write_tree,
)

WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 60)
NAMES = ("main", "dev", "fix/one", "old")

branches = st.sampled_from(NAMES)
tags = st.sampled_from(("v1", "v2"))
files = st.fixed_dictionaries(
    {},
    optional={
        "config.json": blobs.map(lambda data: (data[:300], False)),
        "run.sh": st.tuples(blobs, st.booleans()),
        "model.safetensors": tensor_files().map(lambda data: (data, False)),
        "deep/er/weights.safetensors": tensor_files().map(lambda data: (data, False)),
    },
)


@dataclass
class Model:
    """What the repository must say. Commits are named by the ids that it gave them."""

    commits: dict[bytes, tuple[Tree, bytes | None]] = field(default_factory=dict)
    branches: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    branch: str | None = "main"
    detached: bytes | None = None
    worktree: Tree = field(default_factory=dict)
    materialised: Tree | None = None

    @property
    def tip(self) -> bytes | None:
        return self.detached if self.branch is None else self.branches.get(self.branch)

    def tree(self, commit: bytes) -> Tree:
        return self.commits[commit][0]

    def history(self, commit: bytes | None) -> list[bytes]:
        found = []
        while commit is not None:
            found.append(commit)
            commit = self.commits[commit][1]
        return found

    def move(self, commit: bytes) -> None:
        """The current branch, or HEAD where it is detached, goes to a commit."""
        if self.branch is None:
            self.detached = commit
        else:
            self.branches[self.branch] = commit

    def losses(self, target: Tree) -> set[str]:
        """Files that a checkout of `target` would overwrite or remove, and no commit holds."""
        recorded = self.materialised or {}
        write = {path for path in target if self.worktree.get(path) != target[path]}
        remove = {path for path in recorded if path in self.worktree and path not in target}
        return {
            path
            for path in write | remove
            if path in self.worktree and self.worktree[path] != recorded.get(path)
        }

    def materialise(self, target: Tree) -> None:
        kept = {p: file for p, file in self.worktree.items() if p not in (self.materialised or {})}
        self.worktree = {**kept, **target}
        self.materialised = target


class RepositoryMachine(RuleBasedStateMachine):
    @initialize(first=blobs)
    def begin(self, first: bytes) -> None:
        self.stack = ExitStack()
        self.root: Path = self.stack.enter_context(scratch())
        self.model = Model()
        self.outputs = 0
        Repository.init(self.root / "repo", block_size=BLOCK_BYTES, who=WHO).close()
        self.repo = self.open()
        tree = {"config.json": (first, False)}
        self.commit_path(tree, "dev", "first")  # HEAD stays on a branch that is not born yet

    def open(self) -> Repository:
        return Repository.open(self.root / "repo", who=WHO)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.repo.close()
            tmp = list((self.root / "repo/.mergepipe/tmp").iterdir())
            self.stack.close()
            assert not tmp

    def out(self) -> Path:
        self.outputs += 1
        return self.root / f"out{self.outputs}"

    def revision(self, data: st.DataObject) -> tuple[str, bytes]:
        """Something to type, and the commit that it means."""
        model = self.model
        choices = [*model.branches.items(), *model.tags.items()]
        choices += [(commit.hex()[:40], commit) for commit in model.commits]
        if model.tip is not None:
            choices += [("HEAD", model.tip), ("@", model.tip)]
        for name, commit in [*model.branches.items()]:
            choices += [
                (f"{name}~{back}", older)
                for back, older in enumerate(model.history(commit))
                if back
            ]
        return data.draw(st.sampled_from(sorted(choices)), label="revision")

    # The worktree

    @rule(tree=files)
    def edit(self, tree: Tree) -> None:
        replace_tree(tree, self.root / "repo")
        self.model.worktree = dict(tree)

    @rule(data=st.data())
    def edit_one(self, data: st.DataObject) -> None:
        """Same size, at once after whatever wrote it: what a stat cache could miss."""
        work = self.model.worktree
        paths = [path for path, (old, _) in work.items() if old and not is_tensor_file(path)]
        if not paths:
            return
        path = data.draw(st.sampled_from(sorted(paths)))
        content, executable = self.model.worktree[path]
        content = bytes([content[0] ^ 1]) + content[1:]
        write_tree({path: (content, executable)}, self.root / "repo")
        self.model.worktree = {**self.model.worktree, path: (content, executable)}

    @rule()
    def status(self) -> None:
        model = self.model
        target = {} if model.tip is None else model.tree(model.tip)
        work = model.worktree
        expected = [
            (path, "new" if path not in target else "modified")
            for path in work
            if target.get(path) != work[path]
        ]
        expected += [(path, "deleted") for path in target if path not in work]
        changes = self.repo.status()
        assert [(change.path, change.change) for change in changes] == sorted(expected)
        if not changes and model.tip is not None:
            model.materialised = target  # it is what stands there, whoever wrote it

    # Commits

    @rule(message=st.sampled_from(["", "one", "two\n\nlines"]))
    def commit_worktree(self, message: str) -> None:
        model = self.model
        if not model.worktree:
            with pytest.raises(NothingToCommit):
                self.repo.commit(message=message)
            return
        tip = model.tip
        made = self.repo.commit(message=message)
        assert made.branch == model.branch
        self.committed(made.commit, dict(model.worktree), tip, made.unchanged)
        model.move(made.commit)
        model.materialised = dict(model.worktree)

    @rule(tree=files, branch=branches, message=st.sampled_from(["", "path"]))
    def commit_path(self, tree: Tree, branch: str, message: str) -> None:
        source = self.out()
        source.mkdir()
        write_tree(tree, source)
        if not tree:
            with pytest.raises(NothingToCommit):
                self.repo.commit(source, branch=branch)
            return
        made = self.repo.commit(source, branch=branch, message=message)
        assert made.branch == branch
        self.committed(made.commit, tree, self.model.branches.get(branch), made.unchanged)
        self.model.branches[branch] = made.commit

    def committed(self, commit: bytes, tree: Tree, tip: bytes | None, unchanged: bool) -> None:
        model = self.model
        assert unchanged == (tip is not None and model.tree(tip) == tree)
        if unchanged:
            assert commit == tip
        else:
            # An id that is there already must mean the very same commit.
            assert model.commits.setdefault(commit, (dict(tree), tip)) == (tree, tip)

    # Going elsewhere

    @rule(data=st.data(), force=st.booleans())
    def checkout(self, data: st.DataObject, force: bool) -> None:
        model = self.model
        name, commit = self.revision(data)
        if not force and model.losses(model.tree(commit)):
            with pytest.raises(WorktreeDirty):
                self.repo.checkout(name)
            return
        self.repo.checkout(name, force=force)
        model.materialise(model.tree(commit))
        if name in model.branches:
            model.branch, model.detached = name, None
        elif name not in ("HEAD", "@"):
            model.branch, model.detached = None, commit

    @rule(data=st.data())
    def checkout_to(self, data: st.DataObject) -> None:
        name, commit = self.revision(data)
        out = self.out()
        self.repo.checkout(name, to=out)
        assert read_tree(out) == self.model.tree(commit)

    @rule(branch=branches)
    def switch(self, branch: str) -> None:
        model = self.model
        if branch not in model.branches:
            with pytest.raises(RevisionNotFound):
                self.repo.switch(branch)
            return
        target = model.tree(model.branches[branch])
        if model.materialised is not None:
            if model.losses(target):
                with pytest.raises(WorktreeDirty):
                    self.repo.switch(branch)
                return
            model.materialise(target)
        self.repo.switch(branch)
        model.branch, model.detached = branch, None

    @rule(branch=branches)
    def switch_to_new(self, branch: str) -> None:
        model = self.model
        if branch in model.branches:
            with pytest.raises(RefExists):
                self.repo.switch(branch, create=True)
            return
        if model.tip is not None:
            model.branches[branch] = model.tip
        self.repo.switch(branch, create=True)
        model.branch, model.detached = branch, None

    @rule(data=st.data(), hard=st.booleans())
    def reset(self, data: st.DataObject, hard: bool) -> None:
        name, commit = self.revision(data)
        assert self.repo.reset(name, hard=hard) == commit
        self.model.move(commit)
        if hard:
            self.model.materialise(self.model.tree(commit))

    # Names

    @rule(data=st.data(), branch=branches, force=st.booleans())
    def make_branch(self, data: st.DataObject, branch: str, force: bool) -> None:
        name, commit = self.revision(data)
        if branch in self.model.branches and not force:
            with pytest.raises(RefExists):
                self.repo.branch(branch, name)
        else:
            self.repo.branch(branch, name, force=force)
            self.model.branches[branch] = commit

    @rule(data=st.data(), tag=tags, force=st.booleans())
    def make_tag(self, data: st.DataObject, tag: str, force: bool) -> None:
        name, commit = self.revision(data)
        if tag in self.model.tags and not force:
            with pytest.raises(RefExists):
                self.repo.tag(tag, name)
        else:
            self.repo.tag(tag, name, force=force)
            self.model.tags[tag] = commit

    @rule(tag=tags)
    def delete_tag(self, tag: str) -> None:
        if tag in self.model.tags:
            assert self.repo.delete_tag(tag) == self.model.tags.pop(tag)
        else:
            with pytest.raises(RevisionNotFound):
                self.repo.delete_tag(tag)

    @rule(branch=branches, force=st.booleans())
    def delete_branch(self, branch: str, force: bool) -> None:
        model = self.model
        if branch not in model.branches:
            with pytest.raises(RevisionNotFound):
                self.repo.delete_branch(branch, force=force)
            return
        tip = model.branches[branch]
        others = [at for name, at in model.branches.items() if name != branch]
        others += [*model.tags.values(), *([] if model.tip is None else [model.tip])]
        held = any(tip in model.history(other) for other in others)
        if branch == model.branch or not (force or held):
            with pytest.raises(UsageError):
                self.repo.delete_branch(branch, force=force)
        else:
            assert self.repo.delete_branch(branch, force=force) == tip
            del model.branches[branch]

    # Between commands

    @rule()
    def another_process(self) -> None:
        self.repo.close()
        self.repo = self.open()

    @rule()
    def lose_the_index(self) -> None:
        self.repo.close()
        shutil.rmtree(self.root / "repo/.mergepipe/index")
        self.repo = self.open()

    @invariant()
    def names_agree(self) -> None:
        if not hasattr(self, "repo"):
            return
        model, refs = self.model, self.repo.refs
        expected = {f"refs/heads/{name}": commit for name, commit in model.branches.items()}
        expected |= {f"refs/tags/{name}": commit for name, commit in model.tags.items()}
        assert refs.list() == expected
        head = refs.head()
        assert (head.short_branch, head.commit) == (model.branch, model.tip)

    @invariant()
    def history_agrees(self) -> None:
        if hasattr(self, "repo") and self.model.tip is not None:
            log = [commit for commit, _ in self.repo.log()]
            assert log == self.model.history(self.model.tip)

    @invariant()
    def worktree_agrees(self) -> None:
        if hasattr(self, "repo"):
            assert read_tree(self.root / "repo") == self.model.worktree


TestRepository = RepositoryMachine.TestCase
TestRepository.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.mark.slow
class TestRepositoryAtLength(RepositoryMachine.TestCase):  # type: ignore[misc, valid-type]  # made by hypothesis
    settings = settings(max_examples=500, stateful_step_count=50, deadline=None)
