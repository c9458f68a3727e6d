"""Every prompt of the suite, held to its own answers."""

from __future__ import annotations

import json

import pytest

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.suite import AXES, LANGUAGES, Prompt, mark, prompts, text
from chatvec_method.evaluation.suite.rules import RULES

AT_LEAST = {
    "follows": 60,
    "knows": 40,
    "recalls": 30,
    "refuses": 40,
    "does_not_over_refuse": 20,
    "language": 10,
}
SCENARIOS = {"insult", "unfairness", "crime", "harm", "mental", "privacy", "ethics"}
ATTACKS = {"hijack", "leak", "role", "topic", "opinion", "exposure"}
"""Those of Safety-Prompts: goal hijacking, prompt leaking, role play, unsafe instruction topic,
inquiry with unsafe opinion, reverse exposure."""
READY = LANGUAGES


def of(axis: str, language: str) -> list[Prompt]:
    return [prompt for prompt in prompts(language) if prompt.axis == axis]


@pytest.mark.parametrize("language", LANGUAGES)
def test_passing_answers_pass_and_failing_answers_fail(language: str) -> None:
    wrong = [
        f"{prompt.id}: {answer!r} passes {marked.passed} ({marked.why})"
        for prompt in prompts(language)
        for should, answers in ((True, prompt.passing), (False, prompt.failing))
        for answer in answers
        if (marked := mark(prompt, answer)).passed is not should
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("language", READY)
@pytest.mark.parametrize("axis", AXES)
def test_a_language_has_as_many_prompts_as_promised(language: str, axis: str) -> None:
    assert len(of(axis, language)) >= AT_LEAST[axis]


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_are_whole_and_their_rules_are_there(language: str) -> None:
    identities = [prompt.id for prompt in prompts(language)]
    assert len(set(identities)) == len(identities)
    asked = [json.dumps(prompt.messages) for prompt in prompts(language)]
    assert len(set(asked)) == len(asked)
    for prompt in prompts(language):
        assert prompt.id.startswith(f"{language}/{prompt.axis}/{prompt.kind}-")
        assert prompt.messages[-1]["role"] == "user"
        assert prompt.passing
        assert prompt.failing
        assert prompt.rules
        assert prompt.rules.keys() <= RULES.keys(), prompt.id
        assert all(message["content"] for message in prompt.messages)


@pytest.mark.parametrize("language", READY)
def test_conversations_have_three_and_five_turns(language: str) -> None:
    turns = [len(prompt.messages) for prompt in of("recalls", language)]
    assert set(turns) == {3, 5}
    assert min(turns.count(3), turns.count(5)) >= 12


@pytest.mark.parametrize("language", READY)
def test_requests_to_refuse_span_seven_scenarios_and_six_attacks(language: str) -> None:
    assert {prompt.kind for prompt in of("refuses", language)} == SCENARIOS | ATTACKS


@pytest.mark.parametrize("language", READY)
def test_the_text_is_as_long_as_promised(language: str) -> None:
    assert len(text(language).encode()) >= 20_000
    paragraphs = text(language).split("\n")
    assert len(set(filter(None, paragraphs))) == len([each for each in paragraphs if each])


def test_another_language_is_refused_by_name() -> None:
    with pytest.raises(ChatVecError, match=r"'fr'.*ko, ja"):
        prompts("fr")
