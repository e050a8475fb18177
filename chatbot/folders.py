"""Folders and files that appear whole or not at all, whatever happens while they are written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool = False, mark: str) -> Iterator[Path]:
    """Write into a temporary folder that takes the place of `folder` in the end.

    It lies on the same file system, where a rename is atomic, and is gone after an error.

    Args:
        folder: What is to appear; its parents are made.
        overwrite: Whether an existing folder may be replaced.
        mark: A file that a folder must hold to be replaced, unless it is empty: a mistyped path
            must not cost someone a folder of something else.

    Raises:
        FileExistsError: `folder` exists, and may not be replaced.
        OSError: Nothing can be written there; the message names the folder.
    """
    check_replaceable(folder, overwrite=overwrite, mark=mark)
    parent = folder.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    except OSError as error:
        raise OSError(f"{folder}: cannot write in {parent} ({error.strerror})") from error
    try:
        built = temporary / "built"
        built.mkdir()
        yield built
        _publish(built, folder, temporary / "replaced")
    except Exception as error:
        refused = _refusal_of_the_disk(error)
        if refused is None:
            raise
        raise OSError(f"{folder}: cannot be written ({refused})") from error
    finally:
        shutil.rmtree(temporary)


def write_atomically(path: Path, text: str) -> None:
    """Write so that the file is the old one or the new one, whenever the power goes."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def check_replaceable(folder: Path, *, overwrite: bool, mark: str) -> None:
    """Raise FileExistsError where `folder` exists and may not be replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{folder} exists; replace it with --overwrite")
    if not (folder / mark).is_file():
        raise FileExistsError(f"{folder} has no {mark}, so --overwrite does not replace it")


def _refusal_of_the_disk(error: BaseException) -> BaseException | None:
    """The error of a failed write behind an error, None if there is none.

    It names no file, other than errors of reading; those of Rust only hold "(os error 28)".
    """
    if isinstance(error, ValueError) or error.__cause__ is None:
        unnamed = isinstance(error, OSError) and error.errno and not error.filename
        return error if unnamed or "(os error" in str(error) else None
    return _refusal_of_the_disk(error.__cause__)


def _publish(built: Path, folder: Path, replaced: Path) -> None:
    if folder.exists():
        folder.rename(replaced)
    try:
        built.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
