"""The README.md of a vector's folder, as the hub takes it."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import ModelCard, ModelCardData

from chatvec_method.facts.cost import in_bytes
from chatvec_method.facts.models import Model
from chatvec_method.vectors.description import AdapterFacts, Description, ModelFacts

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

The share is that of the vector's ‖exact‖². The error is ‖stored − exact‖ / ‖exact‖ of a sample of
rows, and what is changed is the share of elements in the sample that come out as another bfloat16
at ratio 1, added to base itself.
{{ adapter }}"""

ADAPTER = """
## As an adapter

`adapter/` is a PEFT adapter of rank {rank}, {size}: the linear layers' differences, each as the
product of two thin matrices, for engines that switch and scale it over YOUR_MODEL while they run.

```python
model = PeftModel.from_pretrained(model, "{name}", subfolder="adapter")  # over YOUR_MODEL
for module in model.modules():
    if isinstance(module, peft.tuners.lora.LoraLayer):
        module.set_scale("default", 0.7)  # the ratio
```

`vllm serve YOUR_MODEL --enable-lora --lora-modules chat=adapter/` has the ratio from `lora_alpha`
in `adapter_config.json`, which is {rank} for 1. llama.cpp's `convert_lora_to_gguf.py adapter/
--base YOUR_MODEL` makes a file for `llama-server --lora-scaled FILE:0.7`. The chat template and the
stop tokens are those of this folder.

**What it costs:** it keeps {share:.1%} of the vector's ‖exact‖², and has nothing of: {lacks}. PEFT
could only put the chat model's own in the place of YOUR_MODEL's. {tokens}

<details><summary>Kept of each matrix' ‖exact‖²</summary>

{table}

</details>
"""
"""Filled in by `str.format`; Jinja fills in the rest."""
NAME = "OWNER/NAME"


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
        name=NAME,
        size=in_bytes(description.bytes),
        models="\n".join(_models(description)),
        bits=_bits(description),
        kinds="\n".join(_kinds(description)),
        adapter=_adapter(description.adapter, description) if description.adapter else "",
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
    yield "| tensors | bits | size | share | error | changed |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for kind in description.kinds:
        bits = ", ".join(map(str, kind.bits))
        yield (
            f"| {kind.tensors} {kind.kind} | {bits} | {in_bytes(kind.bytes)} "
            f"| {kind.share:.2%} | {kind.relative_error:.2%} | {kind.changed:.2%} |"
        )


def _adapter(adapter: AdapterFacts, description: Description) -> str:
    header, rows = adapter.table()
    cells = [header, ["---"] * len(header), *rows]
    tokens = ", ".join(_code(token) for token in description.added_tokens)
    return ADAPTER.format(
        rank=adapter.rank,
        size=in_bytes(adapter.bytes),
        name=NAME,
        share=adapter.share,
        lacks=adapter.lacks,
        tokens=f"It knows nothing of the tokens that chat added: {tokens}." if tokens else "",
        table="\n".join(f"| {' | '.join(map(_plain, row))} |" for row in cells),
    )


def _code(name: str) -> str:
    return f"`{_plain(name)}`"


def _plain(text: str) -> str:
    """Return text without what Markdown or a table would act on."""
    return "".join(c for c in text if c.isprintable() and c not in "`|<>[]\\")
