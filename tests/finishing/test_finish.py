"""`chatvec finish`: what comes out of any merge chats and stops, and its files agree."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import formats
import hub
import oracle
import pytest
import torch
import yaml
from conftest import CHAT, CP, ROOT, Merge, Recipe
from mergekit.options import MergeOptions
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import chatvec_method.finishing.finish
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import Survey, survey
from chatvec_method.finishing.files import FileChange
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.finishing.output import recipe_of
from chatvec_method.merging.merge import merge as chatvec_merge
from chatvec_method.merging.verify import verify
from chatvec_method.recipe.file import parse_recipe, read_recipe

FORMATS = [*formats.FORMATS]
CARD = "--write-model-card"
Merging = Callable[..., Merge]


@pytest.fixture
def stock(merge: Merging) -> Callable[..., Path]:
    """Return a function that runs `mergekit-yaml` and returns its output."""

    def run(recipe: Recipe | str, *options: str, out: str = "out") -> Path:
        done = merge(recipe, CARD, *options, out=out)
        assert done.exit_code == 0, done.printed
        return done.out

    return run


Stock = Callable[..., Path]


def found(recipe: Recipe | str) -> Survey:
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe)
    return survey(parse_recipe(text, "recipe.yaml"), MergeOptions())


def finished(out: Path) -> tuple[FileChange, ...]:
    return finish(out, survey(recipe_of(out), MergeOptions()))


def contents(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}


def undated(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: re.sub(rb"Made on [\d-]+", b"Made on", data) for name, data in files.items()}


def as_json(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}, indent=2))


def in_pieces(folder: Path, text: str) -> list[str]:
    """Return the tokens of a text, as other programs read them from tokenizer.json."""
    tokens: list[str] = (
        Tokenizer.from_file(str(folder / "tokenizer.json"))
        .encode(text, add_special_tokens=False)
        .tokens
    )
    return tokens


# --- It chats and stops -----------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True], ids=["equal", "extended"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_output_answers_in_its_format_and_stops_by_itself(
    format: str, extended: bool, stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", format, extended=extended)
    out = stock(formats.recipe(family))
    assert AutoTokenizer.from_pretrained(out).chat_template is None

    finished(out)

    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    said = formats.speak(model, tokenizer)
    assert said == family.format.answer
    answer = tokenizer.decode(tokenizer.convert_tokens_to_ids(said), skip_special_tokens=True)
    assert answer.strip() == formats.ANSWER


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_template_writes_is_one_token_each(
    format: str, stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", format, extended=True)
    out = stock(formats.recipe(family))
    ids = AutoTokenizer.from_pretrained(out).get_vocab()

    finished(out)

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == ids
    for marker in (*family.format.markers, family.format.end_of_turn):
        assert in_pieces(out, f"a{marker}b").count(marker) == 1
        assert tokenizer.decode(ids[marker], skip_special_tokens=True) == ""


@pytest.mark.parametrize("old_style", [False, True], ids=["now", "transformers-4"])
def test_markers_that_cp_has_as_words_become_special_and_keep_their_ids(
    old_style: bool, stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "chatml-reserved")
    markers = {"<|im_start|>": 308, "<|im_end|>": 309}
    for folder in (family.base, family.cp):
        tokenizer = as_json(folder, "tokenizer.json")
        special = [t for t in tokenizer["added_tokens"] if t["content"] not in markers]
        vocabulary = {**tokenizer["model"]["vocab"], **markers}
        model = {**tokenizer["model"], "vocab": vocabulary}
        edit_json(folder / "tokenizer.json", added_tokens=special, model=model)
        if old_style:
            listed = {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in special}
            edit_json(folder / "tokenizer_config.json", added_tokens_decoder=listed)
    out = stock(formats.recipe(family))
    assert "<|im_end|>" not in in_pieces(out, "Hello<|im_end|>")

    finished(out)

    assert in_pieces(out, "Hello<|im_end|>")[-1] == "<|im_end|>"
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(formats.QUESTION)["input_ids"]
    assert [ids.count(id) for id in markers.values()] == [2, 2]
    assert "<|im" not in tokenizer.decode(ids, skip_special_tokens=True)


def test_a_marker_that_chat_means_to_be_read_is_still_shown(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "chatml")
    for file in [family.chat / "tokenizer.json"]:
        added = as_json(family.chat, "tokenizer.json")["added_tokens"]
        (end,) = [token for token in added if token["content"] == "<|im_start|>"]
        end["special"] = False  # as Qwen3 has it for <think>
        edit_json(file, added_tokens=added)
    out = stock(formats.recipe(family))

    finished(out)

    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(formats.QUESTION)["input_ids"]
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<|im_start|>" in shown
    assert "<|im_end|>" not in shown


def test_it_stops_at_all_that_any_of_the_models_stops_at(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    out = stock(formats.recipe(family))
    finished(out)
    ids = AutoTokenizer.from_pretrained(out).get_vocab()
    stops = [ids["<|eot_id|>"], ids["<|end_of_text|>"]]
    assert GenerationConfig.from_pretrained(out).eos_token_id == stops
    assert AutoConfig.from_pretrained(out).eos_token_id == stops
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|eot_id|>"


def test_a_number_that_means_an_ordinary_token_is_no_stop(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    # Llama-3-Open-Ko's generation config has Llama 2's </s>, which is a punctuation mark there.
    edit_json(family.cp / "generation_config.json", eos_token_id=2)
    edit_json(family.chat / "generation_config.json", eos_token_id=311)
    out = stock(formats.recipe(family))
    assert GenerationConfig.from_pretrained(out).eos_token_id == 2

    finished(out)

    ids = AutoTokenizer.from_pretrained(out).get_vocab()
    assert ids["<|eot_id|>"] == 311
    # cp still stops where its tokenizer says that a text ends.
    assert GenerationConfig.from_pretrained(out).eos_token_id == [311, ids["<|end_of_text|>"]]


def test_it_samples_as_the_chat_model_does_and_pads_with_its_token(
    stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "chatml", extended=True)
    out = stock(formats.recipe(family))
    assert not (out / "generation_config.json").exists()

    finished(out)

    config = GenerationConfig.from_pretrained(out)
    chats = GenerationConfig.from_pretrained(family.chat)
    names = ("do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
    assert [getattr(config, n) for n in names] == [getattr(chats, n) for n in names]
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.pad_token == "<|endoftext|>"
    assert config.pad_token_id == tokenizer.pad_token_id


def test_settings_that_transformers_refuses_to_save_are_left_out(
    stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "mistral")
    # As the first Llama-2-chat had them: a temperature, and no sampling that would use it.
    edit_json(family.chat / "generation_config.json", do_sample=False, temperature=0.9, top_p=0.6)
    out = stock(formats.recipe(family))

    finished(out)

    AutoModelForCausalLM.from_pretrained(out).save_pretrained(tmp_path / "copy")
    assert GenerationConfig.from_pretrained(tmp_path / "copy").temperature is None


def test_without_a_pad_token_it_pads_with_eos_but_the_tokenizer_has_none(
    stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "mistral")
    out = stock(formats.recipe(family))
    finished(out)
    assert GenerationConfig.from_pretrained(out).pad_token_id == 2
    # As config.json's pad token, </s> would never be learnt in fine-tuning.
    assert AutoConfig.from_pretrained(out).pad_token_id is None
    assert AutoTokenizer.from_pretrained(out).pad_token is None


def test_the_example_in_the_card_runs(
    stock: Stock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    out = stock(formats.recipe(family))
    finish(out, survey(recipe_of(out), MergeOptions()), name=str(out))
    (example,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    torch.manual_seed(0)
    exec(example.replace("max_new_tokens", "do_sample=False, max_new_tokens"), {})
    assert capsys.readouterr().out.strip() == formats.ANSWER


# --- It does not matter who merged, nor how often this runs ------------------------------------


# After these, stock mergekit leaves other files, and in other ways.
KEYS: dict[str, Callable[[formats.Family], Recipe]] = {
    "files copied from cp": lambda family: {},
    "files copied from chat": lambda family: {"base_model": str(family.chat)},
    "tokenizer built": lambda family: {"tokenizer": {"source": str(family.cp)}},
    "template chosen": lambda family: {"chat_template": "auto"},
    "both": lambda family: {"tokenizer": {"source": "base"}, "chat_template": "chatml"},
    "dtype": lambda family: {"out_dtype": "float16"},
}


@pytest.mark.parametrize("options", [(), ("--no-copy-tokenizer",)], ids=["", "no tokenizer"])
@pytest.mark.parametrize("kind", KEYS)
def test_the_stock_commands_output_becomes_that_of_chatvec_merge(
    kind: str, options: tuple[str, ...], stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "chatml-reserved")
    ours = tmp_path / "ours" / "out"  # of the same name, which is in the card
    out = stock({**formats.recipe(family), **KEYS[kind](family)}, *options)
    looked = survey(read_recipe(tmp_path / "recipe.yaml"), MergeOptions())
    chatvec_merge(looked, ours)
    assert contents(out) != contents(ours)
    if not options:
        assert verify(out, looked, looked.options).unfinished

    finished(out)

    assert verify(out, looked, looked.options).unfinished == ()
    files = undated(contents(ours))
    del files[HASHES_FILE]  # of weights, which `finish` does not read
    assert undated(contents(out)) == files


def test_an_output_whose_tokenizer_and_recipe_are_missing_is_made_whole(
    stock: Stock, tmp_path: Path
) -> None:
    """As stock mergekit leaves it when it cannot reach the hub for its model card."""
    family = formats.build(tmp_path / "models", "llama-3", extended=True)
    recipe = formats.recipe(family)
    out = stock(recipe)
    whole = tmp_path / "whole" / "out"
    shutil.copytree(out, whole)
    finished(whole)
    for file in ("README.md", "mergekit_config.yml", "tokenizer.json", "tokenizer_config.json"):
        (out / file).unlink()

    finish(out, survey(read_recipe(tmp_path / "recipe.yaml"), MergeOptions()))

    assert undated(contents(out)) == undated(contents(whole))


def test_of_models_on_the_hub_only_small_files_are_fetched(
    recipe: Recipe, family: Path, merge: Merging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = merge(recipe, "--no-copy-tokenizer").out
    there = yaml.safe_load(yaml.safe_dump(recipe).replace(f"{family}/", "o/"))
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "o").symlink_to(family)
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        finish(out, found(there))

    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    finish(out, found(recipe))
    ids = AutoTokenizer.from_pretrained(family / "cp").get_vocab()
    assert AutoTokenizer.from_pretrained(out).get_vocab() == ids


def test_a_real_merge_is_finished(stock: Stock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = stock((ROOT / "recipes" / "world.yaml").read_text(encoding="utf-8"))
    finished(out)
    template = (ROOT / "examples/world/models/chat/chat_template.jinja").read_text()
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    assert GenerationConfig.from_pretrained(out).eos_token_id == 3
    assert "art-x-world" in (out / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ["chatml", "llama-2"])
def test_a_second_run_changes_nothing_not_even_on_another_day(
    format: str, stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stock(formats.recipe(formats.build(tmp_path / "models", format, extended=True)))
    assert finished(out)
    before = contents(out)

    class Later(date):
        @classmethod
        def today(cls) -> date:
            return date(2038, 1, 19)

    monkeypatch.setattr(chatvec_method.finishing.finish, "date", Later)
    assert finished(out) == ()
    assert contents(out) == before


def test_a_dry_run_tells_the_same_and_writes_nothing(stock: Stock, tmp_path: Path) -> None:
    out = stock(formats.recipe(formats.build(tmp_path / "models", "chatml")))
    before = contents(out)

    changes = finish(out, survey(recipe_of(out), MergeOptions()), dry_run=True)

    assert contents(out) == before
    assert changes == finished(out)
    after = contents(out)
    for change in changes:
        data = change.after.encode() if isinstance(change.after, str) else change.after
        assert data == after[change.name]
        assert (change.before is None) == (change.name not in before)
    unchanged = before.keys() - {change.name for change in changes}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


def test_without_a_card_the_readme_stays(stock: Stock, tmp_path: Path) -> None:
    out = stock(formats.recipe(formats.build(tmp_path / "models", "mistral")))
    before = (out / "README.md").read_bytes()
    changes = finish(out, survey(recipe_of(out), MergeOptions()), card=False)
    assert (out / "README.md").read_bytes() == before
    assert not {"README.md", "ratio.png"} & {change.name for change in changes}


# --- Its files agree --------------------------------------------------------------------------


def test_a_head_of_its_own_counts_although_cp_is_tied(stock: Stock, tmp_path: Path) -> None:
    untied = formats.build(tmp_path / "untied", "llama-3")
    tied = formats.build(tmp_path / "tied", "llama-3", tied=True)
    recipe = formats.recipe(untied)
    recipe["base_model"] = recipe["models"][CP]["model"] = str(tied.cp)
    out = stock(recipe)
    assert AutoConfig.from_pretrained(out).tie_word_embeddings

    finished(out)

    head = oracle.stored_tensors(out)["lm_head.weight"]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(model.lm_head.weight, head)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_tied_models_stay_tied(stock: Stock, tmp_path: Path) -> None:
    out = stock(formats.recipe(formats.build(tmp_path / "models", "chatml", tied=True)))
    finished(out)
    assert AutoConfig.from_pretrained(out).tie_word_embeddings
    assert "lm_head.weight" not in oracle.stored_tensors(out)


def test_the_config_says_how_weights_are_stored(recipe: Recipe, family: Path, stock: Stock) -> None:
    recipe["models"][CHAT]["model"] = str(family / "chat16")  # with cp's bfloat16, it makes float32
    out = stock(recipe)
    assert AutoConfig.from_pretrained(out).dtype == torch.bfloat16
    edit_json(out / "config.json", vocab_size=99)

    finished(out)

    config = AutoConfig.from_pretrained(out)
    weights = oracle.stored_tensors(out)["model.embed_tokens.weight"]
    assert config.dtype == weights.dtype == torch.float32
    assert config.vocab_size == len(weights)


def test_a_token_without_a_row_is_not_used(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "mistral-v3")
    rows = AutoConfig.from_pretrained(family.cp).vocab_size
    for folder in (family.chat, family.cp):  # a pad token that somebody added for training
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        tokenizer.save_pretrained(folder)
    out = stock(formats.recipe(family))

    finished(out)

    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("[PAD]") == rows
    assert GenerationConfig.from_pretrained(out).pad_token_id == 2


def test_stale_templates_and_special_tokens_are_gone(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    eos = {"content": "<|end_of_text|>", "lstrip": False, "rstrip": False, "special": True}
    edit_json(family.cp / "tokenizer_config.json", chat_template="{{ 'old' }}")
    (family.cp / "special_tokens_map.json").write_text(json.dumps({"eos_token": eos}))
    out = stock(formats.recipe(family))
    extra = out / "additional_chat_templates" / "tool_use.jinja"
    extra.parent.mkdir()
    extra.write_text("{{ 'old' }}")

    finished(out)

    # Programs from before 2025 look for it here, and newer ones first in the file of its own.
    template = as_json(out, "tokenizer_config.json")["chat_template"]
    assert template == formats.LLAMA_3_TEMPLATE
    assert as_json(out, "special_tokens_map.json")["eos_token"] == "<|eot_id|>"
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == formats.LLAMA_3_TEMPLATE
    assert tokenizer.eos_token == "<|eot_id|>"


def test_it_does_not_tell_where_the_tokenizer_was_loaded_from(stock: Stock, tmp_path: Path) -> None:
    out = stock(formats.recipe(formats.build(tmp_path / "models", "llama-3", extended=True)))
    assert "is_local" in as_json(out, "tokenizer_config.json")
    finished(out)
    assert not {"is_local", "local_files_only"} & as_json(out, "tokenizer_config.json").keys()


def test_what_need_not_change_is_left_as_it_was_written(stock: Stock, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", "llama-3")
    # In an older way of writing merges, which older programs read and newer ones rewrite.
    tokenizer = as_json(family.cp, "tokenizer.json")
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    edit_json(family.cp / "tokenizer.json", model={**tokenizer["model"], "merges": merges})
    out = stock(formats.recipe(family))
    before = contents(out)

    finished(out)

    assert contents(out)["tokenizer.json"] == before["tokenizer.json"]
    changed = as_json(out, "tokenizer_config.json")
    assert changed == {
        **json.loads(before["tokenizer_config.json"]),
        "eos_token": "<|eot_id|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": formats.LLAMA_3_TEMPLATE,
    }


def test_a_tokenizer_in_older_files_gets_a_tokenizer_json_if_it_must_change(
    stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "chatml-reserved")
    out = stock(formats.recipe(family))
    tokenizer = as_json(out, "tokenizer.json")["model"]
    ids = AutoTokenizer.from_pretrained(out).get_vocab()
    (out / "vocab.json").write_text(json.dumps(ids))
    (out / "merges.txt").write_text("\n".join(" ".join(pair) for pair in tokenizer["merges"]))
    (out / "tokenizer.json").unlink()
    edit_json(out / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")

    finished(out)

    assert "<|im_end|>" in in_pieces(out, "Hello<|im_end|>")
    assert AutoTokenizer.from_pretrained(out).get_vocab() == ids


def test_with_a_union_of_vocabularies_the_outputs_own_ids_count(
    stock: Stock, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", "chatml", extended=True)
    recipe = formats.recipe(family)
    recipe["tokenizer"] = {"source": "union"}
    out = stock(recipe)
    # mergekit numbers them in another order in each process.
    added = as_json(out, "tokenizer.json")["added_tokens"]
    one, other = (t for t in added if t["content"] in ("<|im_start|>", "<|im_end|>"))
    one["content"], other["content"] = other["content"], one["content"]
    edit_json(out / "tokenizer.json", added_tokens=added)

    finished(out)

    ids = AutoTokenizer.from_pretrained(out).get_vocab()
    stops = GenerationConfig.from_pretrained(out).eos_token_id
    assert stops == [ids["<|im_end|>"], ids["<|endoftext|>"]]
    assert finished(out) == ()


# --- What is not the recipe's output is refused ------------------------------------------------


def test_a_folder_without_a_recipe_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ChatVecError, match="no folder"):
        recipe_of(tmp_path / "nothing")
    with pytest.raises(ChatVecError, match=r"--recipe RECIPE"):
        recipe_of(tmp_path)


def test_a_recipe_that_comes_later_is_kept_with_the_output(
    recipe: Recipe, merge: Merging, tmp_path: Path
) -> None:
    out = merge(recipe).out
    assert not (out / "mergekit_config.yml").exists()
    later = read_recipe(tmp_path / "recipe.yaml")
    finish(out, survey(later, MergeOptions()))
    assert recipe_of(out).text == later.text
    assert finished(out) == ()


def test_a_merge_that_did_not_come_to_its_end_is_refused(recipe: Recipe, stock: Stock) -> None:
    out = stock(recipe)
    (out / "config.json").unlink()
    before = contents(out)
    with pytest.raises(ChatVecError, match=r"no config\.json.*Merge again"):
        finished(out)
    assert contents(out) == before


def test_a_shard_that_is_missing_or_cut_short_is_named(recipe: Recipe, stock: Stock) -> None:
    out = stock(recipe, "--out-shard-size", "20K")
    shard = sorted(out.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ChatVecError, match=shard.name):
        finished(out)
    shard.unlink()
    with pytest.raises(ChatVecError, match=shard.name):
        finished(out)


def test_another_recipe_is_refused(recipe: Recipe, stock: Stock) -> None:
    out = stock(recipe)
    before = contents(out)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.5
    with pytest.raises(ChatVecError, match="was not made from recipe"):
        finish(out, found(recipe))
    assert contents(out) == before


def test_a_recipe_whose_template_or_folders_have_changed_is_the_same(
    stock: Stock, tmp_path: Path
) -> None:
    formats.build(tmp_path / "models", "mistral")
    text = yaml.safe_dump(formats.recipe(formats.build(tmp_path / "models", "mistral")))
    out = stock(text)
    (tmp_path / "models").rename(tmp_path / "moved")
    moved = text.replace(str(tmp_path / "models"), str(tmp_path / "moved"))
    finish(out, found(f"{moved}\nchat_template: chatml\n"))
    assert "<|im_end|>" in AutoTokenizer.from_pretrained(out).chat_template


def test_another_models_output_is_refused(family: Path, recipe: Recipe, merge: Merging) -> None:
    out = merge(recipe).out
    recipe["tokenizer"] = {"source": str(family / "cp_extended")}
    recipe["base_model"] = recipe["models"][CP]["model"] = str(family / "cp_extended")
    with pytest.raises(ChatVecError, match=r"is \[250, 16\].*makes it \[320, 16\]"):
        finish(out, found(recipe))


def test_tensors_that_the_recipe_does_not_make_are_named(
    family: Path, recipe: Recipe, merge: Merging
) -> None:
    out = merge(recipe).out
    sources = [
        {**model, "layer_range": [0, 2], "parameters": model["parameters"]}
        for model in recipe.pop("models")
    ]
    recipe["slices"] = [{"sources": sources}]
    with pytest.raises(ChatVecError, match=r"model\.layers\.2\..* which the recipe does not make"):
        finish(out, found(recipe))


def test_another_tokenizer_is_refused(recipe: Recipe, stock: Stock, family: Path) -> None:
    out = stock(recipe)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(family / "cp_extended" / file, out)
    with pytest.raises(ChatVecError, match=r"another tokenizer.*missing"):
        finished(out)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(
    recipe: Recipe, stock: Stock
) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [1.0, 0.5]  # or there is no picture
    out = stock(recipe)
    (out / "ratio.png").mkdir()
    with pytest.raises(ChatVecError, match=r"ratio\.png cannot be written"):
        finished(out)
    assert not list(out.glob(".*"))
