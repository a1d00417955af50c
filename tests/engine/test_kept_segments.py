"""Notes of finished segments: nobody waited for the disk, so a note counts when it is whole."""

from pathlib import Path

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.engine.kept_segments import KeptSegments
from mergepipe.executors.segments import Segment, SegmentResult
from mergepipe.ids import ObjectId


def test_a_note_that_was_changed_is_none(tmp_path: Path) -> None:
    segment = Segment(1, ())
    result = SegmentResult(1, (), host="this machine")
    with LocalByteStore(tmp_path) as files:
        kept = KeptSegments(files, ObjectId(bytes(32)), b"settings", 0)
        kept.keep(segment, result)
        assert kept.find(segment) == result
        [note] = [key for key in files.list(f"{kept.folder}/") if key.endswith("000001")]
        files.put(note, (files.get(note) or b"").replace(b"this machine", b"that machine"))
        assert kept.find(segment) is None
