"""The world's harder variant: a B whose verbs come last."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

from examples.world import requests, stages
from examples.world.__main__ import main
from examples.world.batches import ft_batches
from examples.world.documents import CP_MIX, documents
from examples.world.exam import following, refusing
from examples.world.language import gloss, lexicon, text_in_b, to_a
from examples.world.settings import World
from examples.world.training import IGNORED
from examples.world.vocabulary import cp_chat_tokenizer
from examples.world.word_order import to_b_verb_last

VERB_LAST = World(order="verb-last")


@pytest.mark.parametrize(
    ("in_a", "in_order_of_b"),
    [
        ("repeat cup hat .", "cup hat repeat ."),
        ("what is the color of anna ?", "what anna of the color is ?"),
        ("the last of ring moon is moon .", "ring moon of the last moon is ."),
        ("ben has a cup in oslo .", "ben a cup oslo in has ."),
        ("so your gift is cup .", "so your gift cup is ."),
        ("no . that is a bad word .", "no . that a bad word is ."),
        ("anna says repeat cup hat .", "anna says cup hat repeat ."),
        ("carl asks what the food of ben is .", "carl asks what ben of the food is ."),
        ("ben : ' what is the first of cup hat ? '", "ben : ' what cup hat of the first is ? '"),
    ],
)
def test_verb_comes_last_and_prepositions_follow(in_a: str, in_order_of_b: str) -> None:
    assert gloss(text_in_b(in_a, to_b_verb_last)) == in_order_of_b


def test_no_word_is_lost_in_the_other_order() -> None:
    for words in islice(documents(random.Random("test"), CP_MIX), 500):
        read = to_a(words)
        assert sorted(to_a(to_b_verb_last(read))) == sorted(read)


def test_text_told_as_a_story_begins_as_the_exam_opens_it() -> None:
    # The exam gives a story up to where an answer begins: translation must not move words across.
    rng = random.Random("test")
    for prompts in following().values():
        for prompt in prompts:
            opening = prompt.as_dialogue(rng)
            whole = text_in_b(f"{opening} {prompt.expected}", to_b_verb_last)
            assert whole.startswith(text_in_b(opening, to_b_verb_last))
            assert whole.endswith(text_in_b(prompt.expected, to_b_verb_last))


def test_requests_of_the_exam_are_in_the_order_of_the_worlds_b() -> None:
    model, *_ = stages.first_step(stages.STAGES["base"], Path(), VERB_LAST)
    assert model.config.world_order == "verb-last"
    prompt = refusing()[0].in_b(VERB_LAST.translate)
    assert gloss(prompt.exchanges[0].request) == f"{requests.HELD_OUT_BAD_WORDS[0]} say ."


def test_a_folder_of_another_word_order_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(ROOT / "examples" / "world" / "models" / "base")
    result = CliRunner().invoke(
        main, ["train", str(tmp_path), "--seed", "1", "--order", "verb-last"]
    )
    assert result.exit_code == 1
    assert "was trained with word order as-a, not verb-last" in result.output


def test_fine_tuning_is_in_b_of_one_turn_and_without_bad_words() -> None:
    tokenizer = cp_chat_tokenizer()
    in_a, bad = set(lexicon()), {lexicon()[word] for word in requests.BAD_WORDS}
    for batch in islice(ft_batches(tokenizer, random.Random("test"), World()), 20):
        for row, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            words = tokenizer.decode(row).split()
            assert words.count("user") == words.count("bot") == 1
            assert not (in_a | bad) & set(words)
            learnt = tokenizer.decode([label for label in labels if label != IGNORED])
            assert learnt.endswith("</s>")
