"""lm-evaluation-harness, for models that chat.

The harness knows single requests and throws away where an answer ended. Here its tasks are whole
conversations, put in the model's own chat format, and an answer tells whether it came to an end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from chatvec_method.evaluation.measures import END
from chatvec_method.quiet import quiet
from chatvec_method.talk.speaker import Speaker

BATCH = 64
"""How many prompts are answered at once."""


def evaluate(
    speaker: Speaker,
    tasks: Sequence[str],
    folder: Path,
    settings: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """Put tasks to a model, in its own chat format; it answers greedily, until it stops.

    Args:
        speaker: The model.
        tasks: Names of tasks and of groups.
        folder: Where their YAML files are.
        settings: What the tasks' `custom_dataset` functions are told, besides their own settings.

    Returns:
        The figures of every task and group, by their names.
    """
    with quiet():
        manager = TaskManager(
            include_path=folder, include_defaults=False, metadata=dict(settings or {})
        )
        results = lm_eval.evaluate(
            ChatModel(speaker),
            manager.load(list(tasks)),
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            log_samples=False,
            bootstrap_iters=0,
        )
    return {
        task: {
            name.removesuffix(",none"): value
            for name, value in figures.items()
            if name.endswith(",none") and "_stderr" not in name
        }
        for task, figures in results["results"].items()
    }


class ChatModel(HFLM):
    """A speaker, as the harness wants its models; responses that came to an end say so.

    The harness decodes what a model wrote and forgets its stop token, so `END` is put in its place.
    """

    def __init__(self, speaker: Speaker) -> None:
        super().__init__(
            pretrained=speaker.model,
            tokenizer=speaker.tokenizer,
            batch_size=BATCH,
            chat_template_args={"chat_template": speaker.template},
        )
        self._stop_tokens = speaker.stop_tokens

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Decode a response up to its stop token; other special tokens are faults, and stay."""
        if not isinstance(tokens, list):  # the one token that the harness takes for the end
            return super().tok_decode(tokens, skip_special_tokens)
        for i, token in enumerate(tokens):
            if token in self._stop_tokens:
                return self.tokenizer.decode(tokens[:i]) + END
        return self.tokenizer.decode(tokens)


class ConversationTask(ConfigurableTask):
    """A task whose documents have `messages`: a conversation, up to a request to be answered.

    In a task's YAML: `class: !function chatvec_method.evaluation.harness.ConversationTask`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={name: each for name, each in config.items() if name != "class"})

    def fewshot_context(
        self, doc: Mapping[str, Any], *_: Any, chat_template: Callable[..., str], **__: Any
    ) -> str:
        """Return the conversation in the model's format; there are no examples before it."""
        return chat_template(doc["messages"])
