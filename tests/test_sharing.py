"""The whole way over a hub: a recipe of three names, its merge shared, found and made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import hub
import oracle
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import constants

import chatvec_method
from chatvec_method.cli import main
from chatvec_method.cli import new as new_command

CARDS: dict[str, dict[str, Any]] = {
    "o/base": {"license": "apache-2.0", "language": "en"},
    "o/chat": {"license": "cc-by-nc-4.0", "language": "en", "base_model": "o/base"},
    "o/cp": {"license": "apache-2.0", "language": ["en", "ko"], "base_model": "o/base"},
}
NAMES = {"o/base": "base", "o/chat": "chat", "o/cp": "cp_extended"}
RECIPE = """\
# A recipe with a comment
merge_method: chat_vector
base_model: o/cp # config and tokenizer
models:
  - {model: o/base, parameters: {role: base}} # the base
  - model: o/chat
    parameters: {role: chat, ratio: 0.5}
  - model: o/cp
    parameters: {role: cp}
tokenizer: {source: o/cp}
chat_template: auto
out_dtype: bfloat16
"""

BY_PART = RECIPE.replace("ratio: 0.5", "ratio: [{filter: mlp, value: 0.25}, {value: 0.5}]")
"""The same with ratios that are worth a picture."""


def put(served: hub.Hub, name: str, files: dict[str, str]) -> None:
    """Put a repository of small files on the hub."""
    folder = served.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")


def card(metadata: dict[str, Any], text: str = "") -> str:
    return f"---\n{yaml.safe_dump(metadata)}---\n{text}"


def shelve(shelf: Path, family: Path) -> None:
    for name, member in NAMES.items():
        (shelf / name).mkdir(parents=True)
        for file in (family / member).iterdir():
            (shelf / name / file.name).symlink_to(file)
        (shelf / name / "README.md").write_text(card(CARDS[name]))


@pytest.fixture
def served(tmp_path: Path, family: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    """Return a hub with three models, of which an empty current folder and cache have nothing."""
    shelve(tmp_path / "shelf", family)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with hub.serving(tmp_path / "shelf") as running:
        hub.ask(running, monkeypatch, tmp_path / "cache")
        yield running


@pytest.fixture(scope="module")
def merged_once(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the merge of the three models, as `chatvec merge` leaves it."""
    folder = tmp_path_factory.mktemp("merged")
    shelve(folder / "shelf", family)
    (folder / "recipe.yaml").write_text(BY_PART)
    with pytest.MonkeyPatch.context() as monkeypatch, hub.serving(folder / "shelf") as running:
        hub.ask(running, monkeypatch, folder / "cache")
        run("merge", str(folder / "recipe.yaml"), str(folder / "out"), "--quiet")
    return folder / "out"


@pytest.fixture
def merged(served: hub.Hub, merged_once: Path) -> Path:
    """Return the merge in the current folder, with its recipe; any test may change it."""
    Path("recipe.yaml").write_text(BY_PART)
    shutil.copytree(merged_once, "out")
    return Path("out")


def chatvec(*arguments: str, given: str | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: str) -> str:
    """Run a command that must succeed, and return what it printed on stdout."""
    result = chatvec(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    """Run a command that must fail with one line, and return that."""
    result = chatvec(*arguments)
    assert result.exit_code != 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return lines[0].removeprefix("Error: ")


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = oracle.stored_tensors(one), oracle.stored_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


# --- new --------------------------------------------------------------------------------------


def test_new_finds_base_and_names_the_chat_models_where_nobody_can_be_asked(
    served: hub.Hub,
) -> None:
    told = refused("new", "--cp", "o/cp")
    assert "Fine-tuned from o/base are o/chat (cc-by-nc-4.0)" in told
    assert "`--chat owner/name`" in told

    result = chatvec("new", "--cp", "o/cp", "--chat", "o/chat", "--ratio", "0.5", "-o", "new.yaml")
    assert result.exit_code == 0, result.output
    assert "base: o/base" in result.stderr
    recipe = yaml.safe_load(Path("new.yaml").read_text())
    assert recipe["chatvec"]["language"] == "ko"
    assert recipe["chatvec"]["licences"] == {
        "base": "apache-2.0",
        "chat": "cc-by-nc-4.0",
        "cp": "apache-2.0",
    }
    opening = " ".join(line.strip("# ") for line in Path("new.yaml").read_text().splitlines())
    assert "None is gated." in opening
    assert "the strictest is cc-by-nc-4.0, so the result is not for commercial use" in opening
    report = chatvec_method.check("new.yaml")
    assert {finding.severity for finding in report.findings} <= {chatvec_method.Severity.ADVICE}


def test_new_asks_on_a_terminal_for_what_is_left_out(
    served: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_command, "_asks", lambda: True)
    result = chatvec("new", "--cp", "o/cp", "-o", "new.yaml", given="y\n1\n")
    assert result.exit_code == 0, result.output
    assert [e["model"] for e in yaml.safe_load(Path("new.yaml").read_text())["models"]] == [
        "o/base",
        "o/chat",
        "o/cp",
    ]


def test_new_notices_names_in_each_others_place(served: hub.Hub) -> None:
    told = refused("new", "--base", "o/cp", "--cp", "o/base", "--chat", "o/chat")
    assert "o/cp is to be base, and its card says that it was made from o/base" in told


def test_new_says_what_is_missing_where_no_card_tells(served: hub.Hub) -> None:
    put(served, "o/base", {})
    assert "`--base owner/name`" in refused("new", "--cp", "o/base")


# --- recipes by name --------------------------------------------------------------------------


def test_a_recipe_is_read_from_a_file_a_config_or_the_card_of_a_repository(
    served: hub.Hub,
) -> None:
    text = "\n".join(["A model.", "", "```yaml", RECIPE, "```", ""])
    put(served, "a/file", {"recipe.yaml": RECIPE, "mergekit_config.yml": "x"})
    put(served, "a/config", {"mergekit_config.yml": RECIPE})
    put(served, "a/card", {"README.md": card({"license": "mit"}, text)})
    for name in ("a/file", "a/config", "a/card", f"{served.address}/a/file"):
        assert chatvec_method.read_recipe(name).raw == yaml.safe_load(RECIPE), name
    address = f"{served.address}/a/config/blob/main/mergekit_config.yml"
    assert chatvec_method.read_recipe(address).text == RECIPE


def test_what_strangers_write_stays_text(served: hub.Hub) -> None:
    tags = {"tags": ["chat-vector"]}
    hostile = RECIPE + 'chatvec: {title: "\\e[2J gone", language: [1]}\n'
    put(served, "a/escapes", {"recipe.yaml": hostile, "README.md": card(tags)})
    put(served, "a/fences", {"README.md": card(tags, "```yaml\n" * 20_000)})
    put(served, "a/code", {"recipe.yaml": "!!python/object/apply:os.getcwd []\n"})
    listed = {e["name"]: e for e in json.loads(run("recipes", "--hub", "a/", "--json"))}
    assert listed["a/escapes"]["title"] == "[2J gone"
    assert listed["a/fences"]["ratio"] == "?"
    assert "\x1b" not in run("recipes", "--hub", "a/")
    assert "a/code is not YAML" in refused("recipes", "show", "a/code")


def test_a_revision_behind_the_name_is_what_is_read(served: hub.Hub) -> None:
    put(served, "a/file", {"recipe.yaml": RECIPE})
    earlier = served.commit("a/file")
    served.change("a/file", {"recipe.yaml": RECIPE.replace("0.5", "0.75").encode()})
    ratios = [
        chatvec_method.read_recipe(name).raw["models"][1]["parameters"]["ratio"]
        for name in ("a/file", f"a/file@{earlier}", f"{served.address}/a/file/tree/{earlier}")
    ]
    assert ratios == [0.75, 0.5, 0.5]


def test_the_name_of_the_catalogue_is_that_recipe_unless_there_is_such_a_file(
    served: hub.Hub,
) -> None:
    assert chatvec_method.read_recipe("eeve_chat").raw["base_model"].startswith("yanolja/")
    Path("eeve_chat").write_text(RECIPE)
    assert chatvec_method.read_recipe("eeve_chat").raw["base_model"] == "o/cp"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a/secret", "a/secret is neither here nor on the hub (or private"),
        ("a/gated", "a/gated is gated"),
        ("a/none", "a/none has neither recipe.yaml, mergekit_config.yml nor a recipe in its card"),
        ("a/none@past", "a/none@past: the hub has no such revision"),
        ("a/large", "600001 bytes, and a recipe has 500000 at most"),
        ("missing.yaml", "the recipe missing.yaml cannot be read (No such file or directory)"),
        ("https://example.org/a/b", "https://example.org/a/b is no model's page on the hub"),
    ],
)
def test_a_recipe_that_cannot_be_had_is_one_line(served: hub.Hub, name: str, told: str) -> None:
    put(served, "a/secret", {"recipe.yaml": RECIPE})
    put(served, "a/gated", {"recipe.yaml": RECIPE})
    put(served, "a/none", {"README.md": card({"license": "mit"})})
    put(served, "a/large", {"recipe.yaml": "#" * 600_001})
    served.private.add("a/secret")
    served.gated.add("a/gated")
    assert told in refused("check", name)
    assert told in refused("merge", name, "out")
    assert not Path("out").exists()


def test_a_hub_that_is_not_there_is_one_line(
    served: hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.trouble = 0
    for command in (["check", "a/b"], ["recipes", "--hub", "korean"], ["pin", "a/b"]):
        assert "cannot be reached" in refused(*command)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("merge", "a/b", "out")


# --- pin --------------------------------------------------------------------------------------


def test_a_pinned_recipe_means_the_same_after_its_models_have_changed(
    served: hub.Hub, family: Path
) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    run("merge", "recipe.yaml", "before", "--quiet")
    commits = {name: served.commit(name) for name in NAMES}
    printed = run("pin", "recipe.yaml")
    assert set(printed.splitlines()) == {f"{name}@{commits[name]}" for name in NAMES}
    text = Path("recipe.yaml").read_text()
    assert [line.partition("#")[2] for line in text.splitlines()] == [
        line.partition("#")[2] for line in RECIPE.splitlines()
    ], "comments were lost"
    assert run("pin", "recipe.yaml") == "Nothing to change.\n"

    weights = [
        f for f in sorted((served.folder / "o/chat").iterdir()) if f.suffix == ".safetensors"
    ]
    other = sorted((family / "chat2").glob("*.safetensors"))
    served.change("o/chat", {f.name: o.read_bytes() for f, o in zip(weights, other, strict=True)})
    run("merge", "recipe.yaml", "pinned", "--quiet")
    Path("plain.yaml").write_text(RECIPE)
    run("merge", "plain.yaml", "after", "--quiet")
    assert same_weights(Path("before"), Path("pinned"))
    assert not same_weights(Path("before"), Path("after"))


def test_pin_prints_a_recipe_that_is_no_file_here(served: hub.Hub) -> None:
    put(served, "a/file", {"recipe.yaml": RECIPE})
    assert f"base_model: o/cp@{served.commit('o/cp')} # config" in run("pin", "a/file")
    assert not list(Path().iterdir())


def test_merge_and_card_record_the_commits_and_a_second_finish_changes_nothing(
    served: hub.Hub, merged: Path
) -> None:
    recorded = (merged / "mergekit_config.yml").read_text()
    text = (merged / "README.md").read_text()
    for name in NAMES:
        assert f"{name}@{served.commit(name)}" in recorded
        assert f"https://huggingface.co/{name}/tree/{served.commit(name)}" in text
    assert recorded.startswith("# A recipe with a comment\n")
    assert run("finish", "out") == "Nothing to change.\n"
    assert run("finish", "out", "--recipe", "recipe.yaml") == "Nothing to change.\n"


# --- share ------------------------------------------------------------------------------------


def test_what_is_shared_is_found_verified_and_made_again_by_its_name(
    served: hub.Hub, merged: Path
) -> None:
    result = chatvec("share", "out", "me/ours")
    assert result.exit_code == 0, result.output
    assert "o/chat: its licence, cc-by-nc-4.0, makes the result non-commercial" in result.stderr
    there = served.folder / "me/ours"
    assert same_weights(merged, there)
    text = (there / "README.md").read_text()
    for file in merged.glob("*.safetensors"):
        assert f"`{sha256(file.read_bytes()).hexdigest()}`" in text
    assert 'name = "me/ours"' in text
    assert f"o/chat@{served.commit('o/chat')}" in text
    assert (there / "ratio.png").is_file()
    assert "me/ours" not in served.private
    assert len([r for r in served.requests if "/commit/" in r]) == 1

    (listed,) = json.loads(run("recipes", "--hub", "ours", "--json"))
    assert (listed["name"], listed["ratio"], listed["chats"]) == (
        "me/ours",
        "by part",
        [f"o/chat@{served.commit('o/chat')}"],
    )
    assert run("recipes", "--hub", "nothing like it") == "Nothing found.\n"

    run("merge", "me/ours", "again", "--quiet")
    assert same_weights(merged, Path("again"))
    assert chatvec_method.verify("me/ours").tensors == len(oracle.stored_tensors(merged))


def test_an_upload_that_broke_off_goes_on_where_it_stopped(served: hub.Hub, merged: Path) -> None:
    large = [file for file in merged.iterdir() if file.name.endswith(hub.LARGE)]
    assert len(large) > 1
    served.breaks_after = 1
    assert "broke off" in refused("share", "out", "me/ours")
    assert not list((served.folder / "me/ours").iterdir()), "half a model is there"
    served.breaks_after = None
    run("share", "out", "me/ours")
    assert len(served.received) == len(set(served.received)) == len(large), "one was sent twice"
    assert same_weights(merged, served.folder / "me/ours")


def test_a_second_share_leaves_no_weights_of_the_first(served: hub.Hub, merged: Path) -> None:
    put(served, "me/ours", {"model-00001-of-00009.safetensors": "old", "notes.txt": "mine"})
    run("share", "out", "me/ours")
    names = {file.name for file in (served.folder / "me/ours").iterdir()}
    assert "model-00001-of-00009.safetensors" not in names
    assert "notes.txt" in names


def test_share_says_what_it_would_send_and_sends_nothing(served: hub.Hub, merged: Path) -> None:
    before = len(served.requests)
    printed = run("share", "out", "me/ours", "--dry-run")
    assert "mergekit_config.yml" in printed
    assert "Would send" in printed
    assert not (served.folder / "me/ours").exists()
    assert not [r for r in served.requests[before:] if r.startswith(("POST", "PUT"))]


def test_share_private_makes_what_only_its_owner_sees(
    served: hub.Hub, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("share", "out", "me/ours", "--private")
    assert "me/ours" in served.private
    assert chatvec_method.read_recipe("me/ours").raw["out_dtype"] == "bfloat16"
    monkeypatch.delenv("HF_TOKEN")
    assert "neither here nor on the hub" in refused("check", "me/ours")


def test_share_refuses_what_is_not_finished_not_right_or_not_ones_own(
    served: hub.Hub, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "does not let you" in refused("share", "out", "you/ours")
    assert "does not say whose" in refused("share", "out", "ours")
    generation = (merged / "generation_config.json").read_text()
    (merged / "generation_config.json").unlink()
    assert "Run `chatvec finish out` first" in refused("share", "out", "me/ours")
    (merged / "generation_config.json").write_text(generation)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path("no-token").absolute()))
    assert refused("share", "out", "me/ours") == (
        "you are not logged in to the hub. Run `hf auth login`."
    )
    weights = next(merged.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-2] ^= 0x40
    weights.write_bytes(content)
    refused("share", "out", "me/ours")
    assert not (served.folder / "me/ours").exists()


def test_a_card_that_somebody_wrote_is_sent_as_it_is(served: hub.Hub, merged: Path) -> None:
    own = (merged / "README.md").read_text() + "\n## Samples\n"
    (merged / "README.md").write_text(own)
    result = chatvec("share", "out", "me/ours")
    assert "README.md was written by somebody" in result.stderr
    assert (served.folder / "me/ours" / "README.md").read_text() == own


def test_a_recipe_alone_is_shared_and_merged_by_its_name(served: hub.Hub) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    run("share", "recipe.yaml", "me/recipe")
    assert {file.name for file in (served.folder / "me/recipe").iterdir()} == {
        "README.md",
        "recipe.yaml",
    }
    assert (served.folder / "me/recipe" / "recipe.yaml").read_text() == RECIPE
    run("merge", "me/recipe", "out", "--quiet")
    assert [e["name"] for e in json.loads(run("recipes", "--hub", "", "--json"))] == ["me/recipe"]


def test_share_warns_of_gated_models_strict_licences_and_folders(
    served: hub.Hub, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served.folder / "o/chat" / "README.md").write_text(card({"license": "cc-by-nd-4.0"}))
    shutil.copytree(served.folder / "o/base", "here-base")
    Path("folder.yaml").write_text(RECIPE.replace("o/base", "here-base"))
    result = chatvec("share", "folder.yaml", "me/recipe", "--dry-run")
    assert "o/chat: its licence, cc-by-nd-4.0, forbids sharing" in result.stderr
    assert "here-base is a folder here" in result.stderr


# --- the catalogue ----------------------------------------------------------------------------


def test_recipes_of_the_catalogue_are_listed_shown_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "EEVE-Korean + SOLAR-Instruct" in run("recipes")
    assert run("recipes", "show", "world").startswith("# ")
    assert "eeve_chat.yaml is written" in run("recipes", "copy", "eeve_chat")
    assert Path("eeve_chat.yaml").read_text() == run("recipes", "show", "eeve_chat")
    assert "eeve_chat.yaml exists" in refused("recipes", "copy", "eeve_chat")
    assert "the catalogue has no recipe nothing" in refused("recipes", "show", "nothing")


# --- a Space ----------------------------------------------------------------------------------


def test_a_space_of_a_recipe_names_its_models_and_their_licence(served: hub.Hub) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    result = chatvec("live", "--space", "space", "recipe.yaml")
    assert result.exit_code == 0, result.output
    assert "o/chat: its licence, cc-by-nc-4.0, makes the result non-commercial" in result.stderr
    space = Path("space")
    assert (space / "recipe.yaml").read_text() == RECIPE
    assert 'serve_space("recipe.yaml")' in (space / "app.py").read_text()
    stated = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert stated["models"] == ["o/base", "o/chat", "o/cp"]
    assert stated["license"] == "other"
    assert stated["license_name"] == "apache-2.0-and-cc-by-nc-4.0"
