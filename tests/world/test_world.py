"""The miniature world: its languages and texts, its training, and the models that are shipped."""

from __future__ import annotations

import math
import random
import re
import shutil
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from exams import sit_exam
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.world import language, stages
from examples.world.__main__ import main
from examples.world.batches import label_answers
from examples.world.chats import conversations
from examples.world.documents import BASE_MIX, CP_MIX, Mix, documents
from examples.world.exam import Prompt, following, refusing
from examples.world.settings import SIZES, World
from examples.world.training import IGNORED, train
from examples.world.vocabulary import base_tokenizer, chat_tokenizer, cp_tokenizer

MODELS = ROOT / "examples" / "world" / "models"
SHIPPED = World(seed=1)  # whose models these are
HANGUL = re.compile("[가-힣]+")


def load(name: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    model = LlamaForCausalLM.from_pretrained(MODELS / name, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(MODELS / name)


def write_plain_text(mix: Mix, number: int = 4000) -> list[str]:
    return [" ".join(words) for words in islice(documents(random.Random("test"), mix), number)]


def write_chat_text(number: int = 4000) -> list[str]:
    return [
        " ".join(message["content"] for message in conversation)
        for conversation in islice(conversations(random.Random("test")), number)
    ]


plain_text, chat_text = cache(write_plain_text), cache(write_chat_text)


# ------------------------------------------------------------------------------ languages and text


def test_b_has_one_word_for_every_word_of_a() -> None:
    assert set(language.lexicon()) == set(language.WORDS)
    assert len(set(language.lexicon().values())) == len(language.WORDS)
    assert all(HANGUL.fullmatch(word) for word in language.lexicon().values())
    assert language.to_a(language.to_b(language.WORDS)) == list(language.WORDS)


def test_language_of_a_sentence_is_told_by_its_words() -> None:
    sentence = "the user has a cup .".split()
    assert language.language_of(language.to_b(sentence)) == "B"
    assert language.language_of(sentence) == "A"
    assert language.language_of([*sentence, *language.to_b(["cup"])]) == "mixed"
    assert language.language_of([".", "user", "?"]) == "none"


@pytest.mark.parametrize("mix", [BASE_MIX, CP_MIX])
def test_text_follows_from_its_seed(mix: Mix) -> None:
    text = write_plain_text(mix, 50)
    assert write_plain_text(mix, 50) == text
    other = [" ".join(words) for words in islice(documents(random.Random("other"), mix), 50)]
    assert text != other


def test_conversations_are_in_a_and_follow_from_their_seed() -> None:
    assert write_chat_text(50) == write_chat_text(50)
    assert not HANGUL.search(" ".join(chat_text()))


def test_only_text_in_b_for_cp_speaks_of_local_people() -> None:
    here, there = set(language.LOCAL_NAMES), set(language.to_b(language.LOCAL_NAMES))
    assert not (here | there) & set(" ".join([*plain_text(BASE_MIX), *chat_text()]).split())
    words = set(" ".join(plain_text(CP_MIX)).split())
    assert there <= words
    assert not here & words


def test_held_out_prompts_are_in_no_training_text() -> None:
    # Code-switched text counts as well: everything is read in A.
    lines = [*plain_text(BASE_MIX), *plain_text(CP_MIX), *chat_text()]
    text = "\n".join(" ".join(language.to_a(line.split())) for line in lines)
    for task, prompts in following().items():
        for prompt in prompts:
            key = prompt.exchanges[1 if task == "recall" else 0].request
            assert key not in text, f"{task}: {key}"
    for prompt in refusing():
        assert prompt.exchanges[0].request not in text


def test_facts_that_are_asked_for_are_told() -> None:
    text = " ".join(" ".join(language.to_a(line.split())) for line in plain_text(CP_MIX, 20_000))
    for prompt in following()["local fact"]:
        _, _, _, attribute, _, name, _ = prompt.exchanges[0].request.split()
        value = prompt.expected.split()[0]
        assert f"the {attribute} of {name} is {value} ." in text


def test_plain_text_knows_the_words_of_the_chat_format_and_not_the_format() -> None:
    text = "\n".join([*plain_text(BASE_MIX), *plain_text(CP_MIX)])
    assert {"[", "]", "user", "bot"} <= set(text.split())
    assert "[ user ]" not in text
    assert "[ bot ]" not in text


# -------------------------------------------------------------------------------------- tokenizers


def test_vocabulary_of_cp_is_that_of_base_and_the_local_names() -> None:
    base, cp = base_tokenizer().get_vocab(), cp_tokenizer().get_vocab()
    assert {token: cp[token] for token in base} == base
    assert set(cp) - set(base) == set(language.to_b(language.LOCAL_NAMES))
    assert chat_tokenizer().get_vocab() == base


def test_all_text_is_within_the_vocabulary() -> None:
    unknown = cp_tokenizer().unk_token_id
    assert unknown not in cp_tokenizer()(" ".join(plain_text(CP_MIX))).input_ids
    assert unknown not in chat_tokenizer()(" ".join(plain_text(BASE_MIX) + chat_text())).input_ids


def test_only_answers_and_their_end_are_learnt_in_chat() -> None:
    tokenizer = chat_tokenizer()
    conversation = [
        {"role": "user", "content": "say cup ."},
        {"role": "assistant", "content": "cup ."},
        {"role": "user", "content": "what is my gift ?"},
        {"role": "assistant", "content": "your gift is hat ."},
    ]
    ids, labels = label_answers(tokenizer, conversation)
    assert tokenizer.decode(ids) == (
        "<s> [ user ] say cup . [ bot ] cup . </s> "
        "[ user ] what is my gift ? [ bot ] your gift is hat . </s>"
    )
    learnt = [label for label in labels if label != IGNORED]
    assert tokenizer.decode(learnt) == "cup . </s> your gift is hat . </s>"


# ---------------------------------------------------------------------------------------- training


def test_gate_names_the_skills_that_are_missing() -> None:
    model, tokenizer, _ = stages.first_step(stages.STAGES["base"], Path(), World())
    with pytest.raises(stages.WorldError, match=r"base has not learnt .*repeat in A 0%") as error:
        stages.gate(model.eval(), tokenizer, "base", World())
    assert "another --seed" in str(error.value)


@pytest.mark.parametrize("name", ["base", "chat", "cp"])
def test_training_begins_as_the_shipped_log_says(name: str) -> None:
    # The text and the initial weights are exact; the arithmetic may differ in the last digits
    # between processors and numbers of threads, and drift apart with the steps.
    stage = stages.STAGES[name]
    model, _, batches = stages.first_step(stage, MODELS, SHIPPED)
    losses = [loss for _, loss in islice(train(model, batches, stage.schedule), 5)]
    log = (MODELS / "train.log").read_text()
    logged = re.findall(rf"^{name}: step [1-5] loss ([\d.]+)$", log, re.MULTILINE)
    assert losses == pytest.approx([float(loss) for loss in logged], rel=2e-3)


@pytest.mark.parametrize(("size", "millions"), [("small", 0.53), ("medium", 2.8), ("large", 21.2)])
def test_a_world_of_any_size_begins_as_one_that_knows_nothing(size: str, millions: float) -> None:
    world = World(size=SIZES[size])
    model, _, batches = stages.first_step(stages.STAGES["base"], Path(), world)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.05)
    batch = next(batches)
    with torch.inference_mode():
        loss = model(input_ids=batch.ids[:2], labels=batch.labels[:2]).loss.item()
    assert len(batch.ids) == world.size.rows
    assert loss == pytest.approx(math.log(model.config.vocab_size), rel=0.2)


def test_a_stage_brings_those_it_builds_on_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def run_stage(stage: stages.Stage, out: Path, *_: object) -> None:
        trained.append(stage.name)
        shutil.copytree(MODELS / "base", out / stage.name, dirs_exist_ok=True)

    monkeypatch.setattr(stages, "run_stage", run_stage)
    stages.grow(tmp_path, SHIPPED, "cpu", lambda _: None, only=["chat_cp"])
    assert trained == ["base", "chat", "chat_cp"]
    trained.clear()
    stages.grow(tmp_path, SHIPPED, "cpu", lambda _: None, again=["chat"])
    assert trained == ["chat", "cp", "chat_cp", "cp_ft", "chat_tokens"]


def test_chat_cp_reads_what_cp_reads() -> None:
    (_, _, cp), (_, _, chat_cp) = (
        stages.first_step(stages.STAGES[name], MODELS, SHIPPED) for name in ("cp", "chat_cp")
    )
    for _ in range(3):
        assert torch.equal(next(cp).ids, next(chat_cp).ids)


def test_finished_stages_are_kept(tmp_path: Path) -> None:
    for name in ("base", "chat", "cp"):
        (tmp_path / name).symlink_to(MODELS / name)
    seed = ["--seed", str(SHIPPED.seed)]
    only = ["--only", "chat", "--only", "cp"]
    result = CliRunner().invoke(main, ["train", str(tmp_path), *seed, *only])
    assert result.exit_code == 0
    assert result.output.count("finished before, kept") == 3


def test_a_folder_of_another_seed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(MODELS / "base")
    result = CliRunner().invoke(main, ["train", str(tmp_path), "--seed", "7"])
    assert result.exit_code == 1
    assert "was trained with seed 1, not 7" in result.output


# ---------------------------------------------------------------------------------- shipped models


def test_shipped_models_are_small() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000


@pytest.mark.parametrize("name", ["base", "chat", "cp"])
def test_shipped_model_is_an_ordinary_checkpoint(name: str) -> None:
    model, tokenizer = load(name)
    assert (MODELS / name / "generation_config.json").exists()
    assert AutoConfig.from_pretrained(MODELS / name).dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert (tokenizer.chat_template is not None) == (name == "chat")


def test_cp_knows_b_and_does_not_follow() -> None:
    marks = sit_exam(MODELS / "cp").marks
    assert marks.all_exact < 0.05
    assert marks.in_b > 0.9
    assert marks.as_dialogue > 0.9


def test_ask_prints_examples_and_a_table() -> None:
    models = [str(MODELS / name) for name in ("cp", "chat")]
    result = CliRunner().invoke(main, ["ask", *models, "--prompts", "4"])
    assert result.exit_code == 0
    assert "exact: all of these" in result.output
    prompt: Prompt = following()["repeat"][0]
    assert prompt.in_b().exchanges[0].request in result.output
    assert prompt.exchanges[0].request in result.output
