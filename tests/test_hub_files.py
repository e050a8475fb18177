"""`hub_config/` in a checkout, in a wheel, and where it is missing."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import chatbot.hub_files
from chatbot.hub_files import hub_config_path


def tracked_hub_files(repository: Path) -> set[str]:
    """Files under hub_config that git does not ignore, relative to it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."]
    folder = repository / "hub_config"
    try:
        listed = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return {name for name in listed.decode().split("\0") if name and (folder / name).is_file()}


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and the wheel built from that sdist, without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    result = subprocess.run([*command, str(repository)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def test_in_a_checkout(repository: Path) -> None:
    assert hub_config_path() == repository / "hub_config"
    assert hub_config_path("sample_conversations").is_dir()


def test_the_wheel_holds_the_same_files(repository: Path, wheel: zipfile.ZipFile) -> None:
    prefix = "chatbot/_hub_config/"
    packed = {
        name.removeprefix(prefix): wheel.read(name)
        for name in wheel.namelist()
        if name.startswith(prefix)
    }
    assert packed.keys() == tracked_hub_files(repository)
    for name, content in packed.items():
        assert content == (repository / "hub_config" / name).read_bytes(), name


def test_the_wheel_holds_the_package_and_nothing_beside(
    repository: Path, wheel: zipfile.ZipFile
) -> None:
    names = {name for name in wheel.namelist() if not name.startswith("chatbot/_hub_config/")}
    package = {
        path.relative_to(repository).as_posix()
        for path in (repository / "chatbot").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == package
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_found_from_the_wheel_in_an_empty_folder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    wheel.extractall(site)
    empty.mkdir()
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from chatbot.hub_files import hub_config_path; print(hub_config_path())"
    )
    command = [sys.executable, "-I", "-c", program]
    result = subprocess.run(command, cwd=empty, check=True, capture_output=True, text=True)
    assert Path(result.stdout.strip()) == site / "chatbot" / "_hub_config"


def test_a_wrong_name_says_what_there_is() -> None:
    with pytest.raises(FileNotFoundError, match=r"holds: .*sample_conversations"):
        hub_config_path("no_such", "file.json")


def test_a_missing_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatbot.hub_files, "_PACKAGE", tmp_path / "chatbot")
    with pytest.raises(FileNotFoundError, match="Install the package again"):
        hub_config_path("pretrained")


def test_the_packed_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "chatbot"
    shutil.copytree(hub_config_path("sample_conversations"), package / "_hub_config" / "samples")
    (tmp_path / "hub_config").mkdir()
    monkeypatch.setattr(chatbot.hub_files, "_PACKAGE", package)
    assert hub_config_path("samples") == package / "_hub_config" / "samples"
