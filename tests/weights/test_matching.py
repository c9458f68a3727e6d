"""Rows matched by token in ranges, held to the bit against mergekit, which goes one by one."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conftest import CHAT, Recipe
from immutables import Map
from mergekit.common import ImmutableMap
from mergekit.io.tasks import GatherTensors
from mergekit.tokenizer import BuildTokenizer, PermutedVocabulary
from mergekit.tokenizer.build import build_tokenizer
from surveying import ready

from chatvec_method.weights.matching import matching_of
from chatvec_method.weights.reading import Reader

VARIETIES = {
    "extended": {},
    "padded": {"pad_to_multiple_of": 7},
    "forced": {"tokens": {"<unk>": {"source": "CHAT", "force": True}}},
    "another token's row": {
        "tokens": {
            "<new>": {"source": {"kind": "model_token", "model": "CHAT", "token": "<s>"}},
            "<zero>": {"source": {"kind": "zero"}},
        }
    },
    "half precisions that promote": {"chat": "chat16", "pad_to_multiple_of": 64},
}


@pytest.mark.parametrize("variety", VARIETIES)
def test_rows_are_those_of_mergekit(variety: str, recipe: Recipe, family: Path) -> None:
    settings = copy.deepcopy(VARIETIES[variety])
    recipe["models"][CHAT]["model"] = str(family / settings.pop("chat", "chat"))
    _with_chat(settings, recipe["models"][CHAT]["model"])
    recipe["base_model"] = recipe["models"][2]["model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"], **settings}
    survey = ready(recipe)
    matching = matching_of(survey)
    assert matching is not None
    embeddings = next(t for t in survey.plan.tensors if t.kind == "embeddings")
    reader = Reader(survey.plan.checkpoints)
    tensors = {
        model: reader.tensor(model, source)
        for model in embeddings.inputs
        if (source := embeddings.sources[model])
    }
    config = survey.recipe.config
    assert config.tokenizer is not None
    build = {
        "base_model": config.base_model,
        "referenced_models": tuple(tensors),
        "tokenizer_source": config.tokenizer.source,
        "add_tokens": tuple(config.tokenizer.tokens or ()),
    }
    task = PermutedVocabulary(
        gather_tensors=GatherTensors(weight_info=ImmutableMap(Map())),
        tokenizer_task=BuildTokenizer(**build),
        tokens=config.tokenizer.tokens,
        pad_to_multiple_of=config.tokenizer.pad_to_multiple_of,
        base_model=config.base_model,
        vocabulary_axis=0,
    )
    info = build_tokenizer(**{**build, "referenced_models": list(tensors)}, trust_remote_code=False)
    expected = task.execute(tokenizer_info=info, tensors=tensors)
    tokens = len(matching.tokens)
    for model, rows in expected.items():
        assert len(rows) == matching.rows
        for start in range(0, tokens, 50):
            part = slice(start, min(start + 50, tokens))
            assert torch.equal(matching.matched(model, tensors, part), rows[part])
        for row in rows[tokens:]:
            assert torch.equal(matching.padding(model, tensors), row)


def _with_chat(settings: object, chat: str) -> None:
    """Put the chat model's name where the varieties have CHAT."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if value == "CHAT":
                settings[key] = chat
            _with_chat(value, chat)


def test_only_models_with_rows_for_cp_are_asked(recipe: Recipe, family: Path) -> None:
    recipe["base_model"] = recipe["models"][2]["model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    survey = ready(recipe)
    matching = matching_of(survey)
    assert matching is not None
    assert matching.donors(survey.plan.roles.cp) == {survey.plan.roles.cp}
    assert matching.donors(survey.plan.roles.base) == {survey.plan.roles.cp, survey.plan.roles.base}
