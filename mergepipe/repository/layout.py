"""Where everything of a repository lives, how one is found, and how one is made.

These names are written here and nowhere else; docs/format.md lists what each holds.
"""

import contextlib
import grp
import os
import shutil
import stat
from pathlib import Path

from mergepipe.bytestore import unfinished
from mergepipe.bytestore.elsewhere import POINTER, base_of, read_elsewhere
from mergepipe.bytestore.local_writer import make_durable, sync_directory
from mergepipe.bytestore.sharing import share_tree
from mergepipe.bytestore.untrusted import check_tree, is_real_directory, status_of
from mergepipe.errors import (
    ConfigError,
    MergepipeError,
    NoRepository,
    UnsafeRepository,
    UsageError,
)
from mergepipe.failpoints import reached
from mergepipe.repository import (
    config,
    config_edits,
    config_values,
    leases,
    operations,
    push_log,
    reading_rounds,
    waiting,
)
from mergepipe.repository.refnames import HEADS, TAGS

DIRECTORY = ".mergepipe"

CONFIG = "config.toml"
HEAD = "HEAD"
REFS = "refs"
LOGS = "logs"
PACKS = "packs"
INDEX = "index"
WORKTREE = "worktree"
HOOKS = "hooks"
RECIPES = "recipes"
RUNS = "runs"
NOTES = "notes"
PLANS = waiting.FOLDER
CACHE = "cache"
INCOMING = "incoming"
UNFINISHED = "unfinished"
REMOTES = "remotes"
LEASES = leases.FOLDER
PUSHES = push_log.KEY
OPERATIONS = operations.KEY
READING = reading_rounds.KEY
TMP = "tmp"
ELSEWHERE = POINTER
LOCK = "lock"
STORE_LOCK = "store.lock"
WORKTREE_LOCK = "worktree.lock"

DEFAULT_BRANCH = "main"

_FOLDERS = (HEADS, TAGS, LOGS, PACKS, HOOKS, RECIPES, RUNS, TMP)
_DIRECTORIES = (
    REFS,
    LOGS,
    PACKS,
    INDEX,
    HOOKS,
    RECIPES,
    RUNS,
    NOTES,
    PLANS,
    CACHE,
    INCOMING,
    UNFINISHED,
    REMOTES,
    LEASES,
    TMP,
)
# What a template must not bring: history comes from commits, not from a folder somebody copied.
_RESERVED = (
    HEAD,
    REFS,
    LOGS,
    PACKS,
    INDEX,
    WORKTREE,
    RUNS,
    NOTES,
    PLANS,
    CACHE,
    INCOMING,
    UNFINISHED,
    REMOTES,
    LEASES,
    ELSEWHERE,
    PUSHES,
    OPERATIONS,
    READING,
    TMP,
    LOCK,
    STORE_LOCK,
    WORKTREE_LOCK,
)


def find(start: Path) -> Path:
    """The `.mergepipe` directory of `start` or of its nearest parent that has one.

    Raises NoRepository, UnsafeRepository for a link or a special file of that name.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        # A parent that we may not search is one without a repository.
        with contextlib.suppress(PermissionError):
            if is_real_directory(folder / DIRECTORY):
                return folder / DIRECTORY
    raise NoRepository(
        f"no {DIRECTORY} directory in {start} or any parent", "make one here with `mp init`"
    )


def check(directory: Path) -> None:
    """Raise UnsafeRepository unless all of the repository is regular files and real directories.

    Its first 100,000 files are looked at (some 1 ms for a thousand), and the names above have to be
    what they belong to be.
    """
    check_tree(directory)
    elsewhere = read_elsewhere(directory)
    for place in elsewhere.places():
        check_tree(place)
    for name in _DIRECTORIES:
        status = status_of(base_of(elsewhere, directory, name) / name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise UnsafeRepository(
                f"{directory / name} is no directory, as it has to be", "mp init makes another"
            )


def has_packs(directory: Path) -> bool:
    """Whether a directory has packs, or says where it has them: it may be a repository."""
    return (directory / PACKS).is_dir() or status_of(directory / ELSEWHERE) is not None


def default_template() -> Path:
    """The template that came with this release: in the wheel, or at the root of a checkout."""
    package = Path(__file__).parents[1]  # mergepipe/
    for folder in (package / "_template", package.parent / ".mergepipe-template"):
        if folder.is_dir():
            return folder
    raise MergepipeError(
        f"the repository template is missing from {package}", "install mergepipe again"
    )


def initialise(
    directory: Path,
    template: Path | None = None,
    block_size: int | None = None,
    shared: str | None = None,
) -> Path:
    """Make `directory/.mergepipe` and return it; the directory is made too if it is not there.

    `block_size` (bytes) replaces the template's. `shared`: with a unix group, by name, or `group`
    for that of the directory. The repository is built under another name and
    renamed when it is complete, so that there is never half of one.
    Raises UsageError if there is a repository already or the template cannot be one, ConfigError
    for a template's config that does not parse.
    """
    # Without `..`, as the system follows it: links on the way included.
    directory = directory.absolute() if ".." not in directory.parts else directory.resolve()
    target = directory / DIRECTORY
    if os.path.lexists(target):
        raise _exists(target)
    source = default_template() if template is None else template
    if not source.is_dir():
        raise UsageError(f"no template directory {source}")
    make_durable(directory)
    with unfinished.building(directory, f"{DIRECTORY}.init-") as unfinished_folder:
        building = unfinished_folder.path
        _copy_template(source, building)
        _fill(building, block_size, shared=shared is not None)
        if shared is not None:
            share_tree(building, _group(shared, directory))
        _sync_tree(building)
        reached("init.rename")
        try:
            building.rename(target)
        except OSError as error:
            # Another init finished first: a directory with something in it is not replaced.
            if os.path.lexists(target):
                raise _exists(target) from error
            raise
    sync_directory(directory)
    return target


def _group(name: str, directory: Path) -> int:
    """The number of a unix group, or with `group` that of a directory. Raises UsageError."""
    if name == config_values.SHARED:
        return directory.stat().st_gid
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(
            f"there is no group {name!r} on this machine",
            "--shared alone takes the group of the directory",
        ) from None


def _exists(target: Path) -> UsageError:
    return UsageError(
        f"there is a repository already: {target}",
        "use it as it is, or choose another directory; `mp config` changes its settings",
    )


def _fill(building: Path, block_size: int | None, *, shared: bool) -> None:
    for folder in _FOLDERS:
        (building / folder).mkdir(parents=True, exist_ok=True)
    (building / HEAD).write_bytes(f"ref: {HEADS}{DEFAULT_BRANCH}\n".encode())
    for name in (LOCK, STORE_LOCK):
        (building / name).touch()
    path = building / CONFIG
    text = _read_text(path) if path.exists() else ""
    text = config_edits.with_format(text)
    if block_size is not None:
        text = config_edits.with_value(text, "store.block_size", str(block_size))
    if shared:
        text = config_edits.with_value(text, "core.shared", config_values.SHARED)
    config.parse(text, where=str(path))
    path.write_text(text, encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error


def _copy_template(source: Path, target: Path) -> None:
    """Copy files and the executable bit, nothing else: a template may be installed read-only."""
    for entry in sorted(source.iterdir()):
        if entry.name in _RESERVED:
            raise UsageError(
                f"a template cannot bring {entry.name!r}: {source}",
                f"it may hold {CONFIG}, {HOOKS}/, {RECIPES}/ and files of your own",
            )
        if entry.name != "__pycache__":
            _copy(entry, target / entry.name)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for entry in sorted(source.iterdir()):
            _copy(entry, target / entry.name)
    elif source.is_file():
        shutil.copyfile(source, target)
        if source.stat().st_mode & stat.S_IXUSR:
            mode = target.stat().st_mode
            # Whoever may read it may run it, so the umask still decides.
            target.chmod(stat.S_IMODE(mode) | (mode & 0o444) >> 2)
    else:
        raise UsageError(f"a template holds files and folders only, not {source}")


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))
