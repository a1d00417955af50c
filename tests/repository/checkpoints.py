"""Small checkpoints on disk and a repository to commit them to."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergepipe.api import Repository
from mergepipe.dtypes import dtype_of
from mergepipe.formats.safetensors import build_header
from mergepipe.ids import ObjectId
from mergepipe.repository.layout import initialise
from mergepipe.repository.reflog import Signature

WHO = Signature("Ada <ada@example.org>", 1_700_000_000, 0)
NAMES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "uint8": "U8",
         "bool": "BOOL", "complex64": "C64", "int8": "I8"}  # fmt: skip
Array = NDArray[np.generic]
Raw = tuple[str, tuple[int, ...], bytes]


def bf16(values: NDArray[np.floating]) -> Raw:
    """`values`, cut down to bf16."""
    bits = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return "BF16", values.shape, bits.tobytes()


def write_model(folder: Path, tensors: Mapping[str, Array | Raw], **files: bytes | str) -> Path:
    """A directory with `model.safetensors` and other files (`_` in their names for `.`)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def write_tensors(path: Path, tensors: Mapping[str, Array | Raw]) -> None:
    """A safetensors file."""
    raws = {
        name: value
        if isinstance(value, tuple)
        else (NAMES[str(value.dtype)], value.shape, value.tobytes())
        for name, value in tensors.items()
    }
    header = build_header(
        [(name, dtype_of(dtype), shape) for name, (dtype, shape, _) in raws.items()], {}
    )
    path.write_bytes(header + b"".join(raw for _, _, raw in raws.values()))


def new_repository(folder: Path, block_size: int = 4096, codec: str = "raw") -> Repository:
    """A repository with small blocks; raw ones unless told otherwise, so that sizes are known."""
    directory = initialise(folder)
    settings = f'format = 1\n[store]\nblock_size = {block_size}\ncodec = "{codec}"\n'
    (directory / "config.toml").write_text(settings)
    return Repository.open(folder, who=WHO)


def commit(repo: Repository, path: Path, branch: str, base: str | None = None) -> ObjectId:
    return repo.commit(path, message=branch, branch=branch, base=base).commit
