"""The files of an output whose weights are nowhere on disk: all that loading it takes besides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mergekit.common import ModelPath, ModelReference

from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.donors import config_donor
from chatvec_method.finishing.files import write_content
from chatvec_method.finishing.finish import files_to_load


def write_files_to_load(folder: Path, survey: ReadySurvey) -> None:
    """Write config, tokenizer, generation config and companions, as a finished merge has them.

    Args:
        folder: An empty folder.
        survey: Of the recipe; its models' headers must be known.

    Raises:
        ChatVecError: The headers are not known, or the tokenizer cannot be written.
    """
    output = replace(
        config_donor(survey),
        reference=ModelReference(model=ModelPath(path=str(folder))),
        folder=folder,
        tensors=survey.headers,
        tokenizer=None,
        commit=None,
    )
    for name, content in files_to_load(folder, output, survey).items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_content(folder / name, content)
