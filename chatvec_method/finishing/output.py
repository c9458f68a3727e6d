"""Is this folder that recipe's output?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergekit.common import ModelPath, ModelReference
from transformers.utils import (
    CONFIG_NAME,
)

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, with_local_files
from chatvec_method.facts.plan import OTHER_PARTS, MergePlan, PlannedTensor
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.facts.tokenizers import look_up_tokenizer
from chatvec_method.finishing.donors import config_donor, in_chance_order
from chatvec_method.finishing.tokenizer_files import has_tokenizer
from chatvec_method.recipe.file import METADATA, Recipe, read_recipe
from chatvec_method.recipe.pins import MODEL_KEYS
from chatvec_method.stated import check_model

RECIPE_FILE = "mergekit_config.yml"
"""In which mergekit keeps the recipe."""


PER_LAYER = re.compile(r"per_layer")
FREE_KEYS = ("chat_template", METADATA)
"""The keys of a recipe that may have changed since the merge: no weight depends on them."""


def recipe_of(out: Path) -> Recipe:
    """Return the recipe that a merge's output was made from.

    Raises:
        ChatVecError: The folder does not exist, or does not say.
    """
    if not out.is_dir():
        raise ChatVecError(f"there is no folder {out}.", "Write the folder of a merge's output.")
    file = out / RECIPE_FILE
    if not file.is_file():
        raise ChatVecError(
            f"{out} does not say which recipe it was made from: it has no {RECIPE_FILE}.",
            "Pass it with `--recipe RECIPE` (stock mergekit leaves that file out with "
            "`--no-write-model-card`).",
        )
    return read_recipe(file)


def look_at(out: Path, survey: ReadySurvey) -> Model:
    """Return what is known of the output, after making sure that it is the recipe's."""
    if not (out / CONFIG_NAME).is_file():
        what = f"it has no {CONFIG_NAME}" if out.is_dir() else "there is no such folder"
        raise ChatVecError(
            f"{out} is not the output of a merge that came to its end: {what}.",
            "Merge again, or write the folder of another merge.",
        )
    check_model(out)
    check_made_from(out, survey.recipe, "Leave `--recipe` out, or merge again.")
    path = ModelPath(path=str(out))
    files = SmallFiles.in_folder(path, out)
    tokenizer, tokenizer_problem = look_up_tokenizer(files, survey.options.trust_remote_code)
    # What its config says does not matter: it gets that of the donor.
    like_donor = replace(
        config_donor(survey),
        reference=ModelReference(model=path),
        small_files=files,
        tokenizer=tokenizer,
        tokenizer_problem=tokenizer_problem,
        commit=None,
    )
    output = with_local_files(like_donor, out)
    _check_tensors(out, output, survey)
    if has_tokenizer(out):
        _check_tokenizer(out, output, survey)
    elif in_chance_order(survey):
        raise ChatVecError(
            f"{out} has no tokenizer, and with `source: union` only that of the merge itself tells "
            "which row is which token's: mergekit numbers them anew each time.",
            "Merge again.",
        )
    return output


def check_made_from(out: Path, recipe: Recipe, fix: str) -> None:
    """Check that an output is a recipe's, as far as it says of which it is.

    Args:
        out: The output.
        recipe: The recipe.
        fix: What to do if it is another's.

    Raises:
        ChatVecError: It was made from another recipe.
    """
    file = out / RECIPE_FILE
    if not file.is_file():
        return
    made_from, given = (
        _settings({k: v for k, v in each.raw.items() if k not in FREE_KEYS}, {})
        for each in (read_recipe(file), recipe)
    )
    if made_from != given:
        raise ChatVecError(
            f"{out} was not made from {recipe.name}: the recipe in its {RECIPE_FILE} is another.",
            fix,
        )


def _settings(value: Any, numbers: dict[str, int], key: str = "") -> Any:
    """Return what a recipe says, with models numbered in order: their folders may have moved."""
    if isinstance(value, dict):
        return {name: _settings(part, numbers, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_settings(part, numbers, key) for part in value]
    return numbers.setdefault(value, len(numbers)) if key in MODEL_KEYS else value


def _check_tensors(out: Path, output: Model, survey: ReadySurvey) -> None:
    fix = "Merge again, or pass the recipe that it was made from with `--recipe RECIPE`."
    if output.tensors is None or output.file_problem:
        raise ChatVecError(f"{out} is not whole: {output.file_problem}.", "Merge again.")
    planned = {tensor.name: tensor for tensor in survey.plan.tensors}
    # What transformers does not load, stock mergekit leaves out too, and nothing else misses it.
    needed = {name for name, tensor in planned.items() if not survey.plan.is_spare(tensor)}
    # And it writes some under other names, experts joined for one.
    as_stock = {name for name in needed if planned[name].in_stock in output.tensors}
    stock_names = {tensor.in_stock for tensor in planned.values()}
    missing = sorted(needed - output.tensors.keys() - as_stock)
    if missing and not any(planned[name].by_mergekit for name in missing):
        raise ChatVecError(
            f"{out} lacks {len(missing)} tensors that cp has ({missing[0]}): stock mergekit leaves "
            "them out, and no file can make up for them.",
            "Merge with `chatvec merge`, which keeps them.",
            code="stock-drops-tensors",
        )
    if missing:
        raise ChatVecError(f"{out} lacks {missing[0]}, which the recipe makes.", fix)
    if extra := sorted(
        output.tensors.keys() - planned.keys() - stock_names - {*survey.plan.ignored}
    ):
        raise ChatVecError(f"{out} has {extra[0]}, which the recipe does not make.", fix)
    for name in planned.keys() & output.tensors.keys():
        shape, expected = output.tensors[name].shape, survey.expected[name]
        if expected and shape != expected.shape:
            raise ChatVecError(
                f"{out}: {name} is {list(shape)}, and the recipe makes it {list(expected.shape)}.",
                fix,
            )


def _check_tokenizer(out: Path, output: Model, survey: ReadySurvey) -> None:
    if output.tokenizer is None:
        raise ChatVecError(
            f"{out}: its tokenizer does not load ({output.tokenizer_problem}).",
            "Remove its tokenizer files and run this again, which writes them anew.",
        )
    own, expected = output.tokenizer.ids, survey.tokens
    for token in sorted(own.keys() | expected.keys()):
        if token in own and token in expected and in_chance_order(survey):
            continue
        if own.get(token) != expected.get(token):
            raise ChatVecError(
                f"{out} has another tokenizer than the recipe gives it: the id of {token!r} is "
                f"{own.get(token, 'missing')}, and should be {expected.get(token, 'missing')}.",
                "Remove its tokenizer files and run this again, which writes them anew.",
            )


def usable_tokens(output: Model, plan: MergePlan, planned: Mapping[str, int]) -> Mapping[str, int]:
    """Return the output's tokens, by its own tokenizer if it has one, that have a row."""
    tokens = output.tokenizer.ids if output.tokenizer else planned
    rows = rows_of(output, plan)
    if rows is None or max(tokens.values(), default=0) < rows:
        return tokens
    return {token: number for token, number in tokens.items() if number < rows}


def rows_of(output: Model, plan: MergePlan) -> int | None:
    """Return how many rows the output's embeddings have; None without embeddings."""
    tensor = embeddings_of(plan)
    if tensor is None or output.tensors is None:
        return None
    return output.tensors[tensor.name].shape[tensor.weight.vocabulary_axis or 0]


def embeddings_of(plan: MergePlan) -> PlannedTensor | None:
    """Return the embeddings of the language model; None without any.

    Parts that see or hear have some of their own, and some models have more for each layer.
    """
    embeddings = [
        tensor
        for tensor in plan.tensors
        if tensor.kind == "embeddings" and tensor.weight.vocabulary_axis is not None
    ]
    own = [t for t in embeddings if not OTHER_PARTS.search(t.name)] or embeddings
    main = [t for t in own if not PER_LAYER.search(t.name)] or own
    return next(iter(main), None)
