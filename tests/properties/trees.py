"""Directories of files as hypothesis draws them, and as they stand on a disk."""

import json
import math
import os
import random
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from mergepipe.dtypes import DTYPES, DType, byte_length
from mergepipe.errors import UnsafePath
from mergepipe.formats.ignore import IGNORE_FILE
from mergepipe.objects.paths import check_paths

BLOCK_BYTES = 4096
# Content and executable bit, by path.
Tree = Mapping[str, tuple[bytes, bool]]

_WHOLE = {dtype: math.lcm(dtype.bits, 8) // dtype.bits for dtype in DTYPES.values()}


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one example of hypothesis, which takes no fixtures of that scope."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def write_tree(tree: Tree, root: Path) -> None:
    for path, (content, executable) in tree.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755 if executable else 0o644)


def read_tree(root: Path) -> dict[str, tuple[bytes, bool]]:
    """Every file below `root` but what `.mergepipe` holds; fails on anything that is no file."""
    found = {}
    for folder, folders, names in os.walk(root):
        if ".mergepipe" in folders:
            folders.remove(".mergepipe")
        for name in names:
            location = Path(folder) / name
            mode = location.lstat().st_mode
            assert stat.S_ISREG(mode), location
            path = location.relative_to(root).as_posix()
            found[path] = (location.read_bytes(), bool(mode & stat.S_IXUSR))
    return found


def replace_tree(tree: Tree, root: Path) -> None:
    """Make `root` hold `tree` and nothing else beside its `.mergepipe`."""
    for entry in root.iterdir():
        if entry.name != ".mergepipe":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_tree(tree, root)


def content(seed: int, length: int) -> bytes:
    """Bytes that repeat from call to call: half of what a store does is finding the same again."""
    return bytes(length) if seed == 0 else random.Random(seed).randbytes(length)


seeds = st.integers(0, 5)
lengths = st.one_of(
    st.integers(0, 40),
    st.sampled_from([BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES]),
    st.integers(0, 5 * BLOCK_BYTES),
)
blobs = st.builds(content, seeds, lengths)

_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_texts = st.dictionaries(_names, _names, max_size=3)


@st.composite
def shapes(draw: st.DrawFn, dtype: DType) -> tuple[int, ...]:
    """Scalars, empty ones, rows that fit a block and rows that do not."""
    shape = tuple(
        draw(
            st.one_of(
                st.lists(st.integers(0, 6), max_size=3),
                st.tuples(st.integers(1, 9), st.sampled_from([1, 7, 300, 1024, 2500])),
            )
        )
    )
    return (*shape, _WHOLE[dtype]) if _WHOLE[dtype] > 1 else shape


@st.composite
def tensor_files(draw: st.DrawFn) -> bytes:
    """A safetensors file with every freedom the format gives: order, spaces, padding, metadata."""
    data = []
    entries: list[tuple[str, object]] = []
    at = 0
    names = st.lists(_names.filter(lambda name: name != "__metadata__"), unique=True, max_size=4)
    for name in draw(names):
        dtype = draw(st.sampled_from(list(DTYPES.values())))
        shape = draw(shapes(dtype))
        size = byte_length(dtype, shape)
        data.append(content(draw(seeds), size))
        offsets = [at, at + size]
        entries.append((name, {"dtype": dtype.name, "shape": shape, "data_offsets": offsets}))
        at += size
    if metadata := draw(_texts):
        entries.append(("__metadata__", metadata))
    entries = draw(st.permutations(entries))
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    text = json.dumps(
        dict(entries), ensure_ascii=draw(st.booleans()), separators=(comma, colon)
    ).encode()
    text += b" " * draw(st.integers(0, 17))
    return struct.pack("<Q", len(text)) + text + b"".join(data)


_components = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/\\"),
    min_size=1,
    max_size=10,
)
_folders = st.lists(_components, max_size=3).map(lambda parts: "".join(p + "/" for p in parts))


def _may_stand_together(paths: list[str]) -> bool:
    try:
        check_paths(paths)
    except UnsafePath:
        return False
    return True


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[bytes, bool]]:
    """One to six files, tensor files among them, at any depth and under any allowed name."""
    tree: dict[str, tuple[bytes, bool]] = {}
    for _ in range(draw(st.integers(1, 6))):
        is_tensors = draw(st.booleans())
        name = draw(_components) + (".safetensors" if is_tensors else "")
        # Not names that give other files a meaning: ignore rules, a checkpoint's shard index.
        if name == IGNORE_FILE or name.endswith(".index.json"):
            continue
        path = draw(_folders) + name
        if _may_stand_together([*tree, path]):
            tree[path] = (draw(tensor_files() if is_tensors else blobs), draw(st.booleans()))
    return tree or {"model": (b"", False)}
