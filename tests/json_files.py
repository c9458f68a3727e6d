"""Changes of a JSON file in a folder, as tests put them into copies of models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path], None]


def with_json(name: str, **values: Any) -> Change:
    """Return what sets keys of a file, which is made where there is none."""
    return with_changed_json(name, lambda said: said.update(values))


def with_changed_json(name: str, change: Callable[[dict[str, Any]], None]) -> Change:
    """Return what changes what a file says, which is {} where there is none."""

    def changed(folder: Path) -> None:
        file = folder / name
        said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        change(said)
        file.write_text(json.dumps(said), encoding="utf-8")

    return changed
