"""Directories in the making: kept while somebody makes them, and gone with who did."""

from pathlib import Path

import pytest

from mergepipe.bytestore.unfinished import building, sweep

LEFT = ".c.clone-" + "0" * 16


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    for name in (LEFT, ".d.clone-" + "0" * 16, ".c.clone-notes", "c"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / (".c.clone-" + "1" * 16)).touch()  # a file is nobody's clone
    (tmp_path / (".c.clone-" + "2" * 16)).symlink_to(tmp_path / "c")
    before = names(tmp_path)
    with building(tmp_path, ".c.clone-") as made:
        assert names(tmp_path) == sorted([*(set(before) - {LEFT}), made.path.name])
    assert names(tmp_path) == sorted(set(before) - {LEFT})
    assert (tmp_path / "c" / "deep").is_dir()


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    with building(tmp_path, "x-") as first, building(tmp_path, "x-") as second:
        sweep(tmp_path, "x-")
        assert names(tmp_path) == sorted([first.path.name, second.path.name])
        first.path.rename(tmp_path / "whole")
    assert names(tmp_path) == ["whole"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), building(tmp_path, "x-") as made:
        (made.path / "file").touch()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_what_is_kept_is_there_for_the_next(tmp_path: Path) -> None:
    with building(tmp_path, "x-") as made:
        (made.path / "file").write_text("all of it")
        made.kept = True
    taken = []
    sweep(tmp_path, "x-", lambda left: taken.append((left / "file").read_text()))
    assert (taken, names(tmp_path)) == (["all of it"], [])
