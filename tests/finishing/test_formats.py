"""The test material itself: families that chat, and the checkpoint that takes no room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats
import pytest
import torch
from conftest import Merge
from formats import FORMATS, KANA, KOREAN, Family
from mergekit.io.lazy_tensor_loader import ShardedTensorIndex
from safetensors import safe_open
from sparse import build_sparse_model
from transformers import AutoModelForCausalLM, AutoTokenizer

SAME_IDS = [name for name, format in FORMATS.items() if format.markers_in_base]
"""The formats in which base's ids mean the same in chat and cp."""

TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "Who?"},
]
SYSTEM = {"role": "system", "content": "Be kind."}
PROMPTS = {
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama-2": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Yes </s><s>[INST] Who? [/INST]",
    "llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral-v3": "<s>[INST] Hi[/INST] Yes</s>[INST] Be kind.\n\nWho?[/INST]",
}


def load(folder: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def sum_of_a_script(family: Family, dtype: torch.dtype, ratio: float = 1.0) -> Any:
    """Return cp + ratio · (chat − base) as scripts form it: cp's further rows stay as they are."""
    model = load(family.cp, dtype)
    base, chat = (load(folder, dtype).state_dict() for folder in (family.base, family.chat))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter[: len(base[name])] += ratio * (chat[name] - base[name])
    return model


def turn(model: Any, tokenizer: Any, family: Family) -> list[str]:
    """Return what a model says until the end-of-turn token or for eight tokens."""
    stop = tokenizer.convert_tokens_to_ids(family.format.end_of_turn)
    return formats.speak(model, tokenizer, family.format.template, eos_token_id=stop)


# --- families ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("extended", [False, True], ids=["equal", "extended"])
@pytest.mark.parametrize("format", FORMATS)
def test_merged_through_its_recipe_a_family_answers_and_ends_its_turn(
    format: str, extended: bool, tied: bool, tmp_path: Path, merge: Callable[..., Merge]
) -> None:
    family = formats.build(tmp_path / "family", format, extended=extended, tied=tied)

    out = merge(formats.recipe(family)).out

    tokenizer = AutoTokenizer.from_pretrained(out)
    said = turn(load(out), tokenizer, family)
    assert said == family.format.answer
    ids = tokenizer.convert_tokens_to_ids(said[:-1])
    assert str(tokenizer.decode(ids)).strip() == formats.ANSWER


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("format", SAME_IDS)
def test_the_sum_of_a_plain_script_answers_with_the_whole_vector_and_with_half(
    format: str, tied: bool, ratio: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    family = formats.build(tmp_path, format, extended=True, tied=tied)

    model = sum_of_a_script(family, dtype, ratio)

    assert turn(model, AutoTokenizer.from_pretrained(family.cp), family) == family.format.answer


@pytest.mark.parametrize("format", FORMATS)
def test_chat_stops_by_itself_and_talks_for_ever_where_nothing_stops_it(
    format: str, tmp_path: Path
) -> None:
    family = formats.build(tmp_path, format)
    model, tokenizer = load(family.chat), AutoTokenizer.from_pretrained(family.chat)
    answer = family.format.answer

    torch.manual_seed(0)
    assert formats.speak(model, tokenizer) == answer
    assert formats.speak(model, tokenizer, do_sample=True) == answer
    model.generation_config.eos_token_id = None
    endless = formats.speak(model, tokenizer, max_new_tokens=40)

    assert len(endless) == 40
    assert endless.count(family.format.end_of_turn) >= 4


@pytest.mark.parametrize("format", FORMATS)
def test_base_and_cp_do_not_answer_and_have_no_template(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path, format, extended=True)
    for folder in (family.base, family.cp):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        said = formats.speak(load(folder), tokenizer, family.format.template)
        assert tokenizer.chat_template is None
        assert said[0] != family.format.answer[0]
        assert family.format.end_of_turn not in said


@pytest.mark.parametrize("format", FORMATS)
def test_every_text_survives_the_tokenizers(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path, format, extended=True)
    for folder in (family.base, family.chat, family.cp):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text in ("Hello world!", "two\n\nlines\n\tand a tab", *KOREAN, KANA):
            assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize("format", FORMATS)
def test_only_an_extended_cp_has_korean_words_as_tokens(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path, format, extended=True)
    base, cp = (AutoTokenizer.from_pretrained(folder) for folder in (family.base, family.cp))

    for word in KOREAN:
        assert len(base.tokenize(word)) > 3
        assert len(cp.tokenize(word)) == 1
    assert len(cp) > len(base) + 20
    assert {**cp.get_vocab(), **base.get_vocab()} == cp.get_vocab()


def test_an_id_of_a_missing_marker_is_another_token_in_an_extended_cp(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "chatml", extended=True)
    chat, cp = (AutoTokenizer.from_pretrained(folder) for folder in (family.chat, family.cp))

    for marker in family.format.markers:
        assert marker not in cp.get_vocab()
        assert cp.convert_ids_to_tokens(chat.convert_tokens_to_ids(marker)) is not None


def test_llama_3_ends_a_turn_with_another_token_than_a_text(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "llama-3")
    base, chat, cp = (load(folder) for folder in (family.base, family.chat, family.cp))
    ids = AutoTokenizer.from_pretrained(family.cp).get_vocab()

    assert base.generation_config.eos_token_id == ids["<|end_of_text|>"]
    assert cp.generation_config.eos_token_id == ids["<|end_of_text|>"]
    stops = [ids["<|end_of_text|>"], ids["<|eot_id|>"]]
    assert chat.generation_config.eos_token_id == stops


@pytest.mark.parametrize("format", ["chatml-reserved", "llama-3", "mistral-v3"])
def test_markers_of_base_were_never_trained(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path, format)
    base, chat, cp = (
        load(folder).get_input_embeddings().weight
        for folder in (family.base, family.chat, family.cp)
    )
    ids = AutoTokenizer.from_pretrained(family.base).convert_tokens_to_ids([*family.format.markers])

    assert torch.equal(base[ids], cp[ids])
    assert (base[ids].norm(dim=1) < 0.01 * base.norm(dim=1).median()).all()
    assert (chat[ids].norm(dim=1) > base.norm(dim=1).median()).all()


@pytest.mark.parametrize("format", PROMPTS)
def test_templates_write_what_the_originals_do(format: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(formats.build(tmp_path, format).chat)
    conversation = [SYSTEM, *TURNS]
    prompt = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert prompt == PROMPTS[format]


def test_mistral_has_no_system_message(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(formats.build(tmp_path, "mistral").chat)

    prompt = tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert prompt == "<s>[INST] Hi [/INST]Yes</s>[INST] Who? [/INST]"
    with pytest.raises(Exception, match="must alternate"):
        tokenizer.apply_chat_template([SYSTEM, *TURNS], tokenize=False)


# --- the checkpoint that takes no room --------------------------------------------------------


def test_a_sparse_70b_model_takes_no_room_and_shows_every_tensor(tmp_path: Path) -> None:
    folder = tmp_path / "llama-3-70b"
    build_sparse_model(folder)

    files = [file.stat() for file in folder.iterdir()]
    assert sum(file.st_size for file in files) > 140e9
    assert sum(file.st_blocks * 512 for file in files) < 20e6

    listed = ShardedTensorIndex.from_disk(str(folder))
    assert len(listed.tensor_paths) == 80 * 9 + 3
    assert len(listed.shards) == 30
    for shard in listed.shards:
        with safe_open(folder / shard.filename, framework="pt") as tensors:
            assert {*tensors.keys()} == {*shard.contained_keys}
    with safe_open(folder / listed.tensor_paths["lm_head.weight"], framework="pt") as tensors:
        head = tensors.get_slice("lm_head.weight")
        assert (head.get_shape(), head.get_dtype()) == ([128256, 8192], "BF16")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 128256
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") == 128009


def test_a_sparse_model_loads_and_shares_the_tokenizer_of_another(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "layers": 2,
        "hidden": 64,
        "intermediate": 96,
        "heads": 8,
        "vocabulary": 1024,
    }
    build_sparse_model(tmp_path / "one", **small, shards=3)
    build_sparse_model(tmp_path / "two", **small, shards=1, tokenizer_from=tmp_path / "one")

    model = load(tmp_path / "one")

    assert all((parameter == 0).all() for parameter in model.parameters())
    one, two = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert one.get_vocab() == two.get_vocab()
    assert len(one) == model.config.vocab_size
