"""`chatvec chat`: a conversation in the terminal or through a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.console import quiet_libraries
from chatvec_method.cli.streams import lines_read
from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    from chatvec_method.talk.conversation import Conversation
    from chatvec_method.talk.speaker import Speaker


@click.command()
@click.argument("out")
@click.option(
    "--compare",
    metavar="CP_MODEL",
    help="Put every message to this model too, and show its answer above OUT's. If it has no chat "
    "template, OUT's is used.",
)
@click.option("--ask", metavar="TEXT", help="Ask this, print the answer and exit.")
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="The longest answer, in tokens. By default what the model's generation config says, else "
    "2048; and no more than the model's context holds.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:1, mps, ...; auto takes the accelerators if there are any.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run the Python code that a model brings.")
def chat(
    out: str,
    compare: str | None,
    ask: str | None,
    system: str | None,
    max_new_tokens: int | None,
    device: str,
    trust_remote_code: bool,
) -> None:
    """Talk to the model OUT: a folder, or a name on the hub.

    Answers come as OUT's own chat template, stop tokens and sampling settings have them. /help
    lists what can be said besides messages. In a pipe, every line is a message.

    Example: chatvec chat out/ --compare examples/world/models/cp
    """
    from chatvec_method.talk.conversation import Conversation
    from chatvec_method.talk.speaker import load

    quiet_libraries()
    merged = load(out, device=device, trust_remote_code=trust_remote_code)
    speakers = [merged]
    if compare is not None:
        cp = load(compare, device=device, like=merged, trust_remote_code=trust_remote_code)
        speakers = [cp, merged]
    conversation = Conversation(system)
    _check_system(speakers, conversation)
    if ask is not None:
        _answer(speakers, [conversation] * len(speakers), ask, max_new_tokens)
    else:
        _converse(speakers, conversation, max_new_tokens)


def _converse(speakers: list[Speaker], start: Conversation, max_new_tokens: int | None) -> None:
    """Answer line after line, until there are no more or /quit is said."""
    conversations = [start] * len(speakers)  # each speaker remembers its own answers
    for line in _lines():
        try:
            if line.startswith("/"):
                obeyed = [conversation.obey(line) for conversation in conversations]
                if obeyed[0].over:
                    return
                _check_system(speakers, obeyed[0].conversation)
                conversations = [each.conversation for each in obeyed]
                _note(obeyed[0].said)
            elif line.strip():
                conversations = _answer(speakers, conversations, line.strip(), max_new_tokens)
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
    speakers: list[Speaker],
    conversations: list[Conversation],
    request: str,
    max_new_tokens: int | None,
) -> list[Conversation]:
    """Print every speaker's answer as it comes, and return the conversations after it."""
    after = []
    for speaker, conversation in zip(speakers, conversations, strict=True):
        prompt = speaker.prompt(conversation, request, max_new_tokens)
        if len(speakers) > 1:
            click.secho(f"{speaker.name}:", bold=True)
        if prompt.forgotten:
            _note(f"The context is full: turns left out, from the oldest on: {prompt.forgotten}.")
        answer = speaker.answer(prompt)
        stopped = False
        try:
            with contextlib.closing(iter(answer)) as pieces:
                for piece in pieces:
                    click.echo(piece, nl=False)
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


def _check_system(speakers: list[Speaker], conversation: Conversation) -> None:
    """Let a system message that a template refuses be refused at once."""
    for speaker in speakers:
        speaker.prompt(conversation, "?")


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _note(text: str) -> None:
    """Tell what is no answer; a pipe gets the answers alone."""
    click.secho(text, dim=True, err=True)
