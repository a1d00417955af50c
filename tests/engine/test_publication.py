"""What a merge leaves behind: a commit, a manifest, results to use again, and a way to check it."""

import json

import msgspec
import numpy as np
import pytest

from mergepipe import Engine, Planner
from mergepipe.engine.replay import replay
from mergepipe.engine.tensor import read_tensor
from mergepipe.engine.transactions import MergeRequest
from mergepipe.errors import Corruption, MergeInputError, MergepipeError
from mergepipe.objects.depths import Depth
from mergepipe.objects.merging import Manifest, Plan
from mergepipe.plans.numbers import scalars_of
from mergepipe.repository.refnames import branch_ref
from tests.engine.merging import (
    EXPERTS,
    SHAPES,
    Recipe,
    engine_of,
    plan_by_hand,
    random_model,
    repository,
    tensor_bytes_of,
    three_experts,
    write_model,
)
from tests.engine.planning import RepositoryCatalog, planner_of

TIES = Recipe("ties", "base", EXPERTS, {"density": 0.5})


def test_commit_parents_manifest_and_run(tmp_path):
    repo = three_experts(tmp_path)
    plan = plan_by_hand(repo, TIES)
    commits = {name: repo.resolve(name) for name in ("base", *EXPERTS)}
    request = MergeRequest(
        commits["base"],
        tuple(commits[name] for name in EXPERTS),
        branch_ref("merged"),
        "Three in one",
        import_bytes=17,
    )
    made = engine_of(repo, host="testbed").execute(plan, request)
    commit = repo.objects.commit(repo.resolve("merged"))
    assert repo.resolve("merged") == made.commit
    assert made.branch == "merged"
    assert commit.parents == (commits["base"], *(commits[name] for name in EXPERTS))
    assert (commit.trained_from, commit.manifest) == (commits["base"], made.manifest_id)
    assert commit.message == "Three in one\n"
    assert "Budget" not in commit.message  # nobody asked for one
    manifest = repo.objects.load(made.manifest_id, Manifest)
    assert manifest == made.manifest
    assert manifest.output == commit.snapshot == made.snapshot
    assert manifest.manifest_hash == made.manifest_id.hex()
    assert repo.objects.load(manifest.plan, Plan) == plan
    for line, tensor in zip(plan.lines, manifest.tensors, strict=True):
        for depths, use in zip(line.depths, tensor.inputs, strict=True):
            counted = (use.omitted, use.coarse, use.exact, use.equal)
            assert counted == tuple(depths.count(depth) for depth in Depth)
            assert use.logical_bytes == 2 * int(np.prod(SHAPES[line.name]))
    run = json.loads((repo.directory / "runs" / f"{made.commit.hex()}.json").read_text())
    assert run["expert_bytes_read"] == made.expert_bytes_read
    assert (run["host"], run["import_bytes"]) == ("testbed", 17)
    # The next merge stands on this one, and names each input once.
    again = engine_of(repo).execute(plan, request)
    parents = repo.objects.commit(again.commit).parents
    assert parents == (made.commit, *commit.parents)
    assert again.snapshot == made.snapshot
    repo.close()


def test_the_facade_as_it_stands(tmp_path):
    repo = three_experts(tmp_path)
    plan = Planner(catalog=RepositoryCatalog(repo)).plan(
        base_model="base", experts=list(EXPERTS[:2]), operator="TIES", budget_mb=8192
    )
    snapshot_id, manifest = Engine(
        storage=repo.storage, transaction_manager=engine_of(repo).transactions
    ).execute(plan)
    assert isinstance(manifest, Manifest)
    assert manifest.output == snapshot_id
    assert len(manifest.manifest_hash) == 64
    commit = repo.objects.commit(repo.resolve("HEAD"))
    assert commit.snapshot == snapshot_id
    # The inputs' commits were found among the tips.
    assert commit.parents == tuple(repo.resolve(name) for name in ("base", *EXPERTS[:2]))
    repo.close()


def test_results_are_used_again_while_they_are_there(tmp_path):
    repo = three_experts(tmp_path, block_size=4096)
    plan = plan_by_hand(repo, TIES)
    first = engine_of(repo).execute(plan)
    assert first.costs.blocks_remembered == 0
    again = engine_of(repo).execute(plan)
    assert (again.expert_bytes_read, again.base_bytes_read) == (0, 0)
    assert again.costs.blocks_computed == 0
    assert again.manifest_id == first.manifest_id
    # Another weight is another result.
    other = Recipe("ties", "base", EXPERTS, {"density": 0.5, "weight": 0.5, "normalize": False})
    assert engine_of(repo).execute(plan_by_hand(repo, other)).costs.blocks_remembered == 0
    # One expert changes in one tensor: only that one is made again.
    values = random_model(3, near=random_model(0), share=0.6)
    values["layer.v"] = values["layer.v"] + 0.01
    repo.commit(write_model(tmp_path / "new", values), branch="e2", base="base")
    changed = engine_of(repo).execute(plan_by_hand(repo, TIES))
    blocks = len(repo.objects.tensor(changed.manifest.tensors[-1].tensor).block_ids())
    assert 0 < changed.costs.blocks_computed <= blocks
    assert changed.costs.blocks_remembered >= first.costs.blocks_computed - blocks
    fresh = engine_of(repo).execute(plan_by_hand(repo, TIES), reuse=False)
    assert fresh.snapshot == changed.snapshot
    # Losing the index loses what was remembered, and nothing else.
    repo.storage.rebuild()
    assert engine_of(repo).execute(plan).snapshot == first.snapshot
    repo.close()


def test_random_masks_are_remembered_by_place_and_seed(tmp_path):
    repo = three_experts(tmp_path, block_size=4096)
    recipe = Recipe("dare_linear", "base", EXPERTS, {"density": 0.5})
    first = engine_of(repo).execute(plan_by_hand(repo, recipe))
    recipe.seed = 8
    other = engine_of(repo).execute(plan_by_hand(repo, recipe))
    assert other.costs.blocks_remembered == 0
    assert other.snapshot != first.snapshot
    repo.close()


@pytest.mark.parametrize("codec", ["raw", "auto"])
def test_replay_finds_the_same_and_says_what_is_not(tmp_path, codec):
    repo = three_experts(tmp_path, codec=codec)
    made = engine_of(repo, 1).execute(plan_by_hand(repo, TIES))
    before = sorted(path.name for path in (repo.directory / "packs").iterdir())
    found = replay(engine_of(repo, 3), made.manifest_id)
    assert (found.same, found.snapshot, found.tensors) == (True, made.snapshot, ())
    assert sorted(path.name for path in (repo.directory / "packs").iterdir()) == before
    # A manifest that claims another result is found out.
    lie = list(made.manifest.tensors)
    lie[1] = msgspec.structs.replace(lie[1], tensor=made.manifest.tensors[0].tensor)
    forged = msgspec.structs.replace(made.manifest, tensors=tuple(lie))
    manager = engine_of(repo).transactions
    assert manager is not None
    with manager.begin() as transaction:
        identity = repo.objects.put(forged, transaction)
        transaction.publish()
    found = replay(engine_of(repo), identity)
    assert not found.same
    assert found.tensors == (lie[1].name,)
    repo.close()


def test_measured_statistics_are_those_of_profiles(tmp_path):
    """Trims measured from blocks make the very plan that a profile's counts make."""
    repo = three_experts(tmp_path, codec="auto", block_size=4096)
    known = planner_of(repo).plan("base", EXPERTS, "ties", density=0.3)
    assert known.measured_expert_bytes == 0
    unknowing = planner_of(repo, profiles=False)
    measured = unknowing.plan("base", EXPERTS, "ties", density=0.3)
    assert measured.measured_expert_bytes == 2 * measured.costs.expert_bytes_planned // 3
    assert (
        engine_of(repo).execute(measured.plan).snapshot
        == engine_of(repo).execute(known.plan).snapshot
    )
    repo.close()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("slerp", {"t": 0.4}), ("dare_linear", {"density": 0.5, "rescale_norm": "l1"})],
)
def test_whole_tensor_statistics_are_measured_on_the_way(tmp_path, method, parameters):
    repo = three_experts(tmp_path, codec="auto", block_size=4096)
    planned = planner_of(repo).plan("base", EXPERTS[:2], method, seed=7, **parameters)
    base = "base" if method != "slerp" else None
    by_hand = plan_by_hand(repo, Recipe(method, base, EXPERTS[:2], parameters))
    for ours, theirs in zip(planned.plan.lines, by_hand.lines, strict=True):
        for one, other in zip(scalars_of(ours).experts, scalars_of(theirs).experts, strict=True):
            assert one.weight == pytest.approx(other.weight, rel=1e-9)
            assert one.rescale == pytest.approx(other.rescale, rel=1e-9)
    assert planned.measured_expert_bytes > 0
    repo.close()


def test_coarse_readings_are_the_signs_of_large_changes(tmp_path):
    from mergepipe.catalog.view import TensorView
    from mergepipe.objects.merging import Profile
    from mergepipe.values import decode

    repo = three_experts(tmp_path, codec="auto", block_size=8192)
    planned = planner_of(repo).plan(
        "base", EXPERTS[:1], "task_arithmetic", budget="25%", weight=1.0
    )
    line = next(one for one in planned.plan.lines if one.name == "embed")
    assert Depth.COARSE in line.depths[0]
    made = engine_of(repo).execute(planned.plan)
    assert made.expert_bytes_read == planned.costs.expert_bytes_planned
    profile = repo.objects.load(planned.plan.profiles[0].profile, Profile)
    view = TensorView(next(one for one in profile.tensors if one.name == "embed"))
    from mergepipe.dtypes import BF16

    base = decode(BF16, tensor_bytes_of(repo, "base", "embed")).astype(np.float64)
    expert = decode(BF16, tensor_bytes_of(repo, "e0", "embed")).astype(np.float64)
    got = decode(BF16, tensor_bytes_of(repo, made.commit.hex(), "embed")).astype(np.float64)
    per_block = 8192 // 2
    for block, depth in enumerate(line.depths[0]):
        part = slice(block * per_block, min((block + 1) * per_block, base.size))
        d = expert[part] - base[part]
        if depth == Depth.COARSE:
            scale = view.magnitudes[block] * scalars_of(line).experts[0].coarse_scale
            d = np.where(np.abs(d) >= view.thresholds[block], np.sign(d), 0) * scale
        elif depth != Depth.EXACT:
            d = np.zeros_like(d)
        wanted = base[part] + d
        assert np.all(np.abs(got[part] - wanted) <= 2.0**-8 * np.abs(wanted) + 1e-7)
    repo.close()


def test_damage_is_read_around_or_refused(tmp_path):
    repo = three_experts(tmp_path)
    plan = plan_by_hand(repo, TIES)
    good = engine_of(repo).execute(plan)
    block = repo.objects.tensor(plan.lines[0].inputs[0].source).block_ids()[0]
    at = repo.blocks.resolve([block])[block].layers[0]
    pack = repo.directory / "packs" / f"{at.pack.hex()}.pack"
    data = bytearray(pack.read_bytes())
    data[at.offset + 200] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    tip = repo.resolve("HEAD")
    with pytest.raises(Corruption, match=block.hex()):
        engine_of(repo).execute(plan, reuse=False)
    assert repo.resolve("HEAD") == tip
    assert not list((repo.directory / "tmp").rglob("*.pack"))
    # Another copy of the block, in another pack, serves as well.
    data[at.offset + 200] ^= 1
    from mergepipe.codecs.registry import codec_named
    from mergepipe.dtypes import BF16
    from mergepipe.packs.encoded_blocks import encode_block

    manager = engine_of(repo).transactions
    assert manager is not None
    raw = bytes(data[at.offset + 128 : at.offset + 128 + at.header.encoded_length])
    with manager.begin() as transaction:
        transaction.add_block(encode_block(block, raw, BF16, codec_named("zstd")))
        transaction.publish()
    made = engine_of(repo).execute(plan, reuse=False)
    assert made.snapshot == good.snapshot
    repo.close()


def test_plans_that_do_not_fit_are_refused(tmp_path):
    repo = three_experts(tmp_path)
    plan = plan_by_hand(repo, TIES)
    change = msgspec.structs.replace
    first, *rest = plan.lines
    broken = {
        "version": (change(first, version=99), *rest),
        "order": plan.lines[::-1],
        "missing": rest,
        "depths": (change(first, depths=(b"", b"", b"")), *rest),
        "shape": (change(first, inputs=(rest[0].inputs[0], *first.inputs[1:])), *rest),
        "coarse": (
            change(first, depths=(b"\1" * len(first.depths[0]), *first.depths[1:])),
            *rest,
        ),
        "number": (change(first, numbers=None), *rest),
    }
    before = sorted(path.name for path in (repo.directory / "packs").iterdir())
    for lines in broken.values():
        with pytest.raises(MergeInputError):
            engine_of(repo).execute(change(plan, lines=tuple(lines)))
    assert sorted(path.name for path in (repo.directory / "packs").iterdir()) == before
    repo.close()


def test_shards_and_other_files_are_carried_over(tmp_path):
    repo = repository(tmp_path / "repo", codec="auto")
    base = random_model(0)
    extra = {
        "tokenizer.json": "{}",
        "model.safetensors.index.json": '{"metadata": {"total_size": 1}, "weight_map": {}}',
    }
    import json as text

    for name, values in {"base": base, "e0": random_model(1, near=base)}.items():
        names = list(values)
        shards = {
            one: f"model-{2 if names.index(one) >= 2 else 1}-of-2.safetensors" for one in names
        }
        own = extra | {
            "model.safetensors.index.json": text.dumps(
                {"metadata": {"total_size": 1}, "weight_map": shards}
            )
        }
        repo.commit(write_model(tmp_path / name, values, files=2, extra=own), branch=name)
    recipe = Recipe("task_arithmetic", "base", ("e0",), {"weight": 0.5})
    made = engine_of(repo).execute(plan_by_hand(repo, recipe))
    files = {file.path: file for file in repo.objects.snapshot(made.snapshot).files}
    old = {file.path: file for file in repo.snapshot_of("base").files}
    assert files.keys() == old.keys()
    for path in ("tokenizer.json", "config.json", "model.safetensors.index.json"):
        assert files[path] == old[path]
    for path in ("model-1-of-2.safetensors", "model-2-of-2.safetensors"):
        assert files[path].content.header == old[path].content.header
    recipe.dtype = "F32"
    wide = engine_of(repo).execute(plan_by_hand(repo, recipe))
    out = repo.checkout(wide.commit.hex(), to=tmp_path / "out")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(v.size for v in base.values())
    assert len(index["weight_map"]) == len(base)
    # What was checked out is committed as the same tensors again, up to how they are cut.
    repo.close()


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64"])
def test_read_tensor(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    repo = three_experts(tmp_path, dtype=dtype, block_size=4096, codec="auto")
    snapshot = repo.commit_of("e1")[1].snapshot
    for name, shape in SHAPES.items():
        tensor = read_tensor(snapshot, name, repo.objects, repo.blocks)
        assert tuple(tensor.shape) == shape
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert raw == tensor_bytes_of(repo, "e1", name)
    with pytest.raises(MergepipeError, match="no tensor"):
        read_tensor(snapshot, "nothing", repo.objects, repo.blocks)
    repo.close()
