"""`chatvec chat`: a conversation in the terminal or through a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.completing import folders
from chatvec_method.cli.console import quiet_libraries
from chatvec_method.cli.loading import loading
from chatvec_method.cli.model_options import on_device, with_adapter_cache, with_remote_code
from chatvec_method.cli.streams import lines_read
from chatvec_method.errors import ChatVecError
from chatvec_method.plain_text import plain
from chatvec_method.talk.folder import check_folder

if TYPE_CHECKING:
    from chatvec_method.cli.live_chat import Side
    from chatvec_method.talk.conversation import Conversation
    from chatvec_method.talk.speaker import Sampling, Speaker

LONGEST_COMPARED = 256
"""Tokens; a model that OUT is compared with is often one that does not come to an end."""


@dataclass(frozen=True)
class Rules:
    """How answers are to be."""

    max_new_tokens: int | None
    sampling: Sampling

    def longest(self, *, compared: bool) -> int | None:
        """Return the most tokens of an answer; None for what the model itself says."""
        return self.max_new_tokens or (LONGEST_COMPARED if compared else None)

    def after(self, turns: int) -> Sampling:
        """Return how tokens are chosen after so many turns: each has a seed of its own."""
        if self.sampling.seed is None:
            return self.sampling
        return replace(self.sampling, seed=self.sampling.seed + turns)


@click.command()
@click.argument("out", metavar="OUT|RECIPE", shell_complete=folders)
@click.option(
    "--compare",
    "compared",
    metavar="MODEL|RATIO",
    multiple=True,
    shell_complete=folders,
    help="Put every message to this model too, and show its answer below OUT's. If it has no chat "
    "template, OUT's is used. Write it again for another. With a RECIPE also a ratio, as in 0.3: "
    "the same merge at that ratio.",
)
@click.option("--ask", metavar="TEXT", help="Ask this, print the answer and exit.")
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="The longest answer, in tokens. By default what OUT's generation config says, else 2048; "
    "of models to compare, 256; and no more than a model's context holds.",
)
@click.option("--greedy", is_flag=True, help="Take the likeliest token each time.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="Choose tokens more at random above 1, less below.",
)
@click.option(
    "--seed", type=int, metavar="N", help="Choose the same tokens whenever N is the same."
)
@on_device
@with_remote_code
@with_adapter_cache
def chat(
    out: str,
    compared: tuple[str, ...],
    ask: str | None,
    system: str | None,
    max_new_tokens: int | None,
    greedy: bool,
    temperature: float | None,
    seed: int | None,
    device: str,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
) -> None:
    """Talk to the model OUT: a folder, or a name on the hub; or to the merge of a RECIPE.

    Answers come as OUT's own chat template, stop tokens and sampling settings have them. /help
    lists what can be said besides messages. In a pipe, every line is a message.

    Of a RECIPE nothing is written to disk: its merge is in memory, and /ratio 0.7, /ratio mlp 0.5
    or /schedule linear:1:0.3 set it to another ratio at once. /save OUT writes it.

    Example: chatvec chat out/ --compare examples/world/models/cp
    """
    from chatvec_method.cli.live_chat import at_ratio, is_ratio, is_recipe, live_side

    if greedy and temperature is not None:
        raise click.UsageError("--greedy leaves nothing to --temperature: write one of them.")
    recipe = is_recipe(out)
    ratios = [each for each in compared if recipe and is_ratio(each)]
    for model in (*(() if recipe else (out,)), *compared):
        if model not in ratios:
            check_folder(model)
    with loading("transformers"):
        from chatvec_method.talk.conversation import Conversation
        from chatvec_method.talk.speaker import Sampling, load

        quiet_libraries()
    live = None
    if recipe:
        live = live_side(out, device, trust_remote_code, lora_merge_cache, _note)
    merged = live.speaker if live else load(out, device=device, trust_remote_code=trust_remote_code)
    speakers: list[Speaker | Side] = [live or merged]
    for other in compared:
        if live is not None and other in ratios:
            speakers.append(at_ratio(live, other))
        else:
            speakers.append(
                load(other, device=device, like=merged, trust_remote_code=trust_remote_code)
            )
    conversation = Conversation(system)
    _check_system(speakers, conversation)
    rules = Rules(max_new_tokens, Sampling(greedy, temperature, seed))
    if ask is not None:
        _answer(speakers, [conversation] * len(speakers), ask, rules)
    else:
        _converse(speakers, conversation, rules, live)


def _converse(
    speakers: Sequence[Speaker | Side], start: Conversation, rules: Rules, live: Side | None
) -> None:
    """Answer line after line, until there are no more or /quit is said."""
    conversations = [start] * len(speakers)  # each speaker remembers its own answers
    for line in _lines():
        try:
            if live is not None and (said := live.obey(line)) is not None:
                _note(said)
            elif line.startswith("/"):
                obeyed = [conversation.obey(line) for conversation in conversations]
                if obeyed[0].over:
                    return
                _check_system(speakers, obeyed[0].conversation)
                conversations = [each.conversation for each in obeyed]
                _note(obeyed[0].said)
            elif line.strip():
                conversations = _answer(speakers, conversations, line.strip(), rules)
        except ChatVecError as error:
            if not _at_terminal():
                raise
            error.show()


def _lines() -> Iterator[str]:
    """Yield what is said: what a person types, or the lines of a pipe."""
    if not _at_terminal():
        yield from lines_read()
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (gives input() editing and a history)
    _note("/help lists the commands, Ctrl-D leaves.")
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return


def _answer(
    speakers: Sequence[Speaker | Side],
    conversations: list[Conversation],
    request: str,
    rules: Rules,
) -> list[Conversation]:
    """Print every speaker's answer as it comes, and return the conversations after it."""
    after = []
    for speaker, conversation in zip(speakers, conversations, strict=True):
        longest = rules.longest(compared=speaker is not speakers[0])
        prompt = speaker.prompt(conversation, request, longest)
        if len(speakers) > 1:
            click.secho(f"{speaker.name}:", bold=True)
        if prompt.forgotten:
            _note(f"The context is full: turns left out, from the oldest on: {prompt.forgotten}.")
        answer = speaker.answer(prompt, rules.after(len(conversation.turns)))
        stopped = False
        try:
            with contextlib.closing(iter(answer)) as pieces:
                for piece in pieces:
                    click.echo(plain(piece), nl=False)
        except KeyboardInterrupt:
            if not _at_terminal():
                raise
            stopped = True
        finally:
            click.echo()
        if not answer.ended:
            _note("Stopped." if stopped else f"Cut off after {prompt.room} tokens.")
        if speaker is not speakers[-1]:
            click.echo()
        kept = conversation.without_oldest(prompt.forgotten)
        after.append(kept.with_turn(request, answer.text))
    return after


def _check_system(speakers: Sequence[Speaker | Side], conversation: Conversation) -> None:
    """Let a system message that a template refuses be refused at once."""
    for speaker in speakers:
        speaker.prompt(conversation, "?")


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _note(text: str) -> None:
    """Tell what is no answer; a pipe gets the answers alone."""
    click.secho(text, dim=True, err=True)
