"""Quantised weights: which can be formed again while they are read, and which cannot."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, advice, error
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.quantisation import quantisation_of
from chatvec_method.facts.survey import Survey
from chatvec_method.kernel import SUPPORTED
from chatvec_method.method.settings import dtype_name
from chatvec_method.method.vector import vector_facts


def quantised_findings(survey: Survey) -> Iterator[Finding]:
    """Find models whose weights are not stored as they are."""
    refused: set[ModelReference] = set()
    told = {problem.problem for problem in survey.problems}
    for reference, model in survey.models.items():
        try:
            quantisation = quantisation_of(model.tensors or {}, model.config.to_dict(), model.card)
        except ChatVecError as problem:
            refused.add(reference)
            if problem.problem not in told:
                yield error(problem.code, model, problem.problem, problem.fix)
            continue
        if quantisation is None:
            continue
        if quantisation.problem:
            refused.add(reference)
            yield error("quantised", model, f"{quantisation.problem}.", quantisation.fix)
        elif quantisation.weights and vector_facts(model.config) is not None:
            yield advice(
                "compressed-vector",
                model,
                f"it is a compressed chat vector ({quantisation.format}), which stock "
                "mergekit-yaml does not read.",
                "Use `chatvec merge`, or `chatvec vector expand` for stock mergekit-yaml.",
            )
        elif quantisation.weights:
            yield advice(
                "dequantised",
                model,
                f"its weights are quantised ({quantisation.format}): they are dequantised in "
                "float32 while they are read, which stock mergekit-yaml does not do.",
                "Use `chatvec merge`, or write the name of the unquantised version, if there is "
                "one: what quantisation rounded away stays away.",
            )
    yield from _of_other_dtypes(survey, refused)


def _of_other_dtypes(survey: Survey, refused: set[ModelReference]) -> Iterator[Finding]:
    """Find tensors to which no chat vector can be added (reported once a model)."""
    for tensor in survey.plan.tensors if survey.plan else ():
        for model in tensor.readers:
            header = tensor.header(model)
            if header is None or header.dtype in SUPPORTED or model in refused:
                continue
            if len(tensor.readers) == 1 and not header.dtype.is_floating_point:  # kept as it is
                continue
            refused.add(model)
            yield error(
                "quantised",
                model,
                f"it has {tensor.inputs[model].name} in {dtype_name(header.dtype)}, to which no "
                "chat vector can be added.",
                "Write the name of the model's unquantised version.",
            )
