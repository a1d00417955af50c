"""Settings of a repository: `config.toml`, read strictly (`config_edits` changes it)."""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct, field

from mergepipe.bytestore.untrusted import read_plain
from mergepipe.errors import ConfigError, DamagedConfig, InvalidRefName, MergepipeError
from mergepipe.executors.choosing import AUTO
from mergepipe.repository import config_values, durations
from mergepipe.repository.refnames import REMOTES, check_ref_name
from mergepipe.sizes import GIB, MIB

FORMAT = 1
# What `requires` may name: things that a reader must know although the layout stays as it is.
# `elsewhere`: packs or the index may be on another disk.
FEATURES: tuple[str, ...] = ("elsewhere",)
Value: TypeAlias = str | int | float | bool


class StoreSettings(Struct, frozen=True):
    """`[store]`: how new blocks are cut (`block_size` in bytes) and encoded."""

    block_size: int = MIB
    codec: str = "auto"
    max_chain: int = 2


class CoreSettings(Struct, frozen=True):
    """`[core]`: `lock_timeout` in seconds; `threads`, 0 for one per CPU; `executor`, who works.

    `shared`: `group`, if all of a unix group may write here, else `umask`.
    """

    lock_timeout: float = 10.0
    threads: int = 0
    executor: str = AUTO
    shared: str = config_values.UNSHARED


class UserSettings(Struct, frozen=True):
    """`[user]`: the author of commits, `Name <mail>`; empty for the login name."""

    author: str = ""


class HookSettings(Struct, frozen=True):
    """`[hooks]`: whether hooks run at all."""

    enabled: bool = True


class ReceiveSettings(Struct, frozen=True):
    """`[receive]`: what others may send. `limit`: bytes kept for them before they are taken in.

    `deny_force`: branches only move forward, tags stay, and neither can be removed from afar.
    `allow_purge`: who may push may also purge models here, for good.
    """

    limit: int = 64 * GIB
    deny_force: bool = False
    allow_purge: bool = False


class MergeSettings(Struct, frozen=True):
    """`[merge]`: `cache`, bytes kept of sums that later merges of the same models begin with.

    `blocks`: where merges of a lazy clone put blocks: `clone`, `remote`, or `auto`, there if others
    do the work (docs/scale-out.md).
    """

    cache: int = 0
    blocks: str = "auto"


class GcSettings(Struct, frozen=True):
    """`[gc]`: what gc leaves alone. `grace`: for how many seconds it keeps what nothing needs.

    `reflog_expire`: seconds after which it drops a move from a reflog.
    """

    grace: int = durations.WEEK_S * 2
    reflog_expire: int = durations.LONGEST_S


class RemoteSettings(Struct, frozen=True):
    """`[remote.NAME]`: where another copy of the repository is.

    `lazy`: blocks are fetched from it when they are read (docs/format-remote.md, "Lazy clones").
    `depth`: commits that come of a line of history that begins elsewhere; 0: all of them.
    """

    url: str
    lazy: bool = False
    depth: int = 0


class Config(Struct, frozen=True):
    """All settings, defaults included."""

    store: StoreSettings = field(default_factory=StoreSettings)
    core: CoreSettings = field(default_factory=CoreSettings)
    user: UserSettings = field(default_factory=UserSettings)
    hooks: HookSettings = field(default_factory=HookSettings)
    receive: ReceiveSettings = field(default_factory=ReceiveSettings)
    gc: GcSettings = field(default_factory=GcSettings)
    merge: MergeSettings = field(default_factory=MergeSettings)
    remote: Mapping[str, RemoteSettings] = field(default_factory=dict)

    def get(self, key: str) -> Value:
        """The value of `store.codec` and the like. Raises ConfigError for an unknown key."""
        for name, value in self.items():
            if name == key:
                return value
        parser_of(key)
        raise ConfigError(f"{key} is not set")

    def items(self) -> Iterator[tuple[str, Value]]:
        """Every key with its value, in the order of the file that `mp init` writes."""
        for key in _KEYS:
            section, name = key.split(".")
            yield key, getattr(getattr(self, section), name)
        for remote, settings in self.remote.items():
            yield f"remote.{remote}.url", settings.url
            if settings.lazy:
                yield f"remote.{remote}.lazy", True
            if settings.depth:
                yield f"remote.{remote}.depth", settings.depth


def parse(text: str, where: str = "config.toml") -> Config:
    """The settings in the text of a config file; `where` names it in errors.

    Raises ConfigError: not TOML, unknown key, value of the wrong kind, or a newer format.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DamagedConfig(
            f"{where} is not valid TOML: {error}",
            f"edit {where}, or remove it: every setting has a default, remotes are added again",
        ) from error
    _check_format(document, where)
    values: dict[str, dict[str, Value]] = {name: {} for name in _SECTIONS}
    remotes: dict[str, dict[str, Value]] = {}
    for key, value in _flatten(document, where):
        try:
            parsed = parser_of(key)(value)
        except MergepipeError as error:
            raise ConfigError(f"{where}: {error.message}", error.hint) from error
        section, _, name = key.partition(".")
        if section == "remote":
            remote, _, name = name.rpartition(".")
            remotes.setdefault(remote, {})[name] = parsed
        else:
            values[section][name] = parsed
    for remote, settings in remotes.items():
        if "url" not in settings:
            raise ConfigError(f"{where}: remote.{remote} has no url", "mp remote rm, or set one")
    # parser_of has checked each value's type against the field it is for.
    sections: dict[str, Any] = {name: cls(**values[name]) for name, cls in _SECTIONS.items()}
    of_remotes: dict[str, Any] = remotes
    return Config(
        remote={name: RemoteSettings(**settings) for name, settings in of_remotes.items()},
        **sections,
    )


def _check_format(document: Mapping[str, object], where: str) -> None:
    version = document.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigError(
            f"{where} does not say which format the repository has",
            f"restore the line `format = {FORMAT}`, above every [section]",
        )
    if version > FORMAT:
        raise ConfigError(
            f"{where}: the repository has format {version}; this mergepipe reads up to {FORMAT}",
            "use a newer mergepipe",
        )
    required = document.get("requires", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ConfigError(f"{where}: `requires` is a list of names", "remove or mend the line")
    unknown = [name for name in required if name not in FEATURES]
    if unknown:
        raise ConfigError(
            f"{where}: the repository needs {', '.join(unknown)}; this mergepipe cannot",
            "use a newer mergepipe",
        )


def _flatten(document: Mapping[str, object], where: str) -> Iterator[tuple[str, object]]:
    for section, content in document.items():
        if section in ("format", "requires"):
            continue
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: unknown key {section!r}", _nearest(section))
        if section not in _SECTIONS and section != "remote":
            raise ConfigError(f"{where}: unknown section [{section}]", _nearest(section))
        for name, value in content.items():
            if section == "remote" and isinstance(value, dict):
                yield from ((f"remote.{name}.{inner}", kept) for inner, kept in value.items())
            else:
                yield f"{section}.{name}", value


def split_key(key: str) -> list[str]:
    """`remote.NAME.url` in three parts, even if NAME has dots; other keys in two."""
    section, _, name = key.partition(".")
    if section == "remote":
        remote, _, last = name.rpartition(".")
        return [section, remote, last]
    return [section, name]


def parser_of(key: str) -> Callable[[object], Value]:
    """What makes the setting of a key out of what is given for it. Raises ConfigError."""
    if key in _KEYS:
        return lambda value: _named(key, _KEYS[key], value)
    if key.startswith("remote."):
        _, remote, name = split_key(key)
        if name in _REMOTE_KEYS and remote:
            try:
                check_ref_name(f"{REMOTES}{remote}/x")
            except InvalidRefName as error:
                raise ConfigError(f"not a name for a remote: {remote!r}", error.hint) from error
            return lambda value: _named(key, _REMOTE_KEYS[name], value)
    if key in ("store.packs", "store.index"):
        raise ConfigError(
            f"{key} is no line of a file: it is said by both sides",
            f"mp config {key} DIR moves them there",
        )
    raise ConfigError(f"unknown key {key!r}", _nearest(key))


def _nearest(key: str) -> str:
    known = [*_KEYS, *_SECTIONS, "remote.NAME.url"]
    section, dot, _ = key.partition(".")
    # `user.name` is near `user`, which is no key: those of its section are meant.
    inside = [each for each in _KEYS if dot and each.startswith(f"{section}.")]
    near = difflib.get_close_matches(key, inside or known, 1, cutoff=0.0 if inside else 0.6)
    return f"did you mean {near[0]}?" if near else f"keys: {', '.join(known[: len(_KEYS)])}"


def _named(key: str, parse_value: Callable[[object], Value], value: object) -> Value:
    try:
        return parse_value(value)
    except MergepipeError as error:
        raise ConfigError(f"{key}: {error.message}", error.hint) from error
    except ValueError as error:
        raise ConfigError(f"{key}: {error}", f"`mp config {key}` shows what it is now") from error


_SECTIONS: dict[str, Callable[..., Any]] = {
    "store": StoreSettings,
    "core": CoreSettings,
    "user": UserSettings,
    "hooks": HookSettings,
    "receive": ReceiveSettings,
    "gc": GcSettings,
    "merge": MergeSettings,
}
_KEYS: dict[str, Callable[[object], Value]] = {
    "store.block_size": config_values.block_size,
    "store.codec": config_values.codec,
    "store.max_chain": config_values.between(0, 8),
    "core.lock_timeout": config_values.seconds,
    "core.threads": config_values.between(0, 1024),
    "core.executor": config_values.executor,
    "core.shared": config_values.shared,
    "user.author": config_values.text,
    "hooks.enabled": config_values.flag,
    "receive.limit": config_values.receive_limit,
    "receive.deny_force": config_values.flag,
    "receive.allow_purge": config_values.flag,
    "gc.grace": config_values.grace,
    "gc.reflog_expire": config_values.grace,
    "merge.cache": config_values.receive_limit,
    "merge.blocks": config_values.blocks_at,
}
AS_TYPED = ("store.block_size", "receive.limit", "gc.grace", "gc.reflog_expire", "merge.cache")
_REMOTE_KEYS: dict[str, Callable[[object], Value]] = {
    "url": config_values.text,
    "lazy": config_values.flag,
    "depth": config_values.between(0, 1_000_000),
}


def load(path: Path) -> Config:
    """The settings in a file. Raises DamagedConfig, ConfigError."""
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a config file; none if it is not there, as every setting has a default."""
    try:
        return read_plain(path).decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise DamagedConfig(
            f"{path} is not UTF-8: {error}",
            f"edit {path}, or remove it: every setting has a default, remotes are added again",
        ) from error
