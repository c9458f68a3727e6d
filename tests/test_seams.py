"""What we lean on in other packages although they never promised it.

One test for each such thing, against the package itself and not against our code. Its docstring
says where we lean on it and what goes wrong without it: when a new release of theirs breaks
something, the test that fails here tells what, in a minute.
"""

from __future__ import annotations

import copy
import inspect
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from conftest import BASE, CHAT, CP, Recipe
from huggingface_hub import get_local_safetensors_metadata
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, MergeConfiguration
from mergekit.options import MergeOptions
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from chatvec_method.facts.models import DTYPE_NAMES, TensorHeader
from chatvec_method.method import plugin
from chatvec_method.weights.shards import ShardWriter, lay_out

# What might go is imported where it is tested, so that the other tests can still tell the rest.


@pytest.fixture
def config(recipe: Recipe) -> MergeConfiguration:
    return MergeConfiguration.model_validate(recipe)


@pytest.fixture
def planner(config: MergeConfiguration) -> Any:
    return planner_of(config)


def planner_of(config: MergeConfiguration, kind: type[Any] | None = None) -> Any:
    """Return mergekit's planner, or one derived from it."""
    from mergekit.architecture import get_architecture_info
    from mergekit.plan import MergePlanner

    options = MergeOptions()
    architecture = get_architecture_info(config, options)
    return (kind or MergePlanner)(config, architecture, options, config.base_model.config())


def planned(planner: Any) -> list[Any]:
    """Return the tasks of a merge's tensors."""
    planner.normalize_config()
    for name, module in planner.config.modules.items():
        planner.plan_module(name, module)
    return [task for _, task in planner._tensors]


# --- mergekit: how a method is called ------------------------------------------------------------


def test_the_method_finds_the_planner_on_the_call_stack(
    planner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """method/plugin.py takes `self` of a frame of `mergekit.plan`, for the first of its groups.

    Without that, stock mergekit tells a mistake in a recipe once it has begun to write, if at all.
    """
    seen = []

    def validate_inputs(*_: Any, group_name: str | None = None) -> None:
        seen.append((plugin._calling_planner(), group_name))

    monkeypatch.setattr(plugin.ChatVector, "validate_inputs", validate_inputs)
    planner.normalize_config()
    assert len(seen) == 1
    assert seen[0][0] is planner
    assert seen[0][1] == "default.slices[0]"
    assert planner.arch_info.all_weights(planner.out_model_config)


def test_the_method_finds_the_task_that_is_being_made(
    planner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """method/plugin.py takes `self` of a frame of `mergekit.merge_methods.task_adapter`.

    Without that, roles and ratios are not checked tensor by tensor before anything is written.
    """
    seen = []

    def validate_inputs(*_: Any, **__: Any) -> None:
        seen.append(plugin._calling_task())

    monkeypatch.setattr(plugin.ChatVector, "validate_inputs", validate_inputs)
    tasks = planned(planner)
    of_tensors = seen[1:]
    assert len(of_tensors) == len(tasks)
    for task, finished in zip(of_tensors, tasks, strict=True):
        assert task is not None
        assert task.output_weight.name == finished.output_weight.name
        settings = [task.input_parameters[model] for model in task.model_order]
        assert [each["role"] for each in settings] == ["base", "chat", "cp"]
        assert settings[CHAT]["ratio"] == 1.0


def test_the_recipes_out_dtype_comes_through_a_parameters_default(
    planner: Any,
) -> None:
    """method/plugin.py has a hidden parameter whose validator looks for the planner.

    Without that, sums are rounded to the inputs' dtype, and once more to `out_dtype`.
    """
    planner.config.out_dtype = "float16"
    assert {task.parameters["out_dtype"] for task in planned(planner)} == {torch.float16}


def test_tensors_are_merged_by_execute_below_the_task(
    planner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """method/plugin.py overrides `_execute`, which mergekit calls with resolved parameters.

    Without that, mergekit-yaml and `merge_state_dicts` do not reach the method at all.
    """
    from mergekit.merge_methods.base import MergeMethod

    task = planned(planner)[0]
    calls: list[tuple[Any, dict[str, Any]]] = []
    assert list(inspect.signature(MergeMethod._execute).parameters)[1:] == [
        "groups",
        "parameters",
        "options",
        "input_dtypes",
        "out_dtype",
    ]

    def execute(
        self: Any, groups: Any, parameters: Any, options: Any, **named: Any
    ) -> tuple[Tensor, ...]:
        calls.append((plugin._calling_task(), {"values": parameters[0], **named}))
        assert groups[0].metadata.name == task.output_weight.name
        return (groups[0].tensors[CP],)

    monkeypatch.setattr(plugin.ChatVector, "_execute", execute)
    tensors = {model: torch.ones(2, 2, dtype=torch.bfloat16) for model in task.model_order}
    task.execute(tensors=tensors)
    ((calling, given),) = calls
    assert calling is task
    assert set(given["values"]) == {"role", "ratio", "out_dtype"}
    assert list(given["values"]["role"].values()) == ["base", "chat", "cp"]
    assert given["input_dtypes"] == [torch.bfloat16] or given["input_dtypes"] == [None]
    assert given["out_dtype"] is None


def test_the_method_finds_the_recipe_of_mergekit_pytorch(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """method/plugin.py takes `config` of a frame of `mergekit.scripts.merge_raw_pytorch`.

    Without that, mergekit-pytorch merges recipes with mistakes in them.
    """
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig, plan_flat_merge

    class Seen(Exception):  # noqa: N818 (it is no error)
        pass

    def validate_inputs(*_: Any, **__: Any) -> None:
        raise Seen(plugin._caller("mergekit.scripts.merge_raw_pytorch", "config"))

    monkeypatch.setattr(plugin.ChatVector, "validate_inputs", validate_inputs)
    raw = RawPyTorchMergeConfig.model_validate(recipe)
    with pytest.raises(Seen) as seen:
        plan_flat_merge(raw, "out", False, False, MergeOptions())
    assert seen.value.args == (raw,)


# --- mergekit: how a merge is planned ------------------------------------------------------------


@pytest.fixture
def noting() -> type[Any]:
    """Return a planner that makes no tasks, as facts/planner.py has one."""
    from mergekit.plan import MergePlanner

    class Noting(MergePlanner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.layers: list[int] = []
            self.noted: list[tuple[str, list[str], list[ModelReference], ConfigReader]] = []

        def plan_layer(self, sources: Any, *args: Any, **kwargs: Any) -> None:
            self.layers.append(self._current_module_layers)
            super().plan_layer(sources, *args, **kwargs)

        def plan_tensor(self, weight: Any, weights_in: Any, models: Any, cfg_reader: Any) -> None:
            names = [each.name for each in weights_in]
            self.noted.append((weight.name, names, list(models), cfg_reader))

    return Noting


def test_the_planner_walks_through_its_own_overridable_steps(
    config: MergeConfiguration, noting: type[Any]
) -> None:
    """facts/planner.py overrides `plan_layer` and `plan_tensor`, and reads the layer's number.

    Without that there is no plan: no check, no merge, no schedule knows a recipe's tensors.
    """
    planner = planner_of(config, noting)
    planned(planner)
    assert planner.layers == [0, 1, 2]
    names = [name for name, *_ in planner.noted]
    assert names[0] == "model.embed_tokens.weight"
    assert names[-1] == "lm_head.weight"
    last = [each for each in planner.noted if ".layers.2." in each[0]]
    for name, inputs, models, reader in last:
        assert inputs == [name] * len(models)
        assert reader.t == 1.0


def test_slices_keep_their_identity_on_the_way_to_a_tensor(
    config: MergeConfiguration, noting: type[Any]
) -> None:
    """facts/planner.py tells by `is` in which slice of the recipe a tensor is.

    Without that, tensors would get the ratio of another slice, or have none.
    """
    planner = planner_of(config, noting)
    planned(planner)
    (slice_,) = planner.config.modules["default"].slices
    assert all(reader.slice_out is slice_ for *_, reader in planner.noted)


def test_parameters_are_the_recipes_own_objects_nearest_first(planner: Any) -> None:
    """facts/ratio_lines.py knows the lines of a recipe by the identity of its `parameters:`.

    Without that, check cannot say which line decides a ratio, nor which never counts.
    """
    planner.config.parameters = {"ratio": 0.5}
    planner.normalize_config()
    config = planner.config
    module = config.modules["default"]
    module.parameters, module.slices[0].parameters = {"ratio": 0.6}, {"ratio": 0.7}
    reader = ConfigReader(config=config, t=0.5, slice_out=module.slices[0], module=module)
    source = module.slices[0].sources[CHAT]
    chain = list(reader.parameter_sources(source.model))
    expected = [
        source.parameters,
        module.slices[0].parameters,
        module.parameters,
        config.parameters,
    ]
    assert [id(each) for each in chain] == [id(each) for each in expected]


def test_a_ratio_is_that_of_the_nearest_setting_with_a_filter_in_the_name(
    recipe: Recipe, noting: type[Any]
) -> None:
    """facts/plan.py asks mergekit's resolver once for all tensors that agree in place and filters.

    Were a filter more than a part of a name, tensors would share ratios that they do not share.
    """
    from mergekit.parameter_resolver import resolve_parameters

    recipe["models"][CHAT]["parameters"]["ratio"] = [
        {"filter": "q_proj", "value": [0, 1]},
        {"filter": "mlp", "value": 0.25},
    ]
    recipe["parameters"] = {"ratio": 0.75}
    planner = planner_of(MergeConfiguration.model_validate(recipe), noting)
    planned(planner)
    ratios = {}
    for name, inputs, models, reader in planner.noted:
        _, values = resolve_parameters(
            plugin.ChatVector.spec,
            tensor_name=name,
            inputs=dict(zip(models, inputs, strict=True)),
            sources=reader.parameter_sources,
            base_model=reader.base_model,
            t=reader.t,
        )
        ratios[name] = values[models[CHAT]]["ratio"]
    assert ratios["model.layers.1.self_attn.q_proj.weight"] == 0.5
    assert ratios["model.layers.1.mlp.up_proj.weight"] == 0.25
    assert ratios["model.norm.weight"] == 0.75


def test_tensors_are_saved_in_the_order_of_their_names(planner: Any, tmp_path: Path) -> None:
    """facts/output.py (`in_stock_order`) has mergekit's order of tensors, by its tasks' labels.

    Without that, our shards hold other tensors than those of stock mergekit, and other bytes.
    """
    from mergekit.graph import Executor
    from mergekit.io.tasks import SaveTensor

    tasks = planner.plan_to_disk(str(tmp_path))
    order = [handle.task() for handle in Executor(tasks).schedule.tasks]
    saved = [task.tensor_name for task in order if isinstance(task, SaveTensor)]
    assert saved == sorted(saved)
    assert len(saved) == len(tasks) - 1


def test_architectures_tell_their_weights_layers_and_vocabulary(
    config: MergeConfiguration,
) -> None:
    """facts/, merging/config_file.py and merging/verify.py ask an architecture for these.

    Without them neither layers nor embedding rows are known, and config.json would be wrong.
    """
    from mergekit.architecture import get_architecture_info

    info = get_architecture_info(config, MergeOptions())
    model_config = config.base_model.config()
    assert info.vocab_size_config_key in (None, "vocab_size")
    (module,) = info.modules.values()
    assert module.architecture.num_layers_config_key() == "num_hidden_layers"
    weights = {weight.name: weight for weight in info.all_weights(model_config)}
    assert weights["model.embed_tokens.weight"].vocabulary_axis == 0
    assert weights["lm_head.weight"].optional in (True, False)
    for field in ("aliases", "tied_names", "force_dtype"):
        assert hasattr(weights["lm_head.weight"], field)
    assert info.tagalong_files is None or isinstance(info.tagalong_files, list)


def test_an_unknown_architecture_is_none_and_no_error() -> None:
    """facts/stand_ins.py asks whether mergekit knows an architecture without looking at files.

    Without that, models on the hub of an architecture that it does not know cannot be planned.
    """
    from mergekit.architecture import arch_info_for_config

    config = transformers.LlamaConfig(architectures=["NobodysForCausalLM"])
    assert arch_info_for_config(config) is None
    known = transformers.LlamaConfig(architectures=["LlamaForCausalLM"])
    assert arch_info_for_config(known) is not None


def test_vocabulary_axes_are_told_by_parameter() -> None:
    """facts/layout.py asks mergekit which parameters have a row for each token.

    Without that, embeddings that mergekit has no definition of are not matched by token.
    """
    from mergekit.architecture.auto import infer_vocabulary_axes

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(tiny(transformers.LlamaConfig))
    axes = infer_vocabulary_axes(model)
    assert axes["model.embed_tokens.weight"] == 0
    assert axes["lm_head.weight"] == 0
    assert "model.norm.weight" not in axes


# --- mergekit: tokens -----------------------------------------------------------------------------


def test_mergekit_chooses_what_fills_in_for_a_token() -> None:
    """facts/vocabulary.py has `PermutedVocabulary` choose, without loading any tensor.

    Without that, check counts, verify expects and merge writes other rows than stock mergekit.
    """
    from immutables import Map
    from mergekit.common import ImmutableMap
    from mergekit.io.tasks import GatherTensors
    from mergekit.tokenizer import BuildTokenizer, PermutedVocabulary
    from mergekit.tokenizer.config import TokenEmbeddingConfig, ZeroEmbedding

    base, chat, cp = (ModelReference.model_validate(name) for name in ("base", "chat", "cp"))
    task = PermutedVocabulary(
        gather_tensors=GatherTensors(weight_info=ImmutableMap(Map())),
        tokenizer_task=BuildTokenizer(
            base_model=cp, referenced_models=(cp,), tokenizer_source="base", add_tokens=()
        ),
        tokens=None,
        pad_to_multiple_of=None,
        base_model=cp,
        vocabulary_axis=0,
    )
    ids = {"of cp": 0, "of two": 1, "of cp and chat": 2, "of nobody": 3, "told": 4}
    has = {base: (1,), chat: (1, 2), cp: (0, 2)}
    chosen = {"told": TokenEmbeddingConfig(source=chat, force=True)}
    averaged = task.assign_embedding_sources(
        {model: {i: i if i in own else -1 for i in ids.values()} for model, own in has.items()},
        [base, chat, cp],
        ids,
        chosen,
    )
    assert set(averaged) == {"of two"}
    assert chosen["of cp"].source == cp == chosen["of cp and chat"].source
    assert chosen["of nobody"].source == ZeroEmbedding(kind="zero")
    assert chosen["told"].source == chat


def test_sources_of_tokens_have_these_fields() -> None:
    """facts/vocabulary.py and checks/ read them, to understand `tokenizer: tokens:`."""
    from mergekit.tokenizer.config import (
        ModelTokenEmbedding,
        TokenEmbeddingConfig,
        ZeroEmbedding,
    )

    of_model = ModelTokenEmbedding.model_validate(
        {"kind": "model_token", "model": "chat", "token": "<s>"}
    )
    assert (of_model.model, of_model.token, of_model.token_id) == (
        ModelReference.model_validate("chat"),
        "<s>",
        None,
    )
    assert TokenEmbeddingConfig(source=ZeroEmbedding(kind="zero")).force is False


def test_mergekit_builds_the_outputs_tokenizer(recipe: Recipe) -> None:
    """facts/vocabulary.py calls `build_tokenizer` with no models whose tokens are to be permuted.

    Without that, the output's tokens and their ids are not known before the merge.
    """
    from mergekit.tokenizer.build import build_tokenizer

    base, cp = (ModelReference.model_validate(recipe["models"][i]["model"]) for i in (BASE, CP))
    info = build_tokenizer(
        base_model=base,
        referenced_models=[],
        tokenizer_source=cp,
        trust_remote_code=False,
        add_tokens=["<brand-new>"],
    )
    ids = info.tokenizer.get_vocab()
    assert ids["<brand-new>"] == len(ids) - 1
    assert len(ids) == len(AutoTokenizer.from_pretrained(cp.model.path).get_vocab()) + 1


# --- mergekit: files ------------------------------------------------------------------------------


def test_loaders_are_opened_by_path_and_give_tensors(tmp_path: Path) -> None:
    """weights/reading.py opens each file itself, by `TensorLoader.get`.

    Without that, no model is read.
    """
    from mergekit.io import ShardedTensorIndex
    from mergekit.io.loader import TensorLoader

    tensors = {"one": torch.arange(6.0).view(2, 3)}
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    for name in ("model.safetensors", "pytorch_model.bin"):
        for lazily in (False, True):
            loader = TensorLoader.get(str(tmp_path / name), use_lazy_unpickle=lazily)
            assert torch.equal(loader.get_tensor("one"), tensors["one"])
    (tmp_path / "model.safetensors").unlink()
    index = ShardedTensorIndex.from_disk(str(tmp_path))  # for facts/models.py, of pickles
    assert [shard.filename for shard in index.shards] == ["pytorch_model.bin"]


def test_the_writers_files_and_index_are_known_to_the_byte(tmp_path: Path) -> None:
    """weights/shards.py writes what mergekit's writer would, header by header and with its version.

    Without that, our outputs differ in bytes from those of stock mergekit, though not in weights.
    """
    from mergekit.io import TensorWriter

    tensors = {f"layer.{i}": torch.full((4, 8), float(i), dtype=torch.bfloat16) for i in range(5)}
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    ours.mkdir()
    writer = TensorWriter(str(theirs), max_shard_size=130, safe_serialization=True)
    for name, tensor in tensors.items():
        writer.save_tensor(name, tensor)
    writer.finalize()
    headers = {n: TensorHeader(t.dtype, tuple(t.shape), "") for n, t in tensors.items()}
    index = json.loads((theirs / "model.safetensors.index.json").read_text(encoding="utf-8"))
    version = index["metadata"]["mergekit_version"]
    with ShardWriter(ours, lay_out(headers, 130, version)) as shards:
        for name, tensor in tensors.items():
            shards.write(name, tensor)
    contents = [{f.name: f.read_bytes() for f in folder.iterdir()} for folder in (theirs, ours)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4


def test_an_applied_adapter_is_kept_under_a_name_without_its_dtype(
    recipe: Recipe, tmp_path: Path
) -> None:
    """weights/fetching.py gives mergekit's cache of adapters a folder for each dtype.

    It is right as long as mergekit takes what is there, whatever dtype it was made in.
    """
    path = recipe["models"][CHAT]["model"]
    reference = ModelReference.model_validate(f"{path}+someones/adapter")
    assert reference.lora is not None
    name = f"{reference.model._unique_id()}_{reference.lora._unique_id()}"
    (tmp_path / name).mkdir()
    for dtype in ("float32", "bfloat16"):
        merged = reference.merged(
            cache_dir=str(tmp_path), trust_remote_code=False, lora_merge_dtype=dtype
        )
        assert Path(merged.local_path(cache_dir=None)) == tmp_path / name
        assert merged.lora is None


# --- safetensors and huggingface_hub --------------------------------------------------------------


def test_safetensors_sorts_by_width_of_dtype_then_by_name(tmp_path: Path) -> None:
    """weights/shards.py lays tensors out as the library does, to have the same bytes."""
    dtypes = [dtype for dtype in DTYPE_NAMES if dtype != torch.float8_e8m0fnu]
    tensors = {
        f"{DTYPE_NAMES[dtype]}.{i}": torch.zeros(8, dtype=torch.uint8).view(dtype)
        for dtype in dtypes
        for i in "ba"
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    headers = {n: TensorHeader(t.dtype, tuple(t.shape), "") for n, t in tensors.items()}
    (beginning,) = lay_out(headers, 0, "").beginnings.values()
    assert (tmp_path / "a.safetensors").read_bytes()[: len(beginning)] == beginning


def test_the_hubs_library_tells_where_a_tensors_data_lie(tmp_path: Path) -> None:
    """facts/models.py takes dtype, shape and offsets of every tensor from its metadata.

    Without that, nothing is known of weights before they are read, and read-ahead has no places.
    """
    save_file({"one": torch.ones(2, 3), "two": torch.ones(4)}, tmp_path / "model.safetensors")
    metadata = get_local_safetensors_metadata(tmp_path)
    tensors = metadata.files_metadata["model.safetensors"].tensors
    assert (tensors["one"].dtype, tuple(tensors["one"].shape)) == ("F32", (2, 3))
    start = tensors["two"].data_offsets[0]
    data = (tmp_path / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert data[8 + length + start :][:4] == struct.pack("<f", 1.0)
    assert set(metadata.weight_map.values()) == {"model.safetensors"}


# --- transformers: how checkpoints become models --------------------------------------------------


def tiny(kind: type[Any], **settings: Any) -> Any:
    """Return a config of a model that has next to no weights."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return kind(**sizes, **heads, **settings)


def test_conversions_run_on_plain_tensors_without_a_model() -> None:
    """facts/layout.py runs transformers' own rules: `add_tensor`, then `convert` with a name alone.

    Without that, experts that one model has joined and another has not are not found to be the
    same, and merges of mixtures of experts are refused.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    with torch.device("meta"):
        settings = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 4}
        model = transformers.Qwen3MoeForCausalLM(tiny(transformers.Qwen3MoeConfig, **settings))
    parameters = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix = model.base_model_prefix
    stored = [
        f"model.layers.0.mlp.experts.{i}.{part}_proj.weight"
        for i in range(2)
        for part in ("gate", "up")
    ]
    converter = None
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, parameters)
        assert target == "model.layers.0.mlp.experts.gate_up_proj"
        converter = converter or copy.deepcopy(by_pattern[pattern])
        converter.add_tensor(target, name, pattern, torch.empty(4, 16, device="meta"))
    assert converter is not None
    ((parameter, tensor),) = converter.convert(target).items()
    assert parameter == target
    tensor = tensor[0] if isinstance(tensor, list) else tensor
    assert tensor.shape == parameters[target].shape


def test_names_that_need_no_rule_come_back_with_no_pattern() -> None:
    """facts/layout.py tells by that which stored tensors are parameters as they stand."""
    from transformers.core_model_loading import dot_natural_key, rename_source_key

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(tiny(transformers.LlamaConfig))
    name = "model.layers.0.mlp.up_proj.weight"
    renamed = rename_source_key(name, [], [], model.base_model_prefix, model.state_dict())
    assert renamed == (name, None)
    in_order = sorted(["a.10.b", "a.9.b"], key=dot_natural_key)
    assert in_order == ["a.9.b", "a.10.b"]


def test_experts_are_stacked_and_joined_along_axes_that_operations_tell() -> None:
    """live_merge/places.py writes each expert into its slice of the joined parameter.

    Without that, a live merge would make the whole parameter anew, at twice the memory.
    """
    from transformers.core_model_loading import Concatenate, MergeModulelist

    gates, ups = ([torch.full((4, 3), 10.0 * k + i) for i in range(2)] for k in (1, 2))
    stacked = MergeModulelist(dim=0).convert({"g": gates, "u": ups}, ["g", "u"], ["j"])
    joined = Concatenate(dim=1).convert(stacked, ["g", "u"], ["j"])["j"]
    assert (MergeModulelist(dim=0).dim, Concatenate(dim=1).dim) == (0, 1)
    assert torch.equal(joined.narrow(1, 0, 4).unbind(0)[1], gates[1])
    assert torch.equal(joined.narrow(1, 4, 4).unbind(0)[1], ups[1])


@pytest.mark.parametrize("both", [True, False])
def test_a_model_is_loaded_of_tensors_that_take_no_memory(both: bool) -> None:
    """live_merge/loading.py has transformers build a merge before it has any weights.

    Without that, there are no live merges. Parameters that are tied stay apart where the tensors
    stored for them differ: a live merge would give a head of its own the embeddings' ratio else.
    """
    config = tiny(transformers.LlamaConfig, dtype=torch.bfloat16, tie_word_embeddings=True)
    with torch.device("meta"):
        names = dict(transformers.LlamaForCausalLM(config).state_dict())
    if not both:
        del names["lm_head.weight"]
    state = {
        name: torch.tensor(float(name == "lm_head.weight")).bfloat16().expand(tensor.shape)
        for name, tensor in names.items()
    }
    model = transformers.LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=state, dtype="auto"
    )
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is not both
    assert model.model.rotary_emb.inv_freq.isfinite().all()


def test_fp8_is_dequantised_by_an_operation_that_needs_no_quantiser() -> None:
    """weights/dequantise.py hands values and a grid of scales to `Fp8Dequantize`, in float32.

    Without that, models in FP8 are refused, with the versions of transformers that do it.
    """
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    values = torch.tensor([[1.0, -2.0, 4.0, 8.0]]).to(torch.float8_e4m3fn)
    scales = torch.tensor([[0.5, 2.0]])
    product = Fp8Dequantize(None).convert({"x.weight": [values], "x.weight_scale_inv": [scales]})
    assert product["x.weight"][0].dtype == torch.float32
    assert product["x.weight"][0].tolist() == [[0.5, -1.0, 8.0, 16.0]]
    packed = torch.tensor([[0x21, 0x43]], dtype=torch.uint8).view(torch.int8)  # low half first
    product = Fp8Dequantize(None).convert(
        {"x.weight": [packed], "x.weight_scale_inv": [torch.ones(1, 1)]}
    )
    assert product["x.weight"][0].tolist() == [[0.5, 1.0, 1.5, 2.0]]


def test_experts_of_gpt_oss_are_unpacked_and_turned() -> None:
    """weights/dequantise.py hands one expert at a time to `convert_moe_packed_tensors`.

    Without that, gpt-oss as it is published is refused.
    """
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = torch.full((1, 3, 2, 16), 0x22, dtype=torch.uint8)  # (experts, rows, groups, bytes)
    scales = torch.full((1, 3, 2), 128, dtype=torch.uint8)  # 2¹
    unpacked = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert unpacked.shape == (1, 64, 3)
    assert unpacked.unique().tolist() == [2.0]


def test_packed_integers_are_taken_apart_without_a_model() -> None:
    """weights/dequantise.py hands packed rows and their scales to a class of compressed-tensors.

    Without that, models of packed integers (W4A16, W8A16) are refused.
    """
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressor = compressors.BaseCompressor.get_value_from_registry("pack-quantized")
    arguments = quantization.QuantizationArgs(num_bits=4, strategy="group", group_size=8)
    scheme = quantization.QuantizationScheme(targets=[], weights=arguments)
    state = {
        "weight_packed": torch.tensor([[0x76543210], [-0x77777778]], dtype=torch.int32),
        "weight_scale": torch.tensor([[1.0], [0.5]]),
        "weight_shape": torch.tensor([2, 8]),
    }
    weight = compressor.decompress(state, scheme)["weight"]
    assert weight.dtype == torch.float32
    assert weight.tolist() == [[-8.0, -7, -6, -5, -4, -3, -2, -1], [0.0] * 8]


# --- transformers and tokenizers: chat ------------------------------------------------------------


def test_a_template_is_rendered_without_a_tokenizer() -> None:
    """facts/chat_format.py renders a short conversation with `render_jinja_template`.

    Without that, stop tokens and markers of a chat format are not known before the merge.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    rendered: Any = render_jinja_template(
        [[{"role": "user", "content": "hello"}]],
        chat_template=template,
        add_generation_prompt=True,
        bos_token="<s>",
    )
    assert rendered[0][0] == "<s>[user]hello[assistant]"


def test_an_added_token_tells_its_state_as_tokenizer_json_has_it() -> None:
    """finishing/tokenizer_files.py writes entries of `added_tokens` by it.

    Without that, the template's tokens do not become special ones, and are seen in answers.
    """
    state = tokenizers.AddedToken("<|im_end|>", special=True, normalized=False).__getstate__()
    assert state == {
        "content": "<|im_end|>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def test_a_tokenizer_says_what_it_read_and_what_it_added(recipe: Recipe) -> None:
    """facts/tokenizers.py and finishing/ read these attributes.

    Without them an empty tokenizer is taken for a model's, and conversions to tokenizer.json fail.
    """
    tokenizer = AutoTokenizer.from_pretrained(recipe["models"][CP]["model"])
    assert isinstance(tokenizer.vocab_files_names, dict)
    assert set(tokenizer.get_added_vocab()) <= set(tokenizer.get_vocab())
    for number, token in tokenizer.added_tokens_decoder.items():
        assert tokenizer.get_vocab()[token.content] == number
        assert token.special in (True, False)
    assert all(isinstance(key, str) for key in tokenizer.special_tokens_map)
    backend = json.loads(tokenizer.backend_tokenizer.to_str(pretty=True))
    assert {"added_tokens", "model"} <= set(backend)


def test_a_tokenizer_without_files_is_empty_and_no_error(recipe: Recipe, tmp_path: Path) -> None:
    """facts/tokenizers.py looks for the files first, as transformers 5 does not miss them.

    Should it fail one day, the check there is no longer needed.
    """
    config = (Path(recipe["models"][CP]["model"]) / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert len(AutoTokenizer.from_pretrained(tmp_path).get_vocab()) < 10


class Words:
    """A tokenizer of whole words, with as much of the interface as a streamer asks for."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(f" {number}" for number in ids)


def test_a_streamer_keeps_its_tokens_and_what_it_has_printed() -> None:
    """talk/speaker.py overrides `put`, and fills these attributes for `end` to use.

    Without them, answers do not come as they are written, or lose their last word.
    """
    from transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(Words(), skip_prompt=True, skip_special_tokens=True)  # type: ignore[arg-type]
    assert streamer.next_tokens_are_prompt is True
    assert streamer.decode_kwargs == {"skip_special_tokens": True}
    streamer.token_cache += [1, 2]
    streamer.on_finalized_text(" 1")
    streamer.print_len = len(" 1")
    streamer.end()
    assert list(streamer) == [" 1", " 2"]
    assert streamer.token_cache == []
    streamer.text_queue.put(streamer.stop_signal)
    assert list(streamer) == []


def test_names_of_a_models_files_are_told_by_transformers() -> None:
    """facts/ and finishing/ write and look for files by these names."""
    from transformers import utils

    names = [utils.CONFIG_NAME, utils.GENERATION_CONFIG_NAME, utils.CHAT_TEMPLATE_FILE]
    assert names == ["config.json", "generation_config.json", "chat_template.jinja"]
    assert utils.CHAT_TEMPLATE_DIR == "additional_chat_templates"


# --- lm-evaluation-harness ------------------------------------------------------------------------


def test_the_harness_decodes_answers_and_tells_whoever_would_keep_them() -> None:
    """evaluation/ overrides how answers are decoded, and listens as the harness's cache would.

    Without that, nobody knows whether an answer came to its end, nor how far the work is.
    """
    model = pytest.importorskip("lm_eval.models.huggingface").HFLM
    hook = pytest.importorskip("lm_eval.api.model").CacheHook(None)
    named = inspect.signature(model.__init__).parameters
    assert {"pretrained", "tokenizer", "batch_size", "chat_template_args"} <= set(named)
    assert list(inspect.signature(model.tok_decode).parameters)[1:] == [
        "tokens",
        "skip_special_tokens",
    ]
    assert list(inspect.signature(hook.add_partial).parameters) == ["attr", "req", "res"]
    assert callable(model.set_cache_hook)
    assert isinstance(model.eot_token_id, property)
    asked = inspect.signature(model._loglikelihood_tokens).parameters
    assert list(asked)[:2] == ["self", "requests"]
    template = pytest.importorskip("lm_eval.api.model").TemplateLM
    assert "self._loglikelihood_tokens(" in inspect.getsource(template.loglikelihood)
    source = inspect.getsource(model.generate_until)
    assert "self.tok_decode(" in source
    assert "self.cache_hook.add_partial(" in source
    kind = pytest.importorskip("lm_eval.api.instance").Instance
    request = kind("generate_until", doc={}, arguments=("context", {"until": []}), idx=0)
    assert request.args == request.arguments == ("context", {"until": []})


def test_the_harness_asks_tasks_for_the_context_of_a_document() -> None:
    """evaluation/ has a task whose documents are conversations, put in the model's chat format."""
    task = pytest.importorskip("lm_eval.api.task").ConfigurableTask
    assert "config" in inspect.signature(task.__init__).parameters
    named = inspect.signature(task.fewshot_context).parameters
    assert "doc" in named
    assert "chat_template" in named


def test_the_harness_takes_a_model_and_loaded_tasks() -> None:
    """evaluation/harness.py loads tasks once, and evaluates models on them in this process.

    Without that, tasks are loaded anew for every ratio, or not at all.
    """
    harness = pytest.importorskip("lm_eval")
    named = inspect.signature(harness.evaluate).parameters
    assert list(named)[:2] == ["lm", "task_dict"]
    asked = "limit samples bootstrap_iters apply_chat_template fewshot_as_multiturn".split()
    assert set(asked) <= set(named)
    manager = pytest.importorskip("lm_eval.tasks").TaskManager
    named = inspect.signature(manager.__init__).parameters
    assert {"include_path", "include_defaults", "metadata"} <= set(named)
    assert callable(manager.load)
    assert isinstance(manager.all_tasks, property)
    defaults = pytest.importorskip("lm_eval.defaults")
    assert isinstance(defaults.DEFAULT_RANDOM_SEED, int)
    assert isinstance(defaults.DEFAULT_OTHER_SEED, int)


def test_the_harness_tells_a_tasks_metrics_and_filters_before_it_is_asked() -> None:
    """evaluation/by_prompt.py says which figures there are to search by, from tasks alone.

    Without it, a wrong objective is told after the model has been loaded and asked.
    """
    documents = pytest.importorskip("datasets").Dataset.from_list([{"q": "a"}])
    task = pytest.importorskip("lm_eval.api.task").ConfigurableTask(
        config={
            "task": "one",
            "custom_dataset": lambda **_: {"test": documents},
            "test_split": "test",
            "doc_to_text": "q",
            "doc_to_target": "q",
            "output_type": "generate_until",
            "metric_list": [{"metric": "m", "aggregation": "mean", "higher_is_better": False}],
            "process_results": lambda *_: {"m": 1.0},
        }
    )
    metrics = pytest.importorskip("lm_eval.api.metrics")
    assert task.aggregation() == {"m": metrics.mean}
    assert task.higher_is_better() == {"m": False}
    assert [each.name for each in task._filters] == ["none"]
    assert task.doc_to_target({"q": "a"}) == "a"  # a column's name, and no template


# --- optuna ---------------------------------------------------------------------------------------


def test_optuna_lets_one_worker_alone_finish_a_trial(tmp_path: Path) -> None:
    """searching/trials.py has whoever finds a worker dead let its trial fail, and try it again.

    Without this, two workers that look at the same time do it twice, and a worker that was only
    slow overwrites what became of its trial.
    """
    optuna = pytest.importorskip("optuna")
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(journal), directions=["maximize", "minimize"]
    )
    trial = study.ask()
    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    for say in (
        lambda: study.tell(trial, [1.0, 2.0]),
        lambda: study.tell(trial.number, state=optuna.trial.TrialState.FAIL),
    ):
        with pytest.raises((ValueError, optuna.exceptions.UpdateFinishedTrialError)):
            say()
    study.enqueue_trial({"a": 0.5}, user_attrs={"job": "again 0"})
    again = study.ask()
    assert (again.number, again.user_attrs, again.suggest_float("a", 0, 1)) == (
        1,
        {"job": "again 0"},
        0.5,
    )


def test_optuna_takes_a_trial_of_several_objectives_that_ended_early() -> None:
    """searching/ tells such trials as PRUNED, though optuna prunes for one objective alone.

    Without it, they would have to be told as failures, from which no sampler learns.
    """
    optuna = pytest.importorskip("optuna")
    sampler = optuna.samplers.TPESampler(n_startup_trials=2, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for number in range(6):
        trial = study.ask()
        a = trial.suggest_float("a", 0, 1)
        if number % 2:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [a, a])
    assert [trial.values is None for trial in study.trials] == [False, True] * 3
    assert len(study.best_trials) == 3


# --- ruamel.yaml ----------------------------------------------------------------------------------


def test_composed_nodes_say_where_in_the_text_they_are() -> None:
    """recipe/edits.py replaces parts of a recipe's text by the marks of its nodes.

    Without them, `check --fix` and `schedule --into` lose comments, or the recipe.
    """
    text = "models: # which\n  - {model: cp, ratio: [1, 2]} # comment\n"
    node: Any = YAML().compose(text)
    ((key, value),) = node.value
    assert text[key.start_mark.index : key.end_mark.index] == "models"
    ((_, model), (_, ratio)) = value.value[0].value
    assert text[model.start_mark.index : model.end_mark.index] == "cp"
    assert text[ratio.start_mark.index : ratio.end_mark.index] == "[1, 2]"
    assert (value.flow_style, ratio.flow_style) == (False, True)
    assert ratio.start_mark.line == 1
