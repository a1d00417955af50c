"""Files of torch.save: their tensors are found, and nothing in them is run."""

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mergepipe.errors import MalformedFile
from mergepipe.formats.torch_pickle import read_pickle
from mergepipe.formats.tree import scan_file


def state() -> "OrderedDict[str, torch.Tensor]":
    table = torch.arange(24.0).reshape(4, 6)
    return OrderedDict(
        plain=torch.randn(3, 4),
        turned=table.t(),
        rows=table[1:3],
        parameter=torch.nn.Parameter(torch.randn(2).bfloat16()),
        whole=torch.arange(5),
        scalar=torch.tensor(1.5),
        none=torch.zeros(0, 3),
        eight=torch.ones(2, 3).to(torch.float8_e4m3fn),
    )


@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_finds_the_tensors(tmp_path: Path, inside: str | None) -> None:
    tensors = state()
    saved = tensors if inside is None else {"epoch": 3, "note": "x", inside: tensors}
    torch.save(saved, tmp_path / "x.bin")
    found = read_pickle(scan_file(tmp_path / "x.bin"))
    raw = (tmp_path / "x.bin").read_bytes()
    assert list(found) == list(tensors)
    for name, one in found.items():
        expected = tensors[name].detach()
        assert one.shape == tuple(expected.shape)
        assert one.contiguous == expected.is_contiguous()
        width = one.dtype.bits // 8
        flat = np.frombuffer(raw[one.start : one.start + one.span_bytes], f"V{width}")
        strides = [stride * width for stride in one.strides]
        values = np.lib.stride_tricks.as_strided(flat, one.shape, strides).tobytes()
        assert values == expected.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch run",)


def rewritten(path: Path, content: bytes) -> None:
    """An archive with another pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")


def test_refuses_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.bin"
    for content, message in (
        (pickle.dumps({"a": Malicious()}), "it needs posix.system"),
        (pickle.dumps([1, 2]), "holds no dictionary of tensors"),
        (b"\x80\x02garbage", "damaged"),
        (b"", "damaged"),
    ):
        rewritten(path, content)
        with pytest.raises(MalformedFile, match=message):
            read_pickle(scan_file(path))
    assert not (tmp_path / "run").exists()
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(MalformedFile, match=r"it needs torch\.nn\.modules\.linear\.Linear"):
        read_pickle(scan_file(path))
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(MalformedFile, match="no archive of torch"):
        read_pickle(scan_file(path))
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(MalformedFile, match="larger than its storage"):
        read_pickle(scan_file(path))


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save(state(), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(MalformedFile):
            read_pickle(scan_file(path))
    source = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(whole)
        broken[source.integers(len(broken))] ^= 1 << source.integers(8)
        path.write_bytes(broken)
        try:
            read_pickle(scan_file(path))  # flipped weights and names are no damage
        except MalformedFile:
            continue


@pytest.mark.parametrize(
    "note",
    [b"r\xff\xff\xff\x7f", b"r\0\0\0\x20", b"p2000000000\n", b"p-1\n", b"q\xff"],
)
def test_a_table_of_values_is_no_longer_than_the_pickle(tmp_path: Path, note: bytes) -> None:
    """The standard library would make it first, and look at what comes then."""
    state = pickle.dumps({"x": 1}, 2)
    rewritten(tmp_path / "x.bin", state[:2] + b"}" + note + b"0" + state[2:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MalformedFile):
        read_pickle(scan_file(tmp_path / "x.bin"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
