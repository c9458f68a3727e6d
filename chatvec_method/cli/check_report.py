"""A check's report, as text for people and as data for `--json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mergekit.common import ModelReference
from rich.text import Text

from chatvec_method.checks.report import Finding, Report, Severity
from chatvec_method.checks.stock import TOLD_BY_DIFFERENCES
from chatvec_method.cli.layout import figures, prose, records
from chatvec_method.facts.chat_format import ChatFormat
from chatvec_method.facts.cost import Cost, in_bytes
from chatvec_method.facts.licences import licence_of
from chatvec_method.facts.models import Model, embedding_rows
from chatvec_method.facts.plan import KINDS, MergePlan, PlannedTensor, layer_runs, ratio_table
from chatvec_method.facts.survey import Survey
from chatvec_method.method.settings import dtype_name
from chatvec_method.recipe.lines import line_of

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.ADVICE: "cyan"}


def print_report(console: Console, report: Report) -> None:
    """Print what a merge will do and what is wrong with it."""
    survey = report.survey
    _print_models(console, report)
    if survey.plan is not None:
        console.print()
        prose(console, _cost_line(report.cost))
        for chat in survey.plan.roles.chats:
            _print_ratios(console, survey.plan, chat)
    if survey.format is not None:
        console.print()
        for name, value in _format_facts(survey.format).items():
            prose(console, f"{name}: {value}", lead=f"{name}:")
    if report.differences:
        console.print()
        rows = [(d.what, d.stock, d.chatvec) for d in report.differences]
        header = ("", "stock mergekit-yaml", "chatvec merge")
        records(console, "What comes out", header, rows, in_lines=True)
    if any(finding.code in TOLD_BY_DIFFERENCES for finding in report.findings):
        prose(console, "`chatvec finish OUT` gives stock mergekit's output the first three, too.")
    console.print()
    findings = [f for f in report.findings if f.code not in TOLD_BY_DIFFERENCES]
    print_findings(console, findings, report.accepted, survey.recipe.text)
    if report.edits:
        recipe = shlex.quote(survey.recipe.name)
        prose(console, f"`chatvec check {recipe} --fix -o {recipe}` mends {_mended(report)}.")


def _mended(report: Report) -> str:
    """Return the kinds of findings that `--fix` mends."""
    worth_it = (f for f in report.findings if f.edits and f.severity is not Severity.ADVICE)
    return ", ".join(dict.fromkeys(finding.code for finding in worth_it))


def print_findings(
    console: Console,
    findings: Sequence[Finding],
    accepted: Sequence[Finding] = (),
    recipe: str = "",
) -> None:
    """Print findings, the worst last, where the eye is, and how many there are.

    Of those that the recipe accepts, only their kinds are told.

    Args:
        console: Where to.
        findings: The findings, the worst first.
        accepted: Those that the recipe says it knows.
        recipe: Its text, for the lines in which what is wrong stands.
    """
    for finding in reversed(findings):
        style = STYLES[finding.severity]
        head = Text.assemble((finding.severity.value, style), f" {finding.code}")
        place = Text(f"  {finding.place}", "bold")
        if line := line_of(recipe, finding.place):
            place.append(f", line {line}", "not bold")
        fits = head.cell_len + place.cell_len <= console.width
        console.print(head + place if fits else Text("\n").join([head, place]), soft_wrap=True)
        prose(console, finding.message, indent=2)
        prose(console, finding.fix, indent=2, style="green")
    prose(console, summary(findings, accepted))


def summary(findings: Sequence[Finding], accepted: Sequence[Finding] = ()) -> str:
    """Return how many findings there are of each severity, in words, and which are accepted."""
    counts = {s: sum(finding.severity is s for finding in findings) for s in Severity}
    words = []
    for severity, count in counts.items():
        if count:
            plural = "" if count == 1 or severity is Severity.ADVICE else "s"
            words.append(f"{count} {severity.value}{plural}")
    if accepted:
        codes = ", ".join(dict.fromkeys(finding.code for finding in accepted))
        words.append(f"{len(accepted)} accepted by the recipe ({codes})")
    return ", ".join(words) + "." if words else "Nothing found."


def as_data(report: Report) -> dict[str, Any]:
    """Return a report as `--json` prints it."""
    survey = report.survey
    return {
        "recipe": survey.recipe.name,
        "models": [_model_data(report, model) for model in survey.models.values()],
        "ratios": _ratio_data(survey.plan) if survey.plan else None,
        "chat": _format_data(survey),
        "cost": vars(report.cost),
        "differences": [vars(difference) for difference in report.differences],
        "findings": [_finding_data(finding) for finding in report.findings],
        "accepted": [_finding_data(finding) for finding in report.accepted],
    }


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "place": finding.place,
        "message": finding.message,
        "fix": finding.fix,
    }


def ratio_rows(
    tensors: Sequence[PlannedTensor], chat: ModelReference
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield a chat vector's ratios by kind of tensor, for each run of layers that have the same.

    What stands outside the layers (embeddings, head, final norm) comes first.
    """
    kinds = ratio_table(tensors)[chat]
    outside = {kind: layers[None] for kind, layers in kinds.items() if None in layers}
    if outside:
        yield "outside the layers", outside
    for first, last, ratios in layer_runs(kinds):
        yield f"layer {first}" if first == last else f"layers {first} to {last}", ratios


def _print_models(console: Console, report: Report) -> None:
    rows = []
    for model in report.survey.models.values():
        data = _model_data(report, model)
        rows.append(
            (
                data["role"] or "",
                data["model"],
                data["architecture"],
                str(data["layers"]),
                ", ".join(data["dtypes"]) or "?",
                _number(data["rows"]),
                _number(data["tokens"]),
                in_bytes(data["bytes"]) if data["bytes"] is not None else "?",
                "yes" if data["chat_template"] else "no",
                data["licence"] or "?",
            )
        )
    header = ["role", "model", "architecture", "layers", "dtype", "rows", "tokens", "size"]
    header += ["template", "licence"]
    records(console, report.survey.recipe.name, header, rows, right=(3, 5, 6, 7), heads=2)


def _model_data(report: Report, model: Model) -> dict[str, Any]:
    headers = (model.tensors or {}).values()
    roles, role = report.roles, None
    if roles is not None and model.reference in roles.all:
        role = roles.role_of(model.reference)
    return {
        "model": str(model),
        "role": role,
        "folder": str(model.folder) if model.folder else None,
        "architecture": (model.config.architectures or ["?"])[0],
        "layers": getattr(model.config, "num_hidden_layers", None),
        "dtypes": sorted({dtype_name(header.dtype) for header in headers}),
        "rows": embedding_rows(model),
        "tokens": len(model.tokenizer.ids) if model.tokenizer else None,
        "bytes": sum(h.bytes for h in headers) if model.tensors is not None else None,
        "tied": bool(getattr(model.config, "tie_word_embeddings", False)),
        "pickled": model.pickled,
        "chat_template": bool(model.tokenizer and model.tokenizer.chat_template),
        "licence": licence_of(model),
    }


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _cost_line(cost: Cost) -> str:
    def size(value: int | None) -> str:
        return "?" if value is None else in_bytes(value)

    download = f"Downloads {in_bytes(cost.download)}. " if cost.download else ""
    return (
        f"{download}Reads {size(cost.read)}, writes {size(cost.write)} "
        f"({in_bytes(cost.free_disk)} of disk free), takes about {size(cost.memory)} of memory "
        f"({in_bytes(cost.free_memory)} free)."
    )


def _print_ratios(console: Console, plan: MergePlan, chat: ModelReference) -> None:
    """Print a table for the language model, and one for each part that sees or hears."""
    parts: dict[str, Sequence[PlannedTensor]] = {f"Ratio of {chat}": plan.language_model}
    for module, tensors in plan.other_parts.items():
        if merged := [tensor for tensor in tensors if not tensor.has_no_vector]:
            parts[f"Ratio of {chat} in {module}"] = merged
    for title, part in parts.items():
        console.print()
        _print_part(console, title, part, chat)


def _print_part(
    console: Console, title: str, tensors: Sequence[PlannedTensor], chat: ModelReference
) -> None:
    kinds = [kind for kind in KINDS if any(tensor.kind == kind for tensor in tensors)]
    rows = [
        (name, *(" and ".join(f"{ratio:g}" for ratio in ratios.get(kind, [])) for kind in kinds))
        for name, ratios in ratio_rows(tensors, chat)
    ]
    figures(console, title, ["", *kinds], rows)


def _format_facts(chat_format: ChatFormat) -> dict[str, str]:
    template = chat_format.template.origin if chat_format.template else "none"
    return {
        "Chat template": template,
        "Its special tokens": ", ".join(chat_format.markers) or "none",
        "Ends a turn": chat_format.end_of_turn or "unknown",
        "Stops at": ", ".join(f"{s.token} ({s.id}, {s.origin})" for s in chat_format.stops)
        or "nothing",
    }


def _format_data(survey: Survey) -> dict[str, Any] | None:
    chat_format = survey.format
    if chat_format is None:
        return None
    return {
        "template": chat_format.template.text if chat_format.template else None,
        "template_origin": chat_format.template.origin if chat_format.template else None,
        "markers": list(chat_format.markers),
        "end_of_turn": chat_format.end_of_turn,
        "stops": [vars(stop) for stop in chat_format.stops],
    }


def _ratio_data(plan: MergePlan) -> dict[str, Any]:
    return {
        str(chat): {tensor.name: tensor.ratios[chat] for tensor in plan.tensors}
        for chat in plan.roles.chats
    }
