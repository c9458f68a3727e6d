"""The suite of prompts that comes with the package, and what marks their answers.

A language is a folder in `languages/`: one YAML file of prompts per axis (each prompt with rules,
answers that pass and answers that fail), the phrases by which a refusal is told, and a text. To
correct or add a prompt is to edit such a file; no code changes. `prompts` reads them, `mark` holds
an answer to its prompt's rules, and `answer_language`, `refuses`, `loops` and `ends` measure any
answer.
"""

from chatvec_method.evaluation.suite.endings import ends, loops, speaks_for_the_user, spoken
from chatvec_method.evaluation.suite.marking import Mark, mark
from chatvec_method.evaluation.suite.prompt import AXES, LANGUAGES, Message, Prompt, prompts, text
from chatvec_method.evaluation.suite.refusal import refuses
from chatvec_method.evaluation.suite.told_language import AnswerLanguage, answer_language

__all__ = [
    "AXES",
    "LANGUAGES",
    "AnswerLanguage",
    "Mark",
    "Message",
    "Prompt",
    "answer_language",
    "ends",
    "loops",
    "mark",
    "prompts",
    "refuses",
    "speaks_for_the_user",
    "spoken",
    "text",
]
