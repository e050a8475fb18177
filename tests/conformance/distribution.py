"""transformers' own model tests, from the source distribution of the installed version.

They are no part of what pip installs, so pip downloads them once into a folder that git ignores.
"""

import importlib
import subprocess
import sys
import tarfile
import tempfile
from email.parser import BytesParser
from pathlib import Path
from types import ModuleType

import transformers

VERSION = transformers.__version__
CACHE = Path(__file__).resolve().parents[2] / "build" / "conformance" / VERSION
PACKAGE = "transformers_tests"

# What their modules import, but their distribution leaves out.
STUBS = {
    "__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin: ...",
    "generation/test_utils.py": "class GenerationTesterMixin: ...",
    # every field of PreTrainedConfig that can be given, none with its default
    "utils/test_configuration_utils.py": """config_common_kwargs = {
        "return_dict": False,
        "output_hidden_states": True,
        "output_attentions": True,
        "dtype": "float16",
        "chunk_size_feed_forward": 5,
        "architectures": ["RnnSeq2SeqModel"],
        "id2label": {0: "label"},
        "label2id": {"label": "0"},
        "problem_type": "regression",
    }""",
}


def fetch() -> None:
    """Download and unpack the tests, unless that was done before."""
    if (CACHE / PACKAGE).is_dir():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        source = ["--no-deps", "--no-binary", "transformers", f"transformers=={VERSION}"]
        subprocess.run([*pip, *source, "--dest", folder], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        _unpack(archive, Path(folder)).rename(CACHE / PACKAGE)


def _unpack(archive: Path, folder: Path) -> Path:
    """The folder of tests in an archive, which must be of the installed version, with stubs."""
    with tarfile.open(archive) as files:
        (root,) = {member.name.split("/")[0] for member in files}
        info = BytesParser().parse(files.extractfile(f"{root}/PKG-INFO"))
        if (info["Name"], info["Version"]) != ("transformers", VERSION):
            raise ValueError(f"{archive.name} is {info['Name']} {info['Version']}, not {VERSION}.")
        tests = [member for member in files if member.name.startswith(f"{root}/tests/")]
        files.extractall(folder, tests, filter="data")
    for name, text in STUBS.items():
        path = folder / root / "tests" / name
        if path.exists():
            raise ValueError(f"{name} is in the distribution by now: its stub can go.")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return folder / root / "tests"


def load(name: str) -> ModuleType:
    """A module of the tests, such as `test_modeling_common`."""
    if str(CACHE) not in sys.path:
        sys.path.insert(0, str(CACHE))
    return importlib.import_module(f"{PACKAGE}.{name}")
