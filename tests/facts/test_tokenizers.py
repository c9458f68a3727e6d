"""A tokenizer counts only where its files are, whatever transformers builds without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hub
import pytest
from mergekit.common import ModelReference
from today import tokenizer_families as tokenizers
from transformers import AutoConfig, AutoTokenizer

from chatvec_method.facts.models import Model, look_up

ARCHITECTURES = {
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_5_text": "qwen3.5",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma3",
    "cohere": "cohere",
    "starcoder2": "gpt2",
    "gpt_neox": "neox",
    "llama": "llama-2",
    "mistral": "tekken",
}
"""With the family of its tokenizer."""


def known(name: Path | str) -> Model:
    return look_up(ModelReference.parse(str(name)))


@pytest.fixture
def folder(model_type: str, tmp_path: Path) -> Path:
    """Return a model's folder that has a config and no tokenizer."""
    AutoConfig.for_model(model_type).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def with_tokenizer(folder: Path, model_type: str) -> Path:
    words = tokenizers.lexicon(tokenizers.FAMILIES[ARCHITECTURES[model_type]])
    tokenizers.write(folder, words, chat=True, template_in_config=True)
    return folder


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_folder_without_tokenizer_files_has_no_tokenizer(folder: Path) -> None:
    model = known(folder)
    assert model.tokenizer is None
    assert model.tokenizer_problem == "it has no tokenizer files"


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_tokenizer_s_settings_without_its_tokens_are_none(folder: Path, model_type: str) -> None:
    with_tokenizer(folder, model_type)
    (folder / "tokenizer.json").unlink()
    model = known(folder)
    assert model.tokenizer is None
    assert "none of the files with a tokenizer's tokens" in model.tokenizer_problem
    assert "tokenizer.json" in model.tokenizer_problem


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_where_its_files_are_its_tokens_are_known(folder: Path, model_type: str) -> None:
    with_tokenizer(folder, model_type)
    model = known(folder)
    assert model.tokenizer_problem == ""
    assert model.tokenizer is not None
    words = tokenizers.lexicon(tokenizers.FAMILIES[ARCHITECTURES[model_type]])
    assert model.tokenizer.ids.items() >= words.ids.items()


@pytest.mark.parametrize("model_type", ["qwen2", "starcoder2"])
def test_a_tokenizer_in_older_files_is_one_if_all_of_them_are_there(
    folder: Path, model_type: str
) -> None:
    with_tokenizer(folder, model_type)
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(content["vocab"]))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in content["merges"]))
    assert known(folder).tokenizer is not None
    (folder / "merges.txt").unlink()
    assert known(folder).tokenizer is None


@pytest.mark.parametrize("model_type", ["qwen2"])
def test_a_link_that_leads_nowhere_is_no_file(folder: Path, model_type: str) -> None:
    with_tokenizer(folder, model_type)
    (folder / "tokenizer.json").rename(folder / "blob")
    (folder / "tokenizer.json").symlink_to("blob")
    assert known(folder).tokenizer is not None
    (folder / "blob").unlink()
    assert known(folder).tokenizer is None


@pytest.mark.parametrize("model_type", ["llama"])
def test_a_tokenizer_of_bytes_needs_no_file_of_tokens(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    model = known(folder)
    assert model.tokenizer is not None, model.tokenizer_problem
    assert len(model.tokenizer.ids) > 256


@pytest.mark.parametrize("model_type", ["gemma", "qwen2"])
def test_on_the_hub_the_list_of_files_tells(
    folder: Path, model_type: str, the_hub: hub.Hub
) -> None:
    assert known("o/model").tokenizer_problem == "it has no tokenizer files"
    assert not [each for each in the_hub.requests if "tokenizer" in each]
    with_tokenizer(folder, model_type)
    there = known("o/model")
    assert there.tokenizer == known(folder).tokenizer
    assert there.small_files.names == {file.name for file in folder.iterdir()}


@pytest.fixture
def the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    shelf = tmp_path / "shelf" / "o"
    shelf.mkdir(parents=True)
    (shelf / "model").symlink_to(folder)
    with hub.serving(shelf.parent) as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        yield served


def test_transformers_builds_a_tokenizer_out_of_nothing(tmp_path: Path) -> None:
    """That is why all this is needed; if it fails, less is."""
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 1


# --- What transformers adds of its own --------------------------------------------------------


@pytest.mark.parametrize("model_type", ["qwen2"])
def test_a_token_of_the_class_alone_has_no_part_to_play(folder: Path) -> None:
    """As DeepSeek's tokenizer in a Qwen model: it has no <|endoftext|>, and the class wants one."""
    words = tokenizers.lexicon(tokenizers.FAMILIES["deepseek"])
    tokenizers.write(folder, words, chat=True, template_in_config=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    known_tokenizer = known(folder).tokenizer

    assert known_tokenizer is not None
    assert known_tokenizer.assumed == {"<|endoftext|>"}
    assert known_tokenizer.ids["<|endoftext|>"] == len(words.tokens)
    assert "<|endoftext|>" not in known_tokenizer.special.values()
    assert "<|endoftext|>" not in known_tokenizer.added


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_of_a_tokenizer_in_its_own_architecture_nothing_is_assumed(
    folder: Path, model_type: str
) -> None:
    with_tokenizer(folder, model_type)
    tokenizer = known(folder).tokenizer
    assert tokenizer is not None
    assert tokenizer.assumed == frozenset()


@pytest.mark.parametrize("model_type", ["qwen2"])
def test_a_pad_token_that_somebody_added_is_the_model_s(folder: Path, model_type: str) -> None:
    with_tokenizer(folder, model_type)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "[PAD]"}))
    tokenizer = known(folder).tokenizer
    assert tokenizer is not None
    assert tokenizer.assumed == frozenset()
    assert tokenizer.special["pad_token"] == "[PAD]"


@pytest.mark.parametrize("model_type", ["qwen2"])
def test_a_template_that_only_the_processor_has_is_the_model_s(
    folder: Path, model_type: str
) -> None:
    words = tokenizers.lexicon(tokenizers.FAMILIES["qwen2"])
    tokenizers.write(folder, words, chat=False, template_in_config=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    tokenizer = known(folder).tokenizer
    assert tokenizer is not None
    assert tokenizer.chat_template == "{{ messages }}"
