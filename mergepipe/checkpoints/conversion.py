"""Checkpoints that merges cannot read as they stand, made into ones that they can.

Two kinds: weights in a pickle become safetensors files, and 8-bit floats with scales become the
numbers that they stand for, in float32 (a code of 4 significant bits times a float32 scale, rounded
once), without scales and without a word of quantization in config.json. What is committed stays as
it is; this is only for the copy that a merge takes in. `plan_conversion` reads headers and pickles
alone, so that what cannot be merged is refused before anything is written.
"""

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from mergepipe.checkpoints.converted_tensors import NewTensor, OpenSources, Stored, pieces_of
from mergepipe.checkpoints.layout import is_tensor_file
from mergepipe.dtypes import byte_length
from mergepipe.errors import MalformedFile
from mergepipe.formats.config_json import CONFIG_NAME, dump_config, parse_config
from mergepipe.formats.huggingface import INDEX_SUFFIX, MAX_INDEX_BYTES, parse_index, read_index
from mergepipe.formats.quantization import (
    Quantization,
    read_quantization,
    scale_blocks,
    unquantized,
)
from mergepipe.formats.safetensors import TensorInfo, build_header, read_header
from mergepipe.formats.torch_pickle import read_pickle
from mergepipe.formats.tree import (
    SourceFile,
    open_stable,
    read_source,
    scan_file,
)
from mergepipe.formats.weight_files import (
    TOP,
    check_shards,
    directory_of,
    is_left_alone,
    sort_weight_files,
)
from mergepipe.names import quoted

# Says that the float32 beside it is what 8-bit floats stand for: what a result is in, unless asked.
DEQUANTIZED = "dequantized.mergepipe.json"
# As transformers, diffusers and peft call their pickles; what becomes of the name.
_PICKLES = {
    "pytorch_model": "model",
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "adapter_model": "adapter_model",
}
_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
# Pickles that lie beside weights.
_STATES = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "random_states")


class Conversion(Struct, frozen=True):
    """What becomes of a checkpoint's files.

    files     path of a safetensors file to be written -> its tensors
    contents  small files that are written anew, by path
    dropped   paths of files that are not taken over
    notes     what a user should know, without the model's name
    """

    files: Mapping[str, tuple[NewTensor, ...]]
    contents: Mapping[str, bytes]
    dropped: frozenset[str]
    notes: tuple[str, ...]

    def kept(self, sources: Sequence[SourceFile]) -> list[SourceFile]:
        """The files that stay as they are."""
        gone = {*self.files, *self.contents, *self.dropped}
        return [source for source in sources if source.path not in gone]

    @property
    def written_bytes(self) -> int:
        """The data of the new files."""
        return sum(
            byte_length(tensor.dtype, tensor.stored.shape)
            for tensors in self.files.values()
            for tensor in tensors
        )


def plan_conversion(sources: Sequence[SourceFile]) -> Conversion | None:
    """How a checkpoint becomes one that merges read; None if it is one already.

    Raises MalformedFile for a pickle that holds more than tensors, or is damaged.
    """
    planning = _Planning(sources)
    planning.pickles()
    planning.codes()
    if not planning.files:
        return None
    return Conversion(
        planning.files, planning.contents, frozenset(planning.dropped), tuple(planning.notes)
    )


def write_conversion(
    conversion: Conversion, sources: Sequence[SourceFile], directory: Path
) -> list[SourceFile]:
    """The files of a converted checkpoint; new ones are written below `directory`."""
    files = conversion.kept(sources)
    for number, (path, content) in enumerate(conversion.contents.items()):
        location = directory / f"content-{number}"
        location.write_bytes(content)
        files.append(scan_file(location, path))
    for number, (path, tensors) in enumerate(conversion.files.items()):
        location = directory / f"weights-{number}"
        header = build_header(
            [(tensor.name, tensor.dtype, tensor.stored.shape) for tensor in tensors],
            {"format": "pt"},
        )
        with location.open("wb") as file, OpenSources() as readers:
            file.write(header)
            for tensor in tensors:
                for piece in pieces_of(tensor, readers):
                    file.write(piece)
        files.append(scan_file(location, path))
    return sorted(files, key=lambda source: source.path.encode())


def may_be_weights(path: str) -> bool:
    """Whether a file of this name may be a pickle of weights."""
    name = path.rpartition("/")[2]
    return name.endswith(_SUFFIXES) and not name.startswith(_STATES)


class _Planning:
    def __init__(self, sources: Sequence[SourceFile]) -> None:
        self.files: dict[str, tuple[NewTensor, ...]] = {}
        self.contents: dict[str, bytes] = {}
        self.dropped: set[str] = set()
        self.notes: list[str] = []
        self._sources = {source.path: source for source in sources}
        self._headers: dict[str, tuple[TensorInfo, ...]] = {}
        for path, source in self._sources.items():
            if is_tensor_file(path):
                with open_stable(source) as reader:
                    self._headers[path] = read_header(reader, source.size, path).tensors
        self._sorted = sort_weight_files(
            {path: [tensor.name for tensor in tensors] for path, tensors in self._headers.items()},
            set(self._sources),
            self._read,
        )

    def pickles(self) -> None:
        """Safetensors files of the pickles in directories that have no others."""
        directories = dict.fromkeys(directory_of(path) for path in self._sources)
        for directory in directories:
            if directory in (*self._sorted.components, *self._sorted.adapters):
                continue
            if directory != TOP and is_left_alone(directory):
                continue
            pickles = self._pickles_in(directory)
            if pickles:
                more = "" if len(pickles) == 1 else f" and {len(pickles) - 1} more"
                self.notes.append(
                    f"{min(pickles)}{more}: a pickle, whose tensors are taken as a copy in "
                    "safetensors; no code in it is run"
                )
            for path, new in pickles.items():
                source = self._sources[path]
                tensors = read_pickle(source)
                self.files[new] = tuple(
                    NewTensor(name, Stored.pickled(source, one)) for name, one in tensors.items()
                )
                self.dropped.add(path)
            if len(pickles) > 1:  # nobody loads shards without an index
                stem = next(iter(pickles.values())).rpartition("/")[2].partition("-")[0]
                places = {
                    one.name: new.rpartition("/")[2]
                    for new in pickles.values()
                    for one in self.files[new]
                }
                self.contents[directory + stem + INDEX_SUFFIX] = _index(places)

    def _pickles_in(self, directory: str) -> dict[str, str]:
        """The weights of a directory, and what the files are to be called."""
        renamed: dict[str, str] = {}
        others = []
        for path in self._sources:
            name = path[len(directory) :]
            if directory_of(path) != directory or not name.endswith(_SUFFIXES):
                continue
            stem = name.rpartition(".")[0]
            for known, new in _PICKLES.items():
                if name.endswith(".bin") and (stem == known or stem.startswith(known + "-")):
                    renamed[path] = f"{directory}{new}{stem.removeprefix(known)}.safetensors"
            if may_be_weights(path):
                others.append(path)
        index = f"{directory}pytorch_model.bin.index.json"
        if index in self._sources:
            named = {directory + shard for shard in self._index(index).values()}
            missing = named - set(self._sources)
            if missing:
                raise MalformedFile(
                    f"{quoted(index)} names {quoted(min(missing))}, which is not there",
                    "fetch the missing files",
                )
            renamed = {path: new for path, new in renamed.items() if path in named}
            self.dropped.add(index)
        else:
            check_shards(renamed)
        # By any other name in the top directory: one file alone is the model.
        if not renamed and directory == TOP and len(others) == 1 and not self._sorted.components:
            renamed = {others[0]: "model.safetensors"}
        return renamed

    def codes(self) -> None:
        """Files of 8-bit floats as the numbers that they stand for."""
        for directory, paths in self._sorted.components.items():
            content = self._read(directory + CONFIG_NAME)
            config = None if content is None else parse_config(content, directory + CONFIG_NAME)
            where = {
                tensor.name: (path, tensor) for path in paths for tensor in self._headers[path]
            }
            outline = {name: (tensor.dtype, tensor.shape) for name, (_, tensor) in where.items()}
            quantization = read_quantization(outline, config)
            if quantization is None or quantization.scales is None:
                continue
            gone = quantization.beside(outline)
            for path in paths:
                self.files[path] = tuple(
                    self._number(tensor, path, quantization, where)
                    for tensor in self._headers[path]
                    if tensor.name not in gone
                )
            if config is not None:
                self.contents[directory + CONFIG_NAME] = dump_config(unquantized(config))
            self._amend_indexes(directory, gone)
            dtype = _dtype(config)
            self.contents[directory + DEQUANTIZED] = json.dumps({"dtype": dtype}).encode()
            self.notes.append(
                f"the weights{' in ' + directory if directory else ''} are 8-bit floats "
                f"({quantization.method}): merged as the numbers that they and their scales stand "
                "for, and the result is not quantized"
            )

    def _number(
        self,
        one: TensorInfo,
        path: str,
        found: Quantization,
        where: Mapping[str, tuple[str, TensorInfo]],
    ) -> NewTensor:
        stored = Stored.of(self._sources[path], one)
        assert found.scales is not None
        if one.name not in found.scales:
            return NewTensor(one.name, stored)
        scale_name = found.scales[one.name]
        if scale_name is None:
            return NewTensor(one.name, stored, scaled=True)
        scale_path, info = where[scale_name]
        scale = Stored.of(self._sources[scale_path], info)
        blocks = scale_blocks(one.shape, info.shape, found.block)
        return NewTensor(one.name, stored, True, scale, blocks)

    def _amend_indexes(self, directory: str, gone: Container[str]) -> None:
        for path in self._sources:
            if directory_of(path) == directory and path.endswith(INDEX_SUFFIX):
                weights = self._index(path)
                kept = {name: file for name, file in weights.items() if name not in gone}
                self.contents[path] = _index(kept)

    def _index(self, path: str) -> dict[str, str]:
        return parse_index(read_index(self._sources[path]), path)

    def _read(self, path: str) -> bytes | None:
        source = self._sources.get(path)
        return None if source is None else read_source(source, MAX_INDEX_BYTES)


def _index(places: Mapping[str, str]) -> bytes:
    return json.dumps({"metadata": {"total_size": 0}, "weight_map": places}, indent=2).encode()


def _dtype(config: Mapping[str, Any] | None) -> str:
    """What a result is in where nothing is asked: what the config says, else bfloat16."""
    parts = [] if config is None else [config, *(v for v in config.values() if isinstance(v, dict))]
    for part in parts:
        for key in ("dtype", "torch_dtype"):
            if part.get(key) in ("float16", "bfloat16", "float32"):
                return str(part[key])
    return "bfloat16"
