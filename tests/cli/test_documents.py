"""The JSON that scripts rely on: keys and types of every document (docs/cli.md)."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mergepipe.cli.commands.branch import BranchDocument
from mergepipe.cli.commands.checkout import CheckoutDocument
from mergepipe.cli.commands.commit import CommitDocument
from mergepipe.cli.commands.diff import DiffDocument
from mergepipe.cli.commands.doctor import DoctorDocument
from mergepipe.cli.commands.du import UsageDocument
from mergepipe.cli.commands.fsck import FsckDocument
from mergepipe.cli.commands.gc import GcDocument
from mergepipe.cli.commands.init import InitDocument
from mergepipe.cli.commands.log import LogEntry
from mergepipe.cli.commands.reflog import ReflogDocument
from mergepipe.cli.commands.reset import ResetDocument
from mergepipe.cli.commands.show import ShowDocument
from mergepipe.cli.commands.status import StatusDocument
from mergepipe.cli.commands.switch import SwitchDocument
from mergepipe.cli.commands.tag import TagDocument
from mergepipe.cli.failures import ErrorDocument
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

COMMIT = {
    *("commit", "snapshot", "branch", "base", "raw_bytes", "stored_bytes"),
    *("blocks", "new_blocks"),
}
LOG = {"commit", "parents", "author", "time", "message", "snapshot", "manifest"}
DIFF = {
    *("name", "change", "blocks_changed", "changed_share", "l2", "relative_l2"),
    *("cosine", "max_abs"),
}
STATUS = {"branch", "commit", "clean", "materialised", "changes"}
ID = re.compile("[0-9a-f]{64}")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["init", "fresh"], InitDocument),
        (["commit", "../two", "-b", "third"], CommitDocument),
        (["commit", "../model"], CommitDocument),
        (["status"], StatusDocument),
        (["log"], list[LogEntry]),
        (["show"], ShowDocument),
        (["show", "two", "--tensors"], ShowDocument),
        (["diff", "main", "two"], DiffDocument),
        (["diff", "main", "main"], DiffDocument),
        (["checkout", "two", "--to", "out"], CheckoutDocument),
        (["checkout", "two"], CheckoutDocument),
        (["switch", "two"], SwitchDocument),
        (["reset", "HEAD"], ResetDocument),
        (["branch"], list[BranchDocument]),
        (["branch", "--all"], list[BranchDocument]),
        (["branch", "side"], BranchDocument),
        (["branch", "-d", "two", "-f"], BranchDocument),
        (["tag"], list[TagDocument]),
        (["tag", "v2"], TagDocument),
        (["reflog"], list[ReflogDocument]),
        (["du"], UsageDocument),
        (["du", "two"], UsageDocument),
        (["doctor"], DoctorDocument),
        (["gc"], GcDocument),
        (["gc", "--dry-run"], GcDocument),
        (["fsck"], FsckDocument),
        (["fsck", "--read-data", "--repair"], FsckDocument),
        (["config"], dict[str, str | int | float | bool]),
        (["log", "nosuch"], ErrorDocument),
        (["log", "--nosuch"], ErrorDocument),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_one_document_of_the_declared_shape(
    committed: Path, tmp_path: Path, mp: Mp, arguments: list[str], kind: Any, after: bool
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(changed=0.5)), "-b", "two", "--base", "main")
    mp("tag", "v1")
    code = 2 if "--nosuch" in arguments else 1 if "nosuch" in arguments else 0
    found = mp(*([*arguments, "--json"] if after else ["--json", *arguments]), expect=code)
    assert found.err == ""
    document = found.document
    # Strictly: nothing is converted, nothing is unknown.
    decoded = msgspec.convert(document, kind, strict=True)
    assert json.loads(msgspec.json.encode(decoded)) == document


def test_commit_has_the_keys_of_the_contract(repository: Path, model: Path, mp: Mp) -> None:
    made = mp("commit", model, "--json").document
    assert made.keys() >= COMMIT
    assert ID.fullmatch(made["commit"])
    assert ID.fullmatch(made["snapshot"])
    files = [path for path in model.rglob("*") if path.is_file()]
    assert made["raw_bytes"] == sum(path.stat().st_size for path in files)
    packs = repository / ".mergepipe/packs"
    assert 0 < made["stored_bytes"] <= sum(path.stat().st_size for path in packs.iterdir())


def test_log_and_status_have_the_keys_of_the_contract(committed: Path, mp: Mp) -> None:
    [entry] = mp("log", "--json").document
    assert entry.keys() >= LOG
    assert entry["parents"] == []
    assert entry["author"] == "Ada <ada@example.org>"
    assert mp("status", "--json").document.keys() >= STATUS


def test_diff_has_the_keys_and_numbers_of_the_contract(
    committed: Path, tmp_path: Path, mp: Mp
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(changed=0.5)), "-b", "two")
    found = {each["name"]: each for each in mp("diff", "main", "two", "--json").document["tensors"]}
    assert all(each.keys() >= DIFF for each in found.values())
    assert {name: each["change"] for name, each in found.items()} == {
        "embed": "same",
        "norm": "same",
        "head": "changed",
    }
    head = found["head"]
    assert head["changed_share"] == pytest.approx(1 / 64)
    assert head["l2"] == pytest.approx(0.5 * 32**0.5, rel=1e-5)
    assert head["max_abs"] == pytest.approx(0.5, rel=1e-5)
    assert found["norm"]["l2"] == 0


def test_diff_tells_in_its_exit_code(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(changed=0.5)), "-b", "two")
    mp("diff", "main", "two")
    mp("diff", "main", "two", "--exit-code", expect=1)
    assert "same files" in mp("diff", "main", "main", "--exit-code").out


def test_errors_name_code_kind_message_and_hint(committed: Path, mp: Mp) -> None:
    error = mp("log", "mian", "--json", expect=1).document["error"]
    assert error.keys() == {"code", "kind", "message", "hint"}
    assert error["hint"] == "did you mean main?"
