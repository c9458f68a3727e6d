"""LoRAs: adapters that do not fit their model, and what is lost where they are added to it.

mergekit lets peft add an adapter before the merge. What peft would say of one that does not fit is
about its own innards; an adapter's config and the header of its weights tell it beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import get_local_safetensors_metadata
from mergekit.common import ModelReference
from safetensors import safe_open

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.errors import LONGEST_REASON, ChatVecError
from chatvec_method.facts.adapters import SAFETENSORS, Adapter, Shapes
from chatvec_method.facts.layout import model_without_memory
from chatvec_method.facts.models import SAFETENSORS_DTYPES, Model
from chatvec_method.facts.survey import Survey
from chatvec_method.kernel import SUPPORTED, all_finite
from chatvec_method.method.settings import dtype_name, weights_dtype
from chatvec_method.plain_text import cut
from chatvec_method.quiet import quiet

PREFIX = "base_model.model."
"""What peft puts before the names of the model's own modules."""
FACTORS = {".lora_A.weight": 1, ".lora_B.weight": 0}
"""The factors of an update, and which of their axes is one of the weight's."""
EMBEDDING_FACTORS = (".lora_embedding_A", ".lora_embedding_A.weight")
COMPUTED = ("pissa", "olora", "orthogonal", "loftq", "eva", "corda", "lora_ga")
"""Ways to begin the factors that want the weights themselves."""
SHORT = (torch.bfloat16, torch.float16)


def adapter_findings(survey: Survey) -> Iterator[Finding]:
    """Find what is wrong with the LoRAs among the models."""
    for model in survey.models.values():
        adapter = model.adapter
        if adapter is None:
            continue
        if adapter.problem is not None:
            code = adapter.problem.code or "no-such-adapter"
            yield error(code, model, adapter.problem.problem, adapter.problem.fix)
        else:
            yield from _fit(model, adapter, survey.options.trust_remote_code)
        if survey.options.lora_merge_cache is None:
            yield error(
                "no-lora-cache",
                model,
                "mergekit adds the adapter to the model and writes the result into a folder, and "
                "it does not know which.",
                "Pass `--lora-merge-cache FOLDER`, with room for the whole model.",
            )
        yield from _rounded(survey, model)


def adapter_weight_findings(survey: Survey) -> Iterator[Finding]:
    """Read the weights of the LoRAs that are here, and find those that are no numbers."""
    for model in survey.models.values():
        adapter = model.adapter
        if adapter is None or adapter.folder is None:
            continue
        file = adapter.folder / SAFETENSORS
        if not file.is_file():  # a pickle, or on the hub
            continue
        with safe_open(file, framework="pt") as opened:
            for name in adapter.shapes:
                tensor = opened.get_tensor(name)
                if tensor.dtype in SUPPORTED and not all_finite(tensor):
                    yield error(
                        "not-finite",
                        model,
                        f"{file}: {name} has NaN or infinite elements, so the adapter is damaged.",
                        "Download or save it again.",
                    )
                    break


def _fit(model: Model, adapter: Adapter, trust_remote_code: bool) -> Iterator[Finding]:
    """Find out whether an adapter fits, by the shapes of both."""
    own = {name: header.shape for name, header in (model.tensors or {}).items()}
    shapes = {name.removeprefix(PREFIX): shape for name, shape in adapter.shapes.items()}
    name, path = model.reference.model, adapter.path.path
    for tensor, rows in _rows(shapes):
        has = own.get(tensor)
        if has and rows != has[0]:
            new = rows - has[0]
            yield error(
                "adapter-with-new-tokens",
                model,
                f"{path} was trained with {rows} rows of {tensor.removesuffix('.weight')}, and "
                f"{name} has {has[0]}"
                + (
                    f": it brings {new} new tokens, for which nobody makes room."
                    if new > 0
                    else "."
                ),
                "Add it to the model in Python: `m = AutoModelForCausalLM.from_pretrained("
                f"{str(name)!r}, dtype=torch.float32)`, `m.resize_token_embeddings({rows})`, "
                f"`PeftModel.from_pretrained(m, {path!r}).merge_and_unload()"
                ".save_pretrained(NEW)`. Put its tokenizer into NEW, and write NEW as the model.",
            )
            return
    for tensor, factor, shape in _factors(shapes):
        has = own.get(tensor)
        if has is not None and len(has) == 2 and shape[FACTORS[factor]] not in has:
            trained_on = adapter.config.get("base_model_name_or_path")
            yield error(
                "adapter-does-not-fit",
                model,
                f"{path} changes {tensor} by {list(shape)}, and {name} has it as {list(has)}: "
                f"the adapter is of another model{f', {trained_on:.200}' if trained_on else ''}.",
                "Write the model that it was trained on before the `+`.",
            )
            return
    if problem := _problem_of_peft(model, adapter, trust_remote_code):
        yield error(
            "adapter-does-not-fit",
            model,
            f"peft cannot add {path} to {name}: {problem}.",
            "Download or save the adapter again, or write the model that it was trained on.",
        )


def _problem_of_peft(model: Model, adapter: Adapter, trust_remote_code: bool) -> str:
    """Return what peft has against an adapter; empty if nothing, or if nobody knows.

    peft adds it to the model as it will later, but without memory.
    """
    import peft
    from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

    shell = model_without_memory(model.config, trust_remote_code)
    if shell is None or adapter.folder is None:
        return ""
    shapes = adapter.shapes
    try:
        with quiet():
            config = peft.PeftConfig.from_pretrained(str(adapter.folder))
            if str(getattr(config, "init_lora_weights", "")).startswith(COMPUTED):
                config.init_lora_weights = False
            kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, peft.PeftModel)
            adapted = kind(shell, config, low_cpu_mem_usage=True)
            own = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
            if shapes:
                stored = {n: torch.empty(shape, device="meta") for n, shape in shapes.items()}
                peft.set_peft_model_state_dict(adapted, stored, low_cpu_mem_usage=True)
            adapted.merge_and_unload()
    except Exception as error:  # peft raises what it meets first
        if isinstance(error, NotImplementedError) and "meta" in str(error).lower():
            return ""  # what cannot be done without memory may well be done with it
        # torch says in its second line what is wrong.
        told = " ".join(str(error).split()).rstrip(".")
        return cut(told, LONGEST_REASON) or type(error).__name__
    if shapes and not shapes.keys() & own.keys():
        return f"it has no place for any of its tensors, as {min(shapes):.200}"
    return ""


def _rows(adapter: Shapes) -> Iterator[tuple[str, int]]:
    """Yield the embeddings and heads that an adapter has whole or updates, with their rows."""
    for name, shape in adapter.items():
        for factor in EMBEDDING_FACTORS:
            if name.endswith(factor) and len(shape) == 2:
                yield name.removesuffix(factor) + ".weight", shape[1]
        if ".lora_" not in name and len(shape) == 2:
            yield name, shape[0]


def _factors(adapter: Shapes) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for name, shape in adapter.items():
        for factor in FACTORS:
            if name.endswith(factor) and len(shape) == 2:
                yield name.removesuffix(factor) + ".weight", factor, shape


def _rounded(survey: Survey, model: Model) -> Iterator[Finding]:
    """Tell that a model with its LoRA is rounded before the subtraction."""
    stored = _stored_dtype(survey, model)
    try:
        asked = weights_dtype(survey.options.lora_merge_dtype, "--lora-merge-dtype")
    except ChatVecError:
        asked = None
    if asked in SHORT:
        yield warning(
            "lora-rounded",
            model,
            f"`--lora-merge-dtype {survey.options.lora_merge_dtype}` rounds the model with its "
            "adapter before the subtraction, which can lose a fifth of so small a vector.",
            "Write `--lora-merge-dtype float32`, or leave it out.",
        )
    elif asked is None and stored in SHORT:
        yield advice(
            "stock-rounds-lora",
            model,
            f"stock mergekit-yaml rounds the model with its adapter to {dtype_name(stored)} before "
            "the subtraction, which can lose a fifth of so small a vector.",
            "Use `chatvec merge`, which adds it in float32, or pass `--lora-merge-dtype float32`.",
        )
    elif asked is not None and _left_by_stock(survey, model) in SHORT:
        yield advice(
            "stock-rounds-lora",
            model,
            "stock mergekit-yaml takes what an earlier run left in the folder of "
            "`--lora-merge-cache`, and that is rounded to 16 bits.",
            "Use `chatvec merge`, or pass another `--lora-merge-cache FOLDER`.",
        )


def _stored_dtype(survey: Survey, model: Model) -> torch.dtype | None:
    """Return the dtype of the model that an adapter is added to."""
    without = survey.models.get(ModelReference(model=model.reference.model))
    stored = without.weights_dtype if without else getattr(model.config, "dtype", None)
    return stored if isinstance(stored, torch.dtype) else None


def _left_by_stock(survey: Survey, model: Model) -> torch.dtype | None:
    """Return the dtype of what an earlier run left where stock mergekit looks for it."""
    cache, reference = survey.options.lora_merge_cache, model.reference
    if cache is None:
        return None
    parts = (reference.model._unique_id(), reference.lora._unique_id())
    try:
        files = get_local_safetensors_metadata(Path(cache) / "_".join(parts)).files_metadata
    except Exception:  # there is none, or it is not whole
        return None
    dtypes = {tensor.dtype for file in files.values() for tensor in file.tensors.values()}
    return SAFETENSORS_DTYPES.get(dtypes.pop()) if len(dtypes) == 1 else None
