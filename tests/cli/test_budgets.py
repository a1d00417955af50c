"""Budgets by expert and with the base, and how what was asked for stays with plan and merge."""

import json
from pathlib import Path

import pytest

from mergepipe.api import Repository
from tests.cli.conftest import Mp
from tests.cli.families import TIES

TASK = ["math", "code", "--base", "base", "--method", "task_arithmetic", "--weight", "0.5"]


def test_what_was_asked_stays_in_plan_and_commit(merging: Path, mp: Mp) -> None:
    asked = {"budget": "raw:20%", "budget_total": None, "max_share": "60%"}
    planned = mp("plan", *TIES, "--budget", "raw:20%", "--max-share", "60", "--json").document
    assert {key: planned[key] for key in asked} == asked
    merged = mp("merge", "--plan", planned["plan"], "-b", "merged", "--json").document
    assert {key: merged[key] for key in asked} == asked
    assert merged["budget_bytes"] == planned["budget_bytes"]
    explained = mp("explain", "merged", "--json").document
    assert {key: explained[key] for key in asked} == asked
    assert (
        mp("log", "merged", "-n", "1", "--json")
        .document[0]["message"]
        .endswith("\n\nBudget: raw:20%\nMax-Share: 60%\n")
    )
    python = Repository.open(merging)
    again = python.merge(planned["plan"], branch="again")
    assert "Budget: raw:20%" in python.objects.commit(again.commit).message
    python.close()
    assert mp("replay", "merged", "--json").document["same"] is True


def test_the_least_served_expert_is_the_headline(merging: Path, mp: Mp) -> None:
    planned = mp("plan", *TASK, "--budget", "30%", "--json").document
    least = min(planned["experts"], key=lambda one: one["energy_kept"])
    wanted = {"rev": least["rev"], "energy_kept": least["energy_kept"]}
    assert planned["least_served"] == wanted
    words = f"least served: {least['rev']}, of whose energy"
    assert words in mp("plan", *TASK, "--budget", "30%").out
    merged = mp("merge", *TASK, "--budget", "30%", "-b", "merged")
    assert f" {words}" in merged.out.split("[merged ")[1]
    assert mp("explain", "merged", "--json").document["least_served"]["rev"] == least["rev"]
    text = mp("explain", "merged").out
    assert words in text
    assert "asked for with a budget of 30%" in text
    assert mp("plan", *TASK, "--json").document["least_served"] is None
    page = merging / "page.html"
    mp("report", "merged", "--out", page)
    assert "least served" in page.read_text()


def test_a_total_counts_the_base(merging: Path, mp: Mp) -> None:
    exact = mp("plan", *TASK, "--json").document
    total = exact["expert_bytes_planned"] + exact["base_bytes_planned"]
    limit = int(total * 0.8)
    merged = mp("merge", *TASK, "--budget-total", f"{limit}B", "-b", "m", "--json").document
    assert merged["budget_total"] == f"{limit} B"
    assert merged["expert_bytes_read"] > 0
    assert merged["expert_bytes_read"] + merged["base_bytes_read"] <= limit
    assert "with the base" in mp("plan", *TASK, "--budget-total", "80%").out
    assert "Budget-Total:" in mp("show", "m").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-share", "40%"], "there is none"),
        (["--budget", "20%", "--budget-total", "20%"], "both --budget and --budget-total"),
        (["--budget", "20%", "--max-share", "0.4"], "in percent"),
    ],
)
def test_what_makes_no_budget_is_refused(
    merging: Path, mp: Mp, arguments: list[str], words: str
) -> None:
    assert words in mp("plan", *TIES, *arguments, expect=2).err


def test_a_recipe_may_have_a_budget(merging: Path, mp: Mp) -> None:
    recipe = merging / "recipe.yml"
    text = (
        "merge_method: task_arithmetic\nbase_model: base\nbudget: raw:20%\nmax_share: 60%\n"
        "models:\n- {model: math, parameters: {weight: 0.5}}\n"
        "- {model: code, parameters: {weight: 0.5}}\n"
    )
    recipe.write_text(text)
    planned = mp("plan", "--recipe", recipe, "--json").document
    assert (planned["budget"], planned["max_share"]) == ("raw:20%", "60%")
    assert max(one["bytes_planned"] for one in planned["experts"]) <= planned["budget_bytes"] * 0.6
    # What is typed wins over what is written.
    other = mp("plan", "--recipe", recipe, "--budget", "40%", "--json").document
    assert (other["budget"], other["max_share"]) == ("40%", "60%")
    merged = mp("merge", "--recipe", recipe, "-b", "merged", "--json").document
    assert merged["budget"] == "raw:20%"
    recipe.write_text(text.replace("raw:20%", "some"))
    assert "line 3" in mp("plan", "--recipe", recipe, expect=2).err
    recipe.write_text(text.replace("budget: raw:20%\n", ""))
    assert "there is none" in mp("plan", "--recipe", recipe, expect=2).err


def test_the_same_merge_is_the_same_commit(
    merging: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    ask = [*TASK, "--budget", "30%", "--json"]
    one = mp("merge", *ask, "-b", "one").document
    two = mp("merge", *ask, "-b", "two").document
    assert one["commit"] == two["commit"]
    assert (two["expert_bytes_read"], two["blocks_computed"]) == (0, 0)
    # What a run took is a note beside it.
    shown = mp("show", "one", "--json").document
    assert shown["run"]["commit"] == one["commit"]
    note = json.loads((merging / f".mergepipe/runs/{one['commit']}.json").read_text())
    assert {key: shown["run"][key] for key in note} == note  # zeros are left out of the file
    assert "the merge read" in mp("show", "one").out
    assert mp("show", "base", "--json").document["run"] is None
