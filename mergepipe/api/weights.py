"""Weights of a revision for those who compute with them: one by one, all at once, into a model."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec import Struct

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import MergeInputError
from mergepipe.ids import ObjectId
from mergepipe.names import quoted
from mergepipe.objects.grid import tensor_bytes
from mergepipe.objects.records import Tensor
from mergepipe.objects.store import ObjectStore
from mergepipe.packs.blocks import BlockReader
from mergepipe.parallel import ordered_map
from mergepipe.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

_AHEAD = 2
"""Tensors that are read before they are asked for, for each thread."""
_SHOWN = 3


class StoredTensor(Struct, frozen=True):
    """A tensor of a revision, of which nothing has been read yet. `dtype` as safetensors has it."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    _stored: Tensor
    _blocks: BlockReader

    def read(self) -> "torch.Tensor":
        """The tensor, on the CPU. Raises MergepipeError if torch lacks its dtype; Corruption."""
        from mergepipe.engine.tensor import as_torch

        return as_torch(self._stored, quoted(self.name), self._blocks)

    def __repr__(self) -> str:
        return f"<{self.dtype} {list(self.shape)} {quoted(self.name)} in {quoted(self.file)}>"


class StoredTensors(Mapping[str, StoredTensor]):
    """The tensors of a revision by name, in the order of their files."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        files = len({tensor.file for tensor in self._tensors.values()})
        return f"<{len(self)} tensors in {files} file{'s' if files != 1 else ''}>"


class Weights:
    """The side of a repository that hands out weights."""

    def __init__(self, opened: OpenRepository) -> None:
        self._repo = opened

    def tensor(self, revision: str, name: str) -> "torch.Tensor":
        """One tensor of a revision, as a torch tensor on the CPU; reads only its blocks."""
        from mergepipe.engine.tensor import read_tensor

        return read_tensor(
            self._repo.model_of(revision)[1].snapshot, name, self._repo.objects, self._repo.blocks
        )

    def tensors(self, revision: str = "HEAD") -> StoredTensors:
        """Every tensor of a revision: name, shape and dtype now, weights by `read()`."""
        snapshot = self._repo.objects.snapshot(self._repo.model_of(revision)[1].snapshot)
        return StoredTensors(
            {
                entry.name: _stored(
                    entry.name, file.path, entry.tensor, self._repo.objects, self._repo.blocks
                )
                for file, entry in snapshot.named_tensors()
            }
        )

    def read_tensors(
        self, revision: str = "HEAD", *, progress: Progress = SILENT
    ) -> "Iterator[tuple[str, torch.Tensor]]":
        """As `Repository.read_tensors` says."""
        wanted = list(self.tensors(revision).values())
        progress.start("reading", sum(entry.size_bytes for entry in wanted))
        with ThreadPoolExecutor(self._repo.threads) as pool:
            read = ordered_map(pool, StoredTensor.read, wanted, _AHEAD * self._repo.threads)
            for entry, tensor in zip(wanted, read, strict=True):
                progress.advance(entry.size_bytes)
                yield entry.name, tensor

    def state_dict(
        self, revision: str = "HEAD", *, progress: Progress = SILENT
    ) -> "dict[str, torch.Tensor]":
        """All weights of a revision, as `model.load_state_dict` takes them, on the CPU."""
        return dict(self.read_tensors(revision, progress=progress))

    def load_into(
        self,
        model: "torch.nn.Module",
        revision: str = "HEAD",
        *,
        strict: bool = True,
        progress: Progress = SILENT,
    ) -> tuple[str, ...]:
        """As `Repository.load_into` says."""
        import torch

        weights = model.state_dict(keep_vars=True)
        stored = self.tensors(revision)
        filled = {_place(weight) for name, weight in weights.items() if name in stored}
        missing = tuple(
            name
            for name, weight in weights.items()
            if name not in stored and _place(weight) not in filled
        )
        unknown = [name for name in stored if name not in weights]
        if strict and (missing or unknown):
            sides = ((revision, missing), ("the model", unknown))
            lacking = (f"{who} lacks {_some(names)}" for who, names in sides if names)
            raise MergeInputError(
                f"{revision} and the model hold different tensors: {'; '.join(lacking)}",
                "load it into a model of its own architecture, or give strict=False",
            )
        for name in stored:
            if name in weights and tuple(weights[name].shape) != stored[name].shape:
                raise MergeInputError(
                    f"{quoted(name)} is {list(stored[name].shape)} in {revision}, and "
                    f"{list(weights[name].shape)} in the model",
                    "load it into a model of its own architecture",
                )
        with torch.no_grad():
            for name, tensor in self.read_tensors(revision, progress=progress):
                if name in weights:
                    weights[name].copy_(tensor)
        return missing


def _stored(
    name: str, path: str, identity: ObjectId, objects: ObjectStore, blocks: BlockReader
) -> StoredTensor:
    tensor = objects.tensor(identity)
    return StoredTensor(
        name=name,
        file=path,
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        size_bytes=tensor_bytes(tensor),
        _stored=tensor,
        _blocks=blocks,
    )


def _place(tensor: "torch.Tensor") -> tuple[object, ...]:
    """What two names of one weight have in common; a tensor on meta has no place but itself."""
    return (tensor.data_ptr() or id(tensor), tuple(tensor.shape), tensor.device)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quoted(name) for name in names[:_SHOWN]) + more
