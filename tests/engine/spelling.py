"""Merges spelled out line by line over small repositories, for tests of what lines can do."""

from msgspec.structs import replace

from mergepipe.checkpoints.layouts import LaidTensor, write_layout
from mergepipe.dtypes import DTYPES
from mergepipe.methods import find
from mergepipe.objects.merging import LowRank, TermKind
from mergepipe.planner.lines import Line, LineInput, Made, Merge
from mergepipe.planner.recipe import Model
from tests.engine.merging import engine_of, tensors_of


class Spelling:
    """A merge in the making. Models are named by their revisions."""

    def __init__(self, repo, *models, base=None, seed=7):
        self.repo = repo
        self.models = list(models)
        self.base = base
        self.seed = seed
        self.tensors = {
            rev: {name: one for (_, name), one in tensors_of(repo, rev).items()} for rev in models
        }
        self.lines = []

    def of(self, rev, name, *, kind=TermKind.FULL, factors=None):
        """A model's tensor as an input; `factors`: (revision, up, down, scale[, transposed])."""
        low = None
        if factors is not None:
            adapter, up, down, *rest = factors
            own = self.tensors[adapter]
            low = LowRank(own[up], own[down], *rest)
        source = None if name is None else self.tensors[rev][name]
        return LineInput(self.models.index(rev), source, kind, low)

    def line(
        self, name, method, inputs, *, like=None, base=None, file=None, dtype="BF16",
        shared=None, own=None,
    ):  # fmt: skip
        """Add a line; returns the input that takes it in."""
        found = find(method)
        settings = found.settings(shared or {}, own or [{}] * len(inputs))
        found = found.variant(settings, base=base is not None)
        first = next(one for one in (base, *inputs) if one is not None)
        if like is None:
            at = first.source
            like = self.lines[at.line].like if isinstance(at, Made) else at
        self.lines.append(
            Line(file, name, like, DTYPES[dtype], found, settings, base, tuple(inputs))
        )
        return LineInput(-1, Made(len(self.lines) - 1))

    def merge(self, layout=None):
        """The merge; without a layout (a model's revision) one is made for its lines."""
        models = tuple(Model(rev, self.repo.commit_of(rev)[1].snapshot) for rev in self.models)
        base = None if self.base is None else self.models.index(self.base)
        if layout is not None:
            snapshot = self.repo.commit_of(layout)[1].snapshot
        else:
            held = [line for line in self.lines if line.file is not None]
            laid = [
                LaidTensor(line.name, line.like, self.repo.objects.tensor(line.like))
                for line in held
            ]
            manager = engine_of(self.repo).transactions
            with manager.begin() as transaction:
                snapshot = write_layout(
                    laid, {"config.json": b"{}"}, (), transaction, block_size=4096
                )
                transaction.publish()
            self.lines = [
                line if line.file is None else replace(line, file="model.safetensors")
                for line in self.lines
            ]
        return Merge(snapshot, models, tuple(self.lines), base, self.seed)
