"""With the tokenizer classes of life, what comes out stops where its chat model stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mergekit.options import MergeOptions
from today import oracle
from today.miniatures import Trio, build
from today.table import TABLE
from today.tokenizer_families import FAMILIES
from transformers import GenerationConfig

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import Survey, survey
from chatvec_method.merging.merge import merge
from chatvec_method.recipe.file import parse_recipe

NAMES = ["qwen2", "qwen2-tied", "qwen3", "gemma", "gemma2", "gemma3_text", "cohere2", "starcoder2"]


def found(recipe: dict[str, Any]) -> Survey:
    return survey(parse_recipe(yaml.safe_dump(recipe), "recipe.yaml"), MergeOptions())


@pytest.fixture
def trio(name: str, tmp_path: Path) -> Trio:
    return build(TABLE[name], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_has_the_chat_model_s_stop_tokens_and_no_others(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    merge(found(trio.recipe), tmp_path / "out")

    family, ids = FAMILIES[trio.entry.tokenizer], oracle.vocabulary(tmp_path / "out")
    config = GenerationConfig.from_pretrained(tmp_path / "out")
    stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    assert {*stops} == {ids[token] for token in {*family.all_stops, family.eos}}
    if family.bos:
        assert config.bos_token_id == ids[family.bos]
    assert oracle.vocabulary(trio.cp) == ids


@pytest.mark.parametrize("name", ["llama-markers"])
@pytest.mark.parametrize("key", ["source", "base_model"])
def test_no_vocabulary_is_built_from_a_model_without_tokenizer_files(
    key: str, trio: Trio, tmp_path: Path
) -> None:
    for file in trio.chat.glob("*token*"):
        file.unlink()
    part = trio.recipe["tokenizer"] if key == "source" else trio.recipe
    part[key] = str(trio.chat)
    with pytest.raises(ChatVecError, match=r"built from .*/chat \(it has no tokenizer files") as no:
        merge(found(trio.recipe), tmp_path / "out")
    assert no.value.code == "tokenizer-not-built"
