"""A small network on the features and the maps of t-SNE, stopped when the split's validation part no longer gains.

After Jim Fleming's classifier: two layers of 32 and 16 rectified units, each normalised over the batch, and an L2
penalty on all weights. The target's value is learned as a probability (cross-entropy on the value), so the same model
takes a target of 0 and 1 and one with grades between.

Three things differ from his, measured on 22,000 generated rows of 50 features where the best possible logloss is
0.6816, a linear model's 0.6897 and a coin's 0.6931; figures are of 50,000 rows of later eras. The last layer starts
from zero: started at random, the network was worse than a coin when it stopped (0.6992). Half the units are silenced
at random in training: 0.6879 with it, 0.6907 without. And steps are larger, from more rows: 0.6877, in an
eighteenth of the steps that LEARNING_RATE 0.0001 and BATCH_SIZE 128, his, took for 0.6879.

Parameters of its own:

``HIDDEN_LAYERS`` (2), ``WIDTH`` (32)
    Layers, and the units of the first; each other has half as many as the one before.
``DROPOUT`` (0.5)
    The share of each hidden layer's units that are silenced at random in a step of the training.
``WEIGHT_DECAY`` (0.001)
    The loss grows by half its product with the squared weights.
``LEARNING_RATE`` (0.001), ``BATCH_SIZE`` (1,024)
    The size of a step, and the rows it is computed from.
``MAX_EPOCHS`` (200), ``PATIENCE`` (10)
    How often every row is seen at most; stop after so many epochs without gain, and go back to the best one.
``EMBEDDINGS`` (perplexity_05_polynomial, perplexity_15_polynomial, perplexity_50_polynomial)
    The maps whose coordinates are further features, by comma, or ``none``.
``ROW_LIMIT`` (500,000, fewer where their features would fill more than half of MEMORY_LIMIT)
    Above it, either part of the split is a sample that keeps every era's and every target value's share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from numerai_contract import targets
from numerai_contract.embeddings import Embedding
from numerai_contract.self_test import lay_preparations

from . import _nets, _on_split

if TYPE_CHECKING:
    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_EPOCHS": "3", "BATCH_SIZE": "64"}
prepare_self_test = lay_preparations

_EMBEDDINGS = tuple(Embedding(perplexity, polynomial=True) for perplexity in (5, 15, 50))
# an epoch after another of small steps: statistics of more batches are steadier
_MOMENTUM = 0.99


def run(task: Task) -> None:
    """Fit on the split's training part and predict the tournament table."""
    settings = _settings(task.parameters)
    _nets.make_deterministic(task.parameters)

    tables, examples = _on_split.read(task, targets.values(task.training), _EMBEDDINGS)
    with task.progress.step("measuring the features"):
        scaling = _nets.Scaling.of(examples.training.features)
    network = _network(settings, scaling)
    with task.progress.step(f"training {network.count_params():,} weights on the {_nets.device()}"):
        batches = _nets.Batches(examples.training, settings.schedule.batch_size, shuffle_seed=task.parameters.seed)
        fitted = _nets.fit(network, batches, _nets.Batches(examples.held_out), settings.schedule, task.progress)
    task.note(f"best held-out logloss {fitted.best_loss:.5f} after epoch {fitted.best_epoch:,} of {fitted.epochs:,}")

    chosen = {
        "hidden_layers": settings.hidden_layers,
        "width": settings.width,
        "dropout": settings.dropout,
        "weight_decay": settings.weight_decay,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.schedule.batch_size,
    }
    _on_split.deliver(network, fitted, task, tables, examples, chosen)


class _Settings(NamedTuple):
    """The parameters described at the top of this module."""

    hidden_layers: int
    width: int
    dropout: float
    weight_decay: float
    learning_rate: float
    schedule: _nets.Schedule


def _settings(parameters: Parameters) -> _Settings:
    return _Settings(
        hidden_layers=parameters.whole("HIDDEN_LAYERS", 2, at_least=1, at_most=20),
        width=parameters.whole("WIDTH", 32, at_least=1, at_most=4_096),
        dropout=parameters.number("DROPOUT", 0.5, at_least=0, at_most=0.9),
        weight_decay=parameters.number("WEIGHT_DECAY", 0.001, at_least=0, at_most=10),
        learning_rate=parameters.number("LEARNING_RATE", 0.001, at_least=1e-6, at_most=0.1),
        schedule=_nets.Schedule.asked_for(parameters, batch_size=1024, max_epochs=200, patience=10),
    )


def _network(settings: _Settings, scaling: _nets.Scaling) -> Any:
    """Build and compile the network: from features as they are in the table to a logit."""
    inputs = keras.Input((len(scaling.means),))
    units = _nets.hidden_layers(
        scaling.apply(inputs),
        _nets.halving(settings.width, settings.hidden_layers),
        dropout=settings.dropout,
        weight_decay=settings.weight_decay,
        momentum=_MOMENTUM,
    )
    network = keras.Model(inputs, _nets.logit(units, weight_decay=settings.weight_decay))
    return _nets.compiled(network, keras.optimizers.Adam(settings.learning_rate))
