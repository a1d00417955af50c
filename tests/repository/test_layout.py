import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import ConfigError, HookFailed, NoRepository, UsageError
from mergepipe.repository import config, layout
from mergepipe.repository.hooks import run_hook
from mergepipe.repository.refs import RefStore


def test_a_new_repository_is_found_from_below_and_waits_for_its_first_commit(tmp_path):
    made = layout.initialise(tmp_path / "new" / "models")
    below = tmp_path / "new/models/a/b"
    below.mkdir(parents=True)
    assert layout.find(below) == layout.find(tmp_path / "new/models") == made
    with pytest.raises(NoRepository) as caught:
        layout.find(tmp_path)
    assert caught.value.exit_code == 10
    refs = RefStore(LocalByteStore(made))
    assert (refs.head().branch, refs.head().commit) == ("refs/heads/main", None)
    assert refs.list() == {}
    assert config.parse((made / "config.toml").read_text()) == config.Config()
    assert not list((tmp_path / "new/models").glob(".mergepipe?*"))


def test_the_template_comes_with_runnable_samples(tmp_path):
    made = layout.initialise(tmp_path)
    for name in ("pre-commit.sample", "post-merge.sample"):
        assert os.access(made / "hooks" / name, os.X_OK)
        subprocess.run(["sh", "-n", made / "hooks" / name], check=True)
    assert not os.access(made / "hooks/README.md", os.X_OK)
    assert (made / "recipes/example.yaml").is_file()
    assert stat.S_IMODE(made.stat().st_mode) == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_second_init_changes_nothing(tmp_path):
    made = layout.initialise(tmp_path)
    (made / "refs/heads/main").write_text("x")
    with pytest.raises(UsageError, match=re.escape(str(made))):
        layout.initialise(tmp_path, block_size=4096)
    assert (made / "refs/heads/main").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mergepipe"]


def test_of_many_inits_at_once_one_makes_it_and_the_others_say_so(tmp_path):
    def attempt(_):
        try:
            return layout.initialise(tmp_path)
        except UsageError:
            return None

    with ThreadPoolExecutor(4) as pool:
        made = [path for path in pool.map(attempt, range(4)) if path is not None]
    assert made == [tmp_path / ".mergepipe"]
    assert list(tmp_path.iterdir()) == made
    assert config.parse((made[0] / "config.toml").read_text()) == config.Config()


def test_block_size_is_written_beside_its_comment(tmp_path):
    made = layout.initialise(tmp_path, block_size=65536)
    text = (made / "config.toml").read_text()
    assert config.parse(text).store.block_size == 65536
    assert "# codec = " in text


@pytest.mark.parametrize("block_size", [0, 100, 4097, 1 << 40])
def test_a_bad_block_size_leaves_nothing(tmp_path, block_size):
    with pytest.raises(ConfigError, match="block_size"):
        layout.initialise(tmp_path, block_size=block_size)
    assert list(tmp_path.iterdir()) == []


def test_a_template_of_ones_own_needs_no_config(tmp_path):
    template = tmp_path / "template"
    (template / "hooks").mkdir(parents=True)
    (template / "hooks/pre-commit").write_text("#!/bin/sh\n")
    (template / "hooks/pre-commit").chmod(0o555)
    (template / "hooks").chmod(0o555)
    try:
        made = layout.initialise(tmp_path / "repo", template)
    finally:
        (template / "hooks").chmod(0o755)
    assert os.access(made / "hooks/pre-commit", os.X_OK)
    (made / "hooks/another").touch()
    assert config.parse((made / "config.toml").read_text()) == config.Config()


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/x", "packs/y"])
def test_a_template_brings_no_history(tmp_path, name):
    brought = tmp_path / "template" / name
    brought.parent.mkdir(parents=True)
    brought.touch()
    with pytest.raises(UsageError, match="template"):
        layout.initialise(tmp_path / "repo", tmp_path / "template")
    assert not (tmp_path / "repo/.mergepipe").exists()


def test_a_template_with_a_broken_config_or_a_link_is_refused(tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    (template / "config.toml").write_text("[store]\nblock_sise = 1\n")
    with pytest.raises(ConfigError, match="block_sise"):
        layout.initialise(tmp_path / "repo", template)
    (template / "config.toml").unlink()
    (tmp_path / "another").mkdir()
    (template / "link").symlink_to(tmp_path / "another")
    with pytest.raises(UsageError, match="link"):
        layout.initialise(tmp_path / "repo", template)
    with pytest.raises(UsageError, match="nowhere"):
        layout.initialise(tmp_path / "repo", tmp_path / "nowhere")


def test_the_commented_defaults_are_the_defaults():
    text = (layout.default_template() / "config.toml").read_text()
    named = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M)
    named = named.partition("# [remote")[0]
    document = config.parse(named)
    assert document == config.Config()
    written = set(re.findall(r"^(\w+) = ", named, flags=re.M)) - {"format"}
    assert written == {key.partition(".")[2] for key, _ in config.Config().items()}


# Hooks


@pytest.fixture
def repository(tmp_path):
    return layout.initialise(tmp_path / "models")


def install(repository, name, script):
    path = repository / "hooks" / name
    path.write_text(script)
    path.chmod(0o755)


def test_a_hook_is_told_what_it_needs_and_nothing_of_ours(repository):
    install(
        repository,
        "pre-commit",
        '#!/bin/sh\nset -u\necho "$MP_DIR $MP_HOOK $X" > seen\npwd >> seen\nenv >> seen',
    )
    assert run_hook(repository, "pre-commit", {"X": "a b; $(c)"}, {"PATH": os.environ["PATH"]})
    seen = (repository.parent / "seen").read_text().splitlines()
    assert seen[:2] == [f"{repository} pre-commit a b; $(c)", str(repository.parent)]
    assert not any(line.startswith("HOME=") for line in seen)


def test_no_hook_is_fine_and_a_sample_does_not_run(repository):
    assert not run_hook(repository, "pre-commit", {}, {})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ("#!/bin/sh\nkill -9 $$\n", "signal 9"),
        ("#!/no/such/shell\n", "cannot run"),
    ],
)
def test_a_failing_hook_says_how(repository, script, message):
    install(repository, "pre-commit", script)
    with pytest.raises(HookFailed, match=message):
        run_hook(repository, "pre-commit", {}, {"PATH": os.environ["PATH"]})


def test_a_hook_that_is_not_executable_is_no_silent_pass(repository):
    (repository / "hooks/pre-commit").write_text("#!/bin/sh\n")
    with pytest.raises(HookFailed, match="not executable"):
        run_hook(repository, "pre-commit", {}, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_hook_does_not_run(repository):
    install(repository, "pre-commit", "#!/bin/sh\n")
    os.chown(repository / "hooks/pre-commit", 12345, 12345)
    with pytest.raises(HookFailed, match="another user"):
        run_hook(repository, "pre-commit", {}, {})


def sample(repository, name, **variables):
    (repository / "hooks" / f"{name}.sample").rename(repository / "hooks" / name)
    return run_hook(repository, name, variables, {"PATH": os.environ["PATH"]})


def test_the_pre_commit_sample_lets_a_sound_model_pass(repository, tmp_path):
    model = tmp_path / "model with space"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x")
    assert sample(repository, "pre-commit", MP_PATH=str(model))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "sub/pytorch_model.bin"], "pytorch_model.bin"),
        (["model.safetensors"], "without config.json"),
        (["config.json", "huge.log"], "huge.log"),
    ],
)
def test_the_pre_commit_sample_refuses(repository, tmp_path, files, message, capfd):
    model = tmp_path / "model"
    for name in files:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if name == "huge.log":
            os.truncate(path, 513 << 20)
    with pytest.raises(HookFailed):
        sample(repository, "pre-commit", MP_PATH=str(model))
    assert message in capfd.readouterr().err


def test_the_post_merge_sample_keeps_a_diary_and_evaluates(repository):
    install(repository, "evaluate", '#!/bin/sh\necho "$1" > evaluated\n')
    assert sample(repository, "post-merge", MP_COMMIT="c0ffee", MP_BRANCH="main")
    diary = Path(repository / "runs/merges.tsv").read_text().split("\t")
    assert diary[1:] == ["main", "c0ffee\n"]
    assert (repository.parent / "evaluated").read_text() == "c0ffee\n"
