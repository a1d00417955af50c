"""The files of a merge's output that are not tensors: made for it, or taken over from an input."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergepipe.formats.adapter_config import ADAPTER_CONFIG
from mergepipe.formats.config_json import CONFIG_NAME, amended, dump_config, parse_config
from mergepipe.formats.generation_layers import GENERATION_CONFIG
from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.model_card import CARD_NAME, RECIPE_NAME, Card, model_card
from mergepipe.formats.tokenizer_names import PROCESSOR, TEMPLATE, is_tokenizer_file
from mergepipe.formats.weight_files import TOP
from mergepipe.objects.records import FileEntry, Safetensors, Snapshot
from mergepipe.planner.mergekit.expanded import Expanded
from mergepipe.planner.mergekit.shelf import ModelSource
from mergepipe.planner.model_files import ModelFiles
from mergepipe.vocabularies import Vocabulary, adjusted_ids, without_template

# About the model that they lie beside, not about the output.
_OTHERS = frozenset((CARD_NAME, RECIPE_NAME, ".gitattributes", ".gitignore", ADAPTER_CONFIG))


@dataclass(frozen=True, slots=True)
class FilesBeside:
    """What an output has beside its tensors.

    made     by path, what is the output's own
    carried  files of the model that the output is like, as they stand
    """

    made: Mapping[str, bytes]
    carried: tuple[FileEntry, ...]


def files_beside(
    expanded: Expanded,
    own: Vocabulary | None,
    source: ModelSource,
    card: Card,
) -> FilesBeside:
    """The files beside the tensors of a recipe's output.

    own  the vocabulary of the model whose other files it takes over

    config.json and generation_config.json of each component have the output's layers, those on top
    its rows and the ids of its tokens. Files that come out as they were are taken over bit for bit.
    """
    like = expanded.like.layout
    files: dict[str, bytes] = {CARD_NAME: model_card(card)}
    if card.recipe:
        files[RECIPE_NAME] = card.recipe.encode()
    files.update(expanded.tokenizer.files)
    for directory, output in expanded.components.items():
        if output.config is not None:
            top = output is expanded.output
            changes = adjusted_ids(output.config, expanded.tokens, own) if top else {}
            config = amended(output.config, changes)
            _replace(files, directory + CONFIG_NAME, config, like, source)
    template = files.get(TEMPLATE)
    if template is not None and template != source.read_file(like, TEMPLATE):
        processor = source.read_file(like, PROCESSOR)
        changed = None if processor is None else without_template(processor, PROCESSOR)
        if changed is not None:
            files[PROCESSOR] = changed
    for directory in dict.fromkeys((TOP, *expanded.components)):
        path = directory + GENERATION_CONFIG
        generation = source.read_file(like, path)
        if generation is not None:
            result = expanded.components.get(directory)
            settings = None if result is None else result.generation
            if settings is None:
                settings = parse_config(generation, path)
            top = result in (None, expanded.output)
            changes = adjusted_ids(settings, expanded.tokens, own) if top else {}
            _replace(files, path, {**settings, **changes}, like, source)
    return FilesBeside(files, tuple(_carried(expanded.like, files, expanded.stale)))


def _replace(
    made: dict[str, bytes],
    path: str,
    config: Mapping[str, Any],
    like: Snapshot,
    source: ModelSource,
) -> None:
    """A config of the output's own, unless it is what `like` has."""
    content = source.read_file(like, path)
    if content is None or parse_config(content, path) != config:
        made[path] = dump_config(config)


def _carried(
    like: ModelFiles, made: Mapping[str, bytes], stale: Sequence[str]
) -> Iterable[FileEntry]:
    gone = {path for path in stale if not path.endswith("/")}
    directories = tuple(path for path in stale if path.endswith("/"))
    adapters = {path for files in like.sorted.adapters.values() for path in files}
    for file in like.layout.files:
        name = file.path.rpartition("/")[2]
        if file.path in gone or file.path.startswith(directories):
            continue
        if file.path in adapters or file.path.startswith(tuple(like.sorted.adapters)):
            yield file
        elif isinstance(file.content, Safetensors) or file.path in made:
            continue
        elif (
            not name.endswith(INDEX_SUFFIX)
            and name not in _OTHERS
            and not is_tokenizer_file(file.path)
        ):
            yield file
