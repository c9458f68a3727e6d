"""What `chatvec finish` prints of large files, and of those that are no text."""

from __future__ import annotations

import json
import time
from pathlib import Path

import formats
import pytest
from click.testing import CliRunner
from conftest import CHAT, Merge

from chatvec_method.cli import main


@pytest.fixture
def out(merge: object, tmp_path: Path) -> Path:
    """Return stock mergekit's output, of which tokenizer.json is large and to be replaced."""
    family = formats.build(tmp_path / "models", "llama-3")
    recipe = formats.recipe(family)
    ratio = [{"filter": "mlp", "value": 0.5}, {"value": 1.0}]  # worth a picture
    recipe["models"][CHAT]["parameters"]["ratio"] = ratio
    done = merge(recipe, "--write-model-card")  # type: ignore[operator]
    assert isinstance(done, Merge)
    text = json.loads((done.out / "tokenizer.json").read_text())
    (done.out / "tokenizer.json").write_text(json.dumps(text, indent=1) + "\n" * 200_000)
    (done.out / "ratio.png").write_bytes(b"\x89PNG")
    return done.out


def test_large_files_and_pictures_are_told_by_their_size(out: Path) -> None:
    start = time.monotonic()
    printed = CliRunner().invoke(main, ["finish", str(out), "--dry-run"]).stdout
    assert time.monotonic() - start < 60
    assert "+++ generation_config.json (after)" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("tokenizer.json: ")]
    assert line.endswith("KB)")
    assert "ratio.png: binary, " in printed
    assert "(before: binary, 4 B)" in printed


def test_as_json_too(out: Path) -> None:
    changes = json.loads(CliRunner().invoke(main, ["finish", str(out), "--json"]).stdout)
    by_name = {change["name"]: change for change in changes}
    assert by_name["ratio.png"]["before"] == "binary, 4 B"
    assert len(by_name["tokenizer.json"]["before"]) < 20
    assert by_name["chat_template.jinja"]["before"] is None
