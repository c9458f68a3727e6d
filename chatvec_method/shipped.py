"""Files of the repository that come with the package: recipes, and the models of a small world."""

from __future__ import annotations

from pathlib import Path


def shipped(path: str) -> Path:
    """Return where a file or folder is: in the package, or in the repository that it runs from.

    Args:
        path: As in the repository, such as `recipes/world.yaml`.
    """
    package = Path(__file__).parent
    files = package / "files"
    return (files if files.is_dir() else package.parent) / path
