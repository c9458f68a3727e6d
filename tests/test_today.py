"""The models that people use today: every way to merge them is exact, or says why not, in time.

A third of the table goes through here; `python -m tests.today` tries all of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from today import product
from today.by_hand import merge_by_hand
from today.miniatures import Trio, as_in_version_4, build, config_of
from today.oracle import LEFT_TO_THE_MERGE, Oracle, differences, rounded, vocabulary
from today.page import page
from today.sweep import Outcome, Row, State, try_out
from today.table import REPRESENTATIVE, TABLE, Architecture
from today.tokenizer_families import FAMILIES, SENTENCE, extended, lexicon, write
from transformers import AutoConfig, AutoTokenizer

MADE_BY_HAND = (
    *("llama-extended", "llama-markers", "qwen2-tied", "mixtral-merged", "deepseek_v3", "gpt_neox"),
    *("gemma4", "llava+llama"),
)
"""Each with another thing that is special."""
WRITTEN_IN_VERSION_4 = [entry for entry in TABLE.values() if entry.spelt == 4]


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    with product.quiet():
        yield


@pytest.fixture(scope="module", params=REPRESENTATIVE)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """Return what the product makes of an architecture."""
    folder = tmp_path_factory.mktemp("today")
    yield try_out(TABLE[request.param], folder)
    shutil.rmtree(folder)


def test_merge_is_exact(row: Row) -> None:
    assert row.check.state is State.PASSED, row.check.reasons
    assert row.merge.state is State.EXACT, row.merge.reasons


def test_stock_with_finish_is_exact_or_said_to_be_wrong(row: Row) -> None:
    assert not row.stock.state.is_a_fault, row.stock.reasons


def test_page_has_what_came_out_and_the_way_out() -> None:
    exact = Outcome(State.EXACT, elements=9, stops_at=("<|im_end|>",))
    refused = Outcome(State.REFUSED, ["..."])
    passed = Outcome(State.PASSED)
    text = page(
        [
            Row("qwen2", passed, exact, exact, "", 1.0),
            Row(
                "qwen3_vl", refused, refused, refused, "it has no head. Write another | model.", 1.0
            ),
        ]
    )
    assert "2 architectures: 1 exact" in text
    assert "| `qwen2` | Qwen2 and 2.5, A.X 4, ELYZA Shortcut | padded rows | ✓ | ✓ |" in text
    assert r"`<\|im_end\|>`" in text
    assert r"- `qwen3_vl`: it has no head. Write another \| model." in text


def test_table_has_the_models_of_today() -> None:
    seeing = [entry for entry in TABLE.values() if entry.vision]
    architectures = {entry.model_type for entry in TABLE.values()}
    assert len(architectures) >= 60
    assert len({entry.model_type for entry in seeing}) >= 13
    assert {entry.tokenizer for entry in TABLE.values()} == FAMILIES.keys()
    assert len(REPRESENTATIVE) * 3 >= len(TABLE)


# --- The miniatures are what they say ---------------------------------------------------------


@pytest.mark.parametrize("entry", WRITTEN_IN_VERSION_4, ids=lambda entry: entry.name)
def test_config_means_the_same_in_the_spelling_of_version_4(
    entry: Architecture, tmp_path: Path
) -> None:
    config = config_of(entry)
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(as_in_version_4(json.loads(file.read_text()))))
    read = AutoConfig.from_pretrained(tmp_path)
    assert "rope_parameters" not in file.read_text()
    # rope_parameters say these under version 5's names, too: the old words stay beside them
    ignored = {*LEFT_TO_THE_MERGE, "partial_rotary_factor", "type"}
    told, meant = (
        {**c.to_dict(), "rope": c.to_dict().get("rope_parameters")} for c in (read, config)
    )
    assert differences(told, meant, ignored) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_tokenizer_reads_all_languages_and_keeps_markers_whole(name: str, tmp_path: Path) -> None:
    words = lexicon(FAMILIES[name])
    write(tmp_path, words, chat=True, template_in_config=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(SENTENCE)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == SENTENCE
    assert tokenizer.get_vocab() == words.ids == vocabulary(tmp_path)
    assert tokenizer.convert_tokens_to_ids(list(words.family.markers)) == [
        words.ids[marker] for marker in words.family.markers
    ]


@pytest.mark.parametrize("name", ["qwen2", "llama-2", "llm-jp"])
def test_new_words_change_no_old_id(name: str) -> None:
    old = lexicon(FAMILIES[name])
    new = extended(old)
    assert new.tokens[: len(old.tokens)] == old.tokens
    assert len(new.tokens) > len(old.tokens) + 20


# --- The oracle sees what is wrong ------------------------------------------------------------


@pytest.mark.parametrize("name", MADE_BY_HAND)
def test_oracle_finds_nothing_in_the_right_output(name: str, tmp_path: Path) -> None:
    trio = build(TABLE[name], tmp_path)
    merge_by_hand(Oracle(trio), tmp_path / "out")
    assert Oracle(trio).judge(tmp_path / "out").problems == []


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """Return Qwen2 in miniature, by position, with the right output in `right`."""
    trio = build(TABLE["qwen2"], tmp_path_factory.mktemp("qwen2"))
    merge_by_hand(Oracle(trio), trio.folder / "right")
    return trio


@pytest.fixture(scope="module")
def oracle(trio: Trio) -> Oracle:
    return Oracle(trio)


@pytest.fixture
def right(trio: Trio, tmp_path: Path) -> Path:
    return shutil.copytree(trio.folder / "right", tmp_path / "out")


def _one_element(out: Path) -> None:
    tensors = load_file(out / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] *= 1.01
    save_file(tensors, out / "model.safetensors", {"format": "pt"})


def _one_tensor(out: Path) -> None:
    tensors = load_file(out / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, out / "model.safetensors", {"format": "pt"})


def _edited(file: str, **changes: object) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        content = json.loads((out / file).read_text())
        for key, value in changes.items():
            content.pop(key) if value is None else content.update({key: value})
        (out / file).write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_one_element, "elements off in 1 tensors"),
        (_one_tensor, "missing keys"),
        (_edited("generation_config.json", eos_token_id=0), "does not stop"),
        (_edited("generation_config.json", pad_token_id=0), "pad_token_id"),
        (_edited("config.json", rope_theta=10000.0), "rope_theta is 10000.0"),
        (_edited("config.json", rms_norm_eps=1e-5), "rms_norm_eps"),
        (_edited("config.json", torch_dtype=None), "torch_dtype"),
        (_edited("tokenizer_config.json", tokenizer_class="TokenizersBackend"), "tokenizer_class"),
        (_edited("tokenizer_config.json", chat_template="{{ messages }}"), "not chat's"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_oracle_finds_harm(
    oracle: Oracle, right: Path, harm: Callable[[Path], None], problem: str
) -> None:
    harm(right)
    assert any(problem in told for told in oracle.judge(right).problems)


def test_numbers_are_rounded_once() -> None:
    """Just above the middle of two bfloat16: float32 would make it the middle, and that is even."""
    value = torch.tensor([1 + 2**-8 + 2**-40], dtype=torch.float64).numpy()
    assert rounded(value, torch.bfloat16)[0] == 1 + 2**-7
    assert torch.from_numpy(value).bfloat16().item() == 1
