"""A live merge: at every ratio, the parameters of the merge that would be written to disk."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import formats
import pytest
import torch
import yaml
import zoo
from conftest import BASE, CHAT, Recipe
from safetensors.torch import load_file, save_file
from surveying import ready
from torch import Tensor
from varieties import CHANGES, second_chat_vector, tied_models

import chatvec_method
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.live_merge import keeping, loading, writing
from chatvec_method.live_merge.model import LiveMerge
from chatvec_method.merging.streaming import stream_weights
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.spec import parse_shape
from chatvec_method.weights.fetching import fetched
from chatvec_method.weights.reading import Reader

LAYERS = 3
SETTINGS: list[Callable[[random.Random], Any]] = [
    lambda _: 0,
    lambda _: 1,
    lambda r: round(r.uniform(-0.5, 1.5), 3),
    lambda r: [round(r.random(), 2) for _ in range(r.randint(2, 5))],
    lambda r: [{"filter": r.choice(["mlp", "norm", "embed"]), "value": 0}, {"value": r.random()}],
    lambda r: [{"filter": "self_attn", "value": [0, r.random()]}, {"value": [0, 0, 1]}],
    lambda r: f"gaussian:{r.random():.2f}:0.3:0:1",
    lambda r: Schedule(parse_shape("linear:1:0.3"), embeddings=round(r.random(), 2)),
]


def live_merge(recipe: Recipe | str, keep: str | None = None, **options: Any) -> LiveMerge:
    return LiveMerge(fetched(ready(recipe, **options)), "cpu", keep)


def parameters(live: LiveMerge) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in live.model.state_dict().items()}


def merged(live: LiveMerge, survey: ReadySurvey, folder: Path) -> dict[str, Tensor]:
    """Return what transformers loads of the weights that a merge writes at the live ratio."""
    folder.mkdir()
    now = fetched(
        replace(survey, recipe=live.recipe, plan=survey.plan.with_ratios(live.recipe.config))
    )
    stream_weights(now, folder, Reader(now.plan.checkpoints))
    live.model.config.save_pretrained(folder)
    loaded: Any = type(live.model).from_pretrained(folder, dtype="auto")
    return dict(loaded.state_dict())


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def assert_is_the_merge(live: LiveMerge, survey: ReadySurvey, folder: Path) -> None:
    assert_same(parameters(live), merged(live, survey, folder))


# --- the parameters that a merge writes ---------------------------------------------------------


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_after_any_settings_a_shared_recipes_parameters_are_those_of_the_merge(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shallow = {name: replace(kind, layers=LAYERS) for name, kind in zoo.KINDS.items()}
    monkeypatch.setattr(zoo, "KINDS", shallow)
    text = file.read_text(encoding="utf-8")
    zoo.build(tmp_path, yaml.safe_load(text))
    survey = ready(text)
    live = LiveMerge(survey, "cpu")
    chance = random.Random(file.stem)
    for turn in range(10):
        live.set(chance.choice(SETTINGS)(chance))
        if turn in (1, 5, 9):  # all ten were held against their merges once
            assert_is_the_merge(live, survey, tmp_path / f"merge-{turn}")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_recipes_say_the_parameters_are_those_of_the_merge(
    change: Callable[..., None], recipe: Recipe, family: Path, relatives: Path, tmp_path: Path
) -> None:
    change(recipe, family, relatives)
    survey = ready(recipe, lora_merge_cache=str(tmp_path / "cache"))
    live = LiveMerge(fetched(survey), "cpu")
    for turn, ratio in enumerate(
        [None, 0.3, 0, [{"filter": "mlp", "value": 0}, {"value": 1}], 0.7]
    ):
        if ratio is not None:
            live.set(ratio)
        assert_is_the_merge(live, survey, tmp_path / f"merge-{turn}")


@pytest.mark.parametrize("format", ["chatml", "llama-3"])
def test_tied_models_with_new_tokens_are_those_of_the_merge(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", format, extended=True, tied=True)
    survey = ready(formats.recipe(family, 0.5))
    live = LiveMerge(survey, "cpu")
    live.set(0.9)
    assert live.model.get_input_embeddings().weight is live.model.get_output_embeddings().weight
    assert_is_the_merge(live, survey, tmp_path / "merge")


def test_a_head_that_is_stored_beside_tied_embeddings_gets_its_own_ratio(
    recipe: Recipe, family: Path, relatives: Path, tmp_path: Path
) -> None:
    tied_models(recipe, family, relatives)
    for entry in recipe["models"]:
        folder = Path(entry["model"])
        copied = tmp_path / folder.name
        copied.mkdir()
        for file in folder.iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
        tensors = load_file(copied / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
        entry["model"] = str(copied)
    recipe["base_model"] = str(tmp_path / "cp_tied")
    survey = ready(recipe)
    live = LiveMerge(survey, "cpu")
    live.set([{"filter": "lm_head", "value": 0.2}, {"value": 0.8}])
    held = parameters(live)
    assert not torch.equal(held["lm_head.weight"], held["model.embed_tokens.weight"])
    assert_is_the_merge(live, survey, tmp_path / "merge")


@pytest.mark.parametrize("keep", ["mapped", "device"])
@pytest.mark.parametrize("bits", [4, 32])
def test_vectors_as_files_are_set_as_chat_models_are(bits: int, keep: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "chatml", extended=True)
    recipe = formats.recipe(family, 0.5)  # with tokens that only chat has
    vector = str(tmp_path / "vector")
    chatvec_method.extract_vector(family.base, family.chat, vector, bits=bits, quiet=True)
    text = yaml.safe_dump(recipe, sort_keys=False).replace(str(family.chat), vector)
    recipe = yaml.safe_load(text.replace("role: chat", "role: vector"))
    pair = [recipe["models"].pop(BASE), {"model": str(family.chat)}]
    survey = ready(recipe)
    live = LiveMerge(survey, "cpu", keep)
    for turn, ratio in enumerate([0, 0.3, {vector: [{"filter": "mlp", "value": 0}, {"value": 1}]}]):
        live.set(ratio)
        assert_is_the_merge(live, survey, tmp_path / f"merge-{turn}")
    assert formats.speak(live.model, live.tokenizer)
    recipe["models"] += [pair[0], {**pair[1], "parameters": {"role": "chat", "ratio": 0.25}}]
    survey = ready(recipe)
    live = LiveMerge(survey, "cpu", keep)
    live.set({vector: 0.7})
    assert_is_the_merge(live, survey, tmp_path / "both")


# --- what a setting does, and does not ----------------------------------------------------------


def versions(live: LiveMerge) -> dict[str, int]:
    return {name: p._version for name, p in live.model.state_dict(keep_vars=True).items()}


def test_only_what_changes_is_written(recipe: Recipe) -> None:
    live = live_merge(recipe)
    before = versions(live)
    live.set_part("mlp", 0.5)
    written = {name for name, version in versions(live).items() if version != before[name]}
    assert written == {name for name in before if ".mlp." in name}
    before = versions(live)
    live.set([{"filter": "mlp", "value": 0.5}, {"value": 1.0}])
    assert versions(live) == before


def test_a_sum_that_does_not_fit_leaves_the_model_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    large = shutil.copytree(recipe["models"][CHAT]["model"], tmp_path / "large")
    for file in large.glob("*.safetensors"):
        save_file(
            {name: each * 1000 for name, each in load_file(file).items()}, file, {"format": "pt"}
        )
    recipe["models"][CHAT]["model"] = str(large)
    live = live_merge({**recipe, "out_dtype": "float16"})
    live.set(0.5)
    before, said = parameters(live), live.recipe.text
    with pytest.raises(ChatVecError, match="overflows float16"):
        live.set([{"filter": "norm", "value": 1}, {"value": 1e6}])
    assert_same(parameters(live), before)
    assert live.recipe.text == said


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ("bump:1", "no shape"),
        (float("nan"), "no ratio"),
        (True, "no ratio"),
        ([], "no ratio"),
        ([{"filter": "mlp", "value": 1}], "it has no ratio, or no filter of its ratio matches"),
        ({"somebody/else": 1}, "no chat model somebody/else"),
    ],
    ids=str,
)
def test_what_is_no_ratio_is_told_in_one_line(recipe: Recipe, ratio: Any, message: str) -> None:
    live = live_merge(recipe)
    before = parameters(live)
    with pytest.raises(ChatVecError, match=message) as refused:
        live.set(ratio)
    assert "\n" not in refused.value.message
    assert_same(parameters(live), before)


def ratios(live: LiveMerge) -> dict[str, dict[str, float]]:
    return {t.name: {str(c): r for c, r in t.ratios.items()} for t in live.plan.tensors}


def test_chat_models_have_ratios_of_their_own(
    recipe: Recipe, family: Path, relatives: Path, tmp_path: Path
) -> None:
    second_chat_vector(recipe, family, relatives)
    chat, chat2 = str(family / "chat"), str(family / "chat2")
    survey = ready(recipe)
    live = LiveMerge(survey, "cpu")
    live.set({chat2: 0.9})
    by_name = ratios(live)
    assert by_name["model.layers.0.mlp.up_proj.weight"] == {chat: 0, chat2: 0.9}
    live.set({chat: "linear:1:0", chat2: 0.2})
    by_name = ratios(live)
    assert by_name["model.layers.2.mlp.up_proj.weight"] == {chat: 0, chat2: 0.2}
    assert by_name["model.embed_tokens.weight"] == {chat: 1, chat2: 0.2}
    assert_is_the_merge(live, survey, tmp_path / "merge")


def test_base_and_chat_are_not_read_where_the_ratio_is_0(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tensor = Reader.tensor

    def noted(self: Reader, model: Any, source: Any) -> Tensor:
        read.append(str(model))
        return tensor(self, model, source)

    monkeypatch.setattr(Reader, "tensor", noted)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0
    live = live_merge(recipe)
    assert set(read) == {recipe["base_model"]}
    live.set(1)
    assert len(set(read)) == 3


def test_saving_is_the_merge_of_the_recipe_with_that_ratio(recipe: Recipe, tmp_path: Path) -> None:
    text = "# mine\n" + yaml.safe_dump(recipe, sort_keys=False).replace(
        "ratio: 1.0", "ratio: 1.0 # tried"
    )
    live = live_merge(text)
    live.set(0.3)
    live.save(tmp_path / "live")
    written = text.replace("ratio: 1.0", "ratio: 0.3")
    assert (tmp_path / "live" / "mergekit_config.yml").read_text() == written
    chatvec_method.merge(written, tmp_path / "disk", on_progress=lambda _: None)
    ours, theirs = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("live", "disk")
    )
    assert ours.keys() == theirs.keys()
    card = "README.md"  # has the folder's name
    assert [name for name in ours if ours[name] != theirs[name] and name != card] == []


# --- a model that chats as the finished merge does ------------------------------------------------


@pytest.mark.parametrize("format", ["chatml", "llama-3"])
def test_it_answers_and_stops_as_the_finished_merge(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", format, extended=True)
    recipe = formats.recipe(family)
    live = chatvec_method.live(recipe, device="cpu", on_progress=lambda _: None)
    live.set(0)
    silent = formats.speak(live.model, live.tokenizer)
    live.set(1)
    assert formats.speak(live.model, live.tokenizer) == family.format.answer != silent
    result = chatvec_method.merge(recipe, tmp_path / "out", on_progress=lambda _: None)
    finished = chatvec_method.load(result.out, device="cpu")
    assert live.speaker.stop_tokens == finished.stop_tokens
    assert live.speaker.template == finished.template
    assert live.tokenizer.get_vocab() == finished.tokenizer.get_vocab()
    ours, theirs = live.model.config.to_dict(), finished.model.config.to_dict()
    assert {name for name in ours if ours[name] != theirs[name]} == {"_name_or_path"}
    assert live.model.generation_config.to_dict() == finished.model.generation_config.to_dict()


def test_threads_that_set_and_generate_never_mix_ratios(tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    live = live_merge(formats.recipe(family))

    def answer(ratio: float) -> list[str]:
        with live.lock:
            live.set(ratio)
            return formats.speak(live.model, live.tokenizer)

    expected = {ratio: answer(ratio) for ratio in (0.0, 0.4, 1.0)}
    assert len(set(map(tuple, expected.values()))) > 1
    wrong: list[tuple[float, list[str]]] = []

    def ask_often(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(8):
            ratio = chance.choice(list(expected))
            if (said := answer(ratio)) != expected[ratio]:
                wrong.append((ratio, said))

    def set_often() -> None:
        for step in range(30):
            live.set(step / 30)

    threads = [threading.Thread(target=ask_often, args=(seed,)) for seed in (0, 1)]
    threads.append(threading.Thread(target=set_often))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- where things are ---------------------------------------------------------------------------


def test_kept_in_memory_the_models_files_are_read_once(recipe: Recipe, tmp_path: Path) -> None:
    survey = ready(recipe)
    live = LiveMerge(survey, "cpu", keep="device")
    assert (live.keep, LiveMerge(survey, "cpu").keep) == ("device", "mapped")
    live.set([{"filter": "mlp", "value": 0}, {"value": 0.3}])
    assert_is_the_merge(live, survey, tmp_path / "merge")


@pytest.mark.parametrize(("keep", "message"), [("pinned", "on the CPU"), ("disk", "no place")])
def test_what_is_no_place_for_the_models_is_told(recipe: Recipe, keep: str, message: str) -> None:
    with pytest.raises(ChatVecError, match=message):
        live_merge(recipe, keep)


@pytest.mark.parametrize(
    ("on_device", "in_memory", "keep"),
    [(10**9, 10**9, "device"), (0, 10**9, "pinned"), (0, 0, "mapped")],
)
def test_on_an_accelerator_the_models_stay_as_near_as_they_fit(
    on_device: int, in_memory: int, keep: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = ready(recipe)
    devices = {tensor.name: torch.device("cuda", 0) for tensor in survey.plan.tensors}
    monkeypatch.setattr(keeping, "_room", lambda _: on_device)
    monkeypatch.setattr(keeping, "_free_memory", lambda: in_memory)
    assert keeping.chosen_keep(survey, devices) == keep


@pytest.mark.parametrize("keep", ["device", "mapped"])
def test_whole_tensors_sent_ahead_give_the_same(
    keep: str, recipe: Recipe, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done on an accelerator, done on the CPU."""
    live, other = live_merge(recipe), live_merge(recipe, keep)
    live.set(0.3)
    monkeypatch.setattr(writing, "_accelerates", lambda _: True)
    other.set(0.3)
    assert_same(parameters(other), parameters(live))


def test_a_model_that_transformers_cannot_build_is_refused(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "layout_of", lambda *_: None)
    with pytest.raises(ChatVecError, match=r"transformers cannot build it.*`chatvec merge`"):
        live_merge(recipe)


def test_a_device_that_is_not_there_is_told(recipe: Recipe) -> None:
    with pytest.raises(ChatVecError, match="device cuda:7 cannot be used"):
        LiveMerge(ready(recipe), "cuda:7")


def test_a_model_that_was_cast_is_not_set_without_a_word(recipe: Recipe) -> None:
    live = live_merge(recipe)
    live.model.float()
    with pytest.raises(ChatVecError, match="moved or cast"):
        live.set(0.5)


def test_no_files_are_left_when_nobody_holds_it(recipe: Recipe) -> None:
    live = live_merge(recipe)
    folder = Path(live.tokenizer.name_or_path)
    assert (folder / "config.json").is_file()
    del live
    assert not folder.exists()
