"""Commands that load the merge of a recipe take its adapters as `chatvec merge` does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from conftest import Recipe
from varieties import adapter_as_chat

from chatvec_method.cli import main

TEXTS = ("a.txt", "b.txt")
COMMANDS: dict[str, list[str]] = {
    "chat": ["chat", "recipe.yaml", "--ask", "1", "--max-new-tokens", "2"],
    "evaluate": ["evaluate", "recipe.yaml", "--text", TEXTS[0], "--limit", "1", "--state", "state"],
    "search": [
        *("search", "recipe.yaml", "--limit", "2", "--trials", "1"),
        *(word for text in TEXTS for word in ("--text", text, "--objective", f"-reads {text}")),
    ],
    "vector extract": ["vector", "extract", "vector", "--recipe", "recipe.yaml"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_adapters_are_kept_where_one_says(
    command: str,
    recipe: Recipe,
    family: Path,
    relatives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter_as_chat(recipe, family, relatives)
    recipe["chat_template"] = "chatml"
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    for text in TEXTS:
        Path(text).write_text("token1 token2 token3\n\n" * 400, encoding="utf-8")
    without = CliRunner().invoke(main, COMMANDS[command])
    assert without.exit_code != 0
    assert "--lora-merge-cache" in without.stderr
    run = CliRunner().invoke(main, [*COMMANDS[command], "--lora-merge-cache", "cache"])
    assert run.exit_code == 0, run.stderr
    assert list(Path("cache").rglob("model*.safetensors"))
