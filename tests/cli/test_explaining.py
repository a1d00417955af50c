"""explain: what a person reads of a merge, and what of it is JSON."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.conftest import Mp
from tests.cli.families import CHANGED, TIES


def test_explain_orders_limits_and_details(merging: Path, mp: Mp) -> None:
    mp("merge", *TIES, "--budget", "30%", "-b", "merged")
    out = mp("explain", "merged").out
    assert "1 tensor taken over as they are" in out
    shares = [float(share) for share in re.findall(r"^[el]\S+ +([0-9.]+)%", out, re.M)]
    assert len(shares) == len(CHANGED)
    assert shares == sorted(shares)
    detail = mp("explain", "merged", "--tensor", "layer.w", "--json").document
    [tensor] = detail["tensors"]
    assert sum(own["influence"] for own in tensor["experts"]) == pytest.approx(1)
    for own in tensor["experts"]:
        letters = own["depths"]
        assert letters.count("e") == own["blocks_exact"]
        assert letters.count("c") == own["blocks_coarse"]
        assert letters.count("o") == own["blocks_omitted"]
        assert 0.5 <= own["density"] < 0.6  # a tie of bfloat16 values more than asked for
        assert own["threshold"] > 0
    text = mp("explain", "merged", "--tensor", "layer.w").out
    assert text.startswith("layer.w, BF16, made by ties")
    assert "taken over" in mp("explain", "merged", "--tensor", "norm").out
    near = mp("explain", "merged", "--tensor", "layer.u", expect=1)
    assert "did you mean 'layer." in near.err


def test_an_exact_merge_is_explained_by_profiles_that_are_known(merging: Path, mp: Mp) -> None:
    mp("merge", "math", "code", "--weight", "1,0.5", "-b", "merged")
    [tensor] = mp("explain", "merged", "--tensor", "embed", "--json").document["tensors"]
    one, two = (own["influence"] for own in tensor["experts"])
    assert one == pytest.approx(0.8, abs=0.02)  # weights count by their squares
    assert one + two == pytest.approx(1)


def test_a_narrow_terminal_drops_columns_not_names(
    merging: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("merge", *TIES, "-b", "merged")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    for columns in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        for arguments in (["merged"], ["merged", "--tensor", "layer.w"]):
            lines = mp("explain", *arguments).out.splitlines()
            table = [line for line in lines if line.startswith(("math", "code", "total", "layer"))]
            assert {"math", "code"} <= {line.split()[0] for line in table}
            assert max(len(line) for line in table) <= columns


def test_hostile_names_are_escaped(tmp_path: Path, mp: Mp, repository: Path) -> None:
    for number, name in enumerate(("base", "tuned")):
        directory = tmp_path / name
        directory.mkdir()
        values = np.full((64, 64), 1 + number, np.float32)
        save_file({"a\x1b[31m\n[red]b": values}, directory / "model.safetensors")
        mp("commit", directory, "-b", name, *(("--base", "base") if number else ()))
    mp("merge", "tuned", "--weight", "0.5", "-b", "merged")
    found = mp("explain", "merged")
    assert "\x1b" not in found.out + found.err
    assert r"a\x1b[31m\n[red]b" in found.out
    mp("explain", "merged", "--tensor", "a\x1b[31m\n[red]b")


def test_many_tensors_are_cut_short(tmp_path: Path, mp: Mp, repository: Path) -> None:
    for number, name in enumerate(("base", "tuned")):
        directory = tmp_path / name
        directory.mkdir()
        tensors = {f"t{i}": np.full((32, 32), i + number, np.float32) for i in range(30)}
        save_file(tensors, directory / "model.safetensors")
        mp("commit", directory, "-b", name, *(("--base", "base") if number else ()))
    mp("merge", "tuned", "-b", "merged")
    assert "10 more" in mp("explain", "merged").out
    every = mp("explain", "merged", "--all").out
    assert "more" not in every.replace("10 more", "")
    assert all(f"\nt{i} " in every for i in range(30))
