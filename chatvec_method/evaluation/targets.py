"""What is evaluated: a finished model, a recipe at many ratios, or a server.

A target has points, each with an identity, under which its answers are kept, and a way to open it,
which is taken only when there is something new to ask. The points of a recipe are one model in
memory whose ratio is set anew.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil
import torch

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.adapter import ChatModel, OnBatch, OnProgress
from chatvec_method.evaluation.batch import batch_size
from chatvec_method.evaluation.identity import identity
from chatvec_method.evaluation.remembering import Open
from chatvec_method.evaluation.server import server_at
from chatvec_method.evaluation.server_model import ServerModel
from chatvec_method.talk.speaker import NO_TEMPLATE, Manner, Speaker, load, manner_of

Kind = Literal["model", "recipe", "server"]


@dataclass(frozen=True)
class Point:
    """One thing that answers."""

    target: str
    """As it was named."""
    kind: Kind
    ratio: float | None
    """Of the chat vector in all layers; None where it is not one number."""
    schedule: str | None
    """The shape of the ratio over the layers, or "as written" in the recipe."""
    whose: Any
    """All that tells it from anything else that answers, as JSON can write it."""
    open: Open
    own: bool = False
    """Whether this is a recipe at the ratio that it has itself."""

    @property
    def label(self) -> str:
        """Return what to call it among the points of its target."""
        if self.schedule is not None:
            return self.schedule
        return f"{self.ratio:g}" if self.ratio is not None else self.target


class Target(Protocol):
    """What is evaluated."""

    name: str
    kind: Kind

    @property
    def revisions(self) -> Mapping[str, str]:
        """Return those of its models: commits on the hub, or fingerprints of folders."""

    @property
    def points(self) -> Sequence[Point]:
        """Return what answers, in the order in which to ask."""

    def halve_batches(self) -> bool:
        """Put half as many requests at once from now on; False where that is not possible."""

    def close(self) -> None:
        """Let go of the memory that it has."""


class FolderTarget:
    """A finished model: a folder, or a name on the hub."""

    kind: Kind = "model"

    def __init__(
        self, model: str, *, like: Manner | None, device: str, trust_remote_code: bool
    ) -> None:
        self.name = model

        def loaded() -> Speaker:
            speaker = load(model, device=device, like=like, trust_remote_code=trust_remote_code)
            if _wants_float32(speaker):
                _check_room(speaker, torch.float32.itemsize - speaker.model.dtype.itemsize)
                speaker.model.float()
            return speaker

        self._memory = _Memory(loaded)
        manner = None if like is None else [like.template, _names(like)]
        identified = identity(model)
        self.revisions: Mapping[str, str] = {model: identified.rpartition(" ")[2]}
        whose = {"model": identified, "like": manner, "computed": _computed(device)}
        self.points = (Point(model, self.kind, None, None, whose, self._memory.asked),)

    def halve_batches(self) -> bool:
        """Put half as many requests at once from now on; False where that is not possible."""
        return self._memory.halve_batches()

    def close(self) -> None:
        """Let go of the model."""
        self._memory.close()


class ServerTarget:
    """A model behind a server."""

    kind: Kind = "server"

    def __init__(self, url: str) -> None:
        server = server_at(url)
        self.name = url

        def opened(on_progress: OnProgress | None, on_batch: OnBatch) -> ServerModel:
            return ServerModel(server, on_progress=on_progress, on_batch=on_batch)

        self.revisions: Mapping[str, str] = {}
        whose = {"server": server.url, "model": server.model}
        self.points = (Point(url, self.kind, None, None, whose, opened),)

    def halve_batches(self) -> bool:
        """Return False: the server makes its batches itself."""
        return False

    def close(self) -> None:
        """Do nothing: the server goes on."""


class Live(Protocol):
    """A merge in memory, whose ratio can be set."""

    @property
    def speaker(self) -> Speaker:
        """Return the merge, as it can be talked to."""

    def set(self, ratio: Any, /) -> Any:
        """Give the merge another ratio."""


@dataclass(frozen=True)
class Setting:
    """A ratio of a recipe's chat vectors."""

    given: Any
    """As `Live.set` takes it; None for what the recipe says."""
    key: Any
    """What tells it from another one, as JSON can write it."""
    ratio: float | None = None
    """Where it is one number."""
    schedule: str | None = None
    own: bool = False
    """Whether a recipe has it itself."""
    scaled: Callable[[float], Any] | None = None
    """Returns a multiple of it, as `Live.set` takes it."""


class RecipeTarget:
    """A recipe, at one ratio after the other.

    Args:
        name: Of the recipe.
        whose: What tells the recipe from another one, its ratios apart.
        settings: The ratios; those that the recipe has itself come first.
        open_live: Opens the merge.
        device: As torch names it, or "auto".
        moved: Finds out for each chat model how far cp has moved: ‖cp − base‖ / ‖chat − base‖.
        revisions: Of its models.
        chats: Its chat models.
    """

    kind: Kind = "recipe"

    def __init__(
        self,
        name: str,
        whose: Any,
        settings: Sequence[Setting],
        open_live: Callable[[], Live],
        device: str,
        *,
        moved: Callable[[], dict[str, float]],
        revisions: Mapping[str, str],
        chats: Sequence[str],
    ) -> None:
        self.name = name
        self.chats = chats
        self.moved = moved
        self.revisions = revisions
        self.settings = tuple(settings)
        self._whose = {"recipe": whose, "computed": _computed(device)}
        self._open_live = open_live
        self._live: Live | None = None
        self._twin: Speaker | None = None
        self._memory = _Memory(self._speaker)
        self.points = tuple(self.point(setting) for setting in settings)

    def point(self, setting: Setting, factor: float = 1.0) -> Point:
        """Return what answers at a ratio, or at a part of it, on the way there from cp."""
        given, key = setting.given, setting.key
        if factor == 0:  # which is cp, whatever is multiplied
            given = key = 0.0
        elif factor != 1 and setting.ratio is not None:
            given = key = factor * setting.ratio
        elif factor != 1:
            assert setting.scaled is not None
            given, key = setting.scaled(factor), {"scaled": [factor, key]}

        def opened(on_progress: OnProgress | None, on_batch: OnBatch) -> ChatModel:
            live = self._opened_live()
            if given is not None:
                live.set(given)
            self._memory.close()
            return self._memory.asked(on_progress, on_batch)

        whose = {**self._whose, "ratio": key}
        own = setting.own and factor == 1
        return Point(self.name, self.kind, setting.ratio, setting.schedule, whose, opened, own)

    def halve_batches(self) -> bool:
        """Put half as many requests at once from now on; False where that is not possible."""
        return self._memory.halve_batches()

    def close(self) -> None:
        """Let go of the merge."""
        self._live = self._twin = None
        self._memory.close()

    def _opened_live(self) -> Live:
        if self._live is None:
            self._live = self._open_live()
        return self._live

    def _speaker(self) -> Speaker:
        """Return the merge as it is now."""
        speaker = self._opened_live().speaker
        if not _wants_float32(speaker):
            return speaker
        if self._twin is None:
            _check_room(speaker, torch.float32.itemsize)
            self._twin = replace(speaker, model=copy.deepcopy(speaker.model).float())
        else:
            self._twin.model.load_state_dict(speaker.model.state_dict())
        return self._twin


class _Memory:
    """A model in memory, which is asked as the harness asks models."""

    def __init__(self, load_speaker: Callable[[], Speaker]) -> None:
        self._load = load_speaker
        self._speaker: Speaker | None = None
        self._size: int | None = None

    def asked(self, on_progress: OnProgress | None, on_batch: OnBatch) -> ChatModel:
        """Return the model as the harness wants it."""
        if self._speaker is None:
            self._speaker = self._load()
        if self._size is None:
            self._size = batch_size(self._speaker.model)
        return ChatModel(
            self._speaker, batch_size=self._size, on_progress=on_progress, on_batch=on_batch
        )

    def halve_batches(self) -> bool:
        """Put half as many requests at once from now on; False where that is not possible."""
        if self._size is None or self._size == 1:
            return False
        self._size //= 2
        return True

    def close(self) -> None:
        """Let go of the model."""
        self._speaker = None


def folder_targets(
    models: Sequence[str], others: Sequence[str], *, device: str, trust_remote_code: bool
) -> dict[str, FolderTarget]:
    """Return finished models by name. One without a chat template is talked to as another one is.

    Args:
        models: Folders, and names on the hub.
        others: More of these, whose template will do for models that have none.
        device: As torch names it, or "auto".
        trust_remote_code: Whether Python code that comes with the models may run.

    Raises:
        ChatVecError: There is no such model, or nothing says how one chats.
    """
    manners: dict[str, Manner | ChatVecError] = {}
    for model in [*models, *others]:
        try:
            manners[model] = manner_of(model, trust_remote_code=trust_remote_code)
        except ChatVecError as error:
            if error.code != NO_TEMPLATE and model in models:
                raise
            manners[model] = error
    donor = next((each for each in manners.values() if isinstance(each, Manner)), None)
    targets = {}
    for model in models:
        manner = manners[model]
        if isinstance(manner, ChatVecError) and donor is None:
            raise ChatVecError(
                manner.problem,
                f"{manner.fix.removesuffix('.')}; or evaluate it beside a model that has one.",
                NO_TEMPLATE,
            )
        like = donor if isinstance(manner, ChatVecError) else None
        targets[model] = FolderTarget(
            model, like=like, device=device, trust_remote_code=trust_remote_code
        )
    return targets


def is_server(target: str) -> bool:
    """Tell whether a target is a server's address."""
    return target.startswith(("http://", "https://"))


def like_address(target: str) -> bool:
    """Tell whether a target that is no folder has a host's port or a scheme: localhost:8000/v1."""
    return bool(re.match(r"[\w.-]{2,}:(?:\d|/)", target)) and not Path(target).exists()


def _names(manner: Manner) -> list[str]:
    """Return the stop tokens by name: their numbers are another model's."""
    return [str(manner.tokenizer.convert_ids_to_tokens(token)) for token in manner.stop_tokens]


def _wants_float32(speaker: Speaker) -> bool:
    """Tell whether a model is to compute in float32, whatever its weights are stored in.

    On a CPU all do: in bfloat16, an answer depends on which others are in its batch, and on most
    CPUs it takes longer.
    """
    return speaker.model.device.type == "cpu" and speaker.model.dtype != torch.float32


def _check_room(speaker: Speaker, bytes_a_parameter: int) -> None:
    need = speaker.model.num_parameters() * bytes_a_parameter
    if need > psutil.virtual_memory().available:
        raise ChatVecError(
            f"{speaker.name} is evaluated in float32 on a CPU, for which it needs {need / 1e9:.1f} "
            "GB more than there are.",
            "Take a GPU, or a smaller model.",
        )


def _computed(device: str) -> str:
    """Return in which dtype a model computes there."""
    on_cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    return "float32" if on_cpu else "as stored"
