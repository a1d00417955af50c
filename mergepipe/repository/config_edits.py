"""Edits of a config file's text that keep its comments; what comes out is read before it counts."""

import re
from typing import TYPE_CHECKING, Any

from mergepipe.errors import ConfigError
from mergepipe.repository.config import AS_TYPED, FORMAT, parse, parser_of, split_key

if TYPE_CHECKING:
    import tomlkit


def with_value(text: str, key: str, value: str) -> str:
    """`text` with `key` set to what `value` says, comments kept. Raises ConfigError."""
    parsed = parser_of(key)(value)
    *folders, name = split_key(key)
    document = _document(text)
    table: Any = document
    for folder in folders:
        # A `remote` table that only holds other tables needs no header of its own.
        table = table.setdefault(folder, _tomlkit().table(is_super_table=folder == "remote"))
    # It stays as it was typed: 1MiB says more than 1048576.
    table[name] = value if key in AS_TYPED and not value.isdigit() else parsed
    return _checked(document)


def without_value(text: str, key: str) -> str:
    """`text` without `key`, which then has its default; a remote's last key takes its table.

    Raises ConfigError if the text does not set it.
    """
    parser_of(key)
    *folders, name = split_key(key)
    document = _document(text)
    tables: list[Any] = [document]
    for folder in folders:
        tables.append(tables[-1].get(folder, {}))
    if name not in tables[-1]:
        raise ConfigError(f"{key} is not set", "`mp config` lists what is")
    del tables[-1][name]
    if folders[0] == "remote" and not tables[-1]:
        del tables[-2][folders[-1]]
    return _checked(document)


def without_remote(text: str, remote: str) -> str:
    """`text` without any setting of a remote. Raises ConfigError if there is none."""
    document = _document(text)
    if remote not in document.get("remote", {}):
        raise ConfigError(f"no remote is called {remote!r}", "`mp remote list` lists them")
    del document["remote"][remote]
    return _checked(document)


def with_renamed_remote(text: str, old: str, new: str) -> str:
    """`text` with a remote's settings under another name. Raises ConfigError if there is none."""
    document = _document(text)
    remotes = document.get("remote", {})
    if old not in remotes:
        raise ConfigError(f"no remote is called {old!r}", "`mp remote list` lists them")
    remotes[new] = remotes.pop(old)
    return _checked(document)


def with_format(text: str) -> str:
    """`text` with this release's `format`, unless it names one."""
    document = _document(text)
    return text if "format" in document else f"format = {FORMAT}\n{text}"


def with_feature(text: str, name: str, used: bool) -> str:
    """`text` whose `requires` names a feature, or does so no more. It has a `format` already."""
    document = _document(text)
    named = [str(each) for each in document.get("requires", [])]
    if (name in named) == used:
        return text
    kept = [each for each in named if each != name] + [name] * used
    if "requires" not in document:
        # tomlkit would put it at the end, into the last table.
        return re.sub(
            r"(?m)^format\b.*\n?",
            lambda found: f'{found[0].rstrip()}\nrequires = ["{name}"]\n',
            text,
            count=1,
        )
    if kept:
        document["requires"] = kept
    else:
        del document["requires"]
    return _checked(document)


def _document(text: str) -> "tomlkit.TOMLDocument":
    try:
        document: tomlkit.TOMLDocument = _tomlkit().parse(text)
    except ValueError as error:  # the base of every tomlkit parse error
        raise ConfigError(f"the config file is not valid TOML: {error}") from error
    return document


def _checked(document: "tomlkit.TOMLDocument") -> str:
    text: str = _tomlkit().dumps(document)
    parse(text)
    return text


def _tomlkit() -> Any:
    # Only what edits the file pays for it: tomllib reads, and knows nothing of comments.
    import tomlkit

    return tomlkit
