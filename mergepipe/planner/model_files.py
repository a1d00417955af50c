"""A stored model as merges see it: its components, and the tensors of each.

No weight is read: only names, shapes, configs and indexes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from mergepipe.checkpoints.conversion import DEQUANTIZED
from mergepipe.dtypes import DType, dtype_called, dtype_of
from mergepipe.formats.beside_weights import Stale, stale
from mergepipe.formats.config_json import CONFIG_NAME, dump_config, parse_config
from mergepipe.formats.quantization import refuse_codes, whole_by_config
from mergepipe.formats.unread_weights import no_weights
from mergepipe.formats.weight_files import WeightFiles, sort_weight_files
from mergepipe.ids import ObjectId
from mergepipe.objects.records import Safetensors, Snapshot, Tensor
from mergepipe.plans.left_out import Kind, LeftOut, of_names

ReadFile: TypeAlias = Callable[[Snapshot, str], bytes | None]
"""The bytes of a small file of a snapshot; None if there is none."""


class StoredTensor(Struct, frozen=True):
    """A tensor of a component: the path of its file, its name, and its id."""

    path: str
    name: str
    identity: ObjectId


class Component(Struct, frozen=True):
    """What is loaded as one model: its directory (empty, or ending with `/`) and its tensors.

    dtype      of a result, where the float32 in it stands for 8-bit floats (checkpoints.conversion)
    corrected  whether the stored config speaks of codes, and the weights are none
    """

    directory: str
    tensors: tuple[StoredTensor, ...]
    config: Mapping[str, Any] | None
    dtype: DType | None = None
    corrected: bool = False

    @property
    def paths(self) -> set[str]:
        """Its weight files."""
        return {tensor.path for tensor in self.tensors}


class ModelFiles(Struct, frozen=True):
    """A model's components by their directories, and which of its files are none."""

    label: str
    snapshot: Snapshot
    components: Mapping[str, Component]
    sorted: WeightFiles

    @property
    def left_out(self) -> Iterator[LeftOut]:
        """What of the model's files is not merged."""
        for reason, paths in self.sorted.left_out_by_reason.items():
            yield LeftOut(Kind.WEIGHT_FILES, self.label, tuple(paths), reason)
        yield from of_names(Kind.NESTED_ADAPTERS, self.label, tuple(self.sorted.adapters))
        for kind, stale_kind in (
            (Kind.OTHER_FORMATS, Stale.OTHER_FORMAT),
            (Kind.TRAINING_STATE, Stale.TRAINING),
        ):
            paths = [
                path
                for path in self._stale
                if stale(path) is stale_kind and path not in self.sorted.left_out
            ]
            yield from of_names(kind, self.label, paths)
        if any(component.dtype is not None for component in self.components.values()):
            yield LeftOut(Kind.QUANTIZATION, self.label)
        yield from of_names(Kind.QUANTIZATION_CONFIG, self.label, tuple(self.corrected_configs))

    @property
    def corrected_configs(self) -> Mapping[str, bytes]:
        """Configs that speak of codes, without that, by path."""
        return {
            directory + CONFIG_NAME: dump_config(component.config)
            for directory, component in self.components.items()
            if component.corrected and component.config is not None
        }

    @property
    def _stale(self) -> list[str]:
        """Files that no merge takes over; what is an adapter's stays with it."""
        adapters = tuple(self.sorted.adapters)
        merged = {path for component in self.components.values() for path in component.paths}
        return [
            file.path
            for file in self.snapshot.files
            if stale(file.path) is not None
            and file.path not in merged
            and not (adapters and file.path.startswith(adapters))
        ]

    @property
    def layout(self) -> Snapshot:
        """The snapshot without weights that are not the model's, and what lies beside them."""
        gone = set(self._stale)
        files = tuple(
            file
            for file in self.snapshot.files
            if not self.sorted.is_stray(file.path)
            and file.path not in gone
            and file.path.rpartition("/")[2] != DEQUANTIZED
        )
        return self.snapshot if len(files) == len(self.snapshot.files) else Snapshot(files)


def read_model_files(
    snapshot: Snapshot, tensor: Callable[[ObjectId], Tensor], read: ReadFile, label: str
) -> ModelFiles:
    """A snapshot's components.

    Raises MergeInputError: no weights that can be read, or weights that are codes.
    """
    held = {
        file.path: file.content.tensors
        for file in snapshot.files
        if isinstance(file.content, Safetensors)
    }
    paths = [file.path for file in snapshot.files]
    sorted_files = sort_weight_files(
        {path: [entry.name for entry in entries] for path, entries in held.items()},
        set(paths),
        lambda path: read(snapshot, path),
    )
    components = {}
    for directory, files in sorted_files.components.items():
        content = read(snapshot, directory + CONFIG_NAME)
        config = None if content is None else parse_config(content, f"{CONFIG_NAME} of {label}")
        tensors = tuple(
            StoredTensor(path, entry.name, entry.tensor) for path in files for entry in held[path]
        )
        outline = {}
        for listed in tensors:
            stored = tensor(listed.identity)
            outline[listed.name] = (dtype_of(stored.dtype), stored.shape)
        refuse_codes(outline, config, label + ("" if not directory else f"/{directory[:-1]}"))
        note = read(snapshot, directory + DEQUANTIZED)
        dtype = None if note is None else _result_dtype(note)
        whole = None if config is None else whole_by_config(config)
        components[directory] = Component(
            directory, tensors, whole or config, dtype, whole is not None
        )
    if not any(component.tensors for component in components.values()):
        raise no_weights(label, paths, sorted_files.left_out)
    return ModelFiles(label, snapshot, components, sorted_files)


def _result_dtype(note: bytes) -> DType:
    given = parse_config(note, DEQUANTIZED).get("dtype")
    return dtype_called(given if isinstance(given, str) else "bfloat16")
