"""Fixtures and the stock commands, run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"


def mergekit_yaml(
    recipe: Path, out: str, *options: str, cwd: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run mergekit's own command in a process of its own.

    Without a model card, for which mergekit asks the hub about every model named `owner/name`.
    """
    command = [Path(sys.executable).parent / "mergekit-yaml", recipe, out]
    return subprocess.run(
        [*command, "--no-write-model-card", "--quiet", *options],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=check,
        capture_output=True,
        text=True,
    )
