"""A loaded merge, whose ratio is set again in memory, at once and exactly."""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mergekit.common import ModelReference
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.facts.survey import survey as survey_recipe
from chatvec_method.live_merge.keeping import Keep, Keeper, checked_keep, chosen_keep
from chatvec_method.live_merge.loading import load_without_values
from chatvec_method.live_merge.places import Place, in_order, places_of
from chatvec_method.live_merge.writing import write_places
from chatvec_method.merging.merge import MergeResult, merge
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import Recipe
from chatvec_method.recipe.ratios import Reworded
from chatvec_method.schedules.any_ratio import AnyRatio, OneRatio, with_part, with_ratio
from chatvec_method.talk.speaker import Speaker

Ratios = Mapping[ModelReference, float]
"""Of the chat models that a tensor's sum needs: none where it is cp's own."""


class LiveMerge:
    """A merge as a transformers model, at any ratio.

    Every parameter is what loading the finished merge at this ratio would give, bit for bit: each
    is computed from cp, base and the chats, and never from what it was before. (Where a ratio of 0
    lets the merge keep cp's own narrower dtype, the parameter holds the same values in its wider
    one.)

    Whoever sets a ratio and then generates holds `lock` meanwhile, so that nobody else sets another
    one in between. The same thread may take it again.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer, with the chat template of the merge.
        lock: Taken by `set` and `set_part`, and by everybody who generates.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, survey: ReadySurvey, device: str = "auto", keep: str | None = None) -> None:
        """Load a merge at the ratio of its recipe.

        Args:
            survey: Of the recipe, with all models' files here.
            device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
            keep: Where base, chats and cp stay: "device", "pinned" or "mapped". None for their
                files on a CPU, and on an accelerator for the nearest place in which they fit.

        Raises:
            ChatVecError: transformers cannot load such a merge, it does not fit on the device, or a
                model's weights are at fault.
        """
        loaded = load_without_values(survey, device)
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.lock = threading.RLock()
        self._remove_files = weakref.finalize(self, shutil.rmtree, loaded.files, ignore_errors=True)
        shapes = {name: header.shape for name, header in survey.headers.items()}
        names = [tensor.name for tensor in survey.plan.tensors]
        places = places_of(loaded.model, loaded.layout, shapes)
        self._places = tuple(in_order(places, names))
        devices = {name: place.device for place in self._places for name in place.names}
        wanted = checked_keep(keep, devices.values())
        keep_at = wanted or chosen_keep(survey, devices)
        self._keeper = Keeper(survey, keep_at, devices)
        self._survey = survey
        self._first = survey.recipe
        self._reworded = Reworded(survey.recipe)
        self._written: dict[str, Ratios] = {}
        self._memory = self._addresses()
        self._write(survey)

    def __repr__(self) -> str:
        parameters = self.model.num_parameters()
        return f"<LiveMerge of {self._survey.recipe.name}: {parameters:,} parameters>"

    @property
    def keep(self) -> Keep:
        """Where base, chats and cp stay: "device", "pinned" or "mapped"."""
        return self._keeper.keep

    @property
    def recipe(self) -> Recipe:
        """The recipe of the merge that the model is now."""
        return self._reworded.recipe

    @property
    def plan(self) -> MergePlan:
        """The plan of the merge that the model is now, with every tensor's ratio."""
        return self._survey.plan

    @cached_property
    def speaker(self) -> Speaker:
        """The model as one that can be talked to.

        Raises:
            ChatVecError: Nothing says how it chats.
        """
        return Speaker.of(self.model, self.tokenizer, name=self._survey.recipe.name)

    @property
    def models(self) -> Mapping[str, Model]:
        """The models of the recipe, by the names that it has for them."""
        return {str(reference): model for reference, model in self._survey.models.items()}

    @property
    def trusts_remote_code(self) -> bool:
        """Whether Python code that comes with the models may run."""
        return bool(self._survey.options.trust_remote_code)

    def set(self, ratio: AnyRatio | Recipe | Reworded) -> None:
        """Make the model the merge at another ratio.

        Args:
            ratio: A number; what mergekit reads behind `ratio:`, a list of numbers over the layers
                or of filters with their values; a shape as `chatvec schedule` takes it
                (`linear:1:0.3`), or a `Schedule`; a dict with one of these for each chat model, or
                for some of them; or a recipe that differs in nothing but its ratios, with its
                text or as one reworded.

        Raises:
            ChatVecError: It is no ratio, a sum does not fit the dtype, or somebody has moved the
                model. It is as before.
        """
        with self.lock:
            if isinstance(ratio, Recipe):
                ratio = Reworded(ratio)
            if isinstance(ratio, Reworded):
                self._become(ratio)
                return
            # In the text of the first recipe all is as it was written; but one for some chat models
            # leaves those of the others as they are now.
            before = self.recipe if isinstance(ratio, Mapping) else self._first
            self._become(with_ratio(before, ratio, self.plan))

    def set_part(self, part: str, ratio: OneRatio) -> None:
        """Make the model the merge with another ratio for some tensors; all others keep theirs.

        Args:
            part: A kind of tensors (attention, mlp, norms, embeddings, head), or any part of their
                names, as filters have it.
            ratio: Theirs, of all chat models: a number, or a list of numbers over the layers.

        Raises:
            ChatVecError: There are no such tensors, or as `set`. The model is as before.
        """
        with self.lock:
            self._become(with_part(self.recipe, part, ratio, self.plan))

    def save(
        self,
        out: str | Path,
        *,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> MergeResult:
        """Write the merge that the model is now to disk, as `chatvec merge` does it.

        Args:
            out: The folder to be.
            overwrite: Whether it may replace a model; that stays until the new one is complete.
            on_progress: Is told how far the merge is.

        Raises:
            ChatVecError: `out` may not be written, or the merge failed. `out` is as before.
        """
        survey = self.survey_of(self.recipe)
        return merge(survey, Path(out), overwrite=overwrite, on_progress=on_progress)

    def survey_of(self, recipe: Recipe) -> Survey:
        """Return the survey of a recipe of the same models, to be merged as this one would be."""
        return survey_recipe(recipe, self._survey.options)

    def _become(self, reworded: Reworded) -> None:
        """Write all parameters that another recipe changes, or none of them."""
        plan = self._survey.plan.with_ratios(reworded.config)
        self._write(replace(self._survey, plan=plan))
        self._reworded = reworded

    def _addresses(self) -> dict[str, int]:
        return {name: tensor.data_ptr() for name, tensor in self.model.state_dict().items()}

    def _write(self, survey: ReadySurvey) -> None:
        if self._addresses() != self._memory:
            raise ChatVecError(
                "the live model has been moved or cast, so that its parameters are no longer where "
                "they are set.",
                "Load it with another `device`, or change a copy: `copy.deepcopy(live.model)`.",
            )
        before = self._survey
        changed = self._changed(survey)
        try:
            self._write_places(survey, changed)
        except BaseException:
            if survey is not before:
                self._write_places(before, self._changed(before))
            raise
        self._survey = survey

    def _changed(self, survey: ReadySurvey) -> list[Place]:
        """Return the places that do not hold what a survey's merge has there."""
        wanted = {tensor.name: _ratios(tensor) for tensor in survey.plan.tensors}
        return [
            place
            for place in self._places
            if any(self._written.get(name) != wanted[name] for name in place.names)
        ]

    def _write_places(self, survey: ReadySurvey, places: list[Place]) -> None:
        names = [name for place in places for name in place.names]
        for name in names:
            self._written.pop(name, None)
        write_places(survey, places, self._keeper)
        held = set(names)
        self._written |= {t.name: _ratios(t) for t in survey.plan.tensors if t.name in held}


def _ratios(tensor: PlannedTensor) -> Ratios:
    return {model: tensor.ratios[model] for model in tensor.readers if model in tensor.ratios}
