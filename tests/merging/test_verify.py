"""Verification: what is right passes, and each way to be wrong is found and named."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import yaml
from conftest import CHAT, CP, Recipe, plain_recipe, run_stock
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from sparse import build_sparse_model
from surveying import surveyed
from torch import Tensor
from transformers import AutoModelForCausalLM

from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.survey import Survey
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.hashes import hash_of
from chatvec_method.merging.merge import merge
from chatvec_method.merging.verify import Verification, verify, verify_written
from chatvec_method.progress import Progress
from chatvec_method.weights.reading import Reader

DOWN, NORM = "model.layers.1.mlp.down_proj.weight", "model.layers.2.input_layernorm.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def extended(recipe: Recipe, family: Path) -> Recipe:
    """Let cp have tokens of its own, so that rows are matched by token."""
    recipe["models"][CP]["model"] = recipe["base_model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    return recipe


@pytest.fixture(scope="module")
def looked(family: Path) -> Survey:
    return surveyed(extended(plain_recipe(family), family), out_shard_size=20_000)


@pytest.fixture(scope="module")
def good(looked: Survey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output that is right: several shards, and rows matched by token."""
    out = tmp_path_factory.mktemp("good") / "out"
    merge(looked, out)
    return out


@pytest.fixture
def out(good: Path, tmp_path: Path) -> Path:
    """Return a copy of it to spoil."""
    return Path(shutil.copytree(good, tmp_path / "out"))


# --- what is right ----------------------------------------------------------------------------


def verified(out: Path, looked: Survey | None, *, deep: bool = True) -> Verification:
    return verify(out, looked, looked.options if looked else MergeOptions(), deep=deep)


def without_hashes(out: Path) -> Path:
    """Return a folder as if stock mergekit had written it."""
    (out / HASHES_FILE).unlink()
    return out


def without_models(out: Path) -> Path:
    """Let the recipe of an output name models that are nowhere, as if written like that."""
    file = out / "mergekit_config.yml"
    file.write_text(file.read_text("utf-8").replace("family", "elsewhere"), "utf-8")
    hashed = hash_of(file.read_bytes())
    change_json(out, HASHES_FILE, lambda hashes: hashes["files"].update({file.name: hashed}))
    return out


def test_right_output_passes_and_everything_is_counted(looked: Survey, good: Path) -> None:
    tensors = oracle.stored_tensors(good)
    told: list[Progress] = []

    found = verify(good, looked, looked.options, deep=True, on_progress=told.append)

    size = sum(tensor.nbytes for tensor in tensors.values())
    elements = sum(tensor.numel() for tensor in tensors.values())
    assert found == Verification(
        len(tensors), size, hashed=True, unhashed=("README.md",), elements=elements
    )
    for phase in ("recompute", "verify"):
        done = [each.done for each in told if each.phase == phase]
        assert done == sorted(done)
        assert done[-1] == size


def test_without_deep_no_weights_of_the_models_are_read(
    looked: Survey, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatvec_method.weights.reading.Reader.tensor", None)
    assert verified(out, looked, deep=False).hashed
    assert not verified(without_hashes(out), looked, deep=False).hashed


def test_hashes_are_enough_where_the_models_are_not(looked: Survey, out: Path) -> None:
    without_models(out)
    gone = without_hashes(Path(shutil.copytree(out, out.with_name("gone"))))

    found = verified(out, None, deep=False)
    assert found.hashed
    assert "elsewhere" in found.unheld
    for folder, deep in ((out, True), (gone, False)):
        with pytest.raises(ChatVecError, match="elsewhere") as untold:
            verified(folder, None, deep=deep)
        assert untold.value.code != DIFFERS


def test_an_edited_card_and_files_that_nothing_loads_are_no_difference(
    looked: Survey, out: Path
) -> None:
    with (out / "README.md").open("a", encoding="utf-8") as card:
        card.write("Mine.")
    (out / ".gitattributes").write_text("*.safetensors filter=lfs")
    (out / "LICENSE").write_text("...")
    (out / "onnx").mkdir()
    save_file({"x": torch.ones(3)}, out / "onnx" / "model.safetensors")
    found = verified(out, looked)
    assert found.hashed
    assert found.unhashed == ("LICENSE", "README.md", "onnx/model.safetensors")


def test_finishing_again_keeps_the_hashes_right(looked: Survey, out: Path) -> None:
    (out / "generation_config.json").unlink()
    with pytest.raises(ChatVecError, match=r"generation_config\.json is missing"):
        verified(out, None, deep=False)
    assert "chatvec_hashes.json" not in [change.name for change in finish(out, looked)]
    verified(out, looked, deep=False)

    template = yaml.safe_load(looked.recipe.text) | {"chat_template": "chatml"}
    other = surveyed(template, out_shard_size=20_000)
    assert "chatvec_hashes.json" in [change.name for change in finish(out, other)]
    assert finish(out, other) == ()
    verified(out, other, deep=False)


def test_pickled_output_passes(recipe: Recipe, tmp_path: Path) -> None:
    looked = surveyed(recipe, safe_serialization=False, out_shard_size=20_000)
    merge(looked, tmp_path / "out")
    assert verified(tmp_path / "out", looked).elements == 19248


def test_sum_that_cancels_out_passes_though_float32_decides_its_last_bits(
    family: Path, tmp_path: Path
) -> None:
    # 1 + 1 · (-1 - 2⁻³⁰): the method's float32 gives 0, float64 gives -2⁻³⁰, many bfloat16 apart.
    for role in ("base", "chat", "cp"):
        shutil.copytree(family / role, tmp_path / role)
    for role, value in {"base": 1.0, "chat": -(2.0**-30), "cp": 1.0}.items():
        change_tensor(tmp_path / role, NORM, lambda tensor, value=value: tensor.fill_(value))
    looked = surveyed(plain_recipe(tmp_path))
    merge(looked, tmp_path / "out")
    verified(tmp_path / "out", looked)


# --- what is wrong ----------------------------------------------------------------------------


def shard_of(out: Path, name: str) -> Path:
    index = out / "model.safetensors.index.json"
    if not index.exists():
        return out / "model.safetensors"
    return out / json.loads(index.read_text())["weight_map"][name]


def rewrite(out: Path, name: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    file = shard_of(out, name)
    tensors = load_file(file)
    change(tensors)
    file.unlink()  # others may have it mapped
    save_file(tensors, file, {"format": "pt"})


def change_tensor(out: Path, name: str, change: Callable[[Tensor], object]) -> None:
    rewrite(out, name, lambda tensors: change(tensors[name]))


def change_json(out: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((out / file).read_text("utf-8"))
    change(content)
    (out / file).write_text(json.dumps(content), "utf-8")


def step(element: Tensor, steps: int) -> None:
    """Move a bfloat16 away from zero, by so many roundings."""
    element.view(torch.int16).add_(steps)


def element_off_by_one_step(out: Path) -> None:
    change_tensor(out, DOWN, lambda t: step(t[3, 5:6], 1))


def element_with_another_sign(out: Path) -> None:
    change_tensor(out, DOWN, lambda t: t[7, 2:3].neg_())


def last_element_of_a_norm(out: Path) -> None:
    change_tensor(out, NORM, lambda t: step(t[-1:], -1))


def element_that_is_nan(out: Path) -> None:
    change_tensor(out, DOWN, lambda t: t[3, 5:6].fill_(torch.nan))


def element_that_is_infinite(out: Path) -> None:
    change_tensor(out, HEAD, lambda t: t[-1, -1:].fill_(-torch.inf))


def tensor_that_is_missing(out: Path) -> None:
    rewrite(out, NORM, lambda tensors: tensors.pop(NORM))
    change_json(out, "model.safetensors.index.json", lambda index: index["weight_map"].pop(NORM))


def tensor_that_only_the_index_has(out: Path) -> None:
    rewrite(out, NORM, lambda tensors: tensors.pop(NORM))


def tensor_too_many(out: Path) -> None:
    rewrite(out, NORM, lambda tensors: tensors.update({"model.extra.weight": torch.ones(3)}))


def file_that_no_index_names(out: Path) -> None:
    save_file({"model.extra.weight": torch.ones(3)}, out / "other.safetensors")


def wrong_dtype(out: Path) -> None:
    rewrite(out, NORM, lambda tensors: tensors.update({NORM: tensors[NORM].float()}))


def wrong_shape(out: Path) -> None:
    rewrite(out, DOWN, lambda tensors: tensors.update({DOWN: tensors[DOWN].T.contiguous()}))


def row_too_few(out: Path) -> None:
    rewrite(out, HEAD, lambda tensors: tensors.update({HEAD: tensors[HEAD][:-1].clone()}))


def shard_that_is_missing(out: Path) -> None:
    shard_of(out, DOWN).unlink()


def shard_cut_short(out: Path) -> None:
    file = shard_of(out, DOWN)
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-10])


def config_with_another_vocabulary(out: Path) -> None:
    change_json(out, "config.json", lambda config: config.update(vocab_size=250))


def config_with_another_depth(out: Path) -> None:
    change_json(out, "config.json", lambda config: config.update(num_hidden_layers=2))


def config_with_another_dtype(out: Path) -> None:
    change_json(out, "config.json", lambda config: config.update(dtype="float16"))


def config_that_says_tied(out: Path) -> None:
    change_json(out, "config.json", lambda config: config.update(tie_word_embeddings=True))


def head_that_is_missing(out: Path) -> None:
    rewrite(out, HEAD, lambda tensors: tensors.pop(HEAD))
    change_json(out, "model.safetensors.index.json", lambda index: index["weight_map"].pop(HEAD))


def tokenizer_of_another_model(out: Path) -> None:
    tokens = json.loads((out / "tokenizer.json").read_text("utf-8"))
    tokens["model"]["vocab"]["▁token7777"] = tokens["model"]["vocab"].pop("▁token7")
    (out / "tokenizer.json").write_text(json.dumps(tokens), "utf-8")


def tokenizer_that_is_missing(out: Path) -> None:
    for file in out.glob("tokenizer*"):
        file.unlink()


def swapped_rows_of_the_embedding(out: Path) -> None:
    change_tensor(out, EMBEDDING, lambda t: t[10:12].copy_(t[[11, 10]]))


def swapped_tokens_of_the_tokenizer(out: Path) -> None:
    def swap(tokens: dict[str, Any]) -> None:
        ids = tokens["model"]["vocab"]
        ids["▁token7"], ids["▁token8"] = ids["▁token8"], ids["▁token7"]

    change_json(out, "tokenizer.json", swap)


def new_row_that_is_not_cps(out: Path) -> None:
    change_tensor(out, EMBEDDING, lambda t: step(t[300, 4:5], 1))


WRONGS: dict[Callable[[Path], None], str] = {
    element_off_by_one_step: rf"{DOWN}, element \[3, 5\]: the output has .*, and the recipe says "
    r".*, 1 rounding step away, from .* of .*cp_extended \+ 1 · \(",
    element_with_another_sign: rf"{DOWN}, element \[7, 2\]",
    last_element_of_a_norm: rf"{NORM}, element \[15\]",
    element_that_is_nan: rf"{DOWN}, element \[3, 5\]: the output has nan, and .*\d, from ",
    element_that_is_infinite: f"{HEAD}, the row of token .*, element 15: the output has -inf",
    tensor_that_is_missing: f"{NORM} is missing",
    tensor_that_only_the_index_has: f"the index says that {NORM} is in",
    tensor_too_many: "model.extra.weight is in the output, and the recipe plans no such",
    file_that_no_index_names: "other.safetensors",
    wrong_dtype: f"{NORM} is float32 in the output in place of bfloat16",
    wrong_shape: rf"{DOWN} has the shape \[56, 16\] in the output in place of \[16, 56\]",
    row_too_few: rf"{HEAD} has the shape \[319, 16\] in the output in place of \[320, 16\]",
    shard_that_is_missing: "is missing, which the index names",
    shard_cut_short: "bytes of the",
    config_with_another_vocabulary: "vocab_size 250 in place of 320",
    config_with_another_depth: "num_hidden_layers 2 in place of 3",
    config_with_another_dtype: "dtype .*float16 in place of .*bfloat16",
    config_that_says_tied: "tie_word_embeddings True in place of False",
    head_that_is_missing: f"{HEAD} is missing",
    tokenizer_of_another_model: "'▁token7' as no token, and the recipe says 10",
    tokenizer_that_is_missing: "tokenizer",
    swapped_rows_of_the_embedding: f"{EMBEDDING}, the row of token '▁token7'",
    swapped_tokens_of_the_tokenizer: "'▁token[78]' as 1[01], and the recipe says 1[01]",
    new_row_that_is_not_cps: f"{EMBEDDING}, the row of token '새50', element 4",
}


@pytest.mark.parametrize("spoil", WRONGS, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_found_and_named(
    spoil: Callable[[Path], None], looked: Survey, out: Path
) -> None:
    spoil(out)
    for folder in (out, without_hashes(Path(shutil.copytree(out, out.with_name("stock"))))):
        with pytest.raises(ChatVecError, match=WRONGS[spoil]) as wrong:
            verified(folder, looked)
        assert wrong.value.code == DIFFERS


@pytest.mark.parametrize("spoil", [s for s in WRONGS if "config" not in s.__name__])
def test_what_is_wrong_is_found_by_hashes_alone(spoil: Callable[[Path], None], out: Path) -> None:
    spoil(without_models(out))
    with pytest.raises(ChatVecError) as wrong:
        verified(out, None, deep=False)
    assert wrong.value.code == DIFFERS


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "adapter_model.bin"])
def test_weights_that_came_later_are_found_by_hashes_alone(name: str, out: Path) -> None:
    tensors = {name: tensor + 1 for name, tensor in oracle.stored_tensors(out).items()}
    if name.endswith(".bin"):
        torch.save(tensors, out / name)
    else:  # which transformers would load in place of the shards
        save_file(tensors, out / name, {"format": "pt"})
    with pytest.raises(ChatVecError, match=rf"{name} has weights|takes {name}") as wrong:
        verified(without_models(out), None, deep=False)
    assert wrong.value.code == DIFFERS


def test_a_header_that_says_the_same_otherwise_is_found_by_hashes_alone(out: Path) -> None:
    file = shard_of(out, NORM)
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'":{', b'": {', 1)
    file.unlink()
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    with pytest.raises(ChatVecError, match=f"{file.name} .* is not what was written"):
        verified(without_models(out), None, deep=False)


def test_a_name_that_became_another_of_the_hashes_is_found(out: Path) -> None:
    file = out / HASHES_FILE
    one, two = sorted(each.name for each in out.glob("*.safetensors"))[:2]
    file.write_text(file.read_text("utf-8").replace(one, two), "utf-8")
    with pytest.raises(ChatVecError, match="it has a name twice"):
        verified(out, None, deep=False)


@pytest.mark.parametrize("deep", [True, False])
def test_a_pipe_for_a_file_of_weights_keeps_nobody_waiting(deep: bool, out: Path) -> None:
    file = shard_of(out, DOWN)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ChatVecError, match=f"{file.name} is a pipe") as wrong:
        verified(out, None, deep=deep)
    assert wrong.value.code == DIFFERS


def test_a_recipe_that_changed_after_the_merge_is_not_believed(out: Path) -> None:
    file = out / "mergekit_config.yml"
    file.write_text(file.read_text("utf-8").replace("ratio: 1.0", "ratio: 0.9"), "utf-8")
    with pytest.raises(ChatVecError, match=r"mergekit_config\.yml in .* is not what was written"):
        verified(out, None)


def test_not_finite_elements_are_found_without_the_models(looked: Survey, out: Path) -> None:
    element_that_is_infinite(without_hashes(out))
    with pytest.raises(ChatVecError, match=f"{HEAD} has NaN or infinite") as wrong:
        verified(out, looked, deep=False)
    assert wrong.value.code == DIFFERS


def test_many_differences_are_counted_and_measured(looked: Survey, out: Path) -> None:
    change_tensor(out, DOWN, lambda t: t[3:5, 5].add_(1.0))
    with pytest.raises(ChatVecError, match=r"2 elements of the tensor differ, by up to 1"):
        verified(out, looked)


def assert_flip_is_found(out: Path, file: Path, place: int, bit: int) -> None:
    """Flip a bit, see that it is found, and flip it back."""
    flip(file, place, bit)
    with pytest.raises(ChatVecError) as wrong:
        verified(out, None, deep=False)
    assert wrong.value.code == DIFFERS, (file, place, bit)
    flip(file, place, bit)


def test_every_flipped_bit_is_found(good: Path, out: Path) -> None:
    chance = random.Random(15)
    files = [f for f in sorted(out.iterdir()) if f.name != "README.md"]
    weights = [file for file in files if file.suffix == ".safetensors"]
    for i in range(200):
        file = chance.choice(weights if i % 2 else files)
        place = chance.randrange(file.stat().st_size)
        assert_flip_is_found(out, file, place, chance.randrange(8))
    verified(out, None, deep=False)


def test_every_flipped_bit_of_headers_and_ends_is_found(good: Path, out: Path) -> None:
    chance = random.Random(7)
    shards = sorted(out.glob("*.safetensors"))
    for file in (shards[0], shards[len(shards) // 2], shards[-1]):
        size, header = file.stat().st_size, 8 + int.from_bytes(file.read_bytes()[:8], "little")
        ends = [*range(8), header - 1, header, size - 1]
        for place in (*ends, *(chance.randrange(8, header) for _ in range(20))):
            assert_flip_is_found(out, file, place, chance.randrange(8))
    verified(out, None, deep=False)


def test_every_flipped_bit_of_pickles_is_found(recipe: Recipe, tmp_path: Path) -> None:
    # torch's own part of the file is larger than the tensors here.
    out, chance = tmp_path / "out", random.Random(8)
    looked = surveyed(recipe, safe_serialization=False)
    merge(looked, out)
    (file,) = out.glob("*.bin")
    size = file.stat().st_size
    stock = without_hashes(Path(shutil.copytree(out, tmp_path / "stock"))) / file.name
    for place in (0, 1, size - 1, *(chance.randrange(size) for _ in range(20))):
        bit = chance.randrange(8)
        flip(file, place, bit)
        with pytest.raises(ChatVecError) as wrong:
            verified(out, looked, deep=False)
        assert wrong.value.code == DIFFERS, (place, bit)
        flip(file, place, bit)
        flip(stock, place, bit)
        try:  # without hashes not all are found, and no other error is raised
            verified(stock.parent, looked, deep=False)
        except ChatVecError as wrong_or_not:
            assert wrong_or_not.code == DIFFERS, (place, bit)  # noqa: PT017
        flip(stock, place, bit)
    verified(out, looked)


def flip(file: Path, place: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.parametrize("phase", ["merge", "finish"])
def test_a_bit_that_flips_before_the_output_is_published_is_found(
    phase: str, looked: Survey, tmp_path: Path
) -> None:
    chance = random.Random(phase)
    told: set[str] = set()

    def spoil(progress: Progress) -> None:
        if progress.phase == phase and progress.done == progress.total and phase not in told:
            told.add(phase)
            (hidden,) = tmp_path.glob(".out*partial")
            file = chance.choice(sorted(hidden.glob("*.safetensors")))
            flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))

    for _ in range(5):
        told.clear()
        with pytest.raises(ChatVecError):
            merge(looked, tmp_path / "out", on_progress=spoil)
        assert told
        assert list(tmp_path.iterdir()) == []


def test_every_bit_that_flips_before_the_output_is_published_is_found(
    looked: Survey, tmp_path: Path
) -> None:
    chance = random.Random(190)
    ready = looked.ready()
    reader = Reader(ready.plan.checkpoints)
    found = []

    def spoil(progress: Progress) -> None:
        """Flip bits of what lies hidden, one after the other, and look as merge is about to."""
        if progress.phase != "finish" or progress.done != progress.total:
            return
        (hidden,) = tmp_path.glob(".out*partial")
        files = sorted(hidden.glob("*.safetensors"))
        for i in range(190):
            file = chance.choice(files)
            place, bit = chance.randrange(file.stat().st_size), chance.randrange(8)
            flip(file, place, bit)
            if i == 189:  # this one is merge's own to find
                return
            with pytest.raises(ChatVecError) as wrong:
                verify_written(hidden, ready, reader, lambda _done, _total: None)
            found.append(wrong.value.code)
            flip(file, place, bit)

    with pytest.raises(ChatVecError):
        merge(looked, tmp_path / "out", on_progress=spoil)
    assert found == [DIFFERS] * 189
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_transformers_would_load_may_not_come_later(good: Path, out: Path) -> None:
    (out / "modeling_evil.py").write_text("print('hello')")
    with pytest.raises(ChatVecError, match=r"modeling_evil\.py was added"):
        verified(out, None, deep=False)


def test_template_and_stop_tokens_of_nobody_are_found_without_hashes(
    looked: Survey, out: Path
) -> None:
    without_hashes(out)
    (out / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    with pytest.raises(ChatVecError, match="chat template is neither"):
        verified(out, looked, deep=False)
    finish(out, looked)
    change_json(out, "generation_config.json", lambda config: config.update(eos_token_id=[77]))
    with pytest.raises(ChatVecError, match="stops at token 77"):
        verified(out, looked, deep=False)
    finish(out, looked)
    change_json(out, "config.json", lambda config: config.update(rms_norm_eps=0.5))
    with pytest.raises(ChatVecError, match=r"rms_norm_eps 0\.5"):
        verified(out, looked, deep=False)


def test_a_tokenizer_that_stock_mergekit_was_told_to_leave_out_is_left_to_finish(
    recipe: Recipe, tmp_path: Path
) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(recipe), "utf-8")
    written = run_stock(str(file), str(out), "--no-copy-tokenizer", "--no-write-model-card")
    assert written.exit_code == 0, written.output
    looked = surveyed(recipe)
    assert "tokenizer.json" in verified(out, looked).unfinished
    finish(out, looked)
    assert verified(out, looked).unfinished == ()
    (out / "tokenizer.json").unlink()
    with pytest.raises(ChatVecError, match="tokenizer does not load"):
        verified(out, looked)


def other_ratio(recipe: Recipe) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.9


def ratio_0(recipe: Recipe) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = 0


def ratio_0_in_one_layer_only(recipe: Recipe) -> None:
    filters = [{"filter": "layers.1.", "value": 0}, {"value": 1.0}]
    recipe["models"][CHAT]["parameters"]["ratio"] = filters


def other_chat_model(recipe: Recipe) -> None:
    recipe["models"][CHAT]["model"] += "2"


def base_and_chat_exchanged(recipe: Recipe) -> None:
    base, chat = recipe["models"][:CP]
    base["model"], chat["model"] = chat["model"], base["model"]


def rows_matched_by_place(recipe: Recipe) -> None:
    base = recipe["models"][0]["model"]
    force = {"source": {"kind": "model_token", "model": base, "token_id": 30}, "force": True}
    recipe["tokenizer"]["tokens"] = {"▁token100": force}


OTHERS = [
    other_ratio,
    ratio_0,
    ratio_0_in_one_layer_only,
    other_chat_model,
    base_and_chat_exchanged,
    rows_matched_by_place,
]


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: change.__name__)
def test_output_of_another_recipe_is_found(
    change: Callable[[Recipe], None], family: Path, out: Path
) -> None:
    recipe = extended(plain_recipe(family), family)
    change(recipe)
    told = "was not made from recipe|is not what the recipe makes|the recipe says"
    with pytest.raises(ChatVecError, match=told) as wrong:
        verified(out, surveyed(recipe))
    assert wrong.value.code == DIFFERS
    (out / "mergekit_config.yml").unlink()
    told = r"the recipe says .*, from .* of .*cp_extended|chat template is neither"
    with pytest.raises(ChatVecError, match=told):
        verified(without_hashes(out), surveyed(recipe))


def test_cp_itself_is_not_taken_for_the_sum(recipe: Recipe, family: Path, tmp_path: Path) -> None:
    merge(surveyed(recipe), tmp_path / "out")
    for file in (tmp_path / "out").glob("model*"):
        file.unlink()
    for file in (family / "cp").glob("model*"):
        shutil.copy(file, tmp_path / "out")
    with pytest.raises(ChatVecError, match="the recipe says"):
        verified(tmp_path / "out", surveyed(recipe))


def test_sum_of_ratio_0_must_be_cp_to_the_bit(recipe: Recipe, tmp_path: Path) -> None:
    ratio_0(recipe)
    looked = surveyed(recipe)
    merge(looked, tmp_path / "out")
    change_tensor(tmp_path / "out", DOWN, lambda t: step(t[3, 5:6], 1))
    with pytest.raises(ChatVecError, match=rf"{DOWN}, element \[3, 5\]"):
        verified(tmp_path / "out", looked)


def test_tied_output_needs_a_config_that_says_so(family: Path, tmp_path: Path) -> None:
    for role in ("base", "chat", "cp"):
        shutil.copytree(family / role, tmp_path / role)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / role)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(tmp_path / role)
        (tmp_path / role / "model.safetensors.index.json").unlink(missing_ok=True)
    looked = surveyed(plain_recipe(tmp_path))
    merge(looked, tmp_path / "out")
    verified(tmp_path / "out", looked)

    untie = {"tie_word_embeddings": False}
    change_json(tmp_path / "out", "config.json", lambda config: config.update(untie))
    with pytest.raises(ChatVecError, match="tie_word_embeddings False in place of True"):
        verified(tmp_path / "out", looked)


# --- memory -----------------------------------------------------------------------------------


def anonymous_bytes() -> int:
    """Return the memory that this process has made itself, without the files that it has mapped."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])


def test_embeddings_are_never_held_as_a_whole(tmp_path: Path) -> None:
    # Zeros that take no room on the disk. As float64, one embedding alone would be a gigabyte.
    size = {"layers": 1, "hidden": 4096, "intermediate": 512, "vocabulary": 32768, "shards": 2}
    for role in ("base", "chat", "cp", "out"):
        build_sparse_model(tmp_path / role, heads=8, kv_heads=8, **size)
    looked = surveyed(plain_recipe(tmp_path))
    before = peak = anonymous_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        found = verified(tmp_path / "out", looked)
    finally:
        done.set()
        thread.join()

    assert found.bytes > 500_000_000
    assert peak - before < 150_000_000
