"""What stock mergekit leaves to `finish`, told from what somebody has changed.

Until it is finished, an output has the template, the stop tokens and the config of base_model, or
those that the recipe names. Whatever it says that neither says is somebody else's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.configs import config_text
from chatvec_method.finishing.donors import config_donor
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import HASHES_FILE, Hashes
from chatvec_method.finishing.output import RECIPE_FILE
from chatvec_method.merging.structure import AGAIN, Output, differences

NOTES = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""What a config says of the program that wrote it; its dtype is held against the weights."""
SPECIAL_TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id")


def unfinished(output: Output, survey: ReadySurvey, written: Hashes | None) -> tuple[str, ...]:
    """Return which files `finish` would change, where that is only because nobody has finished.

    Raises:
        ChatVecError: A file says what neither the recipe nor base_model does.
    """
    with differences():
        changes = finish(output.stored.folder, survey, card=False, dry_run=True)
        # Models may have moved since; that the recipe is the same, `finish` has seen.
        names = tuple(c.name for c in changes if c.name not in (HASHES_FILE, RECIPE_FILE))
        if names and written is not None:
            raise ChatVecError(
                f"{names[0]} of the output is not what the recipe makes.",
                "`chatvec finish --dry-run` shows how it differs.",
            )
        if names:
            _check_unfinished(output, survey)
    return names


def _check_unfinished(output: Output, survey: ReadySurvey) -> None:
    """Check that the output chats and stops as the recipe says, or as base_model does."""
    model, donor = output.model, config_donor(survey)
    chat = survey.format.template
    template = output.model.tokenizer.chat_template if output.model.tokenizer else None
    allowed = [chat.text if chat else None, *(_template(m) for m in survey.models.values()), None]
    if template not in allowed and (template or "").strip() not in map(_stripped, allowed):
        raise ChatVecError(
            "the output's chat template is neither the recipe's nor one of its models'.", AGAIN
        )
    stops = {stop.id for stop in survey.format.stops}
    stops |= {token for each in survey.models.values() for token in _stops(each)}
    for token in _stops(model):
        if token not in stops:
            raise ChatVecError(
                f"the output stops at token {token}, which is a stop token neither of the recipe "
                "nor of its models.",
                AGAIN,
            )
    config, of_donor = _settings(model.config.to_dict()), _settings(donor.config.to_dict())
    of_recipe = _settings(_finished_config(output, survey))
    for key in sorted(config.keys() | of_donor.keys()):
        if config.get(key) not in (of_donor.get(key), of_recipe.get(key)):
            raise ChatVecError(
                f"config.json of the output has {key} {config.get(key)!r:.60}, and neither the "
                f"recipe nor {donor} has it ({of_donor.get(key)!r:.60}).",
                AGAIN,
            )


def _template(model: Model) -> str | None:
    return model.tokenizer.chat_template if model.tokenizer else None


def _stripped(template: str | None) -> str:
    return (template or "").strip()


def _stops(model: Model) -> set[int]:
    return {i for ids in model.token_ids("eos_token_id") for i in ids}


def _finished_config(output: Output, survey: ReadySurvey) -> dict[str, Any]:
    """Return the config that `finish` would write, with all that its class adds."""
    text = config_text(output.model, survey, survey.format)
    config: dict[str, Any] = type(output.model.config).from_dict(json.loads(text)).to_dict()
    return config


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config, and the parts in it, without what is held against other things."""
    return {
        key: _settings(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in (*NOTES, *SPECIAL_TOKENS)
    }
