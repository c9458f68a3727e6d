"""The README.md of a vector's folder, as the hub takes it."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import ModelCard, ModelCardData

from chatvec_method.facts.cost import in_bytes
from chatvec_method.facts.models import Model
from chatvec_method.vectors.description import Description, ModelFacts

TEMPLATE = """\
---
{{ card_data }}
---

# The chat vector {{ chat }} − {{ base }}

What instruction tuning changed in {{ base }}, as a file of {{ size }}: added to a model that was
continually pretrained from the same base on another language, it gives that model chat ability
without training ([Chat Vector](https://arxiv.org/abs/2310.04799)). Only that model and this are
downloaded.

```yaml
merge_method: chat_vector
base_model: YOUR_MODEL
models:
  - {model: {{ name }}, parameters: {role: vector, ratio: 1.0}}
  - {model: YOUR_MODEL, parameters: {role: cp}}
```

    pip install chatvec-method && chatvec merge recipe.yaml out/

## From which models

{{ models }}

## How exact

{{ bits }}

{{ kinds }}

The error is ‖stored − exact‖ / ‖exact‖ of a sample of rows, and what is changed is the share of
elements in the sample that come out as another bfloat16 at ratio 1, added to base itself.
"""


def vector_card(description: Description, chat: Model) -> str:
    """Return the card of a vector.

    Args:
        description: Of the vector.
        chat: The model whose licence and languages it has.
    """
    names = [model.name for model in (description.base, description.chat) if model.commit]
    card = ModelCard.from_template(
        ModelCardData(
            base_model=names or None,
            license=chat.card.license if isinstance(chat.card.license, str) else None,
            license_name=chat.card.license_name,
            license_link=chat.card.license_link,
            library_name="chatvec-method",
            tags=["chat-vector", "task-vector", "mergekit"],
        ),
        template_str=TEMPLATE,
        chat=_code(description.chat.name),
        base=_code(description.base.name),
        name="OWNER/NAME",
        size=in_bytes(description.bytes),
        models="\n".join(_models(description)),
        bits=_bits(description),
        kinds="\n".join(_kinds(description)),
    )
    return f"{str(card).rstrip()}\n"


def _bits(description: Description) -> str:
    if description.bits == 32:
        return (
            "In full: differences of half-precision weights in float32, of float32 in float64. A "
            "merge from it is that from base and chat."
        )
    if description.bits == 16:
        return "In bfloat16, norms in full."
    return (
        f"In {description.bits} bits an element (compressed-tensors, groups of 64, a scale each), "
        "embeddings and head in 4 at least and the hundredth of their rows that moved most in "
        "full, norms in full."
    )


def _models(description: Description) -> Iterator[str]:
    yield "| role | model | revision | licence |"
    yield "| --- | --- | --- | --- |"
    for role in ("chat", "base"):
        model: ModelFacts = getattr(description, role)
        yield (
            f"| {role} | {_code(model.name)} | {model.commit or 'a folder'} "
            f"| {_plain(model.licence or 'not stated')} |"
        )
    yield ""
    yield "The sha256 of their files of weights are in `chat_vector.json`."


def _kinds(description: Description) -> Iterator[str]:
    yield "| tensors | bits | size | error | changed |"
    yield "| --- | --- | --- | --- | --- |"
    for kind in description.kinds:
        bits = ", ".join(map(str, kind.bits))
        yield (
            f"| {kind.tensors} {kind.kind} | {bits} | {in_bytes(kind.bytes)} "
            f"| {kind.relative_error:.2%} | {kind.changed:.2%} |"
        )


def _code(name: str) -> str:
    return f"`{_plain(name)}`"


def _plain(text: str) -> str:
    """Return text without what Markdown or a table would act on."""
    return "".join(c for c in text if c.isprintable() and c not in "`|<>[]\\")
