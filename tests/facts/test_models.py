"""What is told of a model without reading weights: in a folder, on a hub, and where it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hub
import oracle
import pytest
import torch
import zoo
from conftest import FAMILY
from hub import Hub
from mergekit.common import ModelReference
from sparse import build_sparse_model

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, look_up, look_up_all

SHARD = "model-00001-of-00002.safetensors"


def known(name: Path | str) -> Model:
    return look_up(ModelReference.parse(str(name)))


def refusal(name: Path | str) -> ChatVecError:
    with pytest.raises(ChatVecError) as refused:
        known(name)
    assert str(name) in refused.value.problem
    return refused.value


# --- in a folder ------------------------------------------------------------------------------


@pytest.fixture
def copied(family: Path, tmp_path: Path) -> Path:
    """Return a model's folder that a test may damage."""
    return shutil.copytree(family / "chat", tmp_path / "chat")


@pytest.mark.parametrize("name", ["chat", "cp32", "cp_extended"])
def test_headers_tell_of_every_tensor_what_is_stored(name: str, family: Path) -> None:
    model = known(family / name)
    stored = oracle.stored_tensors(family / name)
    assert model.tensors is not None
    assert {n: (h.dtype, h.shape) for n, h in model.tensors.items()} == {
        n: (t.dtype, tuple(t.shape)) for n, t in stored.items()
    }
    assert sum(h.bytes for h in model.tensors.values()) == sum(t.nbytes for t in stored.values())
    assert (model.pickled, model.file_problem) == (False, "")


def test_the_tokenizer_s_ids_roles_and_template_are_known(family: Path) -> None:
    model = known(family / "chat")
    assert model.tokenizer is not None
    assert model.tokenizer.ids == oracle.vocabulary(family / "chat")
    assert model.tokenizer.special["eos_token"] == "</s>"
    assert model.tokenizer.chat_template == zoo.LLAMA_2_TEMPLATE
    assert model.eos_token_ids == (2,)


def test_pickles_are_told_from_safetensors_and_show_the_same(family: Path, copied: Path) -> None:
    zoo.pickle_shards(copied)
    model, original = known(copied), known(family / "chat")
    assert model.pickled
    assert model.tensors is not None
    assert original.tensors is not None
    shapes = {n: (h.dtype, h.shape) for n, h in model.tensors.items() if "inv_freq" not in n}
    assert shapes == {n: (h.dtype, h.shape) for n, h in original.tensors.items()}


@pytest.mark.parametrize("indexed", [False, True])
def test_a_pickle_that_would_run_code_is_not_loaded(
    indexed: bool, copied: Path, tmp_path: Path
) -> None:
    for file in copied.glob("*.safetensors*"):
        file.unlink()
    torch.save({"weight": Touches(tmp_path / "touched")}, copied / "pytorch_model.bin")
    if indexed:
        shard = {"weight_map": {"weight": "pytorch_model.bin"}}
        (copied / "pytorch_model.bin.index.json").write_text(json.dumps(shard))

    model = known(copied)

    assert model.tensors is None
    assert model.pickled
    assert "pytorch_model.bin cannot be read" in model.file_problem
    assert not (tmp_path / "touched").exists()


class Touches:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.file,)


def cut_short(folder: Path) -> None:
    file = folder / SHARD
    file.write_bytes(file.read_bytes()[:-2])


def without_shard(folder: Path) -> None:
    (folder / SHARD).unlink()


def with_garbage(folder: Path) -> None:
    (folder / SHARD).write_bytes(b"\x09\0\0\0\0\0\0\0not json!")


def with_an_empty_file(folder: Path) -> None:
    (folder / SHARD).write_bytes(b"")


def with_a_stranger_in_the_index(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.stranger"] = SHARD
    index.write_text(json.dumps(content))


def with_a_broken_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{")


def without_weights(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_short, f"{SHARD} has "),
        (without_shard, f"{SHARD} is missing, which the index names"),
        (with_garbage, SHARD),
        (with_an_empty_file, SHARD),
        (with_a_stranger_in_the_index, "model.stranger"),
        (with_a_broken_index, "Expecting property name"),
        (without_weights, "neither safetensors nor pytorch_model.bin"),
    ],
)
def test_damaged_weight_files_are_told_and_the_rest_is_known(
    damage: Callable[[Path], None], says: str, copied: Path
) -> None:
    damage(copied)
    model = known(copied)
    assert says in model.file_problem
    assert model.tokenizer is not None


@pytest.mark.parametrize("content", [None, "{}", "[]", '{"model_type": "unheard-of"}', "{", ""])
def test_a_config_that_cannot_be_read_is_an_error_with_the_reason(
    content: str | None, copied: Path
) -> None:
    (copied / "config.json").unlink()
    if content is not None:
        (copied / "config.json").write_text(content)
    assert refusal(copied).code == "config-unreadable"


def test_a_generation_config_that_is_no_json_is_named(copied: Path) -> None:
    (copied / "generation_config.json").write_text("{eos_token_id: 2}")
    with pytest.raises(ChatVecError, match=r"generation_config\.json is no JSON"):
        known(copied)


@pytest.mark.parametrize("content", ["[]", '{"eos_token_id": [[2], "x"]}'])
def test_an_odd_generation_config_is_survived(content: str, copied: Path) -> None:
    (copied / "generation_config.json").write_text(content)
    assert known(copied).eos_token_ids in ((), (2,))


def test_a_missing_tokenizer_is_a_reason_and_no_error(copied: Path) -> None:
    for file in copied.glob("tokenizer*"):
        file.unlink()
    model = known(copied)
    assert model.tokenizer is None
    assert model.tokenizer_problem


def test_a_file_is_no_model(copied: Path) -> None:
    error = refusal(copied / SHARD)
    assert error.code == "model-is-a-file"
    assert "`mergekit-pytorch`" in error.fix


def test_of_an_adapter_the_model_below_is_known(family: Path, tmp_path: Path) -> None:
    model = known(f"{family / 'cp'}+{tmp_path / 'adapter'}")
    assert model.tensors is not None
    assert {header.dtype for header in model.tensors.values()} == {torch.bfloat16}
    assert model.tokenizer is not None
    assert model.file_problem == ""


def test_licence_and_languages_come_from_the_card(copied: Path) -> None:
    (copied / "README.md").write_text("---\nlicense: mit\nlanguage: [ko, en]\n---\n# A model\n")
    card = known(copied).card
    assert (card.license, card.language) == ("mit", ["ko", "en"])
    (copied / "README.md").write_text("---\n: [\n---\n")
    assert known(copied).card.license is None


# --- on a hub ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models of the owner `o`, as a hub has them."""
    folder = tmp_path_factory.mktemp("shelf")
    names = {"base": ["base"], "chat": ["chat"], "cp": ["cp"]}
    zoo.build_family(folder / "o", {name: FAMILY[name] for name in names}, **names)
    shutil.copytree(folder / "o" / "chat", folder / "o" / "pickled")
    zoo.pickle_shards(folder / "o" / "pickled")
    sizes = {"layers": 2, "hidden": 1024, "intermediate": 2048, "heads": 8, "vocabulary": 1024}
    build_sparse_model(folder / "o" / "large", **sizes, shards=3)
    shutil.copytree(folder / "o" / "cp", folder / "o" / "unconfigured")
    (folder / "o" / "unconfigured" / "config.json").unlink()
    return folder


@pytest.fixture
def the_hub(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub.serving(shelf) as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        yield served


@pytest.mark.parametrize("name", ["o/chat", "o/chat@main", "o/large"])
def test_a_model_on_the_hub_is_known_as_one_in_a_folder(
    name: str, the_hub: Hub, shelf: Path
) -> None:
    there, here = known(name), known(shelf / name.partition("@")[0])
    assert there.tensors == here.tensors
    assert there.tokenizer == here.tokenizer
    assert there.generation_config == here.generation_config
    assert there.config.to_diff_dict() == here.config.to_diff_dict()
    assert there.folder is None
    assert there.commit == the_hub.commit("o/chat" if "chat" in name else "o/large")
    assert there.card.license == "apache-2.0"


def test_no_weights_are_downloaded(the_hub: Hub, shelf: Path, tmp_path: Path) -> None:
    model = known("o/large")
    stored = sum(file.stat().st_size for file in (shelf / "o" / "large").glob("*.safetensors"))
    assert model.tensors is not None
    assert stored > 20e6
    assert the_hub.weight_bytes <= 3 * 100_001  # the beginnings of three files
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_of_pickles_on_the_hub_no_tensor_is_known(the_hub: Hub) -> None:
    model = known("o/pickled")
    assert model.pickled
    assert model.tensors is None
    assert model.file_problem == ""
    assert the_hub.weight_bytes == 0


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("o/nobody", "no-such-model", "neither a folder here nor a model on the hub"),
        ("o/chat@v9", "no-such-revision", "Write `o/chat` for the newest"),
        ("not a name!", "no-such-model", "`upstage/SOLAR-10.7B-v1.0`"),
        ("o/cp", "model-gated", "https://huggingface.co/o/cp"),
        ("o/unconfigured", "config-unreadable", "config.json"),
        ("x" * 300, "no-such-model", "neither a folder here"),
    ],
)
def test_what_the_hub_does_not_give_is_one_message_with_its_reason(
    name: str, code: str, says: str, the_hub: Hub
) -> None:
    the_hub.gated.add("o/cp")
    error = refusal(name)
    assert error.code == code
    assert says in str(error)


def test_a_hub_in_trouble_says_so(the_hub: Hub) -> None:
    the_hub.trouble = 503
    error = refusal("o/chat")
    assert error.code == "hub-error"
    assert "503" in error.problem


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_cannot_be_reached_is_asked_once_for_all_models(
    offline: bool, the_hub: Hub, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_hub.trouble = 0
    if offline:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    names = ["o/base", str(family / "cp"), "o/chat", "o/cp"]

    models, problems = look_up_all(map(ModelReference.parse, names))

    assert [str(model) for model in models] == [str(family / "cp")]
    assert [problem.code for problem in problems] == ["hub-unreachable"] * 3
    assert "o/chat is not a folder here, and the hub cannot be reached" in problems[1].problem
    assert "a folder `o/chat` below the current one" in problems[1].fix
    assert len([each for each in the_hub.requests if "/o/" in each]) == (0 if offline else 1)


def test_a_folder_of_the_same_name_comes_before_the_hub(
    the_hub: Hub, family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(family / "cp", tmp_path / "o" / "chat")
    monkeypatch.chdir(tmp_path)
    assert known("o/chat").folder == Path("o/chat")
    assert the_hub.requests == []
