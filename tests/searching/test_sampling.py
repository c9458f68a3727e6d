"""Who proposes ratios: the same again with a seed, and nothing that breaks a limit if it can."""

from __future__ import annotations

import optuna

from chatvec_method.searching.sampling import AT_RANDOM, SeededByTrial, at_random, gp, tpe

RANGES = {"a": optuna.distributions.FloatDistribution(0, 1, step=0.005)}


def test_a_search_that_goes_on_draws_as_if_it_had_not_stopped() -> None:
    def drawn(*stops: int) -> list[float]:
        storage = optuna.storages.InMemoryStorage()
        values: list[float] = []
        for count in stops:
            sampler = SeededByTrial(at_random(), seed=5)
            study = optuna.create_study(
                storage=storage, study_name="one", sampler=sampler, load_if_exists=True
            )
            for _ in range(count):
                trial = study.ask(RANGES)
                values.append(trial.params["a"])
                study.tell(trial, trial.params["a"])
        return values

    assert drawn(6) == drawn(2, 4)
    assert len(set(drawn(6))) == 6


def test_a_limit_keeps_the_gaussian_process_away_from_where_it_is_broken() -> None:
    sampler = SeededByTrial(gp(starts=2), seed=1)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    proposed = []
    for _ in range(2 + AT_RANDOM + 4):
        trial = study.ask(RANGES)
        a = trial.params["a"]
        trial.set_constraint("a<=0.5", a - 0.5)
        study.tell(trial, [a, abs(a - 0.9)])
        proposed.append(a)
    learnt = proposed[2 + AT_RANDOM :]
    assert all(0.3 < a <= 0.6 for a in learnt), learnt


def test_trials_that_ended_early_teach_tpe_where_not_to_go() -> None:
    sampler = SeededByTrial(tpe(starts=4), seed=1)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    proposed = []
    for _ in range(4 + AT_RANDOM + 20):
        trial = study.ask(RANGES)
        a = trial.params["a"]
        if a < 0.6:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, [a, 1 - a])
        proposed.append(a)
    learnt = proposed[4 + AT_RANDOM :]
    assert sum(a >= 0.6 for a in learnt) > 0.7 * len(learnt)
