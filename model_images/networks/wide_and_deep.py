"""A deep network with a linear part beside it, trained together, stopped when the latest eras no longer gain.

"Wide & Deep" after Cheng et al. [1]_: the wide part is a linear model over the features and a few products of two of
them, the deep part six hidden layers of 50 units; their outputs are added and go through one sigmoid. The target's
value is learned as a probability (cross-entropy on the value), so the same model takes a target of 0 and 1 and one with
grades between.

Parameters of its own:

``HIDDEN_LAYERS`` (6), ``WIDTH`` (50)
    The deep part's layers, and the units of each.
``DROPOUT`` (0.2)
    The share of each hidden layer's units that are silenced at random in a step of the training.
``WIDE_CROSSES`` (20)
    How many products of two features the wide part sees, drawn by the seed. More than 50 fit noise at once.
``WEIGHT_DECAY`` (0.1)
    How strongly all weights are drawn to zero [2]_.
``LEARNING_RATE`` (0.003), ``BATCH_SIZE`` (1,024)
    The size of a step, and the rows it is computed from.
``MAX_EPOCHS`` (100), ``PATIENCE`` (10)
    How often every row is seen at most; stop after so many epochs without gain, and go back to the best one.
``EMBARGO_ERAS`` (8)
    Eras left out between the training and the held-out eras, as the targets of neighbours overlap.
``ROW_LIMIT`` (500,000, fewer where their features would fill more than half of MEMORY_LIMIT)
    Above the limit it learns from a sample that keeps every era's share.

.. [1] Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv:1606.07792.
.. [2] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from numerai_contract import targets
from numerai_contract.task import Learned

from . import _nets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_EPOCHS": "3", "BATCH_SIZE": "64"}


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    settings = _settings(task.parameters)
    _nets.make_deterministic(task.parameters)

    examples, embargo = _nets.read_examples(task, *targets.values(task.training))
    with task.progress.step("measuring the features"):
        scaling = _nets.Scaling.of(examples.training.features)
    crosses = _crosses(len(task.training.feature_names), settings.crosses, seed=task.parameters.seed)
    network = _network(settings, scaling, crosses)
    with task.progress.step(f"training {network.count_params():,} weights on the {_nets.device()}"):
        batches = _nets.Batches(examples.training, settings.schedule.batch_size, shuffle_seed=task.parameters.seed)
        fitted = _nets.fit(network, batches, _nets.Batches(examples.held_out), settings.schedule, task.progress)
    task.note(f"best held-out logloss {fitted.best_loss:.5f} after epoch {fitted.best_epoch:,} of {fitted.epochs:,}")

    probabilities = _nets.predict(network, task.tournament.batches(), len(task.tournament), task.progress)
    task.deliver(
        probabilities,
        Learned(
            training_rows=len(examples.training.labels),
            held_out_rows=len(examples.held_out.labels),
            chosen={
                "hidden_layers": settings.hidden_layers,
                "width": settings.width,
                "dropout": settings.dropout,
                "wide_crosses": crosses.shape[1],
                "weight_decay": settings.weight_decay,
                "learning_rate": settings.learning_rate,
                "batch_size": settings.schedule.batch_size,
                "embargo_eras": embargo,
                "epochs": fitted.epochs,
                "best_epoch": fitted.best_epoch,
                "best_held_out_logloss": fitted.best_loss,
                "device": _nets.device(),
            },
            libraries=("keras", "jax", "jaxlib"),
        ),
    )


class _Settings(NamedTuple):
    """The parameters described at the top of this module."""

    hidden_layers: int
    width: int
    dropout: float
    crosses: int
    weight_decay: float
    learning_rate: float
    schedule: _nets.Schedule


def _settings(parameters: Parameters) -> _Settings:
    return _Settings(
        hidden_layers=parameters.whole("HIDDEN_LAYERS", 6, at_least=1, at_most=20),
        width=parameters.whole("WIDTH", 50, at_least=1, at_most=4_096),
        dropout=parameters.number("DROPOUT", 0.2, at_least=0, at_most=0.9),
        crosses=parameters.whole("WIDE_CROSSES", 20, at_least=0, at_most=50),
        weight_decay=parameters.number("WEIGHT_DECAY", 0.1, at_least=0, at_most=10),
        learning_rate=parameters.number("LEARNING_RATE", 0.003, at_least=1e-6, at_most=0.1),
        schedule=_nets.Schedule.asked_for(parameters, batch_size=1024, max_epochs=100, patience=10),
    )


def _crosses(features: int, count: int, *, seed: int) -> NDArray[np.intp]:
    """Draw pairs of different features, none twice; shape (2, `count`), or fewer pairs where there are no more."""
    pairs = features * (features - 1) // 2
    drawn = np.random.default_rng(seed).choice(pairs, min(count, pairs), replace=False)
    # pairs are numbered (0, 1), (0, 2), (1, 2), (0, 3), ...: those below `larger` come to larger (larger - 1) / 2
    larger = ((1 + np.sqrt(1 + 8 * drawn)) / 2).astype(np.intp)
    return np.array([drawn - larger * (larger - 1) // 2, larger])


def _network(settings: _Settings, scaling: _nets.Scaling, crosses: NDArray[np.intp]) -> Any:
    """Build and compile the network: from features as they are in the table to a logit."""
    inputs = keras.Input((len(scaling.means),))
    features = scaling.apply(inputs)
    products = ops.take(features, crosses[0], axis=1) * ops.take(features, crosses[1], axis=1)
    # from zero: what the wide part says of a feature, it has learned
    wide = layers.Dense(1, kernel_initializer="zeros")(ops.concatenate([features, products], axis=1))
    units = _nets.hidden_layers(features, [settings.width] * settings.hidden_layers, dropout=settings.dropout)
    deep = layers.Dense(1, use_bias=False)(units)
    network = keras.Model(inputs, wide + deep)

    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return _nets.compiled(network, optimizer)
