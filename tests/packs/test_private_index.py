"""An index of one's own, for a repository that may only be read: where nobody else has a say."""

from pathlib import Path

import pytest

from mergepipe.errors import MergepipeError
from mergepipe.packs.private_index import make_private


def test_its_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    place = tmp_path / "cache/index"
    assert make_private(tmp_path / "theirs", place) == place
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_to_another_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "another").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "another")
    with pytest.raises(MergepipeError, match="not this user's own"):
        make_private(tmp_path / "theirs", tmp_path / "cache/index")
