"""Finds `hub_config/`, the files that are published and are not Python of the package.

In a checkout the folder lies beside the package; in a wheel it is `chatbot/_hub_config`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def hub_config_path(*parts: str) -> Path:
    """Path of `hub_config`, or of what lies under it: `hub_config_path("pretrained")`."""
    root = _PACKAGE / "_hub_config"
    if not root.is_dir():
        root = _PACKAGE.parent / "hub_config"
    path = root.joinpath(*parts)
    if path.exists():
        return path
    if not root.is_dir():
        raise FileNotFoundError(
            f"The files of `hub_config` are missing: neither {_PACKAGE / '_hub_config'} nor {root} "
            "exists. Install the package again, or take a whole checkout."
        )
    nearest = path.parent
    while not nearest.is_dir():
        nearest = nearest.parent
    there = ", ".join(sorted(entry.name for entry in nearest.iterdir())) or "nothing"
    raise FileNotFoundError(f"{path} does not exist; {nearest} holds: {there}.")
