"""The paper's experiment in this world: models, and merges of them at many ratios, all measured.

Merges are live models, set to one ratio after the other: bit for bit what a merge to disk, in
bfloat16 as any other, would be. One seed gives one list of `Result`; `results` and `figures` tell
what several seeds say together.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml
from mergekit.options import MergeOptions
from transformers import AutoTokenizer, LlamaForCausalLM

from chatvec_method.facts.survey import survey
from chatvec_method.live_merge.model import LiveMerge
from chatvec_method.recipe.file import parse_recipe

from .exam import following, refusing
from .report import Marks, examine

MODELS = ("base", "chat", "cp", "chat_cp", "cp_ft")
RATIOS = tuple(step / 8 for step in range(13))  # 0 to 1.5
MEANS = (0.25, 0.5, 1.0)
"""The mean ratios at which schedules over the layers are compared."""

Ratio: TypeAlias = float | list[dict[str, Any]]
"""A number, or mergekit's list of filters and values."""


@dataclass(frozen=True)
class Result:
    """What a model, or a merge, achieved."""

    model: str  # a folder's name; of a merge, that of cp's role
    vector: str | None  # the chat model's, or "random"; None for a model that is not a merge
    ratio: float | None  # the mean one, where it is not the same everywhere
    schedule: str | None  # "constant", how the ratio is spread, or how else the merge was made
    marks: Marks


def measure(world: Path, device: str, say: Callable[[str], None]) -> list[Result]:
    """Measure all models of a trained world, and all merges of them.

    Args:
        world: The folder in which the stages have theirs.
        device: Where to examine, in torch's words.
        say: Is told of the progress.
    """
    results = []
    for name in MODELS:
        results.append(Result(name, None, None, None, marks_of(world / name, device)))
        say(line(results[-1]))
    with tempfile.TemporaryDirectory() as scratch:
        write_random_vector(world, Path(scratch) / "random")
        vectors = {"chat": world / "chat", "random": Path(scratch) / "random"}
        models: dict[tuple[str, str], LiveMerge] = {}
        for model, vector, mean, schedule, ratio in merges(world):
            if (model, vector) not in models:
                plain = recipe(world / "base", vectors[vector], world / model, ratio)
                models[model, vector] = live_merge(plain)
            live = models[model, vector]
            live.set(ratio)
            results.append(Result(model, vector, mean, schedule, marks_of_live(live, device)))
            say(line(results[-1]))
    return results


def merges(world: Path) -> Iterator[tuple[str, str, float, str, Ratio]]:
    """Yield what to merge: model, vector, mean ratio, the name of the schedule, and the ratio."""
    for model, vector in (("cp", "chat"), ("cp_ft", "chat"), ("cp", "random")):
        for ratio in RATIOS:
            yield model, vector, ratio, "constant", ratio
    shares = _shares(world / "cp")
    for mean in MEANS:
        for schedule, ratio in schedules(mean, *shares).items():
            yield "cp", "chat", mean, schedule, ratio


def schedules(mean: float, attention: float, mlp: float) -> dict[str, Ratio]:
    """Return ways to spread a ratio over a model whose mean over the layers' matrices is the same.

    Norms have the mean. So have embeddings, which are tied here, but for two schedules which show
    what they do.

    Args:
        mean: The mean, weighted by the number of parameters.
        attention: Attention's share of the parameters of a layer's matrices.
        mlp: The MLP's share.
    """

    def spread(**parts: float | list[float]) -> Ratio:
        filters = [{"filter": part, "value": value} for part, value in parts.items()]
        return [*filters, {"value": mean}]

    def over_depth(*factors: float) -> Ratio:
        # Three numbers are three points of a line; where there are more layers, the mean stays.
        values = [mean * factor for factor in factors]
        return spread(self_attn=values, mlp=values)

    return {
        "early layers": over_depth(1.8, 1.0, 0.2),
        "middle layers": over_depth(0.5, 2.0, 0.5),
        "late layers": over_depth(0.2, 1.0, 1.8),
        "middle layers alone": over_depth(0.0, 3.0, 0.0),
        "attention only": spread(self_attn=mean / attention, mlp=0.0),
        "MLP only": spread(self_attn=0.0, mlp=mean / mlp),
        "no embeddings": spread(embed_tokens=0.0),
        "whole embeddings": spread(embed_tokens=1.0),
    }


def recipe(
    base: Path, chat: Path, cp: Path, ratio: Ratio, tokens: Collection[str] = ()
) -> dict[str, Any]:
    """Return the recipe of a merge in this world, as recipes/world.yaml has it.

    Args:
        base: The model's folder, as are the next two.
        chat: The same.
        cp: The same.
        ratio: Of the chat vector.
        tokens: Those that come from chat, with its rows.
    """
    rows = {token: {"source": str(chat), "force": True} for token in tokens}
    return {
        "merge_method": "chat_vector",
        "base_model": str(cp),
        "models": [
            {"model": str(base), "parameters": {"role": "base"}},
            {"model": str(chat), "parameters": {"role": "chat", "ratio": ratio}},
            {"model": str(cp), "parameters": {"role": "cp"}},
        ],
        "tokenizer": {"source": str(cp), "tokens": rows},
        "chat_template": "auto",
        "out_dtype": "bfloat16",
    }


def live_merge(recipe: dict[str, Any]) -> LiveMerge:
    """Return the merge of a recipe in this world, to be set to other ratios."""
    text = yaml.safe_dump(recipe, sort_keys=False)
    return LiveMerge(survey(parse_recipe(text, "the recipe"), MergeOptions()).ready(), "cpu")


def write_random_vector(world: Path, out: Path, seed: int = 0) -> None:
    """Write base plus a random vector that has in every tensor the norm of the chat vector.

    It is written in float32: most of it is smaller than a step of bfloat16, which would make it
    longer.
    """
    base, chat = (
        LlamaForCausalLM.from_pretrained(world / name, dtype=torch.float32)
        for name in ("base", "chat")
    )
    generator = torch.Generator().manual_seed(seed)
    others = chat.state_dict()
    for name, tensor in base.named_parameters():  # these have a tied head only once
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.data += noise * (others[name] - tensor.data).norm() / noise.norm()
    base.save_pretrained(out)
    AutoTokenizer.from_pretrained(world / "chat").save_pretrained(out)


def save(results: Sequence[Result], file: Path) -> None:
    """Write results as JSON."""
    file.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")


def load(file: Path) -> list[Result]:
    """Read results that `save` wrote."""
    return [
        Result(**{**entry, "marks": Marks(**entry["marks"])})
        for entry in json.loads(file.read_text())
    ]


def marks_of(folder: Path, device: str) -> Marks:
    """Put the whole exam to the model in a folder."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return examine(folder.name, model, tokenizer, following(), refusing()).marks


def marks_of_live(live: LiveMerge, device: str) -> Marks:
    """Put the whole exam to a merge as it is now, computing in float32 as with one from disk."""
    model: Any = copy.deepcopy(live.model).to(device, torch.float32).eval()
    return examine("merge", model, live.tokenizer, following(), refusing()).marks


def _shares(folder: Path) -> tuple[float, float]:
    """Return the shares of attention and MLP in the parameters of the layers' matrices."""
    names = LlamaForCausalLM.from_pretrained(folder).state_dict()
    sizes = [
        sum(tensor.numel() for name, tensor in names.items() if part in name)
        for part in ("self_attn", "mlp")
    ]
    return sizes[0] / sum(sizes), sizes[1] / sum(sizes)


def line(result: Result) -> str:
    """Return a result in one line, to be told while measuring."""
    ratio = "" if result.ratio is None else f" + {result.ratio:g} {result.vector}"
    spread = "" if result.schedule in (None, "constant") else f", {result.schedule}"
    marks = result.marks
    return (
        f"{result.model}{ratio}{spread}: follows {marks.all_exact:.2f}, stops {marks.stops:.2f}, "
        f"in B {marks.in_b:.2f}, refuses {marks.refuses:.2f}"
    )
