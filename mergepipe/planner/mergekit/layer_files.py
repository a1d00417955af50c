"""Files beside a model's weights that name its layers, and are about others once those moved.

config.json and generation_config.json follow (`output_config`). Nobody here knows what other files
mean: `params.json` of Mistral counts layers, an adapter in a directory has tensors for each.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from mergepipe.formats.config_json import CONFIG_NAME
from mergepipe.formats.generation_layers import GENERATION_CONFIG
from mergepipe.formats.huggingface import INDEX_SUFFIX
from mergepipe.formats.tokenizer_names import is_tokenizer_file
from mergepipe.objects.records import Blob
from mergepipe.planner.model_files import ModelFiles, ReadFile

_FOLLOWED = (CONFIG_NAME, GENERATION_CONFIG)
_NAMING = re.compile("layer|alignment_heads|early_exit")
_READ_BYTES = 1 << 20


def layer_files(files: ModelFiles, read: ReadFile) -> Iterator[str]:
    """Paths of such files of a model, and directories of adapters."""
    yield from files.sorted.adapters
    adapters = tuple(files.sorted.adapters)
    for file in files.layout.files:
        name = file.path.rpartition("/")[2]
        if (
            isinstance(file.content, Blob)
            and name.endswith(".json")
            and not name.endswith(INDEX_SUFFIX)
            and name not in _FOLLOWED
            and not is_tokenizer_file(file.path)
            and not (adapters and file.path.startswith(adapters))
            and file.size <= _READ_BYTES
            and _names_layers(read(files.snapshot, file.path) or b"")
        ):
            yield file.path


def _names_layers(content: bytes) -> bool:
    try:
        return any(_numbered(json.loads(content)))
    except (ValueError, RecursionError):
        return False  # none that a library could read


def _numbered(value: Any) -> Iterator[bool]:
    """Whether keys of a document name layers, and have whole numbers."""
    if isinstance(value, dict):
        for key, item in value.items():
            first = item
            while isinstance(first, list) and first:
                first = first[0]
            yield type(first) is int and _NAMING.search(key) is not None
            yield from _numbered(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbered(item)
