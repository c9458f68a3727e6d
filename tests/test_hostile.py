"""Recipes and models by people who mean harm, each case as it was tried once.

What all of these have in common: one line comes out, soon, and nothing else happens.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import hub
import pytest
import torch
import yaml
from checking import checked, codes
from click.testing import CliRunner, Result
from conftest import ROOT
from huggingface_hub import ModelInfo
from json_files import Change, with_changed_json, with_json
from mergekit.common import ModelPath
from mergekit.parameter_resolver import resolve_parameters
from safetensors.torch import load_file, save_file
from surveying import surveyed
from test_rendering import DOUBLES, NEVER_ENDS

from chatvec_method.checks.report import Severity
from chatvec_method.cli import main
from chatvec_method.cli.console import as_printed
from chatvec_method.cli.new import write_new
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.finishing.files import write_content
from chatvec_method.plain_text import ACTS
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import parse_recipe
from chatvec_method.recipe.lines import line_of
from chatvec_method.sharing import _recipe_card
from chatvec_method.weights.fetching import fetched

WORLD = ROOT / "examples" / "world" / "models"


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """Return a recipe of copies of the world's models."""
    for name in ("base", "chat", "cp"):
        shutil.copytree(WORLD / name, tmp_path / name)
    return {
        "merge_method": "chat_vector",
        "base_model": str(tmp_path / "cp"),
        "models": [
            {"model": str(tmp_path / "base"), "parameters": {"role": "base"}},
            {"model": str(tmp_path / "chat"), "parameters": {"role": "chat", "ratio": 1.0}},
            {"model": str(tmp_path / "cp"), "parameters": {"role": "cp"}},
        ],
        "tokenizer": {"source": str(tmp_path / "cp")},
    }


def chatvec(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def refusal(result: Result) -> str:
    """Return the one line with which a command ended."""
    assert result.exit_code not in (0, None), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.output
    assert not ACTS.search(result.output)
    return lines[0]


def with_text(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


def with_link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def with_pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def with_sparse(name: str) -> Change:
    def change(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(3 << 30)

    return change


def with_header(change: Callable[[dict[str, Any], str], None], more: bytes = b"") -> Change:
    """Change what the header of a weight file says of its first tensor."""

    def changed(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header, next(name for name in header if name != "__metadata__"))
        text = json.dumps(header).encode()
        data = content[8 + length :]
        file.write_bytes(len(text).to_bytes(8, "little") + text + data + more)

    return changed


def offsets(header: dict[str, Any], name: str, *values: int) -> None:
    header[name]["data_offsets"] = list(values)


def with_tokenizer(change: Callable[[dict[str, Any]], None]) -> Change:
    return with_changed_json("tokenizer.json", change)


def steps(key: str) -> dict[str, Any]:
    """Return steps of a tokenizer that make 10^9 characters of one."""
    step = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 10}
    return {"type": "Sequence", key: [step] * 9}


NAMES = [
    {"name": "default", "template": "{{ messages }}"},
    {"name": "/tmp/chatvec-was-here", "template": "x"},
]
INDEX = "model.safetensors.index.json"
REFUSED: dict[str, tuple[str, Change, str]] = {
    "a template's name is a path": (
        "cp",
        with_json("tokenizer_config.json", chat_template=NAMES),
        "tokenizer_config.json",
    ),
    "a template's name leads up": (
        "chat",
        with_json("tokenizer_config.json", chat_template={"../x": "y"}),
        "../x",
    ),
    "a link out of the folder": ("cp", with_link("tokenizer.json", "/etc/hostname"), "is a link"),
    "a link in a folder of templates": (
        "cp",
        lambda folder: (
            (folder / "chat_templates").mkdir()
            or with_link("chat_templates/x.jinja", "/etc/hostname")(folder)
        ),
        "x.jinja is a link",
    ),
    "a link to what never ends": ("cp", with_link(INDEX, "/dev/zero"), "is a link"),
    "weights that never end": ("cp", with_link("model.safetensors", "/dev/zero"), "a device"),
    "a pipe for weights": ("base", with_pipe("model.safetensors"), "is a pipe"),
    "a pipe for a config": ("chat", with_pipe("config.json"), "is a pipe"),
    "a pipe for a card": ("chat", with_pipe("README.md"), "is a pipe"),
    "a config without an end": ("chat", with_sparse("generation_config.json"), "larger than"),
    "a tokenizer without an end": ("cp", with_sparse("tokenizer.json"), "larger than"),
    "an index with a path": (
        "cp",
        with_json(INDEX, weight_map={"x": "/etc/passwd"}),
        "`weight_map.x` is '/etc/passwd'",
    ),
    "an index that leads up": (
        "cp",
        with_json(INDEX, weight_map={"x": "../cp/model.safetensors"}),
        "weight_map.x",
    ),
    "a class that is a path": (
        "cp",
        with_json("config.json", architectures=["../../x"]),
        "`architectures.0` is '../../x'",
    ),
    "a class that is a number": ("base", with_json("config.json", architectures=[1]), "is 1"),
    "a billion layers": (
        "cp",
        with_json("config.json", num_hidden_layers=10**9),
        "1000 is the most",
    ),
    "a billion labels": ("cp", with_json("config.json", num_labels=10**9), "the most"),
    "a stop token that is none": (
        "chat",
        with_json("generation_config.json", eos_token_id={}),
        "`eos_token_id` is {}",
    ),
    "a length that is none": (
        "chat",
        with_json("tokenizer_config.json", model_max_length="x"),
        "`model_max_length` is 'x'",
    ),
    "an added token without text": (
        "cp",
        with_json("tokenizer_config.json", added_tokens_decoder={"3": {}}),
        "added_tokens_decoder.3",
    ),
    "JSON within JSON": ("cp", with_text("config.json", '{"x": ' * 50_000), "is no JSON"),
    "bytes after the last tensor": (
        "cp",
        with_header(lambda header, name: None, more=b"\0" * 8),
        "is damaged",
    ),
    "reversed offsets": (
        "base",
        with_header(lambda h, n: offsets(h, n, *reversed(h[n]["data_offsets"]))),
        "is damaged",
    ),
    "negative offsets": ("base", with_header(lambda h, n: offsets(h, n, -8, 0)), ""),
    "overlapping tensors": (
        "base",
        with_header(lambda h, n: offsets(h, n, *h[list(h)[-1]]["data_offsets"])),
        "is damaged",
    ),
    "metadata that is none": (
        "chat",
        with_header(lambda header, name: header.update(__metadata__={"format": 5})),
        "is damaged",
    ),
    "a shape that is a word": (
        "chat",
        with_header(lambda header, name: header[name].update(shape="ab")),
        "is damaged",
    ),
    "a number that torch has not": (
        "cp",
        with_header(
            lambda header, name: header.update(
                x={"dtype": "F6_E2M3", "shape": [0], "data_offsets": [0, 0]}
            )
        ),
        "the dtype F6_E2M3",
    ),
    "a tokenizer's file elsewhere": (
        "cp",
        with_json("tokenizer_config.json", fast_tokenizer_files=["../base/tokenizer.4.0.json"]),
        "fast_tokenizer_files.0",
    ),
    "weights under another name": (
        "cp",
        with_json("config.json", transformers_weights="other.safetensors"),
        "transformers_weights",
    ),
    "a part that the class has not": ("cp", with_json("config.json", text_config={}), "no such"),
    "a part that is a number": ("base", with_json("config.json", decoder=5), "no such part"),
    "thousands of keys": (
        "cp",
        with_json("config.json", **{f"key{i}": i for i in range(3000)}),
        "3026 keys",
    ),
    "thousands of labels": (
        "chat",
        with_json("config.json", x=dict.fromkeys(map(str, range(120_000)))),
        "with those within it",
    ),
    "thousands of special tokens": (
        "cp",
        with_json("special_tokens_map.json", additional_special_tokens=["<x>"] * 30_000),
        "additional_special_tokens",
    ),
    "a head that is nowhere": ("cp", with_json("config.json", tie_word_embeddings=False), "head"),
    "a reason behind a colon": (
        "cp",
        with_json("config.json", num_attention_heads=3),
        "(3)",
    ),
    "a token without an end": (
        "chat",
        with_tokenizer(lambda said: said["model"]["vocab"].update(x=1 << 31)),
        "has the number 2147483648",
    ),
    "a text that grows": (
        "chat",
        with_tokenizer(lambda said: said.update(normalizer=steps("normalizers"))),
        "its normalizer makes more than",
    ),
    "an answer that grows": (
        "chat",
        with_tokenizer(lambda said: said.update(decoder=steps("decoders"))),
        "its decoder makes more than",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_model_is_refused_in_one_line(
    case: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    who, change, says = REFUSED[case]
    change(tmp_path / who)
    before = sorted(tmp_path.rglob("*"))
    report = checked(recipe)
    errors = report.of(Severity.ERROR)
    assert len(errors) == 1, report
    assert says in str(errors[0])
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/chatvec-was-here.jinja").exists()


def test_a_pickle_that_is_packed_is_not_unpacked(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "chat" / "model.safetensors").unlink()
    (tmp_path / "chat" / "pytorch_model.bin").write_bytes(bomb())
    (finding,) = checked(recipe).of(Severity.ERROR)
    assert "unpacks to" in str(finding)


NO_TENSORS: dict[str, Callable[[dict[str, Any]], dict[Any, Any]]] = {
    "nested": lambda tensors: {"state_dict": tensors},
    "a number for a name": lambda tensors: {**tensors, 5: torch.ones(2)},
    "sparse": lambda tensors: {**tensors, "x": torch.ones(2).to_sparse()},
    "without its numbers": lambda tensors: {**tensors, "x": torch.ones(2, device="meta")},
    "no tensor": lambda tensors: {**tensors, "epoch": 3},
}


@pytest.mark.parametrize("case", NO_TENSORS)
def test_a_pickle_of_what_is_no_tensor_is_refused_by_check(
    case: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "cp" / "model.safetensors"
    torch.save(NO_TENSORS[case](load_file(file)), file.with_name("pytorch_model.bin"))
    file.unlink()
    (finding,) = checked(recipe).of(Severity.ERROR)
    assert "in it is" in str(finding)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_json("config.json", hidden_act="x"), "KeyError: 'x'"),
        (with_json("config.json", vocab_size=306), "[305, 128] in its files, and [306, 128]"),
        (with_json("config.json", vocab_size=0), "num_embeddings"),
    ],
)
def test_a_config_by_which_nothing_loads_is_told(
    change: Change, says: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    change(tmp_path / "cp")
    report = checked(recipe)
    assert report.of(Severity.ERROR) == []
    (finding,) = (f for f in report.findings if f.code == "config-does-not-fit")
    assert finding.severity is Severity.WARNING
    assert says in finding.message
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert chatvec("merge", tmp_path / "recipe.yaml", tmp_path / "out").exit_code == 0


def test_a_tokenizer_that_makes_no_tokens_is_told_by_chat(tmp_path: Path) -> None:
    shutil.copytree(WORLD / "chat", tmp_path / "chat")
    with_tokenizer(lambda said: said["model"].update(vocab={}))(tmp_path / "chat")
    assert "makes no tokens" in refusal(chatvec("chat", tmp_path / "chat", "--ask", "x"))


def test_an_output_says_of_none_of_its_files_that_it_is_loaded_from_there(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    with_json("config.json", transformers_weights="model.safetensors")(tmp_path / "cp")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert chatvec("merge", tmp_path / "recipe.yaml", tmp_path / "out").exit_code == 0
    assert "transformers_weights" not in (tmp_path / "out" / "config.json").read_text()


def test_thousands_of_numbered_tensors_are_no_layers(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(header: dict[str, Any], _: str) -> None:
        place = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header.update({f"x.{i}.weight": place for i in range(3000)})

    with_header(add)(tmp_path / "cp")
    asked = Mock(wraps=resolve_parameters)
    monkeypatch.setattr("chatvec_method.facts.plan.resolve_parameters", asked)
    assert checked(recipe).of(Severity.ERROR) == []
    assert asked.call_count < 50


@pytest.mark.parametrize("case", ["a pipe for weights", "metadata that is none"])
def test_merge_and_anatomy_say_the_same(case: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    who, change, says = REFUSED[case]
    change(tmp_path / who)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    merged = chatvec("merge", tmp_path / "recipe.yaml", tmp_path / "out")
    assert merged.exit_code != 0
    assert says in merged.output
    assert says in refusal(chatvec("anatomy", tmp_path / "recipe.yaml"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("template", [NEVER_ENDS, DOUBLES], ids=["never ends", "doubles a text"])
@pytest.mark.parametrize("who", ["chat", "cp"])
def test_a_template_that_takes_too_much_is_told(
    who: str, template: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("chat", "cp"):
        (tmp_path / name / "chat_template.jinja").unlink(missing_ok=True)
    with_json("tokenizer_config.json", chat_template=template)(tmp_path / who)
    report = checked(recipe)
    assert "template-broken" in codes(report, Severity.ERROR)
    said = refusal(chatvec("chat", tmp_path / who, "--ask", "x"))
    assert "does not end" in said or "memory" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_json("tokenizer_config.json", chat_template=NAMES), "tokenizer_config.json"),
        (with_link("tokenizer.json", "/etc/hostname"), "is a link"),
        (with_pipe("tokenizer.json"), "is a pipe"),
        (with_tokenizer(lambda said: said["model"]["vocab"].update(x=1 << 31)), "the number"),
    ],
)
def test_a_tokenizer_of_a_model_that_is_not_merged_is_looked_at_too(
    change: Change, says: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(WORLD / "cp", tmp_path / "other")
    change(tmp_path / "other")
    recipe["tokenizer"] = {"source": str(tmp_path / "other")}
    (finding,) = checked(recipe).of(Severity.ERROR)
    assert says in str(finding)


def test_nothing_is_written_through_a_link_that_waits_in_a_folder(tmp_path: Path) -> None:
    shutil.copytree(WORLD / "cp", tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    for name in ("config.json", "README.md"):
        (tmp_path / "out" / f".{name}.chatvec-partial").symlink_to(elsewhere)
        write_content(tmp_path / "out" / name, "new")
        assert (tmp_path / "out" / name).read_text() == "new"
    assert elsewhere.read_text() == "mine"


def test_a_recipe_of_the_hub_does_nothing_to_a_terminal_that_shows_it(
    on_hub: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# \u202e hidden\nmerge_method: chat_vector\n"
    (on_hub.folder / "evil" / "model" / "recipe.yaml").write_text(text, encoding="utf-8")
    assert chatvec("recipes", "show", "evil/model").stdout == text  # a pipe gets what there is
    monkeypatch.setattr(sys, "stdout", Mock(isatty=lambda: True))
    assert as_printed(text) == text.replace("\u202e", "\\u202e")


@pytest.mark.parametrize("key", ["a[b", "a]b", "[", "a[0]b.c", "\x1b[8m{{ m.content }}"])
def test_a_key_with_brackets_has_the_line_of_what_is_around_it(key: str) -> None:
    text = "models:\n- model: x\n  parameters: {}\n"
    assert line_of(text, f"models[0].parameters.{key}") == 3
    assert line_of(text, key) is None


def test_a_recipe_is_read_once_for_the_lines_of_all_findings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compose = Mock(wraps=yaml.compose)
    monkeypatch.setattr(yaml, "compose", compose)
    text = "a: 1\nb: 2\n# of this test alone\n"
    assert [line_of(text, place) for place in ("a", "b", "a")] == [1, 2, 1]
    assert compose.call_count == 1


def test_more_changes_than_anybody_waits_for_are_left_to_the_reader() -> None:
    text = f"a: [{'0.5, ' * 3000}]\n"
    assert edited(text, [Edit(("b",), 1)]).endswith("b: 1\n")
    with pytest.raises(ChatVecError, match="too many to make"):
        edited(text, [Edit((f"b{i}",), i) for i in range(8)])


def test_tokens_with_gaps_between_their_numbers_are_told_by_check(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "cp" / "tokenizer.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = said["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    second = sorted(vocabulary, key=vocabulary.__getitem__)[-2]
    assert second not in {token["content"] for token in said["added_tokens"]}
    del vocabulary[second]
    said["model"]["merges"] = []
    file.write_text(json.dumps(said), encoding="utf-8")
    errors = checked(recipe).of(Severity.ERROR)
    assert any(f"{last!r} as {vocabulary[last]}, and no token" in str(each) for each in errors)


def test_a_file_of_the_hub_that_is_too_large_is_not_downloaded() -> None:
    info = ModelInfo(id="o/model", siblings=[{"rfilename": "config.json", "size": 10**10}])
    with pytest.raises(ChatVecError, match=r"config\.json of o/model is larger"):
        SmallFiles.on_hub(ModelPath(path="o/model"), info)


def test_slices_and_models_without_an_end_are_refused(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    sources = [{**model, "layer_range": [0, 30000]} for model in recipe["models"]]
    sliced = {key: value for key, value in recipe.items() if key != "models"}
    texts = {
        "30000 layers": {**sliced, "slices": [{"sources": sources}]},
        "153 models": {
            **recipe,
            "models": recipe["models"] + [{"model": f"x{i}"} for i in range(150)],
        },
        "such number of rows": {
            **recipe,
            "tokenizer": {**recipe["tokenizer"], "pad_to_multiple_of": -7},
        },
    }
    for says, hostile in texts.items():
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(hostile))
        result = chatvec("check", tmp_path / "recipe.yaml")
        assert result.exit_code != 0
        assert says in result.output


def test_thousands_of_keys_that_nobody_knows_are_told_in_part(recipe: dict[str, Any]) -> None:
    report = checked({**recipe, **{f"key{i}": 1 for i in range(4000)}})
    assert 0 < len(report.findings) < 200


def test_a_licence_does_nothing_to_a_terminal(recipe: dict[str, Any], tmp_path: Path) -> None:
    card = '---\nlicense: "mit\\e[8m\\e]0;title\\a"\n---\n'
    with_text("README.md", card)(tmp_path / "cp")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for words in (["check"], ["check", "--json"]):
        result = chatvec(*words, tmp_path / "recipe.yaml")
        assert result.exit_code == 0, result.output
        assert not ACTS.search(result.output)
        assert "mit" in result.output


def test_a_card_holds_what_strangers_say_as_words(recipe: dict[str, Any], tmp_path: Path) -> None:
    evil = "x\n\n# heading <img src=x onerror=alert(1)> | [a](b)"
    said = {"license": evil, "language": ["ko", "<script>alert(1)</script>"]}
    for name in ("base", "chat", "cp"):
        with_text("README.md", f"---\n{yaml.safe_dump(said)}---\n")(tmp_path / name)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = chatvec("merge", tmp_path / "recipe.yaml", tmp_path / "out", "--quiet")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---\n")[2]
    assert "onerror" in text
    assert "<img" not in text.replace("\\<img", "")
    assert "<script" not in text.replace("\\<script", "")
    assert "\n# heading" not in text


def test_a_licence_writes_no_lines_into_a_new_recipe(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    said = {"license": "x   \nbase_model: /evil\x07\u2028merge_method: linear"}
    for name in ("base", "chat", "cp"):
        card = f"---\n{json.dumps(said)}\n---\n"
        with_text("README.md", card)(tmp_path / name)
    words = [w for name in ("base", "chat", "cp") for w in (f"--{name}", str(tmp_path / name))]
    result = chatvec("new", *words)
    assert result.exit_code == 0, result.output
    read = yaml.safe_load(result.stdout)
    assert read["merge_method"] == "chat_vector"
    assert read["base_model"] == str(tmp_path / "cp")


def test_a_recipe_brings_no_markdown_into_the_card_that_is_shared(recipe: dict[str, Any]) -> None:
    evil = {"title": "x\n\n# y <img src=x onerror=alert(1)>", "language": "ko"}
    written = parse_recipe(yaml.safe_dump({**recipe, "chatvec": evil}), "recipe.yaml")
    card = _recipe_card(written, "me/recipe", []).split("```")[0]
    assert "\n# y" not in card
    assert "<img" not in card.replace("\\<img", "")


@pytest.mark.parametrize(
    "card",
    [
        "license: 5",
        "license: [a, {b: c}]",
        "get: 5",
        "- a",
        "license: !!bool maybe",
        "a: &a [x, x]\nb: &b [*a, *a]\nlicense: *b",
    ],
)
def test_a_card_that_says_nonsense_says_nothing(
    card: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    with_text("README.md", f"---\n{card}\n---\n")(tmp_path / "cp")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert chatvec("check", tmp_path / "recipe.yaml").exit_code == 0


def test_an_error_that_nobody_has_foreseen_is_one_line_that_names_the_file(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(sys, "argv", ["chatvec", "check", str(file)])

    def fail(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr("chatvec_method.cli.check.parse_yaml", fail)
    said = refusal(chatvec("check", file))
    assert str(file) in said
    assert "KeyError: 'x'" in said
    assert "CHATVEC_DEBUG=1" in said
    monkeypatch.setenv("CHATVEC_DEBUG", "1")
    assert isinstance(chatvec("check", file).exception, KeyError)


def test_what_the_system_says_of_a_file_is_no_bug_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("chatvec_method.cli.check.parse_yaml", full)
    (tmp_path / "recipe.yaml").write_text("a: 1")
    said = refusal(chatvec("check", tmp_path / "recipe.yaml"))
    assert "No space left on device" in said
    assert "report" not in said


def test_a_recipe_that_finds_no_room_is_not_left_half_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "new.yaml"

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path: Path, *_: Any, **__: Any) -> Full:
        path.touch()
        return Full()

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(ChatVecError, match="cannot be written"):
        write_new(file, "x")
    assert not file.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["check", "NAME"],
        ["chat", "NAME", "--ask", "x"],
        ["verify", "NAME"],
        ["pin", "NAME"],
        ["vector", "show", "NAME"],
        ["new", "--base", "NAME", "--chat", "x", "--cp", "x"],
        ["evaluate", "NAME", "--language", "en", "--limit", "1"],
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_is_too_long_for_a_file_is_told(words: list[str]) -> None:
    said = refusal(chatvec(*("x" * 5000 if word == "NAME" else word for word in words)))
    assert "report" not in said
    assert len(said) < 2500


@pytest.fixture
def on_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    """Return a hub that has a model `evil/model`; this process asks that hub."""
    shutil.copytree(WORLD / "chat", tmp_path / "hub" / "evil" / "model")
    monkeypatch.chdir(tmp_path)
    with hub.serving(tmp_path / "hub") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        yield served


ON_HUB: dict[str, tuple[Change, str]] = {
    "a template's name is a path": (
        with_json("tokenizer_config.json", chat_template=NAMES),
        "tokenizer_config.json",
    ),
    "a billion layers": (with_json("config.json", num_hidden_layers=10**9), "1000 is the most"),
    "a file without an end": (
        lambda folder: (folder / "generation_config.json").write_bytes(b" " * (17 << 20)) and None,
        "generation_config.json of evil/model is larger than",
    ),
}
HUB_COMMANDS: dict[str, list[str]] = {
    "chat": ["chat", "evil/model", "--ask", "x"],
    "evaluate": ["evaluate", "evil/model", "--language", "en", "--limit", "1"],
    "verify": ["verify", "evil/model"],
    "vector": ["vector", "extract", "out", "--base", str(WORLD / "base"), "--chat", "evil/model"],
}


@pytest.mark.parametrize("command", HUB_COMMANDS)
@pytest.mark.parametrize("case", ON_HUB)
def test_a_hostile_model_of_the_hub_is_looked_at_before_it_is_opened(
    case: str, command: str, on_hub: hub.Hub, tmp_path: Path
) -> None:
    change, says = ON_HUB[case]
    change(on_hub.folder / "evil" / "model")
    assert says in refusal(chatvec(*HUB_COMMANDS[command]))
    cached = {file.name for file in (tmp_path / "cache").rglob("*")}
    assert "model.safetensors" not in cached or command == "verify"
    if case == "a file without an end":
        assert "generation_config.json" not in cached
    assert not Path("/tmp/chatvec-was-here.jinja").exists()


ASKED = ["chat", "evil/model", "--ask", "say cup .", "--max-new-tokens", "2", "--greedy"]


def test_a_model_of_the_hub_that_is_right_is_talked_to_and_again_without_the_hub(
    on_hub: hub.Hub,
) -> None:
    for trouble in (None, 503, 0):
        on_hub.trouble = trouble
        answered = chatvec(*ASKED)
        assert answered.exit_code == 0, answered.output


def test_an_adapter_does_not_bring_the_model_that_it_names(on_hub: hub.Hub) -> None:
    change = with_json("adapter_config.json", base_model_name_or_path="evil/other")
    change(on_hub.folder / "evil" / "model")
    assert "is an adapter to another model" in refusal(chatvec(*ASKED))


# --- adapters ---------------------------------------------------------------------------------

FACTORS = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
ENDLESS = r"(\w+\.?)*!"


def write_adapter(folder: Path) -> None:
    """Write a LoRA of the world's base, of rank 2."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    size = json.loads((WORLD / "base" / "config.json").read_text())["hidden_size"]
    factors = {FACTORS.format("A"): torch.ones(2, size), FACTORS.format("B"): torch.ones(size, 2)}
    save_file(factors, folder / "adapter_model.safetensors")


def with_pickle(content: bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink(missing_ok=True)
        (folder / "adapter_model.bin").write_bytes(content)

    return change


def bomb() -> bytes:
    """Return an archive like torch's, of a pickle that is packed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (1 << 24))
        archive.writestr("archive/version", "3")
    return packed.getvalue()


class Acts:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("chatvec-was-here",)


CONFIG = "adapter_config.json"
ADAPTERS: dict[str, tuple[Change, str]] = {
    "a config without an end": (
        lambda folder: (folder / CONFIG).write_bytes(b" " * (17 << 20)) and None,
        "larger than",
    ),
    "a config that is none": (with_text(CONFIG, "[]"), "is []"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"has no {CONFIG}"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "neither"),
    "a rank without an end": (with_json(CONFIG, r=10**9), "`r` is 1000000000"),
    "a rank that its weights do not have": (with_json(CONFIG, r=60_000), "have 2 at most"),
    "a rank of one module without an end": (
        with_json(CONFIG, rank_pattern={"q_proj": 10**9}),
        "rank_pattern.q_proj",
    ),
    "an expression without an end": (with_json(CONFIG, target_modules=ENDLESS), "1 second"),
    "an expression for ranks without an end": (
        with_json(CONFIG, rank_pattern={ENDLESS: 2}),
        "1 second",
    ),
    "an expression that is none": (with_json(CONFIG, target_modules="("), "no regular"),
    "a scale without an end": (with_json(CONFIG, lora_alpha=1e300), "`lora_alpha` is 1e+300"),
    "a scale of one module without an end": (
        with_json(CONFIG, alpha_pattern={"q_proj": 1e300}),
        "alpha_pattern.q_proj",
    ),
    "a module to import": (
        with_json(CONFIG, megatron_config={"x": 1}, megatron_core="antigravity"),
        "megatron_config",
    ),
    "layers again and again": (with_json(CONFIG, layer_replication=[[0, 1]] * 9), "replication"),
    "another kind, which opens models": (
        with_json(CONFIG, peft_type="XLORA", adapters={"0": "evil/other"}),
        "of the kind 'XLORA'",
    ),
    "words that act": (with_json(CONFIG, peft_type="\x1b[8mLORA"), "of the kind"),
    "weights that are damaged": (
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 20) and None,
        "cannot be read",
    ),
}
PICKLES: dict[str, tuple[Change, str]] = {
    "a pickle that runs code": (with_pickle(pickle.dumps(Acts())), "cannot be read"),
    "a pickle that is packed": (with_pickle(bomb()), "unpacks to"),
}
HERE: dict[str, tuple[Change, str]] = {
    "a pipe for a config": (with_pipe(CONFIG), "is a pipe"),
    "a pipe for weights": (with_pipe("adapter_model.safetensors"), "is a pipe"),
    "a link out of the folder": (with_link(CONFIG, "/etc/hostname"), "is a link"),
}


def adapted(recipe: dict[str, Any], base: str, adapter: str) -> dict[str, Any]:
    """Return a recipe whose chat model is base with an adapter."""
    recipe["models"][1]["model"] = f"{base}+{adapter}"
    return recipe


@pytest.mark.parametrize("case", {**ADAPTERS, **PICKLES, **HERE})
def test_a_hostile_adapter_is_refused_in_one_line(
    case: str, recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, says = {**ADAPTERS, **PICKLES, **HERE}[case]
    monkeypatch.chdir(tmp_path)
    write_adapter(tmp_path / "adapter")
    adapted(recipe, str(tmp_path / "base"), str(tmp_path / "adapter"))
    options = {"lora_merge_cache": str(tmp_path / "merged")}
    assert checked(recipe, **options).of(Severity.ERROR) == []
    change(tmp_path / "adapter")
    errors = checked(recipe, **options).of(Severity.ERROR)
    assert len(errors) == 1
    assert says in as_printed(str(errors[0]))
    assert not Path("chatvec-was-here").exists()
    with pytest.raises(ChatVecError) as refused:
        surveyed(recipe, **options).ready()
    assert says in str(refused.value)


@pytest.fixture
def adapter_on_hub(on_hub: hub.Hub, tmp_path: Path) -> Path:
    """Return the folder of an adapter on the hub, `evil/adapter`; its model is `evil/model`."""
    shutil.copytree(WORLD / "base", tmp_path / "hub" / "evil" / "base")
    write_adapter(tmp_path / "hub" / "evil" / "adapter")
    return on_hub.folder / "evil" / "adapter"


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_hostile_adapter_of_the_hub_is_refused_before_its_weights_come(
    case: str, recipe: dict[str, Any], adapter_on_hub: Path, tmp_path: Path
) -> None:
    change, says = ADAPTERS[case]
    change(adapter_on_hub)
    adapted(recipe, str(tmp_path / "base"), "evil/adapter")
    errors = checked(recipe, lora_merge_cache=str(tmp_path / "merged")).of(Severity.ERROR)
    assert len(errors) == 1
    assert says in str(errors[0])
    cached = {file.name for file in (tmp_path / "cache").rglob("*")}
    assert not {name for name in cached if name.startswith("adapter_model")}
    assert CONFIG not in cached or case != "a config without an end"


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_of_the_hub_is_looked_at_before_peft_opens_it(
    case: str, recipe: dict[str, Any], adapter_on_hub: Path, tmp_path: Path
) -> None:
    change, says = PICKLES[case]
    change(adapter_on_hub)
    adapted(recipe, str(tmp_path / "base"), "evil/adapter")
    ready = surveyed(recipe, lora_merge_cache=str(tmp_path / "merged")).ready()
    with pytest.raises(ChatVecError) as refused:
        fetched(ready)
    assert says in str(refused.value)
    assert not Path("chatvec-was-here").exists()
    assert not (tmp_path / "merged").exists()


ADAPTER_COMMANDS: dict[str, list[str]] = {
    "merge": ["merge", "recipe.yaml", "out", "--lora-merge-cache", "merged"],
    "anatomy": ["anatomy", "recipe.yaml", "--lora-merge-cache", "merged"],
    "live": ["live", "recipe.yaml"],
    "evaluate": ["evaluate", "recipe.yaml", "--language", "en", "--limit", "1"],
    "vector": ["vector", "extract", "out", "--base", "base", "--chat", "base+evil/adapter"],
}


@pytest.mark.parametrize("command", ADAPTER_COMMANDS)
def test_every_command_looks_at_an_adapter_of_the_hub(
    command: str, recipe: dict[str, Any], adapter_on_hub: Path, tmp_path: Path
) -> None:
    change, says = ADAPTERS["another kind, which opens models"]
    change(adapter_on_hub)
    adapted(recipe, str(tmp_path / "base"), "evil/adapter")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    refused = chatvec(*ADAPTER_COMMANDS[command])
    assert refused.exit_code not in (0, None)
    assert says in refused.output
    assert "Traceback" not in refused.output
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_the_hub_is_added_as_one_that_is_here_is(
    recipe: dict[str, Any], on_hub: hub.Hub, adapter_on_hub: Path, tmp_path: Path
) -> None:
    options = {"lora_merge_cache": str(tmp_path / "merged")}
    sums = []
    for base, adapter in (("base", str(adapter_on_hub)), ("evil/base", "evil/adapter")):
        adapted(recipe, str(tmp_path / base) if base == "base" else base, adapter)
        ready = fetched(surveyed(recipe, **options).ready())
        (chat,) = (model for model in ready.models.values() if model.adapter is not None)
        assert chat.folder is not None
        sums.append(load_file(chat.folder / "model.safetensors"))
    assert sums[0].keys() == sums[1].keys()
    assert all(torch.equal(sums[0][name], sums[1][name]) for name in sums[0])
    name = "model.layers.0.self_attn.q_proj.weight"
    plain = load_file(WORLD / "base" / "model.safetensors")
    assert torch.equal(sums[1][name], plain[name].float() + 4)
    # And again without the hub, of what has come.
    adapted(recipe, str(tmp_path / "base"), "evil/adapter")
    on_hub.trouble = 503
    fetched(surveyed(recipe, **options).ready())


def test_a_model_that_is_an_adapter_itself_gets_no_other(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "adapter")
    with_json(CONFIG, base_model_name_or_path="evil/other")(tmp_path / "base")
    adapted(recipe, str(tmp_path / "base"), str(tmp_path / "adapter"))
    report = checked(recipe, lora_merge_cache=str(tmp_path / "merged"))
    (finding,) = report.of(Severity.ERROR)
    assert "is an adapter itself" in str(finding)
