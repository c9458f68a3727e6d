"""What stock `mergekit-yaml` makes of a recipe, beside what `chatvec merge` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, advice
from chatvec_method.facts.chat_format import ChatFormat, auto_candidates
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey
from chatvec_method.method.settings import tokenizer_source

TOLD_BY_DIFFERENCES = (
    "stock-has-no-template",
    "stock-drops-generation-config",
    "stock-does-not-stop",
)
"""Findings that the differences tell as well."""


@dataclass(frozen=True)
class Difference:
    """One thing that the two commands do, in words."""

    what: str
    stock: str
    chatvec: str


def differences(survey: Survey) -> list[Difference]:
    """Return what comes out of stock `mergekit-yaml`, and what of `chatvec merge`."""
    if survey.plan is None or survey.format is None:
        return []
    donor = survey.models[survey.plan.config.base_model]
    rows = [
        Difference("chat template", _stock_template(survey, donor), _template(survey.format)),
        Difference(
            "stops at",
            _stock_stops(survey, donor) + _talks_on(survey, donor),
            _stops(survey.format),
        ),
        Difference(
            "generation_config.json",
            _stock_generation_config(survey, donor),
            "stop tokens of all, sampling of the chat model",
        ),
    ]
    if _head_is_ignored(survey, donor):
        rows.append(Difference("lm_head", "written, and the config says tied", "used"))
    return [
        *rows,
        Difference("an existing OUT", "overwritten", "kept, or replaced when the new one is whole"),
        Difference("a crash", "leaves half a model", "leaves nothing"),
        Difference("verified", "no", "every byte, read back, against its hash"),
    ]


def stock_findings(survey: Survey) -> Iterator[Finding]:
    """Find what only stock `mergekit-yaml` gets wrong (trap 12)."""
    if survey.plan is None or survey.format is None:
        return
    donor = survey.models[survey.plan.config.base_model]
    repair = "Use `chatvec merge`, or `chatvec finish` on the output."
    if survey.format.template is not None and _stock_template(survey, donor) == "none":
        yield advice(
            "stock-has-no-template",
            "chat_template",
            "stock mergekit-yaml's output would have no chat template.",
            repair,
        )
    if donor.generation_config is not None and not _keeps_generation_config(survey, donor):
        yield advice(
            "stock-drops-generation-config",
            "generation_config.json",
            f"with {_why_dropped(survey)}, stock mergekit-yaml writes no generation_config.json.",
            repair,
        )
    if _talks_on(survey, donor):
        yield advice(
            "stock-does-not-stop",
            "generation_config.json",
            f"answers end with {survey.format.end_of_turn!r}, and stock mergekit-yaml's output "
            f"stops at {_stock_stops(survey, donor)} only, so it would talk on.",
            repair,
        )


def _rebuilds_tokenizer(survey: Survey) -> bool:
    config = survey.recipe.config
    return bool(config.tokenizer or config.tokenizer_source or config.chat_template)


def _keeps_generation_config(survey: Survey, donor: Model) -> bool:
    copied = survey.options.copy_tokenizer and not _rebuilds_tokenizer(survey)
    return donor.generation_config is not None and copied


def _stock_generation_config(survey: Survey, donor: Model) -> str:
    if _keeps_generation_config(survey, donor):
        return f"that of {donor}"
    return "none" if donor.generation_config is None else f"none, with {_why_dropped(survey)}"


def _why_dropped(survey: Survey) -> str:
    rebuilt = _rebuilds_tokenizer(survey)
    return "`tokenizer:` or `chat_template:`" if rebuilt else "`--no-copy-tokenizer`"


def _talks_on(survey: Survey, donor: Model) -> str:
    """Return that stock mergekit-yaml's output does not stop where an answer ends, if so."""
    assert survey.format is not None
    end = survey.format.end_of_turn
    stops = [stop.token for stop in survey.format.stops]
    if end in stops and end not in _stock_stop_tokens(survey, donor):
        return f", and talks on after {end!r}"
    return ""


def _template(chat_format: ChatFormat) -> str:
    return f"that of {chat_format.template.origin}" if chat_format.template else "none"


def _stock_template(survey: Survey, donor: Model) -> str:
    config = survey.recipe.config
    if config.chat_template == "auto":
        counts = auto_candidates(survey.models)
        if counts:
            most = [text for text, count in counts.items() if count == max(counts.values())]
            return "the most frequent one" if len(most) == 1 else "one of several, by chance"
    elif config.chat_template:
        return "the recipe's"
    source = tokenizer_source(config)
    if source is None and not survey.options.copy_tokenizer:
        return "none"
    if isinstance(source, ModelReference) and source not in survey.models:
        return f"that of {source}, if it has one"
    owner = survey.models[source] if isinstance(source, ModelReference) else donor
    has_one = owner is not None and owner.tokenizer and owner.tokenizer.chat_template
    return f"that of {owner}" if has_one else "none"


def _stock_stop_tokens(survey: Survey, donor: Model) -> list[str]:
    """Return the tokens at which transformers stops, which only sees numbers."""
    if _keeps_generation_config(survey, donor):
        numbers = list(donor.eos_token_ids)
    else:
        number = getattr(donor.config, "eos_token_id", None)
        numbers = number if isinstance(number, list) else [] if number is None else [number]
    tokens = {i: token for token, i in (survey.tokens or {}).items()}
    return [tokens.get(number, f"<{number}>") for number in numbers]


def _stock_stops(survey: Survey, donor: Model) -> str:
    return ", ".join(map(repr, _stock_stop_tokens(survey, donor))) or "nothing"


def _stops(chat_format: ChatFormat) -> str:
    return ", ".join(repr(stop.token) for stop in chat_format.stops) or "nothing"


def _head_is_ignored(survey: Survey, donor: Model) -> bool:
    plan: MergePlan | None = survey.plan
    has_head = plan is not None and any(tensor.kind == "head" for tensor in plan.tensors)
    return has_head and bool(getattr(donor.config, "tie_word_embeddings", False))
