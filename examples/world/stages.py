"""The models' upbringing: base from nothing, chat and cp each from base, and what compares to them.

Three more stages are for comparison: `chat_cp` reads on from chat what cp reads on from base;
`cp_ft` is cp, fine-tuned on conversations in B; `chat_tokens` is chat in the second format.

A stage reads its parent from disk, as stored: the task vectors chat - base and cp - base are then
what training did, with nothing of the rounding to bfloat16 in between. A finished stage is not
trained again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .batches import base_batches, chat_batches, cp_batches, ft_batches
from .exam import dialogue_skills, following
from .settings import World
from .training import Batch, Schedule, train
from .vocabulary import (
    TURN_TOKENS,
    base_tokenizer,
    chat_tokenizer,
    cp_chat_tokenizer,
    cp_tokenizer,
    turn_token_tokenizer,
)
from .word_order import AS_A

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
    batches: Callable[[PreTrainedTokenizerFast, random.Random, World], Iterator[Batch]]
    schedule: Schedule
    text_of: str = ""  # the stage with which it shares its text; itself, if empty
    gated: bool = False


STAGES = {
    stage.name: stage
    for stage in (
        Stage("base", None, base_tokenizer, base_batches, Schedule(4600, 3e-3, 100), gated=True),
        Stage("chat", "base", chat_tokenizer, chat_batches, Schedule(100, 1e-3, 10)),
        Stage("cp", "base", cp_tokenizer, cp_batches, Schedule(800, 3e-3, 20)),
        Stage("chat_cp", "chat", cp_chat_tokenizer, cp_batches, Schedule(800, 3e-3, 20), "cp"),
        Stage("cp_ft", "cp", cp_chat_tokenizer, ft_batches, Schedule(100, 1e-3, 10)),
        Stage(
            *("chat_tokens", "base", turn_token_tokenizer, chat_batches),
            *(Schedule(100, 1e-3, 10), "chat"),
        ),
    )
}


def grow(
    out: Path,
    world: World,
    device: str,
    say: Report,
    *,
    only: Collection[str] = (),
    again: Collection[str] = (),
) -> None:
    """Train the stages of a world that are not finished.

    Args:
        out: Where each stage has its folder; their losses are in `train.log`.
        world: What to train.
        device: Where to, in torch's words.
        say: Is told of the progress.
        only: Stages to train, with those they build on; all, if empty.
        again: Stages to train even if they are finished, with those that build on them.

    Raises:
        WorldError: A stage has not learnt what is built on it, or is of another world.
    """
    out.mkdir(parents=True, exist_ok=True)
    wanted = {name for stage in only or STAGES for name in _ancestry(stage)}
    trained: set[str] = set()
    for stage in STAGES.values():
        if stage.name not in wanted:
            continue
        fresh = stage.name in again or stage.parent in trained
        if not fresh and is_finished(stage, out, world):
            say(f"{stage.name}: finished before, kept")
            continue
        run_stage(stage, out, world, device, say)
        trained.add(stage.name)


def _ancestry(name: str) -> list[str]:
    parent = STAGES[name].parent
    return [*(_ancestry(parent) if parent else []), name]


def first_step(
    stage: Stage, out: Path, world: World
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, Iterator[Batch]]:
    """Return model, tokenizer and batches as they are before the first step of a stage."""
    torch.manual_seed(world.seed)
    tokenizer = stage.tokenizer()
    if stage.parent is None:
        model = LlamaForCausalLM(world.size.config(tokenizer))
    else:
        model = LlamaForCausalLM.from_pretrained(out / stage.parent, dtype=torch.float32)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        _begin_turn_tokens(model, tokenizer)
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    model.config.world_seed = world.seed
    if world.order != AS_A:
        model.config.world_order = world.order
    rng = random.Random(f"{world.seed}/{stage.text_of or stage.name}")
    return model, tokenizer, stage.batches(tokenizer, rng, world)


def _begin_turn_tokens(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    ids, rows = tokenizer.get_vocab(), model.get_input_embeddings().weight.data
    for new, old in TURN_TOKENS.items():
        if new in ids:
            rows[ids[new]] = rows[ids[old]]


def run_stage(stage: Stage, out: Path, world: World, device: str, say: Report) -> None:
    """Train one stage and write its model to `out / stage.name`.

    Raises:
        WorldError: The model did not learn what later stages build upon; nothing is written.
    """
    log = Log(out / "train.log", stage.name)
    model, tokenizer, batches = first_step(stage, out, world)
    model.to(device)
    schedule = world.size.schedule(stage.schedule)
    steps = schedule.steps
    say(log.write(f"seed {world.seed}, {steps} steps, {model.num_parameters():,} parameters"))
    began, recent = time.monotonic(), []
    for step, loss in train(model, batches, schedule):
        recent.append(loss)
        if step <= 10 or step % 50 == 0:
            line = log.write(f"step {step} loss {sum(recent) / len(recent):.4f}")
            recent.clear()
            if step % 200 == 0 or step == steps:
                say(f"{line}   ({step / steps:.0%}, {time.monotonic() - began:.0f} s)")
    if stage.gated:
        say(log.write(gate(model, tokenizer, stage.name, world)))
    # A fresh tokenizer: the one that was used remembers how it last padded.
    _publish(model, stage.tokenizer(), out / stage.name)


def gate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str, world: World
) -> str:
    """Return what a model can do as plain narrated dialogue, if that is enough to build upon.

    Raises:
        WorldError: A skill is below `PASS_MARK` in A or in B.
    """
    skills = {
        f"{task} in {language}": dialogue_skills(model, tokenizer, prompts, translate=translate)
        for task, prompts in following().items()
        if task != "local fact"  # nobody has told base
        for language, translate in (("A", None), ("B", world.translate))
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


def is_finished(stage: Stage, out: Path, world: World) -> bool:
    """Tell whether the stage's model is there already.

    Raises:
        WorldError: It is, and is of another world.
    """
    if not (out / stage.name).exists():
        return False
    config = AutoConfig.from_pretrained(out / stage.name)
    wanted = {"seed": world.seed, "hidden size": world.size.hidden, "word order": world.order}
    stored = {
        "seed": getattr(config, "world_seed", None),
        "hidden size": config.hidden_size,
        "word order": getattr(config, "world_order", AS_A),
    }
    for what in wanted:
        if stored[what] != wanted[what]:
            raise WorldError(
                f"{out / stage.name} was trained with {what} {stored[what]}, not {wanted[what]}. "
                f"Take another folder, or train it again with --again {stage.name}."
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
