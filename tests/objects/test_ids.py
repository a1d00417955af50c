"""Ids, and how they are shown."""

from mergepipe.bytestore import wire
from mergepipe.ids import object_id, shown
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit


def test_an_id_that_prints_as_hex_travels_as_bytes() -> None:
    identity = object_id(b"x")
    assert repr(shown(identity)) == identity.hex()
    assert wire.encode([shown(identity)]) == wire.encode([identity])
    commit = Commit(shown(identity), (shown(identity),), None, "a", 0, 0, "")
    assert encode(commit) == encode(Commit(identity, (identity,), None, "a", 0, 0, ""))
