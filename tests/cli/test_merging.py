"""plan, merge, explain, replay and analyze, as scripts and people use them."""

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

from mergepipe.api import Repository
from mergepipe.cli.commands.analyze import AnalyzeDocument
from mergepipe.cli.commands.explain import ExplainDocument
from mergepipe.cli.commands.replay import ReplayDocument
from mergepipe.cli.merge_text import MergeDocument
from mergepipe.cli.plan_costs import PlanDocument
from tests.cli.conftest import Mp
from tests.cli.families import CHANGED, SHAPES, TIES, write_family

# The contract of the design's cli.md; keys are only ever added.
PLAN = {
    *("plan", "budget_bytes", "expert_bytes_raw", "expert_bytes_full", "expert_bytes_planned"),
    *("blocks_full", "blocks_exact", "blocks_coarse", "energy_kept", "omitted_norm"),
}
MERGE = PLAN | {
    *("commit", "snapshot", "manifest", "branch", "expert_bytes_read", "base_bytes_read"),
    *("import_bytes", "written_bytes", "seconds"),
}
EXPERT = {
    *("rev", "blocks_exact", "blocks_coarse", "blocks_omitted", "blocks_equal_base"),
    "energy_kept",
}


def _kept_files(repository: Path) -> dict[str, bytes]:
    """All that a repository consists of, but for its cache."""
    top = repository / ".mergepipe"
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and path.relative_to(top).parts[0] not in ("index", "lock", "store.lock")
    }


def test_documents_have_the_keys_of_the_contract(merging: Path, mp: Mp) -> None:
    planned = mp("plan", *TIES, "--budget", "30%", "--json").document
    merged = mp("merge", *TIES, "--budget", "30%", "-b", "merged", "--json").document
    explained = mp("explain", "merged", "--json").document
    replayed = mp("replay", "merged", "--json").document
    analyzed = mp("analyze", "math", "--base", "code", "--json").document
    assert planned.keys() >= PLAN
    assert merged.keys() >= MERGE
    assert explained.keys() >= {"plan", "manifest", "inputs", "tensors"}
    assert {one["name"] for one in explained["tensors"]} == set(SHAPES)
    assert all(own.keys() >= EXPERT for one in explained["tensors"] for own in one["experts"])
    assert replayed.keys() >= {"same", "snapshot", "manifest"}
    for document, kind in (
        (planned, PlanDocument),
        (merged, MergeDocument),
        (explained, ExplainDocument),
        (replayed, ReplayDocument),
        (analyzed, AnalyzeDocument),
    ):
        assert json.loads(msgspec.json.encode(msgspec.convert(document, kind))) == document


def test_documents_agree_with_each_other_and_with_the_budget(merging: Path, mp: Mp) -> None:
    planned = mp("plan", *TIES, "--budget", "30%", "--json").document
    merged = mp("merge", "--plan", planned["plan"][:10], "-b", "merged", "--json").document
    assert merged["plan"] == planned["plan"]
    limit = int(0.3 * planned["expert_bytes_full"])
    assert planned["budget_bytes"] == limit
    assert 0 < merged["expert_bytes_read"] <= planned["expert_bytes_planned"] <= limit
    assert merged["expert_bytes_planned"] == planned["expert_bytes_planned"]
    assert (
        sum(one["bytes_planned"] for one in planned["experts"]) >= planned["expert_bytes_planned"]
    )
    explained = mp("explain", "merged", "--json").document
    assert explained["plan"] == planned["plan"]
    assert explained["manifest"] == merged["manifest"]
    roles = [(one["role"], one["rev"]) for one in explained["inputs"]]
    assert roles == [("base", "base"), ("expert", "math"), ("expert", "code")]
    for key in ("blocks_exact", "blocks_coarse", "blocks_omitted", "blocks_equal_base"):
        total = sum(own[key] for one in explained["tensors"] for own in one["experts"])
        assert total == planned[key]
    [entry] = mp("log", "merged", "-n", "1", "--json").document
    assert entry["manifest"] == merged["manifest"]
    assert len(entry["parents"]) == 3
    assert mp("replay", "merged", "--json").document["manifest"] == merged["manifest"]


def test_a_full_budget_and_none_are_one_merge(merging: Path, mp: Mp) -> None:
    made = [
        mp("merge", *TIES, *budget, "-b", f"b{number}", "--json").document
        for number, budget in enumerate(([], ["--budget", "100%"], ["--budget", "1GiB"]))
    ]
    assert len({(one["plan"], one["snapshot"], one["manifest"]) for one in made}) == 1


def test_merge_is_the_formula_and_out_writes_it(
    merging: Path, family: dict[str, Path], mp: Mp, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    method = ("--method", "task_arithmetic", "--weight", "0.5,0.25")
    made = mp("merge", "math", "code", *method, "-b", "merged", "--out", out, "--json").document
    assert made["out"] == str(out)
    one, two, base, merged = (
        load_file(path / "model.safetensors")
        for path in (family["math"], family["code"], family["base"], out)
    )
    for name in SHAPES:
        b, x, y = (side[name].double() for side in (base, one, two))
        expected = (b + 0.5 * (x - b) + 0.25 * (y - b)).to(torch.bfloat16)
        near = torch.isclose(merged[name].double(), expected.double(), rtol=2**-7)
        assert near.all(), name
    assert (out / "config.json").read_bytes() == (family["base"] / "config.json").read_bytes()
    # What --out took from memory is what the store holds.
    again = tmp_path / "again"
    mp("checkout", "merged", "--to", again)
    for path in out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_a_dry_run_writes_nothing(merging: Path, mp: Mp) -> None:
    before = _kept_files(merging)
    # Neither has a profile against the other, so that one is made, and not kept.
    found = mp("merge", "math", "--base", "code", "--budget", "50%", "--dry-run", "--json").document
    assert found["profile_bytes"] > 0
    assert found["stored"] is False
    assert mp("plan", "math", "--base", "code", "--budget", "50%", "--dry-run").out
    assert _kept_files(merging) == before
    mp("explain", found["plan"], expect=1)
    kept = mp("plan", "math", "--base", "code", "--budget", "50%", "--json").document
    assert kept["plan"] == found["plan"]
    assert _kept_files(merging) != before
    mp("explain", found["plan"])


def test_a_missing_profile_is_told_metered_apart_and_made_once(merging: Path, mp: Mp) -> None:
    first = mp("plan", "math", "--base", "code", "--budget", "50%")
    assert "no profile of math against code yet" in first.err
    assert "to make missing profiles" in first.out
    again = mp("plan", "math", "--base", "code", "--budget", "50%", "--json").document
    assert again["profile_bytes"] == 0
    analyzed = mp("analyze", "math", "--base", "code", "--json").document
    assert analyzed["made"] is False
    assert analyzed["tensors"] == len(CHANGED)
    assert mp("analyze", "code", "--json").document["made"] is False


def test_paths_are_imported_once_and_refused_by_a_dry_run(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    path = os.path.relpath(write_family(merging.parent / "more", ("a", "b", "new"))["new"])
    before = _kept_files(merging)
    error = mp("merge", "math", path, "--dry-run", "--json", expect=2).document["error"]
    assert "dry run imports nothing" in error["message"]
    assert _kept_files(merging) == before
    arguments = ("merge", "math", path, "--base", "base", "-b")
    made = mp(*arguments, "one", "--json").document
    assert made["import_bytes"] == sum(file.stat().st_size for file in Path(path).iterdir())
    assert made["experts"][1]["rev"] == path
    assert mp(*arguments, "two", "--json").document["import_bytes"] == 0
    rev = mp("explain", "one", "--json").document["inputs"][2]["rev"]
    assert rev.startswith("imports/new-")
    mp("log", rev)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["merge"], 2, "what shall be merged"),
        (["plan"], 2, "EXPERT"),
        (["merge", "math", "code", "--method", "tiess"], 13, "did you mean 'ties'?"),
        (["merge", "math", "code", "--weight", "1,2,3"], 2, "3 values of weight for 2 experts"),
        (["merge", "math", "code", "--density", "0.1,x"], 2, "--density '0.1,x'"),
        (["merge", "math", "code", "--density", "1.5"], 13, "from 0 to 1"),
        (["merge", "math", "code", "-p", "densty=1"], 13, "did you mean 'density'?"),
        (["merge", "math", "code", "-p", "seed=1"], 13, "no parameter 'seed'"),
        (["merge", "math", "code", "-p", "lambda"], 2, "KEY=VALUE"),
        (["merge", "math", "-p", "lambda=1", "-p", "lambda=2"], 2, "twice"),
        (["merge", "math", "--weight", "1", "-p", "weight=2"], 2, "both"),
        (["merge", "math", "code", "--budget", "ten"], 2, "not a budget"),
        (["merge", "math", "code", "--budget", "1B"], 17, "the least that does is"),
        (["merge", "math", "cod"], 1, "did you mean code?"),
        (["merge", "math", "./nowhere"], 1, "./nowhere"),
        (["merge", "math", "--dtype", "bf17"], 2, "bf17"),
        (["merge", "math", "--dtype", "I8"], 13, "I8"),
        (["merge", "math", "--device", "abacus"], 2, "abacus"),
        (["merge", "math", "--seed", "-1"], 2, "--seed"),
        (["merge", "math", "--seed", str(1 << 63)], 2, "is no seed"),
        (["merge", "math", "-b", "a b"], 2, "a b"),
        (["merge", "math", "--out", ".mergepipe"], 1, "not empty"),
        (["merge", "--plan", "0123456789"], 1, "no stored plan"),
        (["merge", "--plan", "math"], 1, "not a plan"),
        (["merge", "math", "--plan", "0123"], 2, "leave out --plan"),
        (["merge", "--plan", "0123", "--budget", "3%"], 2, "--budget"),
        (["merge", "base", "math"], 13, "no base in common"),
        (["merge", "math", "code", "base", "--method", "slerp", "-p", "t=1"], 13, "exactly 2"),
        (["merge", "math", "code", "--method", "slerp"], 13, "t is missing"),
        (["merge", "other", "math", "--base", "base"], 13, "other"),
        (["merge", "math", "other", "--base", "base", "--allow-missing"], 13, "'embed' has shape"),
        (["explain", "math"], 13, "math is no merge"),
        (["explain", "nothing"], 1, "nothing"),
        (["replay", "math"], 13, "math is no merge"),
        (["analyze", "base"], 2, "--base"),
    ],
)
def test_refused_before_anything_is_read_or_written(
    merging: Path, tmp_path: Path, mp: Mp, arguments: list[str], code: int, said: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_file({"embed": np.zeros((3, 3), np.float32)}, other / "model.safetensors")
    mp("commit", other, "-b", "other")
    before = _kept_files(merging)
    error = mp(*arguments, "--json", expect=code).document["error"]
    assert said in f"{error['message']} {error['hint']}"
    assert _kept_files(merging) == before
    told = mp(*arguments, expect=code)
    assert told.out == ""
    assert told.err.startswith("error: ")


def test_a_base_and_dtypes_can_be_named(merging: Path, mp: Mp) -> None:
    made = mp("merge", "math", "code", "--out-dtype", "float32", "-b", "wide", "--json").document
    assert made["base"] == "base"  # which both were trained from
    tensors = mp("show", "wide", "--tensors", "--json").document["tensors"]
    assert {one["dtype"] for one in tensors} == {"F32"}


def test_every_option_reaches_the_plan(merging: Path, mp: Mp) -> None:
    def plan(*options: str) -> str:
        return mp("plan", "math", "code", *options, "-q").out.strip()

    options = [
        *([], ["--weight", "0.5"], ["--weight", "0.5,1"], ["--density", "0.5"]),
        *(["--density", "0.5,1"], ["-p", "lambda=0.5"], ["-p", "normalize=false"]),
        *(["--method", "linear"], ["--method", "dare_ties", "--density", "0.5"]),
        *(["--method", "dare_ties", "--density", "0.5", "--seed", "1"], ["--dtype", "F16"]),
        *(["--budget", "40%"], ["--budget", "raw:5%"], ["--base", "code"]),
    ]
    plans = [plan(*each) for each in options]
    assert len(set(plans)) == len(plans)
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in plans)


def test_missing_tensors_are_an_error_unless_allowed(
    merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp
) -> None:
    tensors = load_file(family["math"] / "model.safetensors")
    less = tmp_path / "less"
    less.mkdir()
    from safetensors.torch import save_file as save

    save({"embed": tensors["embed"]}, less / "model.safetensors")
    mp("commit", less, "-b", "less", "--base", "base")
    assert "layer.v" in mp("merge", "less", "--base", "base", expect=13).err
    allowed = ("less", "--base", "base", "--allow-missing")
    assert "warning: 'less' lacks 3 tensors" in mp("merge", *allowed, "-b", "allowed").err
    planned = mp("plan", *allowed, "--json").document
    [left] = planned["left_out"]
    assert (left["kind"], left["model"]) == ("missing_tensors", "less")
    assert left["names"] == ["layer.v", "layer.w", "norm"]
    assert left["message"] in mp("merge", *allowed, "-b", "allowed").err
    stored = mp("merge", "--plan", planned["plan"], "-b", "stored", "--json").document
    assert stored["left_out"] == [left]
    assert left["message"] in mp("merge", "--plan", planned["plan"], "-b", "again").err


def test_the_hook_is_told_and_cannot_undo(merging: Path, mp: Mp) -> None:
    hook = merging / ".mergepipe/hooks/post-merge"
    hook.write_text('#!/bin/sh\necho "$MP_COMMIT $MP_SNAPSHOT $MP_BRANCH" > "$MP_DIR/seen"\n')
    hook.chmod(0o755)
    made = mp("merge", "math", "-b", "merged", "--json").document
    assert made["hook"] == "ran"
    seen = (merging / ".mergepipe/seen").read_text().split()
    assert seen == [made["commit"], made["snapshot"], "merged"]
    hook.write_text("#!/bin/sh\nexit 3\n")
    failed = mp("merge", "math", "-b", "other")
    assert "the merge stands" in failed.err
    assert "exit code 3" in mp("merge", "math", "-b", "other", "--json").document["hook"]
    assert mp("log", "other", "--json").document[0]["manifest"]
    mp("config", "hooks.enabled", "false")
    assert mp("merge", "math", "-b", "other", "--json").document["hook"] is None


def test_what_a_person_reads(merging: Path, mp: Mp) -> None:
    planned = mp("plan", *TIES, "--budget", "30%")
    first, _, head, *rows = planned.out.splitlines()
    assert first == "ties of math and code on base"
    words = "expert weight density raw read of raw exact coarse omitted equal energy kept"
    assert " ".join(head.split()) == words
    assert [row.split()[0] for row in rows[:3]] == ["math", "code", "total"]
    assert "(30%)" in planned.out
    assert "mp merge --plan" in planned.err
    merged = mp("merge", *TIES, "--budget", "30%", "-b", "merged")
    assert planned.out.splitlines()[:6] == merged.out.splitlines()[:6]
    assert "[merged " in merged.out
    assert "of the experts" in merged.out
    assert "mp explain merged" in merged.err
    assert mp("merge", *TIES, "-b", "merged", "-q").out == ""
    assert "\x1b" not in planned.out + merged.out
    assert "Merge math and code by ties" in mp("log", "merged", "--oneline").out


def test_float32_thresholds_are_measured_and_metered(
    tmp_path: Path, mp: Mp, repository: Path
) -> None:
    for name, path in write_family(tmp_path / "wide", dtype=torch.float32).items():
        mp("commit", path, "-b", name, *(() if name == "base" else ("--base", "base")))
    made = mp("merge", *TIES, "-b", "merged", "--json").document
    assert 0 < made["measured_expert_bytes"] < made["expert_bytes_read"]
    assert made["expert_bytes_read"] <= made["expert_bytes_planned"]
    assert made["experts"][0]["density"] is None
    assert "?" in mp("plan", *TIES).out


def test_gc_keeps_plans_of_merges_and_those_that_wait(merging: Path, mp: Mp) -> None:
    used = mp("plan", *TIES, "-q").out.strip()
    mp("merge", "--plan", used, "-b", "merged")
    waiting = mp("plan", "math", "-q").out.strip()
    mp("gc", "--prune=now")
    mp("explain", used)
    mp("explain", waiting)
    assert f"plan {waiting[:12]}" in mp("gc", "--why", waiting).out
    mp("config", "gc.grace", "0")
    mp("gc")
    mp("explain", used)
    assert "gc removes plans" in mp("merge", "--plan", waiting, expect=1).err
    mp("replay", "merged")


def test_a_plan_that_waits_outlives_a_prune_with_its_models(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    plan = mp("plan", *TIES, "--budget", "30%", "-q").out.strip()
    planned = mp("log", "math", "-n", "1", "--json").document[0]["commit"]
    mp("commit", family["code"], "-b", "math")
    mp("prune", "--keep-last", "1")
    assert "plan " in mp("gc", "--why", planned).out
    merged = mp("merge", "--plan", plan, "-b", "merged", "--json").document
    assert merged["plan"] == plan
    assert "plan " not in mp("gc", "--why", planned).out


def test_replay_tells_in_its_exit_code(merging: Path, mp: Mp) -> None:
    mp("merge", *TIES, "-b", "merged")
    assert mp("replay", "merged").out.startswith("same: ")
    _forge(merging)
    found = mp("replay", "forged", expect=1)
    assert found.out.startswith("different: ")
    assert "embed" in found.out
    assert mp("replay", "forged", "--json", expect=1).document["tensors"] == ["embed"]


def _forge(directory: Path) -> None:
    """A commit whose manifest claims another result for one tensor."""
    from mergepipe.objects.encoding import encode
    from mergepipe.objects.merging import Manifest

    with Repository.open(directory) as repo:
        _, commit = repo.commit_of("merged")
        assert commit.manifest is not None
        told = repo.objects.load(commit.manifest, Manifest)
        tensors: list[Any] = [
            msgspec.structs.replace(one, tensor=told.tensors[-1].tensor)
            if one.name == "embed"
            else one
            for one in told.tensors
        ]
        forged = msgspec.structs.replace(told, tensors=tuple(tensors))
        with repo.transactions.begin() as transaction:
            manifest = transaction.add_object(encode(forged))
            made = transaction.add_object(
                encode(msgspec.structs.replace(commit, manifest=manifest))
            )
            transaction.publish()
        repo.branch("forged", made.hex())


def test_a_budget_that_keeps_little_is_told(merging: Path, mp: Mp) -> None:
    planned = mp("plan", *TIES, "--budget", "3%", "--json").document
    little = next(one for one in planned["warnings"] if one["kind"] == "little_energy")
    assert little["share"] == planned["energy_kept"] < 0.5
    told = mp("plan", *TIES, "--budget", "3%").out
    assert "warning: the budget keeps" in told
    assert "least served: " in told
    assert mp("plan", *TIES, "--json").document["warnings"] == []
    assert "raw:10%" in mp("plan", *TIES, "--budget", "10", expect=2).err


def test_what_a_killed_merge_left_is_no_obstacle(merging: Path, tmp_path: Path, mp: Mp) -> None:
    out = tmp_path / "out"
    inside = out / f".out.merge-{'0' * 16}"
    inside.mkdir(parents=True)
    (inside / "half.safetensors").touch()
    mp("merge", *TIES, "-b", "merged", "--out", out)
    assert "model.safetensors" in {path.name for path in out.iterdir()}
    assert not inside.exists()
    assert not any(path.name.startswith(".out.") for path in out.iterdir())


def test_a_merge_is_made_if_it_changes_something(merging: Path, mp: Mp, tmp_path: Path) -> None:
    again = ["merge", *TIES, "-b", "prod", "--if-changed", "--json"]
    made = mp(*again).document
    assert not made["unchanged"]
    same = mp(*again, "--out", tmp_path / "out").document
    assert same["unchanged"]
    assert same.keys() == made.keys()
    assert (same["commit"], same["manifest"]) == (made["commit"], made["manifest"])
    assert same["expert_bytes_read"] == 0
    assert (tmp_path / "out/model.safetensors").exists()
    assert len(mp("log", "prod", "--first-parent", "--json").document) == 2
    other = mp(*again, "--budget", "50%").document
    assert not other["unchanged"]
    assert mp("merge", *TIES, "-b", "prod").code == 0  # without it: a commit each time


def test_a_nightly_job_does_not_bring_back_what_was_taken_back(
    merging: Path, family: dict[str, Path], mp: Mp
) -> None:
    nightly = ["merge", *TIES, "-b", "prod", "--if-changed"]
    mp(*nightly)
    mp("commit", family["math"], "-b", "code")
    bad = mp(*nightly, "--json").document["commit"]
    back = mp("rollback", "prod", "prod~1", "--json").document["commit"]
    assert "held this and was rolled back" in mp(*nightly).out
    document = mp(*nightly, "--json").document
    assert (document["unchanged"], document["commit"]) == (True, back)
    # Who wants it again says so; and with another input it is another merge.
    mp("rollback", "code", "code~1")
    assert mp(*nightly, "--json").document["unchanged"]
    mp("rollback", "code", "code~1")
    again = mp(*nightly[:-1], "--json").document
    assert again["commit"] not in (bad, back)
    assert not again["unchanged"]
