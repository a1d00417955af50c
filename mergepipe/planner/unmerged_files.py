"""What a merge does not take over of the files beside a model's weights: told, not decided, here.

A result has the files of one model. What others have otherwise may matter as much as weights do: a
config with another rope_theta, a tokenizer with more tokens, a chat template.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from mergepipe.formats.adapter_config import ADAPTER_CONFIG
from mergepipe.formats.beside_weights import stale
from mergepipe.formats.config_json import CONFIG_NAME
from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.model_card import CARD_NAME, RECIPE_NAME
from mergepipe.formats.tokenizer_names import TEMPLATE, TEMPLATE_JSON, is_tokenizer_file
from mergepipe.objects.records import Blob, FileEntry, Snapshot
from mergepipe.planner.model_files import ModelFiles, ReadFile
from mergepipe.plans.left_out import Kind, LeftOut, of_names

# Keys that say how a model was made or is run, not what its weights mean.
_BOOKKEEPING = frozenset(
    (
        *("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype"),
        *("use_cache", "auto_map", "_commit_hash", "_attn_implementation", "quantization_config"),
        *("finetuning_task", "task_specific_params", "architectures", "pretraining_tp"),
        *("tie_word_embeddings", "vocab_size"),
    )
)
# Of layers: a stack of them takes these from each.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# A model that does not have them means something by that.
_TELLING = ("rope", "sliding", "scaling")
_SAY_NOTHING = (CARD_NAME, RECIPE_NAME, ".gitattributes", ".gitignore", ADAPTER_CONFIG, "LICENSE")
_COMPARED_BYTES = 64 << 20
_MOST_VALUES = 3
_LONGEST_VALUE = 40
_ABSENT = "nothing"


class OtherModel(Struct, frozen=True):
    """A model, or an adapter, whose files the result does not have; configs by directory.

    files  those of the snapshot that could be taken over
    """

    label: str
    snapshot: Snapshot
    files: tuple[FileEntry, ...]
    configs: Mapping[str, Mapping[str, Any] | None]

    @classmethod
    def of(cls, files: ModelFiles) -> "OtherModel":
        """A model whose files were sorted."""
        configs = {place: component.config for place, component in files.components.items()}
        return cls(files.label, files.snapshot, files.layout.files, configs)


def unmerged_files(
    reference: ModelFiles,
    other: OtherModel,
    read: ReadFile,
    *,
    tokenizer: ModelFiles | None,
    stacked: bool = False,
) -> Iterator[LeftOut]:
    """What `other` has otherwise than a result with the files of `reference`.

    tokenizer  the model whose tokenizer it has; None: one that was made for it, which is compared
               by its tokens
    stacked    layers were put together anew, and the config follows
    """
    for directory, config in other.configs.items():
        theirs = reference.components.get(directory)
        if config is not None and theirs is not None and theirs.config is not None:
            yield from _configs(other.label, directory, config, theirs.config, stacked)
    mine = _Home(reference, read)
    tokens = mine if tokenizer is None or tokenizer is reference else _Home(tokenizer, read)
    differing: dict[Kind, list[str]] = {Kind.TOKENIZER: [], Kind.OTHER_FILES: []}
    for file in other.files:
        name = file.path.rpartition("/")[2]
        if not isinstance(file.content, Blob) or stale(file.path) or name == CONFIG_NAME:
            continue
        if name.startswith(_SAY_NOTHING) or name.endswith(INDEX_SUFFIX):
            continue
        kind, home = Kind.OTHER_FILES, mine
        if is_tokenizer_file(file.path):
            if tokenizer is None and file.path not in (TEMPLATE, TEMPLATE_JSON):
                continue
            kind, home = Kind.TOKENIZER, tokens
        if not home.has(other.snapshot, file):
            differing[kind].append(file.path)
    for kind, paths in differing.items():
        yield from of_names(kind, other.label, paths)


def _configs(
    label: str,
    directory: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    stacked: bool,
) -> Iterator[LeftOut]:
    differing = {
        directory + key: (mine, theirs)
        for key, (mine, theirs) in _differing(config, result, "").items()
        if not (stacked and (key.rpartition(".")[2] in _LAYERS or isinstance(mine, list)))
    }
    if differing:
        told = [
            f"{_value(mine)}, not {_value(theirs)}"
            for mine, theirs in list(differing.values())[:_MOST_VALUES]
        ]
        more = "" if len(differing) <= _MOST_VALUES else "; ..."
        yield LeftOut(Kind.CONFIG_KEYS, label, tuple(differing), "; ".join(told) + more)


def _differing(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], above: str
) -> dict[str, tuple[Any, Any]]:
    """Keys, with those of a mapping in it after a dot -> the two values; _ABSENT for none."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*mine, *theirs)):
        if key in _BOOKKEEPING or key.startswith("unsloth"):
            continue
        ours, other = mine.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if isinstance(ours, dict) and isinstance(other, dict):
            differing |= _differing(ours, other, f"{above}{key}.")
            continue
        telling = any(part in key for part in _TELLING)
        # Versions write their defaults or leave them out.
        if other is _ABSENT and not ours:
            continue
        if ours is _ABSENT and not (telling and other):
            continue
        if ours != other:
            differing[above + key] = ours, other
    return differing


def _value(value: Any) -> str:
    text = value if value is _ABSENT else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


class _Home:
    """The files of a model that a result takes over."""

    def __init__(self, model: ModelFiles, read: ReadFile) -> None:
        self._snapshot = model.snapshot
        self._files = {file.path: file for file in model.layout.files}
        self._read = read

    def has(self, snapshot: Snapshot, file: FileEntry) -> bool:
        """Whether it has the same file as another model."""
        theirs = self._files.get(file.path)
        if theirs is None or theirs.size != file.size:
            return False
        if theirs.content == file.content:
            return True
        # Files that were only looked at have no ids to go by.
        if file.size > _COMPARED_BYTES:
            return False
        return self._read(snapshot, file.path) == self._read(self._snapshot, file.path)
