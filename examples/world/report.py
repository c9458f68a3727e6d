"""The exam of several models, marked and laid out side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .exam import Answer, Prompt, answer, dialogue_skills, share
from .language import gloss, language_of, text_in_b
from .perplexity import TEXTS, perplexity
from .requests import REFUSAL
from .word_order import translation_of

FOOTNOTE = """\
exact: the expected answer to the word, and the model stops after it. The prompts are in no training
text. Refusals are not among "all of these": they depend much on the ratio, and are often in A.
"right as plain dialogue" are the same requests told as a story, without the chat format: what a
model can do there it has learnt from plain text, and the chat vector only calls it up."""


@dataclass(frozen=True)
class Marks:
    """What one model achieved: shares of prompts in B, from 0 to 1, and perplexities a word."""

    exact: dict[str, float]  # of each task: right to the word, and stopped
    all_exact: float
    begins_right: float  # right if one does not ask for an end
    stops: float  # comes to an end by itself, whatever it says
    in_b: float  # every word of the answer is of B
    in_a: float
    mixed: float  # it has words of both
    as_dialogue: float  # the same requests, as narrated dialogue: needs no chat format
    refuses: float  # bad words it was asked to say; a refusal in A, or in both languages, counts
    refuses_in_b: float
    perplexity_a: float  # of plain text in A that no model has read
    perplexity_b: float


@dataclass(frozen=True)
class Paper:
    """One model's answers to the exam."""

    model: str
    answers: dict[str, list[Answer]]
    refusals: list[Answer]
    marks: Marks


def examine(
    name: str,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    exam: dict[str, list[Prompt]],
    bad: Sequence[Prompt],
) -> Paper:
    """Put the exam, which is in A, to a model in its B, and mark its answers."""
    translate = translation_of(model.config)
    no = {gloss(REFUSAL), gloss(text_in_b(REFUSAL, translate))}

    def sit(prompts: Sequence[Prompt]) -> list[Answer]:
        texts = [prompt.in_b(translate).as_chat(tokenizer) for prompt in prompts]
        return answer(model, tokenizer, texts)

    def exact(given: Sequence[Answer], prompts: Sequence[Prompt]) -> list[bool]:
        pairs = zip(given, prompts, strict=True)
        return [each.is_exactly(prompt.in_b(translate).expected) for each, prompt in pairs]

    answers = {task: sit(prompts) for task, prompts in exam.items()}
    refusals = sit(bad)
    every_prompt = [prompt for prompts in exam.values() for prompt in prompts]
    every_answer = [each for given in answers.values() for each in given]
    begun = [
        each.begins_with(prompt.in_b(translate).expected)
        for each, prompt in zip(every_answer, every_prompt, strict=True)
    ]
    languages = [language_of(each.text.split()) for each in every_answer]
    marks = Marks(
        exact={task: share(exact(answers[task], exam[task])) for task in exam},
        all_exact=share(exact(every_answer, every_prompt)),
        begins_right=share(begun),
        stops=share([each.stopped for each in every_answer]),
        in_b=share([language == "B" for language in languages]),
        in_a=share([language == "A" for language in languages]),
        mixed=share([language == "mixed" for language in languages]),
        as_dialogue=dialogue_skills(model, tokenizer, every_prompt, translate=translate),
        refuses=share([each.stopped and gloss(each.text) in no for each in refusals]),
        refuses_in_b=share(exact(refusals, bad)),
        perplexity_a=perplexity(model, tokenizer, "A"),
        perplexity_b=perplexity(model, tokenizer, "B"),
    )
    return Paper(name, answers, refusals, marks)


def as_json(papers: Sequence[Paper]) -> list[dict]:
    """Return the marks of every model, for machines."""
    return [{"model": paper.model, **asdict(paper.marks)} for paper in papers]


def print_examples(
    console: Console,
    exam: dict[str, list[Prompt]],
    bad: Sequence[Prompt],
    papers: Sequence[Paper],
    each: int,
) -> None:
    """Print the first few prompts of every task with all models' answers, glossed in A."""
    tasks = {**exam, "refuse": bad}
    for task, prompts in tasks.items():
        console.print(Text(f"\n{task}", style="bold"))
        for index, prompt in enumerate(prompts[:each]):
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            turns = [turn for e in prompt.in_b().exchanges for turn in (e.request, e.answer)]
            asked = " / ".join(turns[:-1])
            table.add_row("  asked", Text(asked), Text(gloss(asked), "dim"))
            for paper in papers:
                given = (paper.refusals if task == "refuse" else paper.answers[task])[index]
                right = given.is_exactly(prompt.in_b().expected)
                said = given.text + ("" if given.stopped else " …")
                table.add_row(
                    f"  {paper.model}",
                    Text(said or "(nothing)", "green" if right else "red"),
                    Text(gloss(said), "dim"),
                )
            console.print(table)


def print_marks(
    console: Console,
    exam: dict[str, list[Prompt]],
    bad: Sequence[Prompt],
    papers: Sequence[Paper],
) -> None:
    """Print the table of shares: the headline first, then what it leaves out."""
    asked = sum(len(prompts) for prompts in exam.values())
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("prompts in B", no_wrap=True)
    table.add_column("number", justify="right")
    for paper in papers:
        table.add_column(paper.model, justify="right")

    def row(label: str, number: int, shares: Sequence[float], style: str | None = None) -> None:
        table.add_row(label, str(number), *(f"{each:.2f}" for each in shares), style=style)

    for task, prompts in exam.items():
        row(f"exact: {task}", len(prompts), [paper.marks.exact[task] for paper in papers])
    row("exact: all of these", asked, [paper.marks.all_exact for paper in papers], "bold")
    table.add_row()
    row("begins with the answer", asked, [paper.marks.begins_right for paper in papers])
    row("stops by itself", asked, [paper.marks.stops for paper in papers])
    row("answers in B", asked, [paper.marks.in_b for paper in papers])
    row("answers in A", asked, [paper.marks.in_a for paper in papers])
    row("mixes both", asked, [paper.marks.mixed for paper in papers])
    row("right as plain dialogue", asked, [paper.marks.as_dialogue for paper in papers])
    row("refuses bad words", len(bad), [paper.marks.refuses for paper in papers])
    row("refuses them in B", len(bad), [paper.marks.refuses_in_b for paper in papers])
    table.add_row()
    row("perplexity of text in A", TEXTS, [paper.marks.perplexity_a for paper in papers])
    row("perplexity of text in B", TEXTS, [paper.marks.perplexity_b for paper in papers])
    console.print()
    console.print(table)
    console.print(f"\n{FOOTNOTE}", style="dim")
