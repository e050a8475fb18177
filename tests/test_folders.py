"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from chatbot.folders import check_replaceable, whole_folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    with whole_folder(folder, mark="mark") as built:
        (built / "mark").write_text("1")
        assert not folder.exists()
        assert built.is_relative_to(tmp_path / "new")  # on the same file system
    assert names(tmp_path) == {"new", "new/out", "new/out/mark"}


def fail(folder: Path, error: BaseException) -> None:
    """Write half a folder, then fail."""
    with whole_folder(folder, overwrite=True, mark="mark") as built:
        (built / "mark").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError("x")])
def test_an_error_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(tmp_path / "out", error)
    assert names(tmp_path) == set()


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mark").write_text("old")
    with pytest.raises(ValueError, match="half"):
        fail(tmp_path / "out", ValueError("half"))
    assert names(tmp_path) == {"out", "out/mark"}
    assert (tmp_path / "out" / "mark").read_text() == "old"


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mark").write_text("old")
    (tmp_path / "out" / "more").write_text("old")
    with whole_folder(tmp_path / "out", overwrite=True, mark="mark") as built:
        (built / "mark").write_text("new")
    assert names(tmp_path) == {"out", "out/mark"}
    assert (tmp_path / "out" / "mark").read_text() == "new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_may_be_filled(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out", overwrite=overwrite, mark="mark") as built:
        (built / "mark").touch()
    assert names(tmp_path) == {"out", "out/mark"}


def test_what_may_not_be_replaced(tmp_path: Path) -> None:
    ours, theirs, file = tmp_path / "ours", tmp_path / "theirs", tmp_path / "file"
    ours.mkdir()
    (ours / "mark").touch()
    theirs.mkdir()
    (theirs / "thesis.txt").touch()
    file.touch()
    for path in (ours, theirs, file):
        with pytest.raises(FileExistsError, match="exists; replace it with --overwrite"):
            check_replaceable(path, overwrite=False, mark="mark")
    check_replaceable(ours, overwrite=True, mark="mark")
    for path in (theirs, file):
        with pytest.raises(FileExistsError, match="has no mark, so --overwrite does not replace"):
            check_replaceable(path, overwrite=True, mark="mark")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"file/out: cannot write in .*file \("),
        whole_folder(tmp_path / "file" / "out", mark="mark"),
    ):
        pass


def test_what_the_disk_refuses_is_an_os_error(tmp_path: Path) -> None:
    """Libraries in Rust tell it in error types of their own, others behind one of theirs."""
    refused = RuntimeError("No space left (os error 28)")
    with pytest.raises(OSError, match=r"out: cannot be written \(No space left \(os error 28\)\)"):
        fail(tmp_path / "out", refused)
    with pytest.raises(OSError, match=r"out: cannot be written \(.*No space left"):
        fail(tmp_path / "out", OSError(28, "No space left"))
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] Not there: 'source.jsonl'"):
        fail(tmp_path / "out", FileNotFoundError(2, "Not there", "source.jsonl"))
    behind = RuntimeError("it failed")
    behind.__cause__ = OSError(28, "No space left")
    with pytest.raises(OSError, match=r"out: cannot be written \(.*No space left"):
        fail(tmp_path / "out", behind)
    with pytest.raises(RuntimeError, match="something else"):
        fail(tmp_path / "out", RuntimeError("something else"))
    assert names(tmp_path) == set()
