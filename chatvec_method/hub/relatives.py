"""From which model others descend, as their cards on the hub and their configs tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from mergekit.common import ModelReference

from chatvec_method.facts.models import Model, look_up
from chatvec_method.hub.asking import answers_as_errors

MOST_GENERATIONS = 4


def common_ancestor(
    models: Sequence[ModelReference], trust_remote_code: bool = False
) -> str | None:
    """Return the nearest model from which all of some descend, None where nobody tells.

    Raises:
        ChatVecError: A model is not there, is gated, or the hub cannot be reached.
    """
    lines = [_ancestors(look_up(model, trust_remote_code)) for model in models]
    told = [line for line in lines if line]
    if not told:
        return None
    names = {str(model) for model in models}
    shared = (name for name in told[0] if all(name in line for line in told))
    return next((name for name in shared if name not in names), None)


def _ancestors(model: Model) -> list[str]:
    """Return the models from which one descends, the nearest first."""
    line: list[str] = []
    parents = _parents(model.card.base_model, model.config, str(model.reference.model.path))
    while parents and len(line) < MOST_GENERATIONS:
        (name, *_) = parents
        if name in line:
            break
        line.append(name)
        parents = [] if Path(name).is_dir() else _parents_on_hub(name)
    return line


def _parents_on_hub(name: str) -> list[str]:
    """Return what a model's card on the hub names as its parents; none where nobody may read it."""
    with answers_as_errors(name, "Write `--base`."):
        try:
            card = HfApi().model_info(name).card_data
        except RepositoryNotFoundError:
            return []
    return _parents(card.base_model if card else None, None, name)


def _parents(stated: Any, config: Any, own: str) -> list[str]:
    """Return the names of parents: of a card, else of a config that a trainer wrote it into."""
    names = [stated] if isinstance(stated, str) else stated or []
    if not names and config is not None:
        # Trainers write there where they loaded the model from; transformers, the model's own name.
        written = config.to_dict().get("_name_or_path") or ""
        names = [written] if written != own else []
    return [name for name in map(str, names) if name != own and _is_name(name)]


def _is_name(name: str) -> bool:
    if Path(name).is_absolute() or name.count("/") != 1:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
