"""What has to lie beside an output's weights before the output is finished.

Weights are written without mergekit's writer, and so is what it writes besides them. What changes
in the config, tokenizer, generation config and the files of a processor are left to `finishing/`,
which makes them the same whoever merged.
"""

from __future__ import annotations

from pathlib import Path

from transformers.utils import CONFIG_NAME

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.donors import config_donor, in_chance_order


def write_config(survey: ReadySurvey, folder: Path) -> None:
    """Write `config.json`: base_model's own, as it stands.

    And the tokenizer of a union, which alone tells which row is which token's: its tokens have
    other numbers in each process.

    Args:
        survey: Of the recipe.
        folder: The output.
    """
    donor = config_donor(survey)
    content = donor.small_files.bytes(CONFIG_NAME)
    if content is None:
        raise ChatVecError(f"model {donor} has no {CONFIG_NAME}.", "Download it again.")
    (folder / CONFIG_NAME).write_bytes(content)
    if survey.vocabulary is not None and in_chance_order(survey):
        survey.vocabulary.tokenizer.save_pretrained(folder)
