"""Remotes by name, and whose tokens go where."""

from pathlib import Path

import pytest

from mergepipe.api.opened import OpenRepository
from mergepipe.errors import (
    AuthenticationError,
    ConfigError,
    NoRepository,
    RemoteRefused,
    UsageError,
)
from mergepipe.repository import layout
from mergepipe.repository.config import RemoteSettings
from mergepipe.transfer.connect import connect, repository_at
from mergepipe.transfer.credentials import (
    Credentials,
    gather,
    read_servers,
    read_tokens,
    remember_server,
)
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.remotes import check_remote_name, check_remote_url, find_remote
from mergepipe.transfer.urls import parse_url

ORIGIN = {"origin": RemoteSettings("/srv/a"), "up": RemoteSettings("http://h", lazy=True)}


@pytest.mark.parametrize("name", ["", "-x", ".x", "a/b", "a b", "x.lock", "a..b", "x.", "a" * 65])
def test_names_that_no_remote_has(name: str) -> None:
    with pytest.raises(UsageError):
        check_remote_name(name)


def test_a_remote_is_found_by_name_or_url() -> None:
    assert find_remote(ORIGIN, None)[0] == "origin"
    assert find_remote({"up": ORIGIN["up"]}, None)[1].host == "h"
    name, url = find_remote(ORIGIN, "ssh://host/x")
    assert (name, url.host) == ("", "host")
    for wanted, remotes in (("nosuch", ORIGIN), (None, {}), ("hf://a/b", ORIGIN)):
        with pytest.raises(UsageError):
            find_remote(remotes, wanted)


def test_the_hub_is_no_remote() -> None:
    with pytest.raises(UsageError, match="hub"):
        check_remote_url("hf://org/name")


def test_a_path_names_a_repository_or_what_has_one(tmp_path: Path) -> None:
    directory = layout.initialise(tmp_path / "here")
    assert repository_at(tmp_path / "here") == directory
    assert repository_at(directory) == directory
    with pytest.raises(NoRepository):
        repository_at(tmp_path)
    url = parse_url(str(tmp_path / "here"))
    with connect(url, Credentials(), open_home=OpenRepository) as store:
        assert store.get("HEAD") == b"ref: refs/heads/main\n"
        assert isinstance(store, ReceivingStore)
        with pytest.raises(RemoteRefused):
            store.get("config.toml")


def test_the_nearest_token_wins(tmp_path: Path) -> None:
    url = parse_url("https://h/x")
    (tmp_path / "tokens").write_text('origin = "file"\n"https://h" = "host"\n')
    (tmp_path / "tokens").chmod(0o600)

    def token(name: str, **environment: str) -> str | None:
        return gather(environment, tmp_path).trusting(url).token(url, name)

    assert token("origin", MP_TOKEN="any", MP_TOKEN_ORIGIN="own") == "own"
    assert token("origin", MP_TOKEN="any") == "any"
    assert token("origin") == "file"
    assert token("other") == token("") == "host"
    assert token("my-up", MP_TOKEN_MY_UP="own") == "own"
    assert token("host", MP_TOKEN="any", MP_TOKEN_HOST="https://h:443") == "any"
    assert gather({}, tmp_path).token(parse_url("https://other"), "up") is None
    assert gather({"MP_TOKEN": "x"}).token(parse_url("ssh://h/x")) is None


def test_a_variable_goes_to_servers_that_the_user_named() -> None:
    url = parse_url("https://h/x")
    given = Credentials({"MP_TOKEN": "any", "MP_TOKEN_ORIGIN": "own"})
    assert given.token(url) == "any"  # a URL that the user gave
    assert given.token(url, "origin") is None  # one that a config gave
    assert "MP_TOKEN_HOST=https://h:443" in given.withheld(url, "origin")
    trusted = given.trusting(parse_url("https://H:443/y"))
    assert trusted.token(url, "origin") == "own"
    assert trusted.withheld(url, "origin") == ""
    for other in ("http://h/x", "https://h:444/x", "https://h.evil/x", "https://evil/h"):
        assert trusted.token(parse_url(other), "origin") is None, other


@pytest.mark.parametrize(
    ("hosts", "there"),
    [
        ("h", {"https://h"}),
        ("h:8000", {"https://h:8000"}),
        ("http://h:8000/", {"http://h:8000"}),
        ("https://h, [::1]:80", {"https://h", "https://[::1]:80"}),
    ],
)
def test_hosts_for_the_variable_are_the_only_ones(hosts: str, there: set[str]) -> None:
    places = {"https://h", "http://h", "https://h:8000", "http://h:8000", "https://[::1]:80"}
    given = Credentials({"MP_TOKEN": "x", "MP_TOKEN_HOST": hosts})
    for place in places:
        for name in ("", "origin"):
            token = given.trusting(parse_url(place)).token(parse_url(place), name)
            assert (token == "x") == (place in there), (place, name)


@pytest.mark.parametrize("hosts", ["ssh://h", "https://", "/"])
def test_hosts_that_are_none_are_refused(hosts: str) -> None:
    with pytest.raises(ConfigError, match="MP_TOKEN_HOST"):
        Credentials({"MP_TOKEN": "x", "MP_TOKEN_HOST": hosts}).token(parse_url("https://h"))


def test_names_of_remotes_mean_nothing_to_another_repository() -> None:
    given = Credentials(tokens={"origin": "ours", "https://h:443": "host"}).abroad()
    assert given.token(parse_url("https://evil"), "origin") is None
    assert given.token(parse_url("https://h"), "origin") == "host"


def test_the_users_list_of_servers(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "servers"
    assert read_servers(path) == frozenset()
    for text in ("https://h/x", "http://H:80/y", "https://h:443", "ssh://h/x", "/srv/x"):
        assert remember_server(path, parse_url(text))
    assert path.read_text() == "https://h:443\nhttp://h:80\n"
    found = gather({"MP_TOKEN": "x"}, None, path.parent)
    assert found.token(parse_url("https://h/z"), "origin") == "x"
    assert not remember_server(path / "below", parse_url("https://new"))


def test_a_token_of_the_user_is_for_one_origin(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text('origin = "stray"\n"http://H:8000/" = "mine"\n')
    path.chmod(0o600)
    found = gather({}, None, tmp_path)
    assert found.token(parse_url("http://h:8000/x"), "origin") == "mine"
    assert found.token(parse_url("http://h:8001/x"), "origin") is None
    assert found.token(parse_url("https://h:8000/x"), "origin") is None


def test_tokens_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text('origin = "secret"\n')
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        read_tokens(path)
    path.chmod(0o600)
    assert read_tokens(path) == {"origin": "secret"}
    path.write_text("origin = secret")
    with pytest.raises(ConfigError) as caught:
        read_tokens(path)
    assert "secret" not in caught.value.message
    assert read_tokens(tmp_path / "none") == {}


def test_tokens_are_not_printed() -> None:
    credentials = Credentials({"MP_TOKEN": "secret"}, {"origin": "secret"})
    assert "secret" not in repr(credentials)
    for token in ("a\r\nb", "a b", "\u00e9"):
        with pytest.raises(AuthenticationError) as caught:
            Credentials({"MP_TOKEN": token}).token(parse_url("http://h"))
        assert token not in caught.value.message
