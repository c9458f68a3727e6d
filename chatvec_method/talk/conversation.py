"""A conversation with a model, and the commands that one can type in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chatvec_method.errors import ChatVecError

COMMANDS = """\
/reset        forget what was said; the system message stays
/system TEXT  begin again with this system message; without TEXT, with none
/help         this list
/quit         leave, as Ctrl-D does
Ctrl-C ends an answer. A line that should begin with / takes a space before it."""


@dataclass(frozen=True)
class Conversation:
    """What was said so far."""

    system: str | None = None
    turns: tuple[tuple[str, str], ...] = ()
    """Requests, each with its answer."""

    def messages(self, request: str) -> list[dict[str, str]]:
        """Return the conversation up to a new request, as chat templates have it."""
        said = [("system", self.system)] if self.system else []
        for asked, answered in self.turns:
            said += [("user", asked), ("assistant", answered)]
        return [{"role": role, "content": text} for role, text in [*said, ("user", request)]]

    def with_turn(self, request: str, answer: str) -> Conversation:
        """Return the conversation after one more turn."""
        return replace(self, turns=(*self.turns, (request, answer)))

    def without_oldest(self, turns: int) -> Conversation:
        """Return the conversation without its oldest turns; the system message stays."""
        return replace(self, turns=self.turns[turns:])

    def obey(self, line: str) -> Outcome:
        """Do what a line that begins with / says.

        Raises:
            ChatVecError: There is no such command.
        """
        command, _, rest = line.strip().partition(" ")
        match command:
            case "/reset":
                return Outcome(replace(self, turns=()), "Forgotten.")
            case "/system":
                system = rest.strip() or None
                said = "A new system message" if system else "No system message"
                return Outcome(Conversation(system), f"{said}; the conversation begins again.")
            case "/help":
                return Outcome(self, COMMANDS)
            case "/quit":
                return Outcome(self, over=True)
        raise ChatVecError(f"there is no command {command}.", "/help lists those there are.")


@dataclass(frozen=True)
class Outcome:
    """What a command made of a conversation."""

    conversation: Conversation
    said: str = ""
    """What the person should be told."""
    over: bool = False
