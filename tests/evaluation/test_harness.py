"""lm-evaluation-harness as it is: a task's figures are its own, and beside them is what we add."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import harness
from chatvec_method.evaluation.adapter import ChatModel, Response
from chatvec_method.evaluation.harness import Evaluation, Tasks, evaluate, load_tasks
from chatvec_method.talk.speaker import Speaker, load
from examples.world import exam
from examples.world.evaluate import TASKS
from examples.world.language import VALUES, to_b

MODELS = ROOT / "examples" / "world" / "models"
REQUESTS = [
    prompt.exchanges[0]
    for task in ("repeat", "first", "question")
    for each in exam.following()[task][:5]
    for prompt in (each, each.in_b())
]
QUESTIONS = [
    question
    for task in ("question", "local fact")
    for prompt in exam.following()[task]
    for question in (prompt.exchanges[0], prompt.in_b().exchanges[0])
]
"""Half of them about people of whom only cp has read."""
WRITTEN = {
    "test_split": "test",
    "doc_to_text": "{{request}}",
    "doc_to_target": "{{answer}}",
    "output_type": "generate_until",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 10},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
FILTERS = [
    {"name": "whole", "filter": [{"function": "take_first"}]},
    {
        "name": "first-word",
        "filter": [
            {"function": "regex", "regex_pattern": r"^(\S+)"},
            {"function": "take_first"},
        ],
    },
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tasks that know nothing of us, on JSON files."""
    folder = tmp_path_factory.mktemp("tasks")
    rows: dict[str, list[dict[str, Any]]] = {
        "requests": [{"request": each.request, "answer": each.answer} for each in REQUESTS],
        "first_words": [
            {"request": each.request, "answer": each.answer.split()[0]} for each in REQUESTS
        ],
        "colours": [
            {
                "request": request.request,
                "choices": [f" {colour}" for colour in colours],
                "gold": colours.index(request.answer.removesuffix(" .")),
            }
            for colours in (VALUES["color"], to_b(VALUES["color"]))
            for request in QUESTIONS
            if request.answer.removesuffix(" .") in colours
        ],
    }
    for name, each in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in each]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def write(task: str, data: str, **settings: Any) -> None:
        files = {"test": str(folder / f"{data}.jsonl")}
        source = {"data_files": files, "cache_dir": str(folder / "cache")}
        config = {"task": task, "dataset_path": "json", "dataset_kwargs": source, **settings}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))

    write("plain", "requests", **WRITTEN)
    write("filtered", "first_words", **WRITTEN, filter_list=FILTERS)
    greedily = WRITTEN["generation_kwargs"]
    drawing = {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": 3.0}
    write("cut", "requests", **WRITTEN | {"generation_kwargs": greedily | {"until": ["."]}})
    write("drawn", "requests", **WRITTEN | {"generation_kwargs": drawing})
    write("twice", "requests", **WRITTEN, repeats=2)
    write(
        "choice",
        "colours",
        test_split="test",
        fewshot_split="test",
        num_fewshot=1,
        output_type="multiple_choice",
        doc_to_text="{{request}}",
        doc_to_target="gold",
        doc_to_choice="choices",
    )
    write(
        "text",
        "requests",
        test_split="test",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{request}} {{answer}}",
        metric_list=[{"metric": "word_perplexity"}],
    )
    return folder


@pytest.fixture(scope="module")
def tasks(folder: Path) -> Callable[..., Tasks]:
    """Return a function that loads tasks of the folder."""

    def tasks(*names: str) -> Tasks:
        return load_tasks(names, include_path=folder, include_defaults=False)

    return tasks


def load_model(name: str, like: Speaker | None = None) -> Speaker:
    """Load a model to count in float32: in bfloat16, answers depend on what else is in a batch."""
    speaker = load(str(MODELS / name), device="cpu", like=like)
    speaker.model.float()
    return speaker


@pytest.fixture(scope="module")
def chat() -> Speaker:
    return load_model("chat")


@pytest.fixture(scope="module")
def cp(chat: Speaker) -> Speaker:
    """Return a model that answers at length, and seldom rightly."""
    return load_model("cp", like=chat)


def figures(evaluation: Evaluation) -> dict[str, float]:
    return {f"{f.task} {f.metric},{f.filter}": f.value for f in evaluation.figures}


def figures_of_hf(model: Path, tasks: Sequence[str], folder: Path) -> dict[str, float]:
    """Return the figures of lm-eval's own model on the same folder, by lm-eval's own command."""
    with pytest.MonkeyPatch.context() as patch:
        # Four seconds of asking which compilers and drivers there are.
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
        results = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model), "device": "cpu", "dtype": "float32"},
            tasks=list(tasks),
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            batch_size=8,
            bootstrap_iters=0,
            apply_chat_template=True,
        )
    return {
        f"{task} {name}": value
        for task, values in results["results"].items()
        for name, value in values.items()
        if "," in name and "_stderr" not in name
    }


# --------------------------------------------------------------------------------- the same figures


def test_stock_tasks_have_the_figures_of_the_harness_own_model(
    chat: Speaker, tasks: Callable[..., Tasks], folder: Path
) -> None:
    names = ["plain", "filtered", "choice", "text"]
    ours = figures(evaluate(chat, tasks(*names), batch_size=8))
    stock = figures_of_hf(MODELS / "chat", names, folder)

    assert ours == pytest.approx(stock, rel=1e-6)
    assert ours.keys() == {
        "plain exact_match,none",
        "filtered exact_match,whole",
        "filtered exact_match,first-word",
        "choice acc,none",
        "choice acc_norm,none",
        "text word_perplexity,none",
    }
    assert 0.5 < ours["plain exact_match,none"] < 1
    assert ours["filtered exact_match,whole"] == 0
    assert 0.5 < ours["filtered exact_match,first-word"] < 1
    assert 0.1 < ours["choice acc,none"] < 1


def test_a_figure_says_of_what_it_is_and_which_way_is_better(
    chat: Speaker, tasks: Callable[..., Tasks]
) -> None:
    evaluation = evaluate(chat, tasks("filtered", "text"), batch_size=8)
    better = {(f.task, f.metric, f.filter): f.higher_is_better for f in evaluation.figures}

    assert better == {
        ("filtered", "exact_match", "whole"): True,
        ("filtered", "exact_match", "first-word"): True,
        ("text", "word_perplexity", "none"): False,
    }
    assert {figure.documents for figure in evaluation.figures} == {len(REQUESTS)}
    first_word = figures(evaluation)["filtered exact_match,first-word"]
    assert evaluation.value("filtered", "exact_match", "first-word") == first_word
    with pytest.raises(KeyError, match="filtered: exact_match,none"):
        evaluation.value("filtered", "exact_match")


def test_a_group_has_its_own_figures(chat: Speaker) -> None:
    evaluation = evaluate(
        chat,
        "world_following",
        include_path=TASKS,
        include_defaults=False,
        batch_size=64,
        limit=2,
    )
    (group,) = (f for f in evaluation.figures if (f.task, f.metric) == ("world_following", "stops"))
    parts = [f for f in evaluation.figures if f.metric == "stops" and f is not group]

    assert len(parts) == 6
    assert group.value == pytest.approx(sum(part.value for part in parts) / len(parts))
    assert group.documents == sum(part.documents for part in parts) == 12
    assert group.higher_is_better


# ---------------------------------------------------------------------- whether an answer has ended


def test_whether_an_answer_ended_is_beside_its_text(
    cp: Speaker, tasks: Callable[..., Tasks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exam, "LONGEST_ANSWER", WRITTEN["generation_kwargs"]["max_gen_toks"])
    evaluation = evaluate(cp, tasks("plain"), batch_size=7)
    prompts = [exam.Prompt((each,)).as_chat(cp.tokenizer) for each in REQUESTS]
    answers = exam.answer(cp.model, cp.tokenizer, prompts)

    assert [(each.answer, each.ended) for each in evaluation.samples] == [
        (each.text, each.stopped) for each in answers
    ]
    assert [(each.task, each.document) for each in evaluation.samples] == [
        ("plain", place) for place in range(len(REQUESTS))
    ]
    assert [each.prompt for each in evaluation.samples] == prompts
    assert {each.ended for each in evaluation.samples} == {True, False}
    assert all(type(each.answer) is str for each in evaluation.samples)


def test_a_stop_string_of_the_task_is_not_an_end_that_the_model_came_to(
    chat: Speaker, tasks: Callable[..., Tasks]
) -> None:
    ended = evaluate(chat, tasks("plain"), batch_size=8).samples
    chat = replace(chat, tokenizer=type(chat.tokenizer).from_pretrained(MODELS / "chat"))
    chat.tokenizer.pad_token = chat.tokenizer.eos_token  # as in models without padding token
    cut = evaluate(chat, tasks("cut"), batch_size=8).samples

    assert all(each.ended for each in ended)
    assert not any(each.ended for each in cut)
    assert [f"{each.answer}." for each in cut] == [each.answer for each in ended]


def test_an_answer_ends_at_each_stop_token_of_the_speaker(
    chat: Speaker, tasks: Callable[..., Tasks]
) -> None:
    stop = chat.tokenizer.convert_tokens_to_ids(".")
    impatient = replace(chat, stop_tokens=(*chat.stop_tokens, stop))
    plain, sooner = (
        evaluate(each, tasks("plain"), batch_size=8, limit=6).samples for each in (chat, impatient)
    )

    assert [f"{each.answer} ." for each in sooner] == [each.answer for each in plain]
    assert all(each.ended for each in sooner)


def test_answers_to_equal_requests_are_all_there(cp: Speaker, tasks: Callable[..., Tasks]) -> None:
    once = evaluate(cp, tasks("plain"), batch_size=8).samples
    twice = evaluate(cp, tasks("plain", "twice"), batch_size=8).samples

    assert [replace(each, task="plain") for each in twice if each.task == "twice"] == [
        each for each in once for _ in range(2)
    ]
    assert [each for each in twice if each.task == "plain"] == list(once)


def test_a_response_is_a_text() -> None:
    response = Response("cup .", ended=True)
    assert response == "cup ."
    assert json.dumps([response]) == '["cup ."]'
    assert pickle.loads(pickle.dumps(response)).ended


# ------------------------------------------------------------------------------------ its arguments


@pytest.mark.parametrize("batch_size", [1, 5])
def test_so_many_requests_are_answered_at_once(
    batch_size: int, chat: Speaker, tasks: Callable[..., Tasks], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    generate = chat.model.generate

    def watched(input_ids: torch.Tensor, **settings: Any) -> Any:
        sizes.append(len(input_ids))
        return generate(input_ids=input_ids, **settings)

    monkeypatch.setattr(chat.model, "generate", watched)
    evaluate(chat, tasks("plain"), batch_size=batch_size, limit=10)
    assert sizes == [batch_size] * (10 // batch_size)


def test_the_harness_can_find_the_batch_size(chat: Speaker, tasks: Callable[..., Tasks]) -> None:
    loaded = tasks("text")
    by_itself, as_told = (evaluate(chat, loaded, batch_size=size, limit=4) for size in ("auto", 4))
    assert figures(by_itself) == pytest.approx(figures(as_told))


@pytest.mark.parametrize("wanted", [True, False])
def test_the_tasks_of_the_harness_are_known_if_wanted(
    wanted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They are 14,000 files: that the harness finds them all when asked to is its own affair.
    asked: list[bool] = []

    def manager(include_defaults: bool, **settings: Any) -> TaskManager:
        asked.append(include_defaults)
        return TaskManager(include_defaults=False, **settings)

    monkeypatch.setattr(harness, "TaskManager", manager)
    load_tasks(["plain"], include_path=folder, include_defaults=wanted)
    assert asked == [wanted]


def test_only_the_documents_that_are_asked_for(chat: Speaker, tasks: Callable[..., Tasks]) -> None:
    loaded = tasks("plain", "filtered")
    some = evaluate(chat, loaded, samples={"plain": [9, 2, 9], "filtered": [0]}, batch_size=8)
    every = evaluate(chat, loaded, batch_size=8)

    assert [(each.task, each.document) for each in some.samples] == [
        ("plain", 2),
        ("plain", 9),
        ("filtered", 0),
    ]
    assert set(some.samples) <= set(every.samples)
    with pytest.raises(ValueError, match="plain has none"):
        evaluate(chat, loaded, samples={"plain": []})
    with pytest.raises(ValueError, match="nothing is not one of plain, filtered"):
        evaluate(chat, loaded, samples={"nothing": [1]})


def test_prompts_may_do_without_the_chat_format(chat: Speaker, tasks: Callable[..., Tasks]) -> None:
    plain = evaluate(chat, tasks("plain"), limit=3, apply_chat_template=False).samples
    assert [each.prompt for each in plain] == [each.request for each in REQUESTS[:3]]


def test_a_task_may_be_written_in_place(folder: Path, chat: Speaker) -> None:
    task = yaml.safe_load((folder / "plain.yaml").read_text()) | {"task": "in_place"}
    task["generation_kwargs"]["max_gen_toks"] = 1
    evaluation = evaluate(chat, [task], include_defaults=False, limit=4)

    assert all(len(each.answer.split()) == 1 for each in evaluation.samples)
    assert not any(each.ended for each in evaluation.samples)


def test_a_task_that_there_is_not_is_told_with_those_like_it(folder: Path) -> None:
    with pytest.raises(ChatVecError, match=r"there is no task plein\. Do you mean plain"):
        load_tasks(["plein"], include_path=folder, include_defaults=False)


def test_a_device_that_is_too_small_is_told_in_one_line(
    chat: Speaker, tasks: Callable[..., Tasks], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(chat.model, "generate", generate)
    with pytest.raises(ChatVecError, match=r"with 8 requests at once\. Take a smaller"):
        evaluate(chat, tasks("plain"), batch_size=8)


# ------------------------------------------------------------------------------------- again, again


def test_a_loaded_model_is_measured_as_its_weights_are_now(
    chat: Speaker, tasks: Callable[..., Tasks]
) -> None:
    loaded = tasks("filtered", "choice")
    base = load_model("base", like=chat)
    before = evaluate(base, loaded, batch_size=8)
    again = evaluate(base, loaded, batch_size=8)
    base.model.load_state_dict(chat.model.state_dict())
    after = evaluate(base, loaded, batch_size=8)

    assert again == before
    assert after != before
    assert after == evaluate(chat, loaded, batch_size=8)


def test_draws_are_the_same_every_time_and_leave_other_draws_alone(
    chat: Speaker, tasks: Callable[..., Tasks]
) -> None:
    loaded = tasks("drawn")
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = evaluate(chat, loaded, batch_size=8, limit=8)
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)

    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    assert evaluate(chat, loaded, batch_size=8, limit=8) == first
    greedy = evaluate(chat, tasks("plain"), batch_size=8, limit=8)
    assert [each.answer for each in greedy.samples] != [each.answer for each in first.samples]


# ----------------------------------------------------------------------------------------- progress


def test_progress_is_told_and_nothing_else(
    chat: Speaker, tasks: Callable[..., Tasks], capfd: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(kind: str, done: int, total: int) -> None:
        told.setdefault(kind, []).append((done, total))
        print(kind, done, file=sys.stderr)

    evaluate(chat, tasks("filtered", "choice", "text"), batch_size=8, on_progress=tell)
    printed = capfd.readouterr()

    colours = {f"{word} ." for word in (*VALUES["color"], *to_b(VALUES["color"]))}
    totals = {
        "generate_until": len(REQUESTS),
        "loglikelihood": sum(each.answer in colours for each in QUESTIONS) * len(VALUES["color"]),
        "loglikelihood_rolling": len(REQUESTS),
    }
    assert told == {
        kind: [(done, total) for done in range(total + 1)] for kind, total in totals.items()
    }
    assert printed.out == ""
    assert printed.err == "".join(
        f"{kind} {done}\n" for kind, each in told.items() for done, _ in each
    )


def test_without_anyone_to_tell_the_harness_shows_its_own_bars(
    chat: Speaker, tasks: Callable[..., Tasks], capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate(chat, tasks("filtered"), batch_size=8)
    assert "Running generate_until requests: 100%" in capfd.readouterr().err


def test_an_answer_that_the_tokenizer_has_no_token_for_is_told(chat: Speaker) -> None:
    request = Instance("loglikelihood", {}, ("so", "Q"), 0)
    with pytest.raises(ChatVecError, match="has no token for 'Q', an answer to choose"):
        ChatModel(chat).loglikelihood([request])
