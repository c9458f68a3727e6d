"""The world's second chat format: tokens that only chat has open its turns and end its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, Merge
from transformers import AutoTokenizer, LlamaForCausalLM

from examples.world import experiment, stages
from examples.world.batches import label_answers
from examples.world.exam import following
from examples.world.experiment import marks_of
from examples.world.second_format import finish_merge
from examples.world.settings import World
from examples.world.training import IGNORED
from examples.world.vocabulary import TURN_TOKENS, base_tokenizer, turn_token_tokenizer

MODELS = ROOT / "examples" / "world" / "models"
SHIPPED = World(seed=1)  # whose models these are


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the shipped base and cp, and chat of the second format, trained here."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("base", "cp"):
        (folder / name).symlink_to(MODELS / name)
    stages.grow(folder, SHIPPED, "cpu", lambda _: None, only=["chat_tokens"])
    return folder


def recipe(world: Path, *tokens: str) -> dict:
    models = (world / name for name in ("base", "chat_tokens", "cp"))
    return experiment.recipe(*models, 0.5, tokens)


def test_turn_tokens_are_new_to_base_and_single_tokens_in_chat() -> None:
    chat = turn_token_tokenizer()
    assert not set(TURN_TOKENS) & set(base_tokenizer().get_vocab())
    assert chat.eos_token == "<|end|>"
    text = chat.apply_chat_template(
        [{"role": "user", "content": "say cup ."}], add_generation_prompt=True, tokenize=False
    )
    assert text == "<s> <|user|> say cup . <|end|> <|bot|>"
    assert len(chat(text, add_special_tokens=False).input_ids) == len(text.split())


def test_chat_learns_to_write_the_token_that_ends_its_turn() -> None:
    tokenizer = turn_token_tokenizer()
    conversation = [
        {"role": "user", "content": "say cup ."},
        {"role": "assistant", "content": "cup ."},
    ]
    _, labels = label_answers(tokenizer, conversation)
    learnt = [label for label in labels if label != IGNORED]
    assert tokenizer.decode(learnt) == "cup . <|end|>"


def test_a_turn_token_begins_at_the_row_of_its_kind() -> None:
    stage = stages.STAGES["chat_tokens"]
    model, tokenizer, _ = stages.first_step(stage, MODELS, SHIPPED)
    rows, ids = model.get_input_embeddings().weight, tokenizer.get_vocab()
    for new, old in TURN_TOKENS.items():
        assert torch.equal(rows[ids[new]], rows[ids[old]])


def test_chat_stops_at_its_own_token(world: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(world / "chat_tokens")
    tokenizer = AutoTokenizer.from_pretrained(world / "chat_tokens")
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert marks_of(world / "chat_tokens", "cpu").stops > 0.95


def test_without_chats_tokens_a_merge_cannot_read_the_format(
    world: Path, merge: Callable[..., Merge]
) -> None:
    done = merge(recipe(world))
    assert done.exit_code == 0, done.printed
    tokenizer = AutoTokenizer.from_pretrained(done.out)
    prompt = following()["repeat"][0].as_chat(tokenizer)
    assert tokenizer.unk_token_id in tokenizer(prompt).input_ids
    assert marks_of(done.out, "cpu").all_exact < 0.6


def test_with_them_it_answers_and_stops_only_once_it_is_finished(
    world: Path, merge: Callable[..., Merge]
) -> None:
    with_tokens = recipe(world, *TURN_TOKENS)
    done = merge(yaml.safe_dump(with_tokens, sort_keys=False))  # new tokens get ids in order
    assert done.exit_code == 0, done.printed

    stock = marks_of(done.out, "cpu")
    finish_merge(done.out, with_tokens)
    finished = marks_of(done.out, "cpu")

    assert stock.begins_right > 0.9
    assert stock.stops < 0.05
    assert stock.all_exact < 0.05
    assert finished.all_exact > 0.85
    assert finished.stops > 0.95
