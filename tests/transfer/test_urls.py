"""URLs of remotes: what they mean, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergepipe.errors import MergepipeError, UsageError
from mergepipe.transfer.urls import RemoteUrl, Scheme, is_hub, parse_url


@pytest.mark.parametrize(
    ("text", "shown", "parts"),
    [
        ("/srv/m", "/srv/m", (Scheme.FILE, "", "/srv/m")),
        ("file:///srv/a%20b", "/srv/a b", (Scheme.FILE, "", "/srv/a b")),
        ("file://localhost/srv", "/srv", (Scheme.FILE, "", "/srv")),
        ("file:/srv", "/srv", (Scheme.FILE, "", "/srv")),
        ("ssh://host/srv/m", "ssh://host/srv/m", (Scheme.SSH, "host", "/srv/m")),
        ("ssh://me@host:2222/m/", "ssh://me@host:2222/m", (Scheme.SSH, "host", "/m")),
        ("ssh://host/~/m", "ssh://host/~/m", (Scheme.SSH, "host", "m")),
        ("host:m", "ssh://host/~/m", (Scheme.SSH, "host", "m")),
        ("me@host:/srv/m", "ssh://me@host/srv/m", (Scheme.SSH, "host", "/srv/m")),
        ("host:~/m", "ssh://host/~/m", (Scheme.SSH, "host", "m")),
        ("host:a b", "ssh://host/~/a%20b", (Scheme.SSH, "host", "a b")),
        ("ssh://[::1]:22/m", "ssh://[::1]:22/m", (Scheme.SSH, "::1", "/m")),
        ("[fe80::1]:m", "ssh://[fe80::1]/~/m", (Scheme.SSH, "fe80::1", "m")),
        ("http://h", "http://h", (Scheme.HTTP, "h", "")),
        ("HTTPS://h:8443/a/b/", "https://h:8443/a/b", (Scheme.HTTPS, "h", "/a/b")),
        ("s3://models/llama/v1/", "s3://models/llama/v1", (Scheme.S3, "models", "llama/v1")),
        ("gs://my_models", "gs://my_models", (Scheme.GS, "my_models", "")),
        ("az://models/x", "az://models/x", (Scheme.AZ, "models", "x")),
        ("hf://org/name", "hf://org/name", (Scheme.HUB, "", "org/name")),
        ("hf://gpt2", "hf://gpt2", (Scheme.HUB, "", "gpt2")),
    ],
)
def test_what_a_url_means(text: str, shown: str, parts: tuple[Scheme, str, str]) -> None:
    url = parse_url(text)
    assert url.shown == str(url) == shown
    assert (url.scheme, url.host, url.path) == parts
    assert parse_url(shown) == url  # what is stored means the same


def test_users_ports_and_revisions() -> None:
    ssh = parse_url("ssh://me@host:2222/m")
    assert (ssh.user, ssh.port) == ("me", 2222)
    assert parse_url("hf://org/name@v1.0").revision == "v1.0"
    assert parse_url("http://H/x").origin == "http://h:80"
    assert parse_url("https://[::1]/x").origin == "https://[::1]:443"
    assert is_hub("hf://a") and is_hub("HF://a") and not is_hub("hf/a")


def test_relative_paths_begin_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    assert parse_url("./m").local == tmp_path / "one/m"
    assert parse_url("../m").local == tmp_path / "m"
    assert parse_url("m", here=tmp_path).local == tmp_path / "m"
    # `..` after a link leads where the system says, not where the text does.
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("deep/er")
    assert parse_url("../link/../m").local == tmp_path / "deep/m"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a\nb",
            "/a\0b",
            "ssh://h/%00",
            "ssh://h/%0a",
            "http://h/%0d%0a",
            "/a\x7f",
            "x" * 5000,
        ),
        *("-x", "-oProxyCommand=x:y", "ssh://-oProxyCommand=x/y", "host:-y", "-u@host:y"),
        *("ssh://-u@host/y", "ssh://h/%ff", "ssh://host", "ssh:///y", "ssh://h:0/y", "ssh://h:x/y"),
        *("ssh://h:65536/y", "ssh://h h/y", "ssh://h/~other/y", "host:~other/y", "ssh://h;ls/y"),
        *("http://h/a?b", "http://h/#x", "http://h/../x", "http://h/%2e%2e/x", "http:///x"),
        *(
            "https://token@h/x",
            "s3://",
            "s3://a",
            "s3://b/../c",
            "s3://bucket/a//b",
            "s3://k:s@b/x",
        ),
        *("s3://bucket/a?b", "hf://", "hf://a/b/c", "hf://a/../b", "hf://-a/b", "hf://a/b@-x"),
        *("hf://a/b@", "hf://a/b@x..y", "ftp://h/x", "javascript://x", "file://host/x", "file:x"),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["https://huggingface.co/org/name", "http://HF.co/org/name/tree/main"]
)
def test_a_page_of_the_hub_leads_to_hf(text: str) -> None:
    with pytest.raises(UsageError, match="page of the Hugging Face hub") as caught:
        parse_url(text)
    assert "mp commit hf://org/name" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["https://me:secret@h/x", "ssh://me:secret@h/x", "http://secret@h", "s3://key:secret@b/x"],
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(text)
    assert "secret" not in caught.value.message + caught.value.hint


@given(
    st.text(max_size=40),
    st.sampled_from(["", "ssh://", "ssh://h/", "http://", "h:", "file:///", "hf://", "s3://"]),
)
def test_any_text_is_a_safe_url_or_refused(text: str, prefix: str) -> None:
    try:
        url = parse_url(prefix + text)
    except MergepipeError:
        return
    _check_safe(url)
    assert parse_url(url.shown) == url


def _check_safe(url: RemoteUrl) -> None:
    for part in (url.host, url.user, url.path, url.revision):
        assert not part.startswith("-")
        assert not any(ord(letter) < 32 for letter in part)
    assert url.port is None or 0 < url.port < 65536
