"""Mistakes of somebody's first hour: each is told what is wrong, where, and what to do next."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mergepipe.cli.merge_options import METHODS
from mergepipe.formats.model_card import Card, CardInput, model_card
from mergepipe.repository import locks
from tests.cli.conftest import ROOT, Mp
from tests.cli.models import write_model
from tests.cli.test_serve import serving
from tests.torture.models import finish, in_child

NOBODY = 54003


@pytest.fixture
def hour(merging: Path, tmp_path: Path, mp: Mp) -> Path:
    """A repository with base, math and code, and other, of another architecture."""
    write_model(tmp_path / "other", {"x": np.ones((3, 4), np.float32)})
    mp("commit", tmp_path / "other", "-b", "other")
    (tmp_path / "empty").mkdir()
    return merging


MERGE = "merge math code --base base"

# command line, exit code, what and where, what next
MISTAKES = [
    (
        "commit ../models/maths",
        1,
        "there is no '../models/maths'",
        r"did you mean '../models/math'",
    ),
    (
        "commit nosuch/dir/model",
        1,
        "no 'nosuch/dir/model'",
        "repository' is there, and has no 'nos",
    ),
    ("comit ../models/math", 2, "'comit'", "`mp commit`"),
    ("commit ../empty", 1, "no files in '../empty'", "name the directory of a model"),
    (
        "commit .mergepipe",
        1,
        "'.mergepipe' is a repository's own",
        "name the directory of the model",
    ),
    ("commit meta-llama/Llama-3", 1, "'meta-llama/Llama-3'", "hf://meta-llama/Llama-3"),
    ("commit -m", 2, "'-m' requires an argument", "mp commit --help"),
    ("merge mth code --base base", 1, "'mth'", "did you mean math"),
    ("merge math code --base bse", 1, "'bse'", "did you mean base"),
    (
        "merge meta-llama/Llama-3 code",
        1,
        "'meta-llama/Llama-3'",
        "mp commit hf://meta-llama/Llama-3",
    ),
    (
        "merge math other --base base",
        13,
        "'other' lacks tensor .* which 'base' has",
        "architecture",
    ),
    ("merge math other", 13, "what 'other' was trained from", "mp merge math other --base REV"),
    (f"{MERGE} --budget 10", 2, "budget of 10 would be bytes", "--budget 10% .* raw:10%"),
    (f"{MERGE} --budget 10%%", 2, "'10%%'", "--budget 10%"),
    (f"{MERGE} --budget 0.1", 2, "budget of 0.1", "--budget 10%"),
    (f"{MERGE} --budget ten", 2, "'ten'", "2GiB.*25%.*raw:10%"),
    (f"{MERGE} --budget 64B", 17, "64 B reads nothing of any expert", "such as 25% or raw:10%"),
    (f"{MERGE} --budget 1B", 17, "1 B reads nothing of any expert", r"at least --budget \d+B"),
    (f"{MERGE} --method tise", 13, "no merge method 'tise'", "did you mean 'ties'"),
    (f"{MERGE} --density 5", 13, "method ties: density is 5", "from 0 to 1"),
    (f"{MERGE} --density 0.5,5", 13, "ties, expert 2: density is 5", "from 0 to 1"),
    (f"{MERGE} --weight a", 2, "--weight 'a'", "--weight 0.5,0.3"),
    (f"{MERGE} --weight 1,2,3", 2, "3 values of weight for 2 experts", "one weight for each"),
    (f"{MERGE} --device tpu", 2, "'tpu'", "cpu, cuda"),
    (f"{MERGE} -p lamda=1", 13, "ties has no parameter 'lamda'", "did you mean 'lambda'"),
    (f"{MERGE} --desity 1", 2, "--desity", "mp merge --help"),
    (f"{MERGE} --plan deadbeef", 2, "a stored plan has its experts", "leave out"),
    ("merge", 2, "what shall be merged", "mp merge EXPERT... --base REV"),
    ("merge --plan deadbeef", 1, "'deadbeef'", "mp plan"),
    ("merge --recipe ../nosuch.yml", 2, "nosuch.yml", "YAML file"),
    ("merge --recipe ../broken.yml", 2, "broken.yml, line 2", "never closed"),
    (
        "merge --recipe ../misspelt.yml",
        2,
        "no 'merge_method'",
        r"line 1 has 'merge_metod': did you mean 'merge_method'\?\n$",
    ),
    ("explain base", 13, "base is no merge", "mp log"),
    ("checkout nosuch", 1, "'nosuch'", "mp branch --all"),
    ("checkout code", 1, "'config.json' would be overwritten", "commit first, or add --force"),
    ("switch code", 1, "'config.json' would be overwritten", "commit first, or add --force"),
    ("branch -d base", 2, "'base' is the current branch", "mp switch code"),
    ("branch 'a b'", 2, "not a valid ref name: 'refs/heads/a b' .it holds a space", "letters"),
    ("tag v1 nosuch", 1, "'nosuch'", "mp tag"),
    ("show deadbeef", 1, "'deadbeef'", "mp branch --all"),
    ("push", 2, "no remote yet", "mp remote add origin URL"),
    ("push nowhere", 2, "'nowhere'", "mp remote add nowhere URL"),
    ("push ../nowhere", 10, "no repository at .*nowhere", "mp init PATH"),
    ("remote add o http://me:secret@host/x", 2, "password", "MP_TOKEN"),
    ("remote add o htp://host/x", 2, "'htp://'", "https"),
    ("clone . ../other", 2, "other' is there and not empty", "a new directory"),
    (
        "clone ../repositry ../new",
        10,
        "no repository at .*repositry",
        "did you mean '.*/repository'",
    ),
    ("config core.thread 3", 1, "'core.thread'", "core.threads"),
    ("config core.threads many", 1, "core.threads: 'many' is not a whole number", "mp config core"),
    ("init", 2, "a repository already: .*repository", "use it as it is, or choose another"),
    ("-C .. log", 10, "no .mergepipe directory in ", "mp init"),
    ("-C nosuch log", 2, "nosuch: No such file", "name a directory that is there"),
    ("config core.lock_timeout soon", 1, "'soon' is not a number of seconds", "mp config core"),
    ("import ../nosuch.toml", 1, "nosuch.toml: No such file", r"\[\[model\]\] tables"),
    ("clone", 2, "'URL'", "give one: `mp clone URL`"),
    ("log -n few", 2, "'few' is not a whole number", "mp log --help"),
    ("serve --port http", 2, "'http' is not a whole number", "mp serve --help"),
    ("fsck --read-data=5", 2, "'5' would be bytes", "--read-data=5%"),
    ("add .", 2, "'add'", "nothing is staged: `mp commit`"),
    ("checkout -b new", 2, "-b", "mp switch -c NAME"),
    (f"{MERGE} --out ../other", 1, "other' is not empty", "name a new directory"),
]


@pytest.fixture
def mistaken(hour: Path, tmp_path: Path, mp: Mp) -> Callable[[str, int], str]:
    (tmp_path / "broken.yml").write_text("merge_method: [ties\nmodels:\n")
    (tmp_path / "misspelt.yml").write_text("merge_metod: ties\nmodels:\n- model: math\n")
    mp("checkout", "base")
    Path("config.json").write_text("what nobody committed")

    def run(line: str, code: int) -> str:
        try:
            told = mp(*shlex.split(line), expect=code)
        except AssertionError as error:
            return str(error)
        finally:
            os.chdir(hour)
        return told.err

    return run


def test_each_mistake_is_told_what_where_and_what_next(
    mistaken: Callable[[str, int], str],
) -> None:
    before = Path(".mergepipe/HEAD").read_bytes()
    wrong = []
    for line, code, what, then in MISTAKES:
        told = mistaken(line, code)
        error, _, hint = told.partition("hint: ")
        if not re.search(what, error) or not re.search(then, hint):
            wrong.append(f"mp {line}\n{told}")
    assert not wrong, "\n".join(wrong)
    assert Path("config.json").read_text() == "what nobody committed"
    assert Path(".mergepipe/HEAD").read_bytes() == before


def test_merging_with_itself_or_with_the_base_is_told(merging: Path, mp: Mp) -> None:
    told = mp("merge", "math", "math", "--base", "base", "--dry-run")
    assert "math is merged with itself: it is named twice" in told.out + told.err
    told = mp("merge", "math", "base", "--base", "base", "--dry-run")
    assert "base is the base itself" in told.out + told.err
    kinds = [one["kind"] for one in mp("plan", "math", "code", "--json").document["warnings"]]
    assert "twice" not in kinds
    assert "unchanged" not in kinds


@pytest.mark.parametrize(
    ("line", "module", "extra"),
    [
        ("serve", "starlette", "http"),
        ("push s3://bucket/models", "obstore", "cloud"),
        ("commit hf://org/model", "huggingface_hub", "hub"),
    ],
)
def test_a_missing_extra_is_named_with_what_installs_it(
    committed: Path, line: str, module: str, extra: str
) -> None:
    # In a process of its own: here the module may be loaded, and would be found.
    program = f"import sys; sys.modules[{module!r}] = None; from mergepipe.cli.main import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(main(sys.argv[1:]))", *shlex.split(line)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done
    assert f"pip install 'mergepipe[{extra}]'" in done.stderr
    assert module in done.stderr


def test_a_second_commit_at_once_says_who_is_at_it(
    committed: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_LOCK_TIMEOUT", "0.05")
    with locks.acquire(committed / ".mergepipe" / "lock", timeout_s=1):
        told = mp("commit", "../model", "-m", "x", "-b", "new", expect=11).err
    assert f"process {os.getpid()}" in told
    assert "waited 0.05 s" in told
    assert "hint: try again when it is done" in told
    monkeypatch.setenv("MP_LOCK_TIMEOUT", "a while")
    told = mp("branch", "new", expect=2).err
    assert "MP_LOCK_TIMEOUT is 'a while'" in told
    assert "hint: unset it" in told


def test_a_repository_that_may_not_be_written_says_so(committed: Path, mp: Mp) -> None:
    mp("branch", "old")  # what it loads may be closed to the user that root becomes
    folders = [committed / ".mergepipe", *(committed / ".mergepipe").rglob("*")]
    for path in folders:
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refused() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.environ["MP_SAFE_DIRECTORY"] = str(committed)
            os.environ["XDG_CACHE_HOME"] = str(cache)
        told = mp("branch", "new", expect=1).err
        assert re.search(r"permission denied: '.*\.mergepipe", told), told
        assert "ls -ld" in told

    cache = committed.parent / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    for folder in committed.parents:
        if not folder.stat().st_mode & 0o001:  # pytest's own, which others may not enter
            folder.chmod(0o755)
    assert finish(in_child(refused)) == 0


def test_a_budget_of_more_than_there_is_reads_all(merging: Path, mp: Mp) -> None:
    told = mp(*f"{MERGE} --budget 1GB --dry-run".split()).out
    assert "the exact merge" in told


def test_inside_of_the_repositorys_own_folder(committed: Path, mp: Mp) -> None:
    here = mp("log", "--json").document
    os.chdir(committed / ".mergepipe" / "refs")
    assert mp("log", "--json").document == here
    assert "'..' is a repository's own" in mp("commit", "..", expect=1).err


def test_a_token_that_is_missing_or_wrong_says_where_it_is_read(
    committed: Path, mp: Mp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_SERVE_TOKENS", f"write:{'w' * 32}")
    with serving(committed) as (_, url):
        for token in (None, "x" * 32):
            if token is not None:
                monkeypatch.setenv("MP_TOKEN", token)
            told = mp("push", url, "main", expect=16).err
            error, _, hint = told.partition("hint: ")
            assert url in error
            assert "MP_TOKEN" in hint


def test_help_names_every_method_and_what_goes_where(mp: Mp) -> None:
    from mergepipe.methods import registry

    assert sorted(METHODS) == sorted(registry.METHODS)
    assert "arcee_fusion" in mp("merge", "--help").out
    told = mp("serve", "--help").out
    assert "()" not in told
    assert "<int" not in told


def test_a_commit_without_tensors_says_so(repository: Path, tmp_path: Path, mp: Mp) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.me").write_text("x")
    assert "nothing to merge" in mp("commit", tmp_path / "notes").err
    (tmp_path / "notes/pytorch_model.bin").write_text("x")
    assert "'pytorch_model.bin' holds its weights as a pickle" in mp("commit", "../notes").err
    assert mp("commit", write_model(tmp_path / "model")).err == ""


def test_a_model_card_tells_no_local_path() -> None:
    inputs = [CardInput("/home/ada/llama", "base", None), CardInput("org/code", "input", None)]
    recipe = "base_model: /home/ada/llama\nmodels: [{model: org/code}]\n"
    text = model_card(Card("A merge", ["ties"], inputs, None, recipe)).decode()
    assert "/home/ada" not in text
    assert "base_model: llama" in text
    assert '- "org/code"' in text
