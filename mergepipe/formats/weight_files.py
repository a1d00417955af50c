"""Which safetensors files of a checkpoint are the model, and which component each belongs to.

A directory may hold more than one set of weights: `consolidated.safetensors` beside the shards that
an index names (Mistral), an fp16 variant (diffusers), the checkpoints of a training, a text encoder
and a VAE beside a U-Net. What is loaded together is one model: a component, known by its directory
(the top one is the empty text, others end with `/`).

In a directory the index decides; without one, the name that transformers or diffusers would load.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from mergepipe.errors import IncompleteCheckpoint
from mergepipe.formats.huggingface import parse_index
from mergepipe.names import quoted

SUFFIX = ".safetensors"
TOP = ""
# What libraries load by default, the first there is (transformers, diffusers, peft).
_STANDARD = ("model", "diffusion_pytorch_model", "adapter_model", "pytorch_model")
_LAST = ("consolidated",)
_SHARD = r"-\d{5}-of-\d{5}"
_COUNTED = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})")
_NAME = re.compile(
    rf"(?P<stem>.+?)(?:{_SHARD})?(?P<variant>\.[A-Za-z]\w*)?(?:{_SHARD})?\.safetensors"
)
_INDEX = re.compile(r"(?P<stem>.+)\.safetensors\.index(?P<variant>\.\w+)?\.json")
# States of a training, and copies of the same model for other programs.
_TRAINING = re.compile(
    r"(?:(?:\w+-)?checkpoint|global_?step|step|epoch|iter)[-_]?\d*|(?:last|best)[-_]checkpoint",
    re.IGNORECASE,
)
_COPIES = frozenset(
    ("original", "metal", "onnx", "openvino", "gguf", "coreml", "tensorrt", "tflite", "mlx")
)
_ADAPTER = "adapter_config.json"
_PIPELINES = ("model_index.json", "modules.json")


class WeightFiles(Struct, frozen=True):
    """The safetensors files of a checkpoint, sorted out.

    components  directory -> its weight files
    adapters    directories of adapters that lie in a model's: no part of its weights
    left_out    path -> why it is no part of the model
    """

    components: Mapping[str, tuple[str, ...]]
    adapters: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]

    def is_stray(self, path: str) -> bool:
        """Whether a file is, or lies beside, weights that are not the model's."""
        directory = directory_of(path)
        mine = {directory_of(file) for files in self.components.values() for file in files}
        mine |= set(self.adapters) | {TOP}
        stray = {directory_of(left_out) for left_out in self.left_out} - mine
        return path in self.left_out or any(directory.startswith(folder) for folder in stray)

    def stem(self, directory: str) -> str:
        """What the files of a component are called, as far as libraries look for that name.

        Its directory is part of it: `unet/diffusion_pytorch_model`.
        """
        files = self.components.get(directory, ())
        match = _NAME.fullmatch(_base(files[0])) if files else None
        known = match is not None and match["stem"] in _STANDARD[:2]
        return directory + (match["stem"] if match is not None and known else _STANDARD[0])

    @property
    def left_out_by_reason(self) -> dict[str, list[str]]:
        """The files that are left out, by why they are."""
        by_reason: dict[str, list[str]] = {}
        for path, reason in self.left_out.items():
            by_reason.setdefault(reason, []).append(path)
        return by_reason


def sort_weight_files(
    tensors: Mapping[str, Collection[str]],
    paths: Collection[str],
    read: Callable[[str], bytes | None],
) -> WeightFiles:
    """Which files are the model.

    tensors  path of each safetensors file -> the names of its tensors
    paths    of all files; `read` gives the bytes of an index among them
    """
    by_directory: dict[str, list[str]] = {}
    for path in tensors:
        by_directory.setdefault(directory_of(path), []).append(path)
    components: dict[str, tuple[str, ...]] = {}
    adapters: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for directory in sorted(by_directory):
        files = by_directory[directory]
        reason = _no_component(directory, tensors, files, components, paths)
        if reason is not None:
            left_out |= dict.fromkeys(files, reason)
        elif directory != TOP and directory + _ADAPTER in paths:
            adapters[directory] = tuple(files)
        else:
            chosen, reason = _chosen(directory, files, paths, read)
            components[directory] = tuple(chosen)
            left_out |= {path: reason for path in files if path not in chosen}
    return WeightFiles(components, adapters, left_out)


def is_left_alone(directory: str) -> str | None:
    """Why nothing below a directory is looked at, by its name; None where it is."""
    if is_checkpoint(directory):
        return "a checkpoint of its training"
    if any(name in _COPIES for name in directory.rstrip("/").split("/")):
        return "the same model for another program"
    return None


def is_checkpoint(directory: str) -> bool:
    """Whether a directory is a state of a training, by its name."""
    return any(_TRAINING.fullmatch(name) for name in directory.rstrip("/").split("/"))


def _no_component(
    directory: str,
    tensors: Mapping[str, Collection[str]],
    files: Sequence[str],
    components: Mapping[str, Sequence[str]],
    paths: Collection[str],
) -> str | None:
    """Why a directory holds no part of the model; None where it does."""
    if directory == TOP:
        return None
    reason = is_left_alone(directory)
    if reason is not None:
        return reason
    if TOP in components and not any(name in paths for name in _PIPELINES):
        names = {name for path in files for name in tensors[path]}
        top = {name for path in components[TOP] for name in tensors[path]}
        if len(names & top) * 2 > len(names):
            return "another model with the same tensors"
    return None


def _chosen(
    directory: str,
    files: Sequence[str],
    paths: Collection[str],
    read: Callable[[str], bytes | None],
) -> tuple[list[str], str]:
    """The files of a directory that are its model, and why the others are not."""
    for index in _indexes(directory, paths):
        content = read(index)
        if content is None:
            continue
        named = {directory + shard for shard in parse_index(content, index).values()}
        chosen = [path for path in files if path in named]
        if chosen:
            return chosen, f"{_base(index)} names the weights, and not these"
    ranks = {path: _rank(_base(path)) for path in files}
    first = min(ranks.values())
    check_shards([path for path in files if ranks[path] == first])
    if first < len(_STANDARD):
        return [path for path in files if ranks[path] == first], (
            "a second set of weights beside those that are loaded by default"
        )
    # Files of any other names are shards that nobody wrote an index for.
    plain = [path for path in files if ranks[path] == first]
    return plain, "a second set of weights"


def check_shards(paths: Collection[str]) -> None:
    """Raise IncompleteCheckpoint where names count shards, and one of them is not there."""
    seen: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        match = _COUNTED.search(path)
        if match is not None:
            rest = path[: match.start()] + path[match.end() :]
            seen.setdefault((rest, int(match["count"])), set()).add(int(match["number"]))
    for (_, count), numbers in seen.items():
        # Some count from 0.
        if len(numbers) < count:
            lacking = min(set(range(1, count + 1)) - numbers)
            example = next(path for path in paths if f"-of-{count:05}" in path)
            raise IncompleteCheckpoint(
                f"{quoted(example)} is one of {count} files, and number {lacking} is not there",
                "fetch the missing files (an interrupted download?)",
            )


def _indexes(directory: str, paths: Collection[str]) -> list[str]:
    """The indexes in a directory, the one that is loaded by default first."""
    indexes = [
        (_order(match["stem"]), match["variant"] or "", path)
        for path in paths
        if directory_of(path) == directory and (match := _INDEX.fullmatch(_base(path)))
    ]
    return [path for _, _, path in sorted(indexes)]


def _rank(name: str) -> int:
    """Of a weight file: which set it belongs to; the lowest is the model."""
    match = _NAME.fullmatch(name)
    if match is None:
        return len(_STANDARD)
    variant, stem = match["variant"], match["stem"]
    if variant and stem not in _STANDARD:
        return len(_STANDARD)  # a name with a dot in it
    return _order(stem) + (len(_STANDARD) + len(_LAST) + 1 if variant else 0)


def _order(stem: str) -> int:
    if stem in _STANDARD:
        return _STANDARD.index(stem)
    return len(_STANDARD) + (1 if stem.partition(".")[0] in _LAST else 0)


def directory_of(path: str) -> str:
    """The directory of a file with its final slash; empty for the top one."""
    return path[: path.rfind("/") + 1]


def _base(path: str) -> str:
    return path[path.rfind("/") + 1 :]
