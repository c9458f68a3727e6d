"""Talking to models: what they are asked, what is shown of their answers, what can go wrong."""

from __future__ import annotations

import builtins
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import ROOT
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutputWithPast

from chatvec_method import cli
from chatvec_method.cli import chat as chat_command
from chatvec_method.errors import ChatVecError
from chatvec_method.talk.conversation import Conversation
from chatvec_method.talk.speaker import Answer, Prompt, Sampling, Speaker, load
from examples.world import requests

MODELS = ROOT / "examples" / "world" / "models"
CP = MODELS / "cp"
BEGIN, END = 2, 3  # <s> and </s>, in all models of the world
CONTEXT = 128
ASKED = requests.first(["pen", "door", "shoe", "ship"]).in_b()
NEVER = 10**9

Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def out(merged_world: Path) -> Path:
    return merged_world


@pytest.fixture
def speaker(out: Path) -> Speaker:
    return load(str(out))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a model and lets edits loose on the copy."""

    def edit(model: Path, *edits: Edit) -> Path:
        copy = Path(shutil.copytree(model, tmp_path / f"{model.name}-edited"))
        for each in edits:
            each(copy)
        return copy

    return edit


def chatvec(*arguments: str | Path, typed: str = "") -> Result:
    result = CliRunner().invoke(cli.main, ["chat", *map(str, arguments)], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def settings(file: str, **values: Any) -> Edit:
    """Return an edit that changes values of a JSON file, and begins it if there is none."""

    def edit(folder: Path) -> None:
        old = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(old | values))

    return edit


def template(text: str) -> Edit:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


def without(*patterns: str) -> Edit:
    def edit(folder: Path) -> None:
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return edit


def swap_in_vocabulary(one: str, other: str) -> Edit:
    def edit(folder: Path) -> None:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        ids = tokenizer["model"]["vocab"]
        ids[one], ids[other] = ids[other], ids[one]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    return edit


def recite(
    speaker: Speaker,
    monkeypatch: pytest.MonkeyPatch,
    ids: Iterable[int],
    fail_at: int = NEVER,
    error: Exception | None = None,
) -> list[int]:
    """Let the model say these tokens, whatever it is asked; return a list that they go to."""
    said: list[int] = []
    source = iter(ids)

    def forward(input_ids: torch.Tensor, **_: Any) -> CausalLMOutputWithPast:
        if len(said) == fail_at and error is not None:
            raise error
        said.append(next(source))
        logits = torch.zeros(1, input_ids.shape[1], max(said[-1] + 1, 300))
        logits[..., said[-1]] = 1
        return CausalLMOutputWithPast(logits=logits)

    monkeypatch.setattr(speaker.model, "forward", forward)
    return said


def for_ever(token: int) -> Iterator[int]:
    while True:
        yield token


def words(speaker: Speaker, text: str) -> list[int]:
    return speaker.tokenizer(text, add_special_tokens=False)["input_ids"]


# --- what is asked ---


def test_the_request_is_written_as_the_models_own_template_has_it(speaker: Speaker) -> None:
    conversation = Conversation("no bad word").with_turn("say cup .", "cup .")

    ids = speaker.prompt(conversation, "say hat .").ids

    assert speaker.tokenizer.decode(ids[0]) == (
        "<s> [ user ] no bad word [ user ] say cup . [ bot ] cup . </s> [ user ] say hat . [ bot ]"
    )


def test_an_answer_draws_on_earlier_turns(out: Path) -> None:
    tell, between, ask = [
        exchange.in_b() for exchange in requests.recall("lamp", requests.repeat(["cup", "hat"]))
    ]
    lines = [tell.request, between.request, ask.request]

    remembered = chatvec(out, typed="\n".join(lines))
    forgotten = chatvec(out, typed="\n".join([*lines[:2], "/reset", lines[2]]))

    assert remembered.stdout.splitlines() == [tell.answer, between.answer, ask.answer]
    assert forgotten.stdout.splitlines()[:2] == [tell.answer, between.answer]
    assert forgotten.stdout.splitlines()[2] != ask.answer


def test_reset_forgets_the_turns_and_keeps_the_system_message() -> None:
    conversation = Conversation("no bad word").with_turn("say cup .", "cup .")

    assert conversation.obey("/reset").conversation == Conversation("no bad word")


@pytest.mark.parametrize(("line", "system"), [("/system  be kind ", "be kind"), ("/system", None)])
def test_a_new_system_message_begins_a_new_conversation(line: str, system: str | None) -> None:
    conversation = Conversation("no bad word").with_turn("say cup .", "cup .")

    assert conversation.obey(line).conversation == Conversation(system)


def test_help_names_every_command_and_forgets_nothing() -> None:
    conversation = Conversation().with_turn("say cup .", "cup .")
    obeyed = conversation.obey("/help")

    assert obeyed.conversation == conversation
    assert all(f"/{command}" in obeyed.said for command in ["reset", "system", "help", "quit"])


def test_a_full_context_drops_the_oldest_turns_and_says_how_many(speaker: Speaker) -> None:
    conversation = Conversation("no bad word")
    for noun in "apple ball bell boat book box bread chair clock cloud coat cup".split():
        conversation = conversation.with_turn(f"say {noun} .", f"{noun} .")

    prompt = speaker.prompt(conversation, "say hat .")

    text = speaker.tokenizer.decode(prompt.ids[0])
    assert prompt.forgotten > 0
    assert text.startswith("<s> [ user ] no bad word [ user ] say ")
    assert text.count("</s>") == len(conversation.turns) - prompt.forgotten
    assert conversation.turns[prompt.forgotten - 1][0] not in text
    assert conversation.turns[prompt.forgotten][0] in text
    assert text.endswith("say cup . [ bot ] cup . </s> [ user ] say hat . [ bot ]")
    assert prompt.room >= CONTEXT // 4
    assert prompt.ids.shape[1] + prompt.room <= CONTEXT


def test_turns_are_dropped_only_for_the_room_that_the_answer_may_take(speaker: Speaker) -> None:
    conversation = Conversation()
    for _ in range(8):
        conversation = conversation.with_turn("say cup .", "cup .")

    assert speaker.prompt(conversation, "say hat .", max_new_tokens=5).forgotten == 0
    assert speaker.prompt(conversation, "say hat .").forgotten > 0


def test_a_message_longer_than_the_context_is_refused(out: Path) -> None:
    result = chatvec(out, "--ask", "cup " * CONTEXT)

    assert result.exit_code == 1
    assert f"reads {CONTEXT} at most" in result.stderr


# --- what is answered ---


def test_pieces_join_to_what_a_plain_generate_writes(speaker: Speaker) -> None:
    prompt = speaker.prompt(Conversation(), ASKED.request)
    pieces = list(speaker.answer(prompt))

    written = speaker.model.generate(
        input_ids=prompt.ids, attention_mask=torch.ones_like(prompt.ids), max_new_tokens=50
    )
    plain = speaker.tokenizer.decode(written[0, prompt.ids.shape[1] :], skip_special_tokens=True)
    assert len(pieces) > 1
    assert "".join(pieces) == plain == ASKED.answer


def llama_2_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Return one that has ASCII's letters and bytes for the rest, and a space before it all."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*sorted({letter for letter in text if letter.isascii()} - {" ", "\n"}), "▁"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def byte_level_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Return one whose every token is a byte, as rare characters are in Llama 3's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: place for place, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("tokenizer_for", [llama_2_tokenizer, byte_level_tokenizer])
@pytest.mark.parametrize(
    "text",
    ["안녕, 세상아!", "こんにちは、カタカナ", "def f():\n    return 1\n\n    # 끝", "🙂 ok"],
)
def test_every_character_comes_through_as_soon_as_it_is_whole(
    text: str,
    tokenizer_for: Callable[[str], PreTrainedTokenizerBase],
    speaker: Speaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = tokenizer_for(text)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = speaker.prompt(Conversation(), "say cup .", max_new_tokens=len(ids))
    foreign = Speaker("x", speaker.model, tokenizer, speaker.template, stop_tokens=())
    recite(foreign, monkeypatch, ids)

    assert list(foreign.answer(prompt)) == list(text)


def test_an_answer_ends_at_the_stop_token_which_is_not_shown(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recite(speaker, monkeypatch, [*words(speaker, "cup . <s>"), END, *words(speaker, "hat .")])
    answer = speaker.answer(speaker.prompt(Conversation(), "say cup ."))

    assert "".join(answer) == answer.text == "cup ."
    assert answer.ended


def test_any_token_of_the_generation_config_ends_an_answer(
    out: Path, edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = load(str(out)).tokenizer.convert_tokens_to_ids("[")
    speaker = load(str(edited(out, settings("generation_config.json", eos_token_id=[END, turn]))))
    recite(speaker, monkeypatch, words(speaker, "cup . [ user ]"))
    answer = speaker.answer(speaker.prompt(Conversation(), "say cup ."))

    assert "".join(answer).startswith("cup .")
    assert answer.ended
    assert "user" not in answer.text


@pytest.mark.parametrize(
    ("asked_for", "configured", "length"), [(7, 11, 7), (None, 11, 11), (None, None, 117)]
)
def test_a_model_that_does_not_stop_is_cut_off_and_that_can_be_seen(
    out: Path,
    edited: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    asked_for: int | None,
    configured: int | None,
    length: int,
) -> None:
    config = settings("generation_config.json", max_new_tokens=configured, eos_token_id=END)
    speaker = load(str(edited(out, config)))
    prompt = speaker.prompt(Conversation(), "repeat cup hat .", asked_for)
    (cup,) = words(speaker, "cup")
    said = recite(speaker, monkeypatch, for_ever(cup))
    answer = speaker.answer(prompt)

    assert "".join(answer).split() == ["cup"] * length
    assert len(said) == length == prompt.room
    assert not answer.ended


def test_an_error_while_generating_reaches_the_reader_after_what_was_said(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cup,) = words(speaker, "cup")
    recite(speaker, monkeypatch, for_ever(cup), fail_at=3, error=RuntimeError("probability is nan"))
    answer = speaker.answer(speaker.prompt(Conversation(), "say cup ."))

    with pytest.raises(ChatVecError, match="broke off: probability is nan"):
        list(answer)
    assert answer.text.split() == ["cup"] * 3
    assert not answer.ended


def test_a_reader_who_leaves_stops_the_model(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cup,) = words(speaker, "cup")
    said = recite(speaker, monkeypatch, for_ever(cup))
    pieces = iter(speaker.answer(speaker.prompt(Conversation(), "say cup .")))

    assert next(pieces) == "cup"
    pieces.close()
    length = len(said)

    assert length < CONTEXT // 2
    assert not [each for each in threading.enumerate() if each.name.startswith("ThreadPool")]


# --- comparing ---


def test_compare_shows_both_answers_one_above_the_other(out: Path) -> None:
    result = chatvec(out, "--compare", CP, "--ask", ASKED.request, "--max-new-tokens", "12")

    assert result.exit_code == 0
    *above, empty, heading, answer = result.stdout.splitlines()
    assert above == [f"{out}:", ASKED.answer]
    assert empty == ""
    assert heading == f"{CP}:"
    assert answer
    assert answer != ASKED.answer


def test_any_number_of_models_can_be_compared(out: Path) -> None:
    chat = MODELS / "chat"
    options = ["--compare", CP, "--compare", chat, "--ask", ASKED.request, "--max-new-tokens", "4"]
    result = chatvec(out, *options)

    assert result.exit_code == 0
    headings = [line for line in result.stdout.splitlines() if line.endswith(":")]
    assert headings == [f"{out}:", f"{CP}:", f"{chat}:"]


def test_a_compared_model_that_does_not_stop_is_cut_off_sooner_and_that_is_told(
    out: Path, edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_command, "LONGEST_COMPARED", 8)
    endless = edited(CP, settings("generation_config.json", eos_token_id=None))
    result = chatvec(out, "--compare", endless, "--ask", ASKED.request)

    assert result.stderr == "Cut off after 8 tokens.\n"
    assert ASKED.answer in result.stdout.splitlines()


def test_a_cp_model_without_template_is_asked_in_the_others(speaker: Speaker) -> None:
    cp = load(str(CP), like=speaker)
    conversation = Conversation().with_turn("say cup .", "cup .")

    assert cp.tokenizer.chat_template is None
    assert torch.equal(
        cp.prompt(conversation, "say hat .").ids, speaker.prompt(conversation, "say hat .").ids
    )


def test_a_cp_model_with_a_template_keeps_it(speaker: Speaker, edited: Callable[..., Path]) -> None:
    cp = load(str(edited(CP, template("{{ messages[-1].content }}"))), like=speaker)

    assert cp.tokenizer.decode(cp.prompt(Conversation(), "say hat .").ids[0]) == "say hat ."


def test_a_model_that_is_loaded_already_can_be_talked_to(speaker: Speaker) -> None:
    again = Speaker.of(speaker.model, speaker.tokenizer, name=speaker.name)
    other = Speaker.of(speaker.model, speaker.tokenizer, name="live", template="{{ messages }}")

    assert again == speaker
    assert (other.name, other.template) == ("live", "{{ messages }}")
    with pytest.raises(ChatVecError, match="nothing says how it is talked to"):
        Speaker.of(speaker.model, load(str(CP), like=speaker).tokenizer, name="live")


def test_a_compared_model_stops_at_its_own_tokens_and_at_the_others_that_it_has(
    out: Path, edited: Callable[..., Path]
) -> None:
    (local,) = requests.question("bora", "color").in_b().request.split()[-2:-1]
    ids = load(str(out)).tokenizer.convert_tokens_to_ids(["[", local])
    merged = load(str(edited(out, settings("generation_config.json", eos_token_id=[END, *ids]))))

    chat = load(str(edited(MODELS / "chat", swap_in_vocabulary("[", "cup"))), like=merged)

    assert local not in chat.tokenizer.get_vocab()
    assert chat.stop_tokens == (END, chat.tokenizer.convert_tokens_to_ids("["))
    assert chat.stop_tokens[1] != ids[0]


def test_each_of_two_models_remembers_its_own_answers(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[Conversation]] = {}
    original = Speaker.prompt

    def watched(speaker: Speaker, conversation: Conversation, *rest: Any) -> Any:
        asked.setdefault(speaker.name, []).append(conversation)
        return original(speaker, conversation, *rest)

    monkeypatch.setattr(Speaker, "prompt", watched)
    chatvec(out, "--compare", CP, "--max-new-tokens", "5", typed=f"{ASKED.request}\nsay cup .\n")

    ((_, answer),) = asked[str(out)][-1].turns
    ((_, cp_answer),) = asked[str(CP)][-1].turns
    assert answer == ASKED.answer
    assert cp_answer != answer


# --- how tokens are chosen ---


def said(speaker: Speaker, sampling: Sampling) -> str:
    return "".join(speaker.answer(speaker.prompt(Conversation(), "repeat cup hat .", 20), sampling))


def test_a_seed_makes_chance_repeat_itself(speaker: Speaker) -> None:
    hot = [said(speaker, Sampling(temperature=50, seed=seed)) for seed in (1, 1, 2)]

    assert hot[0] == hot[1] != hot[2]


def test_greedy_takes_the_likeliest_whatever_the_model_says(
    out: Path, edited: Callable[..., Path]
) -> None:
    hot = settings("generation_config.json", do_sample=True, temperature=50.0, top_p=0.99)
    speaker = load(str(edited(out, hot)))

    assert said(speaker, Sampling(greedy=True)) == "cup hat ."
    assert said(speaker, Sampling(seed=1)) != "cup hat ."


def test_every_turn_has_a_seed_of_its_own_and_all_models_the_same(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int | None] = []
    original = Speaker.answer

    def watched(speaker: Speaker, prompt: Prompt, sampling: Sampling) -> Answer:
        seeds.append(sampling.seed)
        return original(speaker, prompt, sampling)

    monkeypatch.setattr(Speaker, "answer", watched)
    options = ["--compare", CP, "--seed", "7", "--temperature", "0.5", "--max-new-tokens", "2"]
    chatvec(out, *options, typed="say cup .\nsay hat .\n")

    assert seeds == [7, 7, 8, 8]


@pytest.mark.parametrize(
    "options", [["--greedy", "--temperature", "1"], ["--temperature", "0"], ["--seed", "x"]]
)
def test_what_cannot_be_chosen_is_a_usage_error(out: Path, options: list[str]) -> None:
    assert chatvec(out, "--ask", "say cup .", *options).exit_code == 2


# --- the command ---


def test_ask_prints_the_answer_alone(out: Path) -> None:
    result = chatvec(out, "--ask", ASKED.request)

    assert (result.exit_code, result.output) == (0, f"{ASKED.answer}\n")


def test_in_a_pipe_every_line_is_a_turn(out: Path) -> None:
    exchanges = [requests.repeat([noun, "hat"]) for noun in ("cup", "moon")]
    result = chatvec(out, typed="".join(f"{each.request}\n\n" for each in exchanges))

    assert result.exit_code == 0
    assert result.output == "".join(f"{each.answer}\n" for each in exchanges)


def test_quit_leaves(out: Path) -> None:
    result = chatvec(out, typed=f"/quit\n{ASKED.request}\n")

    assert (result.exit_code, result.output) == (0, "")


def test_an_answer_that_was_cut_off_is_told_beside_the_answer(out: Path) -> None:
    result = chatvec(out, "--ask", ASKED.request, "--max-new-tokens", "1")

    assert result.stdout == f"{ASKED.answer.split()[0]}\n"
    assert result.stderr == "Cut off after 1 tokens.\n"


def test_turns_that_no_longer_fit_are_told_once(out: Path) -> None:
    lines = [f"{requests.repeat(['cup', 'hat']).request}\n"] * 9
    result = chatvec(out, "--max-new-tokens", "20", typed="".join(lines))

    told = [line for line in result.stderr.splitlines() if "left out" in line]
    assert len(result.stdout.splitlines()) == 9
    assert 0 < len(told) < 9
    assert all(line.endswith(": 1.") for line in told)


def test_a_pipe_ends_with_an_error_at_a_command_that_there_is_not(out: Path) -> None:
    result = chatvec(out, typed="/rest\nsay cup .\n")

    assert result.exit_code == 1
    assert result.output == "Error: there is no command /rest. /help lists those there are.\n"


REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ bos_token + ' [ user ] ' + messages[-1].content + ' [ bot ]' }}"
)


def test_a_template_that_refuses_a_system_message_says_so_in_one_line(
    out: Path, edited: Callable[..., Path]
) -> None:
    model = edited(out, template(REFUSING))

    for result in (
        chatvec(model, "--system", "no bad word", "--ask", "say cup ."),
        chatvec(model, typed="/system no bad word\nsay cup .\n"),
    ):
        assert result.exit_code == 1
        (line,) = result.output.splitlines()
        assert line.startswith("Error: the chat template of ")
        assert "refuses the system message: System role not supported." in line


def type_at_terminal(monkeypatch: pytest.MonkeyPatch, lines: Iterable[str]) -> None:
    typed = iter(lines)

    def read(prompt: str = "") -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(chat_command, "_at_terminal", lambda: True)
    monkeypatch.setattr(builtins, "input", read)


def test_at_a_terminal_a_mistake_does_not_end_the_conversation(
    out: Path, edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    type_at_terminal(monkeypatch, ["/system no bad word", "/rest", ASKED.request])
    result = chatvec(edited(out, template(REFUSING)))

    assert result.exit_code == 0
    assert result.stderr.count("Error: ") == 2
    assert result.stdout == f"{ASKED.answer}\n\n"


def test_ctrl_c_ends_an_answer_and_not_the_conversation(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_at_terminal(monkeypatch, ["repeat cup hat .", "repeat cup hat ."])
    echo = chat_command.click.echo
    interrupts = iter([KeyboardInterrupt])

    def press_ctrl_c_once(message: Any = None, **rest: Any) -> None:
        echo(message, **rest)
        if message == " hat":
            for interrupt in interrupts:
                raise interrupt

    monkeypatch.setattr(chat_command.click, "echo", press_ctrl_c_once)
    result = chatvec(out)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[:2] == ["cup hat", "cup hat ."]
    assert "Stopped." in result.stderr


def test_help_shows_an_example_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from chatvec_method.cli import main\n"
        "try: main(['chat', '--help'])\n"
        "finally: print(sorted({'torch', 'transformers', 'mergekit', 'rich'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout

    assert "Example: chatvec chat out/ --compare " in printed
    assert printed.splitlines()[-1] == "[]"


# --- models that cannot be talked to ---


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CUSTOM_CODE = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("chat_template.jinja"), "no chat template, .* Run `chatvec finish "),
        (without("config.json"), "is not a finished model: it has no config.json. Run the merge"),
        (without("*.safetensors"), "is not a finished model: it has no weights"),
        (without("tokenizer*"), "is not a finished model: it has no tokenizer"),
        (cut_weights, "cannot be loaded: "),
        (lose_a_tensor, r"lacks 1 of its tensors, model.layers.1.mlp.up_proj.weight"),
        (settings("config.json", model_type="new", auto_map=CUSTOM_CODE), "--trust-remote-code"),
    ],
)
def test_a_model_that_is_not_complete_is_told_in_one_line(
    edit: Edit, message: str, edited: Callable[..., Path]
) -> None:
    result = chatvec(edited(MODELS / "chat", edit), "--ask", "say cup .")

    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "no/where/at/all"])
def test_a_folder_that_is_not_there_is_not_asked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = chatvec(name)

    assert result.exit_code == 1
    assert result.output == (
        f"Error: there is no folder {name}. Write the folder of a merge, or owner/name.\n"
    )


def test_a_device_that_is_not_there_is_told_in_one_line(out: Path) -> None:
    result = chatvec(out, "--device", "toaster", "--ask", "say cup .")

    assert result.exit_code == 1
    assert result.output.startswith("Error: device toaster cannot be used: ")
    assert len(result.output.splitlines()) == 1
