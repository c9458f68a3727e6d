"""Outputs of a merge, changed at random after it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from mergekit.options import MergeOptions

from chatvec_method.facts.survey import survey
from chatvec_method.merging.merge import merge
from chatvec_method.recipe.file import read_recipe
from tests.fuzz.folders import CHANGES
from tests.fuzz.recipes import CATALOGUE

CARD = "README.md"
SHARD_BYTES = 400_000


@cache
def merged() -> tuple[Path, ...]:
    """Return this process's outputs of the world's recipe: a file, shards, and pickles."""
    folder = Path(tempfile.mkdtemp(prefix="chatvec-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    recipe = read_recipe(CATALOGUE / "world.yaml")
    options = {
        "one": MergeOptions(),
        "shards": MergeOptions(out_shard_size=SHARD_BYTES),
        "pickles": MergeOptions(safe_serialization=False),
    }
    for name, each in options.items():
        merge(survey(recipe, each), folder / name)
    return tuple(folder / name for name in options)


def output(folder: Path, random: Random) -> tuple[Path, bool, str]:
    """Write an output into a folder, changed.

    Returns:
        Where it is; whether any byte that has a hash is another, while the hashes are as they
        were; and how it was changed.
    """
    good = random.choice(merged())
    out = folder / "out"
    shutil.copytree(good, out)
    told = [random.choice(CHANGES)(out, random) for _ in range(random.choice([1, 1, 2]))]
    others = [f.name for f in good.iterdir() if f.name != CARD and not _same(f, out / f.name)]
    is_another = bool(others) and "chatvec_hashes.json" not in others
    return out, is_another, f"{good.name}: {'; '.join(told)}"


def _same(file: Path, other: Path) -> bool:
    if not other.is_file() or other.stat().st_size != file.stat().st_size:
        return False
    return file.read_bytes() == other.read_bytes()
