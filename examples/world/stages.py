"""The three models' upbringing: base from nothing, chat and cp each from base.

A stage reads its parent from disk, as stored: the task vectors chat - base and cp - base are then
what training did, with nothing of the rounding to bfloat16 in between. A finished stage is not
trained again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .batches import base_batches, chat_batches, cp_batches
from .exam import dialogue_skills, following
from .training import Batch, Schedule, train
from .vocabulary import base_tokenizer, chat_tokenizer, cp_tokenizer

PASS_MARK = 0.75  # of every skill, for base to be built upon

Report = Callable[[str], None]


class WorldError(Exception):
    """Something that the person at the keyboard can put right; the message says how."""


@dataclass(frozen=True)
class Stage:
    """How one of the models comes about."""

    name: str
    parent: str | None
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    batches: Callable[[PreTrainedTokenizerFast, random.Random], Iterator[Batch]]
    schedule: Schedule
    gated: bool = False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("base", None, base_tokenizer, base_batches, Schedule(4000, 3e-3, 100), gated=True),
        Stage("chat", "base", chat_tokenizer, chat_batches, Schedule(100, 1e-3, 10)),
        Stage("cp", "base", cp_tokenizer, cp_batches, Schedule(800, 1e-3, 20)),
    )
}


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained model of half a million parameters; torch's seed decides its weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=8,
            max_position_embeddings=128,
            # Positions turn fast enough to tell neighbours apart in a context this short.
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            # With the usual 0.02, a model this narrow never learns to copy.
            initializer_range=0.09,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def first_step(
    stage: Stage, out: Path, seed: int
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, Iterator[Batch]]:
    """Return model, tokenizer and batches as they are before the first step of a stage."""
    torch.manual_seed(seed)
    tokenizer = stage.tokenizer()
    if stage.parent is None:
        model = new_model(tokenizer)
    else:
        model = LlamaForCausalLM.from_pretrained(out / stage.parent, dtype=torch.float32)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.world_seed = seed
    return model, tokenizer, stage.batches(tokenizer, random.Random(f"{seed}/{stage.name}"))


def run_stage(stage: Stage, out: Path, seed: int, device: str, say: Report) -> None:
    """Train one stage and write its model to ``out / stage.name``.

    Raises:
        WorldError: the model did not learn what later stages build upon; nothing is written.
    """
    log = Log(out / "train.log", stage.name)
    model, tokenizer, batches = first_step(stage, out, seed)
    model.to(device)
    steps = stage.schedule.steps
    say(log.write(f"seed {seed}, {steps} steps, {model.num_parameters():,} parameters"))
    began, recent = time.monotonic(), []
    for step, loss in train(model, batches, stage.schedule):
        recent.append(loss)
        if step <= 10 or step % 50 == 0:
            line = log.write(f"step {step} loss {sum(recent) / len(recent):.4f}")
            recent.clear()
            if step % 200 == 0 or step == steps:
                say(f"{line}   ({step / steps:.0%}, {time.monotonic() - began:.0f} s)")
    if stage.gated:
        say(log.write(gate(model, tokenizer, stage.name)))
    # A fresh tokenizer: the one that was used remembers how it last padded.
    _publish(model, stage.tokenizer(), out / stage.name)


def gate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str) -> str:
    """Return what a model can do as plain narrated dialogue, if that is enough to build upon.

    Raises:
        WorldError: a skill is below :data:`PASS_MARK` in A or in B.
    """
    skills = {
        f"{task} in {'B' if b else 'A'}": dialogue_skills(model, tokenizer, prompts, b=b)
        for task, prompts in following().items()
        if task != "local fact"  # nobody has told base
        for b in (False, True)
    }
    missing = {skill: mark for skill, mark in skills.items() if mark < PASS_MARK}
    if missing:
        raise WorldError(
            f"{name} has not learnt all that the next stages build upon. Of held-out requests in "
            f"narrated dialogue it answers: {_marks(missing)}; at least {PASS_MARK:.0%} of each "
            "is needed. A chat vector can only call up what base can do. Start it again with "
            "another --seed."
        )
    return f"gate passed: {_marks(skills)}"


def is_finished(stage: Stage, out: Path, seed: int) -> bool:
    """Tell whether the stage's model is there already.

    Raises:
        WorldError: it is, and was trained with another seed.
    """
    if not (out / stage.name).exists():
        return False
    found = getattr(AutoConfig.from_pretrained(out / stage.name), "world_seed", None)
    if found != seed:
        raise WorldError(
            f"{out / stage.name} was trained with seed {found}, not {seed}. Take another folder, "
            f"or train it again with --again {stage.name}."
        )
    return True


class Log:
    """The losses of all stages in one text file; a stage that starts again replaces its lines."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if not line.startswith(f"{stage}: ")))

    def write(self, text: str) -> str:
        """Append a line, and return it."""
        line = f"{self.stage}: {text}"
        with self.path.open("a") as file:
            file.write(line + "\n")
        return line


def _marks(skills: dict[str, float]) -> str:
    return ", ".join(f"{skill} {mark:.0%}" for skill, mark in skills.items())


def _publish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    # Under another name until complete: a folder that is there is a stage that is finished.
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
