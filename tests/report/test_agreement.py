"""What reports say of experts beside each other, beside the same computed from raw tensors."""

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from mergepipe import Repository
from mergepipe.report.gathering import report_of
from mergepipe.report.values import Report

# Conflict and cosine are estimates from 4096 places of a tensor: three standard errors of them.
NEAR = 0.05
EXPERTS = ("law", "math", "rude")
TENSORS = tuple(f"model.layers.{n}.{part}.weight" for n in range(2) for part in ("q", "up"))
SHAPE = (96, 96)

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three experts, of which two change much the same way, and one the other way."""
    folder = tmp_path_factory.mktemp("agreement")
    with Repository.init(folder / "repository", block_size=8192) as repository:
        source = np.random.default_rng(0)
        base = {name: source.normal(0, 0.1, SHAPE) for name in TENSORS}
        common = {name: source.normal(0, 0.01, SHAPE) for name in TENSORS}
        write(folder / "base", base)
        repository.commit(folder / "base", branch="base", message="base")
        for seed, (name, way) in enumerate(zip(EXPERTS, (1.0, 0.7, -0.5), strict=True), 1):
            own = np.random.default_rng(seed)
            tuned = {
                key: value + way * common[key] + own.normal(0, 0.01, SHAPE)
                for key, value in base.items()
            }
            write(folder / name, tuned)
            repository.commit(folder / name, branch=name, message=name, base="base")
    return folder


def write(path: Path, tensors: Mapping[str, Array]) -> None:
    path.mkdir()
    halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    save_file(halves, path / "model.safetensors", {"format": "pt"})


def change(folder: Path, expert: str, tensor: str, weight: float = 1.0) -> Array:
    one, other = (
        load_file(folder / name / "model.safetensors")[tensor].astype(np.float64)
        for name in (expert, "base")
    )
    return weight * (one - other)


def conflict(one: Array, other: Array) -> tuple[int, int]:
    """Of the weights that both change much, those of other signs, and all."""
    large = [np.abs(each) >= np.quantile(np.abs(each), 0.65) for each in (one, other)]
    both = large[0] & large[1]
    return int((both & (one * other < 0)).sum()), int(both.sum())


def cosine(one: Array, other: Array) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def planned(folder: Path, weights: Mapping[str, float]) -> Report:
    with Repository.open(folder / "repository") as repository:
        plan = repository.plan(
            method="task_arithmetic",
            base="base",
            experts=list(weights),
            weights=list(weights.values()),
            budget="50%",
        )
        return report_of(repository, repository.store_plan(plan).hex())


def test_conflicts_and_cosines_are_those_of_the_tensors(folder: Path) -> None:
    report = planned(folder, dict.fromkeys(EXPERTS, 1.0))
    assert len(report.cells) == len(EXPERTS) * len(TENSORS)
    for cell in report.cells:
        mine = change(folder, cell.expert, cell.tensor)
        others = [change(folder, name, cell.tensor) for name in EXPERTS if name != cell.expert]
        counts = np.sum([conflict(mine, other) for other in others], axis=0)
        assert cell.conflict == pytest.approx(counts[0] / counts[1], abs=NEAR)
        assert cell.cosine == pytest.approx(
            np.mean([cosine(mine, other) for other in others]), abs=NEAR
        )


def test_layers_and_pairs_are_sums_over_tensors(folder: Path) -> None:
    report = planned(folder, dict.fromkeys(EXPERTS, 1.0))
    whole = {
        name: np.concatenate([change(folder, name, each) for each in TENSORS]) for name in EXPERTS
    }
    assert [(pair.first, pair.second) for pair in report.pairs] == [
        ("law", "math"),
        ("law", "rude"),
        ("math", "rude"),
    ]
    for pair in report.pairs:
        one, other = whole[pair.first], whole[pair.second]
        opposed, both = conflict(one, other)
        assert pair.conflict == pytest.approx(opposed / both, abs=NEAR)
        assert pair.cosine == pytest.approx(cosine(one, other), abs=NEAR)
    for layer in report.layers:
        cells = [
            cell
            for cell in report.cells
            if (cell.expert, cell.layer) == (layer.expert, layer.layer)
        ]
        assert layer.energy == pytest.approx(sum(cell.energy or 0.0 for cell in cells), rel=1e-3)
        energy = sum(cell.energy or 0.0 for cell in cells)
        kept = sum((cell.energy or 0.0) * (cell.kept or 0.0) for cell in cells)
        assert layer.kept == pytest.approx(kept / energy, rel=1e-3)
    shares = {
        (name, tensor): float((change(folder, name, tensor) ** 2).sum())
        for name in EXPERTS
        for tensor in TENSORS
    }
    for cell in report.cells:
        share = shares[cell.expert, cell.tensor] / sum(shares.values())
        assert cell.energy == pytest.approx(share, rel=1e-3)


def test_a_weight_below_zero_turns_an_expert_round(folder: Path) -> None:
    turned = planned(folder, {"law": 1.0, "math": 1.0, "rude": -1.0})
    plain = planned(folder, dict.fromkeys(EXPERTS, 1.0))
    for before, after in zip(plain.pairs, turned.pairs, strict=True):
        assert None not in (before.conflict, after.conflict, before.cosine, after.cosine)
        if "rude" in (before.first, before.second):
            assert after.conflict == pytest.approx(1.0 - (before.conflict or 0.0), abs=1e-4)
            assert after.cosine == pytest.approx(-(before.cosine or 0.0), abs=1e-4)
        else:
            assert (after.conflict, after.cosine) == (before.conflict, before.cosine)
    assert {(one, other) for one, other in permutations(EXPERTS, 2) if one < other} == {
        (pair.first, pair.second) for pair in turned.pairs
    }


def test_a_tensor_that_an_expert_left_alone_has_no_energy(folder: Path, tmp_path: Path) -> None:
    """It is in no profile, as there is nothing to say of it; that is no lack of one."""
    tensors = load_file(folder / "base" / "model.safetensors")
    tensors[TENSORS[0]] = tensors[TENSORS[0]] + np.float16(0.01)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with Repository.open(folder / "repository") as repository:
        repository.commit(tmp_path, branch="timid", message="timid", base="base")
        plan = repository.plan(method="task_arithmetic", base="base", experts=["law", "timid"])
        identity = repository.store_plan(plan).hex()
        assert not report_of(repository, identity).warnings
        costs = repository.explain(identity)[0].costs
    energies = {
        tensor.name: [expert.energy for expert in tensor.experts] for tensor in costs.tensors
    }
    assert energies[TENSORS[1]][1] == 0.0
    assert all(energies[TENSORS[0]])
