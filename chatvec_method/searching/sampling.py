"""Who proposes the next ratios: optuna's samplers, seeded anew for every trial.

A sampler that draws from one stream of random numbers begins it again when a search goes on, and
proposes the same once more. Here each trial's draws depend on the seed and the trial's number: a
search with one worker gives the same again, also where it was killed on the way.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

AT_RANDOM = 6
"""Trials that are drawn at random before anything is learnt from others: the points where a search
begins lie next to all on one line."""
Make = Callable[[int], BaseSampler]


class SeededByTrial(BaseSampler):
    """A sampler that is made anew for every trial."""

    def __init__(self, make: Make, seed: int) -> None:
        """Make no sampler yet.

        Args:
            make: Returns a sampler with a seed.
            seed: Of the search.
        """
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the trial's sampler."""
        seed = random.Random(f"{self._seed} {trial.number}").randrange(1 << 31)
        self._sampler = self._make(seed)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the numbers that are proposed together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose these numbers."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose a number by itself."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the sampler what became of its trial."""
        self._sampler.after_trial(study, trial, state, values)


def tpe(starts: int) -> Make:
    """Return what makes a tree of Parzen estimators; it keeps away from what others are trying."""
    return lambda seed: TPESampler(
        n_startup_trials=starts + AT_RANDOM, constant_liar=True, seed=seed
    )


def gp(starts: int) -> Make:
    """Return what makes a Gaussian process, which knows of limits."""

    def make(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return GPSampler(
                n_startup_trials=starts + AT_RANDOM, warn_independent_sampling=False, seed=seed
            )

    return make


def at_random(_: int = 0) -> Make:
    """Return what draws every number at random."""
    return lambda seed: RandomSampler(seed=seed)
