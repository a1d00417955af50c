"""What only a bucket can show: conditional writes, lost replies, bounds, credentials."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="pip install 'mergepipe[test]'")

from mergepipe.bytestore import cloud
from mergepipe.bytestore.aws_profile import s3_settings
from mergepipe.bytestore.cloud import WRITES, CloudByteStore, open_bucket
from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    RemoteRefused,
    RemoteUnreachable,
)
from tests.bytestore.s3 import Bucket, closed_port, losing_replies, serving


@pytest.fixture(scope="module")
def make_bucket() -> Iterator[Callable[[], Bucket]]:
    with serving() as make:
        yield make


@pytest.fixture
def bucket(make_bucket: Callable[[], Bucket]) -> Bucket:
    return make_bucket()


def publish(store: CloudByteStore, key: str, *chunks: bytes) -> None:
    writer = store.create()
    for chunk in chunks:
        writer.write(chunk)
    store.publish([(writer, key)])


def test_a_large_value_goes_in_parts_and_memory_stays_small(bucket: Bucket) -> None:
    piece = bytes(range(256)) * 4096
    with bucket.store() as store:
        tracemalloc.start()
        publish(store, "packs/a", *(piece for _ in range(128)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert store.size("packs/a") == 128 << 20
        assert peak < 64 << 20
        out = bytearray(300)
        assert store.read_into("packs/a", (40 << 20) + 7, memoryview(out)) == 300
        assert out == (piece * 2)[7:307]


def test_what_is_there_is_not_sent_again(bucket: Bucket) -> None:
    seen: list[bytes] = []

    def note(line: bytes) -> bool:
        seen.append(line)
        return False

    with losing_replies(bucket.port, note) as port, bucket.store(port=port) as store:
        publish(store, "packs/a", b"x" * 1000)
        publish(store, "packs/a", b"x" * 1000)
    assert len([line for line in seen if line.startswith((b"PUT", b"POST"))]) == 1


@pytest.mark.parametrize("done", [1, 2])
def test_a_lost_reply_is_looked_up(bucket: Bucket, done: int) -> None:
    """Whether the write was carried out once or, by the library, twice."""
    lost: list[bytes] = []

    def lose(line: bytes) -> bool:
        if line.startswith(b"PUT") and len(lost) < done:
            lost.append(line)
            return True
        return False

    with losing_replies(bucket.port, lose) as port, bucket.store(port=port) as store:
        assert store.compare_and_swap("refs/heads/main", None, b"1")
        lost.clear()
        assert store.compare_and_swap("refs/heads/main", b"1", b"2")
        assert len(lost) >= 1
        lost.clear()
        assert store.compare_and_swap("refs/heads/main", b"2", None)
        assert store.get("refs/heads/main") is None
        assert not store.compare_and_swap("refs/heads/main", b"2", b"3")


def test_a_lost_reply_of_a_swap_that_others_went_on_from(bucket: Bucket) -> None:
    """The write was ours, then somebody else's was made: no conflict may be reported."""
    other = bucket.store()
    moved: list[bytes] = []

    def lose(line: bytes) -> bool:
        if line.startswith(b"PUT") and not moved:
            moved.append(line)
            return True
        if line.startswith(b"GET") and len(moved) == 1:
            moved.append(line)  # before our look-up arrives
            for value in range(1, 10):
                assert other.compare_and_swap("r", str(value).encode(), str(value + 1).encode())
        return False

    with losing_replies(bucket.port, lose) as port, bucket.store(port=port) as store:
        assert other.compare_and_swap("r", None, b"0")
        assert store.compare_and_swap("r", b"0", b"1")
        assert store.get("r") == b"10"


def test_a_real_conflict_is_one_even_if_the_line_breaks(bucket: Bucket) -> None:
    count = iter(range(100))
    with (
        losing_replies(bucket.port, lambda line: next(count) % 3 == 1) as port,
        bucket.store(port=port) as store,
        bucket.store() as other,
    ):
        assert other.compare_and_swap("r", None, b"1")
        for _ in range(3):
            assert not store.compare_and_swap("r", b"0", b"2")
            assert not store.compare_and_swap("r", None, b"2")
        assert store.get("r") == b"1"


def test_every_one_of_many_racing_swaps_counts_once(bucket: Bucket) -> None:
    with bucket.store() as store:
        store.put("n", b"0")

        def add(times: int) -> None:
            while times:
                value = store.get("n")
                assert value is not None
                times -= store.compare_and_swap("n", value, str(int(value) + 1).encode())

        threads = [threading.Thread(target=add, args=(5,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get("n") == b"20"


def test_the_last_sixteen_writes_are_remembered(bucket: Bucket) -> None:
    import obstore

    with bucket.store() as store:
        old = None
        for number in range(20):
            assert store.compare_and_swap("r", old, old := str(number).encode())
        attributes = obstore.get(store._store, "r").attributes
        assert len(set(attributes[WRITES].split(","))) == 16


def test_a_removed_ref_leaves_nothing_that_is_listed(bucket: Bucket) -> None:
    with bucket.store() as store:
        assert store.compare_and_swap("refs/heads/a", None, b"1")
        assert store.compare_and_swap("refs/heads/a", b"1", None)
        assert list(store.list("refs/")) == []
        assert store.values("refs/") == {}
        assert store.size("refs/heads/a") is None
        assert store.compare_and_swap("refs/heads/a", None, b"2")
        assert store.values("refs/") == {"refs/heads/a": b"2"}


def test_prefixes_do_not_see_each_other(bucket: Bucket) -> None:
    one, two, whole = bucket.store("a"), bucket.store("ab"), bucket.store("")
    one.put("refs/heads/x", b"1")
    two.put("refs/heads/y", b"2")
    assert list(one.list("refs/")) == list(one.list("")) == ["refs/heads/x"]
    assert list(whole.list("")) == ["a/refs/heads/x", "ab/refs/heads/y"]


def test_names_come_back_as_they_are(bucket: Bucket) -> None:
    names = ["a#b", "a%20b", "a b", "a{b}", "\u00fcber", "a+b&c=d", "a'b", 'a"b', "a<b>|c", "a;b"]
    with bucket.store() as store:
        for name in names:
            assert store.compare_and_swap(f"refs/heads/{name}", None, name.encode())
        assert store.values("refs/heads/") == {
            f"refs/heads/{name}": name.encode() for name in sorted(names)
        }
        for key in ("a//b", "a/../b", "/a", "a/", ""):
            with pytest.raises(MergepipeError):
                store.put(key, b"1")


def test_too_much_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with bucket.store() as store:
        for number in range(5):
            store.put(f"refs/heads/{number}", b"x" * 100)
        monkeypatch.setattr(cloud, "_MOST_VALUES", 4)
        with pytest.raises(RemoteRefused):
            store.values("refs/")
        monkeypatch.setattr(cloud, "_MOST_VALUES", 5)
        monkeypatch.setattr(cloud, "_MOST_VALUE_BYTES", 499)
        with pytest.raises(RemoteRefused):
            store.values("refs/")
        monkeypatch.setattr(cloud, "_LARGEST_VALUE", 99)
        with pytest.raises(RemoteRefused):
            store.get("refs/heads/1")


def test_no_bucket_is_no_empty_one(bucket: Bucket) -> None:
    gone = Bucket(bucket.port, "no-such-bucket").store()
    with pytest.raises(RemoteRefused, match="no bucket"):
        gone.list("refs/")
    with pytest.raises(RemoteRefused, match="no bucket"):
        gone.values("refs/")
    with pytest.raises(RemoteRefused, match="no bucket"):
        gone.get("HEAD")


def test_nobody_there(bucket: Bucket) -> None:
    with closed_port() as port, pytest.raises(RemoteUnreachable, match="s3://"):
        bucket.store(port=port).list("refs/")


def test_settings_come_from_the_environment_or_a_profile(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = d%20\n"
        "[work]\naws_access_key_id=W\naws_secret_access_key=w\naws_session_token=t\n"
    )
    (tmp_path / ".aws/config").write_text(
        "[default]\nregion = eu-west-1\n"
        "[profile work]\nregion = eu-north-1\nendpoint_url = https://minio.example.org\n"
        "[profile sso]\nsso_session = corp\n"
    )
    home = {"HOME": str(tmp_path)}
    default = {"access_key_id": "D", "secret_access_key": "d%20", "region": "eu-west-1"}
    assert s3_settings(home) == default
    work = s3_settings(home | {"AWS_PROFILE": "work", "AWS_ACCESS_KEY_ID": "E"})
    assert work == {
        "access_key_id": "W",
        "secret_access_key": "w",
        "session_token": "t",
        "region": "eu-north-1",
        "endpoint": "https://minio.example.org",
    }
    # Keys of two places are not mixed.
    keys = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e", "AWS_REGION": "us-east-2"}
    assert s3_settings(home | keys) == {
        "access_key_id": "E",
        "secret_access_key": "e",
        "region": "us-east-2",
    }
    assert s3_settings({"HOME": str(tmp_path / "none")}) == {}
    for profile in ("nosuch", "sso"):
        with pytest.raises(AuthenticationError, match=profile):
            s3_settings(home | {"AWS_PROFILE": profile})
    (tmp_path / ".aws/credentials").write_text("aws_secret_access_key = secret\n")
    with pytest.raises(AuthenticationError) as caught:
        s3_settings(home)
    assert "secret_access_key = secret" not in str(caught.value)


def test_without_keys_nobody_is_asked_where_that_is_switched_off(tmp_path: Path) -> None:
    off = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.raises(AuthenticationError, match="no keys") as caught:
        s3_settings(off)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    keys = {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e"}
    assert s3_settings(off | keys)["access_key_id"] == "E"
    assert s3_settings(off | {"AWS_SKIP_SIGNATURE": "true"}) == {}  # a public bucket


def test_a_profile_reaches_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id=W\naws_secret_access_key=w\nregion=us-east-1\n"
        f"endpoint_url=http://127.0.0.1:{bucket.port}\n"
    )
    environment = {
        "AWS_PROFILE": "work",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    with open_bucket("s3", bucket.name, "x", environment) as store:
        store.put("a", b"1")
        assert store.get("a") == b"1"
    assert bucket.store("x").get("a") == b"1"
