"""TPOT's genetic programming, with evaluation by the caller."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ._library import BaseEvolver, ind_crossover, ind_mutate
from ._spaces import individuals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numerai_contract.workers import Outcome

_OBJECTIVE = "negative_log_loss"
# TPOT's marks of individuals that are removed from the population and have no offspring
_TIMEOUT, _INVALID = "TIMEOUT", "INVALID"


class Evolution(BaseEvolver):  # type: ignore[misc]  # TPOT is untyped
    """A population of pipelines and its offspring, generation by generation.

    Space, mutation, crossover and selection are TPOT's; only the evaluation does not use dask's workers, which can only
    request the end of a fit: a fit inside native code continues and blocks its worker.

    Parameters
    ----------
    space
        Of pipelines, see `_spaces`.
    population
        Number of survivors of a generation, and of their offspring.
    seed
        Seed of every random choice.
    evaluate
        Called with a generation's pipelines, not fitted; returns their outcomes in the same order. It may raise to end
        the search.
    check
        Called repeatedly while a generation is bred, which takes time; it may raise as well.
    """

    def __init__(
        self,
        space: Any,
        population: int,
        seed: int,
        evaluate: Callable[[list[Any]], Sequence[Outcome]],
        check: Callable[[], None],
    ) -> None:
        self._evaluate = evaluate
        random = np.random.default_rng(seed)
        super().__init__(
            individual_generator=individuals(space, random),
            objective_functions=[],
            objective_function_weights=[1],
            objective_names=[_OBJECTIVE],
            population_size=population,
            mutation_functions=[_after(check, ind_mutate)],
            crossover_functions=[_after(check, ind_crossover)],
            rng=random,
        )

    def evolve(self) -> None:
        """Breed generations until the evaluation raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.evaluate_population()
            while not self.population.population:
                others = [next(self.individual_generator) for _ in range(self.population_size)]
                self.population.add_to_population(others, self.rng)
                self.evaluate_population()
            self.generation = 1
            while True:
                self.step()

    def evaluate_population_full(self, budget: float | None = None) -> None:
        """Evaluate new individuals, and remove failed ones from the population."""
        unknown = self.get_unevaluated_individuals(self.objective_names, budget=budget)
        outcomes = self._evaluate([individual.export_pipeline() for individual in unknown])
        if not outcomes:
            return
        scores = [[-outcome.value.loss if outcome.status == "succeeded" else np.nan] for outcome in outcomes]
        errors = [_error(outcome) for outcome in outcomes]
        self.population.update_column(unknown, column_names=self.objective_names, data=scores)
        self.population.update_column(unknown, column_names="Eval Error", data=errors)
        for error in (_TIMEOUT, _INVALID):
            self.population.remove_invalid_from_population("Eval Error", invalid_value=error)


def _after(first: Callable[[], None], work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def both(*arguments: Any, **keywords: Any) -> Any:
        first()
        return work(*arguments, **keywords)

    return both


def _error(outcome: Outcome) -> str | None:
    if outcome.status == "succeeded":
        return None
    return _TIMEOUT if outcome.status == "timed_out" else _INVALID
