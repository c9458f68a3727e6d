"""Models that are on a hub are downloaded with one account of all bytes, and no bars of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, plain_recipe
from hub import ask, serving
from surveying import surveyed

from chatvec_method.errors import ChatVecError
from chatvec_method.progress import Progress
from chatvec_method.weights.fetching import fetched

ROLES = ("base", "chat", "cp")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder of models as a hub has them."""
    for name in ROLES:
        models = ROOT / "examples" / "world" / "models"
        shutil.copytree(models / name, tmp_path / "hub" / "owner" / name)
    return tmp_path / "hub"


def recipe_on_hub() -> dict[str, object]:
    recipe = plain_recipe(Path("owner"))
    return {**recipe, "tokenizer": {"source": "owner/cp"}}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_bytes_of_all_models_are_counted_to_the_end(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serving(models) as hub:
        ask(hub, monkeypatch, tmp_path / "cache")
        found = surveyed(recipe_on_hub())
        told: list[Progress] = []
        capfd.readouterr()
        ready = fetched(found.ready(), told.append)
    assert "".join(capfd.readouterr()) == ""
    assert all(model.folder is not None for model in ready.models.values())
    done = [state.done for state in told]
    (total,) = {state.total for state in told}
    assert total is not None
    assert total >= sum(size(models / "owner" / name) for name in ROLES)
    assert done == sorted(done)
    assert done[-1] == total
    assert list(dict.fromkeys(state.model for state in told)) == [f"owner/{n}" for n in ROLES]
    counted = max(state.done for state in told[:-1])
    assert counted == total  # and not only at the end


def test_what_is_in_the_cache_is_not_counted(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(models) as hub:
        ask(hub, monkeypatch, tmp_path / "cache")
        found = surveyed(recipe_on_hub()).ready()
        fetched(found)
        sent = hub.weight_bytes
        told: list[Progress] = []
        fetched(found, told.append)
    assert hub.weight_bytes == sent
    assert {(state.done, state.total) for state in told} == {(0, 0)}


def test_a_hub_that_breaks_off_is_told_in_one_message(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(models) as hub:
        ask(hub, monkeypatch, tmp_path / "cache")
        found = surveyed(recipe_on_hub()).ready()
        hub.trouble = 404
        with pytest.raises(ChatVecError, match="model owner/base cannot be opened"):
            fetched(found)
