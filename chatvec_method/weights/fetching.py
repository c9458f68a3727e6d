"""Models whose files are not here: downloaded, and adapters added to the model they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.models import LORA_DTYPE, Model, with_local_files
from chatvec_method.facts.survey import ReadySurvey, survey_of_files
from chatvec_method.quiet import quiet


def fetched(
    survey: ReadySurvey, on_model: Callable[[int, int], None] = lambda _done, _total: None
) -> ReadySurvey:
    """Download what is not here, apply adapters, and return what the files tell.

    Adapters are added to their model in float32, unless the options say otherwise, and the result
    is kept in a folder of its own for each dtype: rounding it to the model's own dtype before the
    subtraction would lose a good part of a small vector.

    Args:
        survey: Of the recipe.
        on_model: Is told how many models are here, and how many there are.

    Raises:
        ChatVecError: A model cannot be downloaded, or an adapter not be applied.
    """
    options, files = survey.options, {}
    for done, (reference, model) in enumerate(survey.models.items()):
        on_model(done, len(survey.models))
        if model.folder is not None and reference.lora is None:
            continue
        try:
            files[reference] = with_files(reference, model, options)
        except ChatVecError:
            raise
        except Exception as error:  # of the hub, the disk, peft or mergekit
            fix = "See that the hub can be reached and that the disk of its cache has room."
            if reference.lora is not None:
                fix = (
                    "Write `--lora-merge-cache FOLDER`, with another folder if you have: a run "
                    "that was killed leaves a model in it that is not whole."
                )
            raise ChatVecError(
                f"model {reference} cannot be opened ({first_line(error)}).", fix
            ) from error
    on_model(len(survey.models), len(survey.models))
    return survey_of_files(survey, files) if files else survey


def with_files(reference: ModelReference, model: Model, options: MergeOptions) -> Model:
    """Return a model with its files here, and its adapter, if it has one, added to it."""
    cache = options.lora_merge_cache
    if reference.lora is not None and cache is not None:
        dtype = options.lora_merge_dtype or LORA_DTYPE
        with quiet():
            whole = reference.merged(
                cache_dir=str(Path(cache) / dtype),
                trust_remote_code=options.trust_remote_code,
                lora_merge_dtype=dtype,
            )
    else:
        whole = reference
    folder = Path(whole.local_path(cache_dir=options.transformers_cache))
    return with_local_files(model, folder)
