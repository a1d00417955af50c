import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.errors import ConfigError
from mergepipe.repository import config, config_edits

TEXT = """\
# ours
format = 1

[store]
# cut small
block_size = "64KiB"  # because

[remote.origin]
url = "ssh://host/x"
"""


def test_what_is_not_written_has_its_default():
    read = config.parse(TEXT)
    assert read.store == config.StoreSettings(block_size=65536, codec="auto", max_chain=2)
    assert read.core == config.CoreSettings(lock_timeout=10.0, threads=0)
    assert read.remote == {"origin": config.RemoteSettings("ssh://host/x")}
    assert read.get("store.block_size") == 65536
    assert dict(read.items()) == {
        "store.block_size": 65536,
        "store.codec": "auto",
        "store.max_chain": 2,
        "core.lock_timeout": 10.0,
        "core.threads": 0,
        "core.executor": "auto",
        "core.shared": "umask",
        "user.author": "",
        "hooks.enabled": True,
        "receive.limit": 64 << 30,
        "receive.deny_force": False,
        "receive.allow_purge": False,
        "gc.grace": 14 * 86400,
        "gc.reflog_expire": 100 * 365 * 86400,
        "merge.cache": 0,
        "merge.blocks": "auto",
        "remote.origin.url": "ssh://host/x",
    }


@pytest.mark.parametrize(
    ("key", "typed", "value"),
    [
        ("store.block_size", "2MiB", 2 << 20),
        ("store.block_size", "4096", 4096),
        ("store.codec", "small", "small"),
        ("store.codec", "fast", "fast"),
        ("store.max_chain", "0", 0),
        ("core.lock_timeout", "0.5", 0.5),
        ("core.threads", "4", 4),
        ("core.shared", "true", "group"),
        ("user.author", 'Zo\u00eb "Z" <z@example.org>', 'Zo\u00eb "Z" <z@example.org>'),
        ("hooks.enabled", "off", False),
        ("receive.limit", "2GiB", 2 << 30),
        ("receive.deny_force", "yes", True),
        ("receive.allow_purge", "true", True),
        ("remote.origin.url", "/srv/models", "/srv/models"),
        ("remote.back.up.url", "/srv/other", "/srv/other"),
    ],
)
def test_set_and_get_keep_comments(key, typed, value):
    text = config_edits.with_value(TEXT, key, typed)
    assert config.parse(text).get(key) == value
    assert "# ours" in text
    assert "# cut small" in text
    assert config.parse(text).remote["origin"].url
    again = config_edits.with_value(text, key, typed)
    assert again == text


def test_unset_brings_the_default_back_and_forgets_a_remote():
    text = config_edits.without_value(TEXT, "store.block_size")
    assert config.parse(text).store.block_size == 1 << 20
    text = config_edits.without_value(text, "remote.origin.url")
    assert config.parse(text) == config.Config()
    with pytest.raises(ConfigError, match="not set"):
        config_edits.without_value(text, "remote.origin.url")
    with pytest.raises(ConfigError, match="not set"):
        config.parse(text).get("remote.origin.url")


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("store.block_size", "1000"),
        ("store.block_size", "1GiB"),
        ("store.block_size", "big"),
        ("store.codec", "gzip"),
        ("store.codec", "zstd"),
        ("store.max_chain", "-1"),
        ("store.max_chain", "1.5"),
        ("core.lock_timeout", "nan"),
        ("core.lock_timeout", "soon"),
        ("core.threads", "9" * 5000),
        ("user.author", "a\nb"),
        ("hooks.enabled", "maybe"),
        ("remote.-x.url", "y"),
        ("remote.url", "y"),
        ("remote.a/../b.url", "y"),
    ],
)
def test_a_bad_value_is_refused_by_name(key, typed):
    with pytest.raises(ConfigError):
        config_edits.with_value(TEXT, key, typed)


@pytest.mark.parametrize(
    ("key", "near"), [("store.codek", "store.codec"), ("user.auther", "user.author")]
)
def test_an_unknown_key_gets_the_nearest(key, near):
    for attempt in (
        lambda: config.parse(TEXT).get(key),
        lambda: config_edits.with_value(TEXT, key, "1"),
        lambda: config.parse(f"format = 1\n{key} = 1\n"),
    ):
        with pytest.raises(ConfigError, match=key) as caught:
            attempt()
        assert near in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "format"),
        ("format = true", "format"),
        ("format = 2", "format 2"),
        ("format = 1\n[stor]\ncodec = 'raw'", "stor"),
        ("format = 1\nstore = 1", "store"),
        ("format = 1\n[store]\ncodec = 3", "store.codec"),
        ("format = 1\n[hooks]\nenabled = 1", "hooks.enabled"),
        ("format = 1\n[core]\nthreads = true", "core.threads"),
        ("format = 1\n[remote]\nurl = 'x'", "remote.url"),
        ("format = 1\n[remote.a]\nurk = 'x'", "remote.a.urk"),
        ("format = 1\n[remote.a.b]\nurl = 'x'", "remote.a.b"),
        ("format = 1\n[store", "TOML"),
        ("format = 1\n[store]\ncodec = 'raw'\ncodec = 'raw'", "TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config.parse(text, where="/models/.mergepipe/config.toml")
    assert "/models/.mergepipe/config.toml" in caught.value.message


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_config_error(text):
    for candidate in (text, "format = 1\n" + text, "format = 1\n[remote.a]\nurl = " + text):
        try:
            config.parse(candidate)
        except ConfigError:
            continue


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30))
def test_any_author_comes_back(author):
    assert config.parse(config_edits.with_value(TEXT, "user.author", author)).user.author == author


def test_reading_does_not_load_the_editor():
    program = (
        "import sys; from mergepipe.repository import config, refs, history, revisions, layout;"
        "config.parse('format = 1');"
        "print([m for m in ('tomlkit', 'torch', 'numba', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_what_a_repository_requires_is_told_at_once() -> None:
    assert config.parse("format = 1\nrequires = []").store.codec == "auto"
    with pytest.raises(ConfigError, match=r"needs sparse-blocks; .* cannot"):
        config.parse('format = 1\nrequires = ["sparse-blocks"]')
    with pytest.raises(ConfigError, match="list of names"):
        config.parse('format = 1\nrequires = "x"')
