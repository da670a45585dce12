"""A deep network with a parallel linear part, trained together, with early stopping on the latest eras.

"Wide & Deep" after Cheng et al. [1]_: the wide part is a linear model over the features, the deep part six hidden
layers of 50 units; the sum of their outputs is the input of one sigmoid. The target's value is learned as a probability
(cross-entropy on the value), so the same model takes a target of 0 and 1 and a graded one.

Environment variables:

``HIDDEN_LAYERS`` (6), ``WIDTH`` (50)
    The deep part's layers, and the units of each.
``DROPOUT`` (0.5)
    The share of each hidden layer's units that a training step drops at random.
``WIDE_CROSSES`` (0)
    Number of products of two features in the wide part, drawn by the seed. More than 50 fit noise at once.
``WEIGHT_DECAY`` (0.1)
    Decoupled weight decay of all weights [2]_.
``LEARNING_RATE`` (0.0003), ``BATCH_SIZE`` (4,096; of less than 260,000 rows a 64th, at least 256)
    The size of a step, and its number of rows. On half a million rows of a season with effects of single weeks, a rate
    of .003 with 1,024 rows a step, a dropout of .2 and 20 products scored a CORR of .0042, these defaults .0134.
``MAX_EPOCHS`` (100), ``PATIENCE`` (10)
    Maximum number of epochs; stop after so many epochs without improvement, and restore the best one.
``ROW_LIMIT`` (all rows that fit MEMORY_LIMIT)
    Above the limit it learns from a sample that keeps every era's share.

The last fifth of the eras is held out for early stopping, after the run's EMBARGO. The final fit trains for as many
epochs as were best, on all rows. The report warns of a best held-out loss that is not below that of a constant.

.. [1] Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv:1606.07792.
.. [2] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from numerai_contract import saved_state, targets
from numerai_contract.fitting import Fitted
from numerai_contract.task import TrainingSummary

from . import _keras_utils
from ._network_plan import network_plan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_EPOCHS": "3", "BATCH_SIZE": "64"}

_BATCH_SIZE, _MIN_BATCH_SIZE = 4_096, 256
# least steps of an epoch of batches of less than the full size
_STEPS = 64


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit."""
    return network_plan(parameters, sizes, all_rows=True)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the training table, with early stopping; the final fit trains for the best number of epochs."""
    settings = _read_settings(task.parameters)
    _keras_utils.make_deterministic(task.parameters)

    planned = plan(task.parameters, task.sizes)
    examples, embargo = _keras_utils.read_examples(task, targets.values(task.training), planned)
    schedule = _read_schedule(task.parameters, len(examples.training.labels))
    crosses = _crosses(len(task.training.feature_names), settings.crosses, seed=task.parameters.seed)
    scaling = _keras_utils.measure(task, examples)
    network = _network(settings, scaling, crosses)
    optimizer = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    epochs, outcome = _keras_utils.train_on_rows(
        task, _keras_utils.compiled(network, optimizer), examples, schedule, earlier
    )
    summary = TrainingSummary(
        training_rows=len(examples.training.labels),
        held_out_rows=examples.held_out_rows,
        chosen={
            "hidden_layers": settings.hidden_layers,
            "width": settings.width,
            "dropout": settings.dropout,
            "wide_crosses": crosses.shape[1],
            "weight_decay": settings.weight_decay,
            "learning_rate": settings.learning_rate,
            "batch_size": schedule.batch_size,
            "embargo_weeks": embargo,
            **outcome,
        },
        libraries=("keras", "jax", "jaxlib"),
    )
    arrays = {**scaling._asdict(), "crosses": crosses}
    return Fitted(_keras_utils.NetworkModel(network, network, {"network": settings._asdict()}, arrays), summary, epochs)


def load(task: Task, directory: Path) -> _keras_utils.NetworkModel:
    """Load a saved model."""
    _keras_utils.make_deterministic(task.parameters)
    state = saved_state.load(directory)
    scaling = _keras_utils.Scaling.from_state(state)
    network = _network(_Settings(**state.settings["network"]), scaling, state.arrays["crosses"])
    _keras_utils.set_weights(network, state)
    return _keras_utils.NetworkModel(network, network, state.settings, state.arrays)


class _Settings(NamedTuple):
    """The parameters described at the top of this module."""

    hidden_layers: int
    width: int
    dropout: float
    crosses: int
    weight_decay: float
    learning_rate: float


def _read_settings(parameters: Parameters) -> _Settings:
    return _Settings(
        hidden_layers=parameters.get_int("HIDDEN_LAYERS", 6, at_least=1, at_most=20),
        width=parameters.get_int("WIDTH", 50, at_least=1, at_most=4_096),
        dropout=parameters.get_float("DROPOUT", 0.5, at_least=0, at_most=0.9),
        crosses=parameters.get_int("WIDE_CROSSES", 0, at_least=0, at_most=50),
        weight_decay=parameters.get_float("WEIGHT_DECAY", 0.1, at_least=0, at_most=10),
        learning_rate=parameters.get_float("LEARNING_RATE", 0.0003, at_least=1e-6, at_most=0.1),
    )


def _read_schedule(parameters: Parameters, rows: int) -> _keras_utils.Schedule:
    # of few rows more steps than an epoch of large batches would have
    batch_size = min(_BATCH_SIZE, max(_MIN_BATCH_SIZE, rows // _STEPS))
    return _keras_utils.Schedule.read(parameters, batch_size=batch_size, max_epochs=100, early_stopping=10)


def _crosses(features: int, count: int, *, seed: int) -> NDArray[np.intp]:
    """Draw different pairs of features; shape (2, `count`), or all pairs when there are fewer."""
    pairs = features * (features - 1) // 2
    drawn = np.random.default_rng(seed).choice(pairs, min(count, pairs), replace=False)
    # pairs are numbered (0, 1), (0, 2), (1, 2), (0, 3), ...: larger (larger - 1) / 2 pairs precede `larger`
    larger = ((1 + np.sqrt(1 + 8 * drawn)) / 2).astype(np.intp)
    return np.array([drawn - larger * (larger - 1) // 2, larger])


def _network(settings: _Settings, scaling: _keras_utils.Scaling, crosses: NDArray[np.intp]) -> Any:
    """Build the network: from a table's features to a logit."""
    inputs = keras.Input((len(scaling.means),))
    features = scaling.apply(inputs)
    products = ops.take(features, crosses[0], axis=1) * ops.take(features, crosses[1], axis=1)
    # the weights of the wide part start at zero, so that its first outputs add no noise
    wide = layers.Dense(1, kernel_initializer="zeros")(ops.concatenate([features, products], axis=1))
    units = _keras_utils.hidden_layers(features, [settings.width] * settings.hidden_layers, dropout=settings.dropout)
    deep = layers.Dense(1, use_bias=False)(units)
    return keras.Model(inputs, wide + deep)
