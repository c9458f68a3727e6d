"""The models whose small files the output starts from, so that it says what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mergekit.common import ModelReference

from chatvec_method.facts.models import Model, small_files_of
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.facts.tokenizers import CHAT_TEMPLATE_JSON
from chatvec_method.finishing.files import Content, as_content, json_content, json_text
from chatvec_method.method.settings import tokenizer_source

MEDIA_FILE = re.compile(
    r".*(processor|processing|feature_extract|image|video|audio|speech|vision).*\.json"
)
"""The names of files that tell how pictures, films and sounds are read."""
CODE_FILE = re.compile(r".*\.py")
LARGEST_COMPANION_BYTES = 1 << 20


def config_donor(survey: ReadySurvey) -> Model:
    """Return the model whose configs the output keeps."""
    return survey.models[survey.recipe.config.base_model]


def tokenizer_donor(survey: ReadySurvey) -> SmallFiles:
    """Return the files of the model whose tokenizer the output keeps or extends."""
    source = tokenizer_source(survey.recipe.config)
    if not isinstance(source, ModelReference):
        return config_donor(survey).small_files
    model = survey.models.get(source)
    return model.small_files if model else small_files_of(source)


def in_chance_order(survey: ReadySurvey) -> bool:
    """Tell whether mergekit numbers the tokens in an order that is another in each process."""
    return tokenizer_source(survey.recipe.config) == "union"


def companions(survey: ReadySurvey) -> dict[str, Content]:
    """Return the files that go with a model which sees, hears or brings code of its own.

    Code only comes along if it is trusted.
    """
    donor, trusted = config_donor(survey).small_files, survey.options.trust_remote_code
    files: dict[str, Content] = {}
    for name in sorted(donor.names):
        is_code = CODE_FILE.fullmatch(name) is not None
        if not (MEDIA_FILE.fullmatch(name) or (is_code and trusted)):
            continue
        content = donor.bytes(name) or b""
        if len(content) > LARGEST_COMPANION_BYTES:
            continue
        if is_code:
            files[name] = as_content(content)
        elif (settings := json_content(content)) is not None:
            text = content.decode("utf-8")
            files[name] = json_text(text, settings, with_own_code(settings, donor, trusted))
    return files


def template_of_processor(survey: ReadySurvey, template: str) -> dict[str, Content]:
    """Return the processor's own file with the chat template, if the donor has one."""
    donor = config_donor(survey).small_files
    if CHAT_TEMPLATE_JSON not in donor.names:
        return {}
    text = donor.text(CHAT_TEMPLATE_JSON) or ""
    held = donor.json(CHAT_TEMPLATE_JSON) or {}
    return {CHAT_TEMPLATE_JSON: json_text(text, held, {**held, "chat_template": template})}


def with_own_code(settings: Mapping[str, Any], donor: SmallFiles, trusted: bool) -> dict[str, Any]:
    """Return settings whose `auto_map` leads to code that is there.

    Args:
        settings: Of a config, a tokenizer or a processor.
        donor: The model that they come from.
        trusted: Whether its code comes along.
    """
    new = dict(settings)
    if "auto_map" in new and not trusted:
        if donor.folder is None:
            new["auto_map"] = _on_hub(new["auto_map"], donor.path.path)
        elif _on_hub(new["auto_map"], "") != new["auto_map"]:
            del new["auto_map"]
    return new


def _on_hub(reference: Any, repository: str) -> Any:
    """Return references to classes as the hub knows them everywhere, `owner/name--file.Class`."""
    if isinstance(reference, dict):
        return {key: _on_hub(value, repository) for key, value in reference.items()}
    if isinstance(reference, list):
        return [_on_hub(value, repository) for value in reference]
    if isinstance(reference, str) and "--" not in reference:
        return f"{repository}--{reference}"
    return reference
