"""Payloads written once stay readable, and every machine writes the same bytes.

`golden/` holds a block and its base (3,000 bf16 weights, read as other types too) and what each
codec made of them. A change that breaks `test_still_written` needs no new version, only new files
beside the old; one that breaks `test_still_read` is not allowed.
"""

from pathlib import Path

import pytest

from mergepipe.codecs.registry import NAMES, codec_named
from mergepipe.codecs.workspace import Workspace
from mergepipe.dtypes import BF16, DTYPES, F16, F32, DType

WORKSPACE = Workspace()

GOLDEN = Path(__file__).parent / "golden"
DTYPES_HERE = (BF16, F16, F32, DTYPES["I8"])
CASES = [(n, d) for n in NAMES if n != "raw" for d in DTYPES_HERE if codec_named(n).supports(d)]


def files(name: str, dtype: DType) -> list[Path]:
    codec = codec_named(name)
    stem = f"{name}-{codec.version}-{dtype.name.lower()}"
    return [GOLDEN / f"{stem}.{layer}.bin" for layer in range(codec.layers)]


def pair() -> tuple[bytes, bytes]:
    return (GOLDEN / "block.bin").read_bytes(), (GOLDEN / "base.bin").read_bytes()


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda value: str(value))
def test_still_read(name: str, dtype: DType) -> None:
    raw, base = pair()
    codec = codec_named(name)
    out = bytearray(len(raw))
    layers = [path.read_bytes() for path in files(name, dtype)]
    codec.decode_into(layers, base if codec.needs_base else None, memoryview(out), WORKSPACE)
    assert out == raw


@pytest.mark.parametrize(
    ("name", "dtype"),
    # zstd's own bytes may change with its version, and with them every codec that frames.
    [case for case in CASES if case[0] in ("residual", "split") and case[1] is not F32],
    ids=lambda value: str(value),
)
def test_still_written(name: str, dtype: DType) -> None:
    raw, base = pair()
    codec = codec_named(name)
    layers = codec.encode(raw, base if codec.needs_base else None, dtype, WORKSPACE)
    assert [bytes(layer) for layer in layers] == [p.read_bytes() for p in files(name, dtype)]
