"""A Siamese network trained on pairs of rows to predict which has the target above 0.5, with early stopping on pairs.

After Jim Fleming's pairwise model, a Siamese network [1]_: both rows of a pair go through the same extractor (layers of
16 and 8 units), and a classifier (16 units) combines both outputs. Pairs are drawn again in every epoch, a row above
0.5 and a row below, in both orders; rows at exactly 0.5 are not used. A row to predict is compared with many rows
of the training part, drawn by the seed; its prediction is the mean probability that its target is the higher one.

Extractor and normalisation process both rows of all pairs in one batch: with left and right rows in separate batches,
each side would be normalised separately.

Every row is extracted once. The classifier's first layer is a sum of one term of the left and one of the right row, so
each pair needs only an addition and the rest of the classifier: the mean over 1,000 partners takes seconds.

It has two differences, measured on generated rows of 50 features; the figures are for rows of later eras, the first on
22,000 rows where the best possible logloss is 0.6816, the second on 20,000 where it is 0.6392. A fifth of the units are
dropped at random in training: 0.6895 and 0.6605 with dropout, 0.6906 and 0.6652 without. And steps and batches are
larger: his LEARNING_RATE 0.0001 and BATCH_SIZE 128 resulted in 0.6916 and 0.6672, without dropout and in more steps.

The final fit trains for as many epochs as were best, on all rows of both tables, and draws its partners from them.

Environment variables:

``HIDDEN_LAYERS`` (2), ``WIDTH`` (16)
    The extractor's layers, and the units of the first; each other has half the units of the layer before.
``CLASSIFIER_WIDTH`` (16)
    Units of the classifier's hidden layer.
``PARTNERS`` (1,000)
    Number of training rows that every row is compared with; all rows when there are fewer.
``DROPOUT`` (0.2)
    The share of each hidden layer's units that a training step drops at random.
``WEIGHT_DECAY`` (0.001)
    The L2 penalty: half its product with the squared weights is added to the loss.
``LEARNING_RATE`` (0.001), ``BATCH_SIZE`` (1,024)
    The size of a step, and its number of pairs.
``MAX_EPOCHS`` (200), ``PATIENCE`` (10)
    Maximum number of epochs; stop after so many epochs without improvement, and restore the best one.
``EMBEDDINGS`` (perplexity_30)
    The embeddings whose coordinates are further features, separated by commas, or ``none``.
``ROW_LIMIT`` (2,400,000 with 50 features, 610,000 with 780, fewer where they would not fit MEMORY_LIMIT)
    Above it, each part of the split is a sample that keeps the share of every era and class.

.. [1] Bromley et al., "Signature Verification using a 'Siamese' Time Delay Neural Network", NIPS 1993.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from numerai_contract import saved_state, targets
from numerai_contract.embeddings import Embedding
from numerai_contract.exits import BadDataError
from numerai_contract.fitting import Fitted
from numerai_contract.self_test import write_fixture_inputs

from . import _keras_utils, _split_training
from ._network_plan import network_plan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_EPOCHS": "3", "BATCH_SIZE": "64", "PARTNERS": "20"}
prepare_self_test = write_fixture_inputs

_EMBEDDINGS = (Embedding(30),)
# many epochs of small steps: the statistics of more batches vary less
_MOMENTUM = 0.99
# held-out pairs at a time
_PAIRS_AT_A_TIME = 4_096


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit."""
    return network_plan(parameters, sizes, _EMBEDDINGS)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on pairs of the split's training part, with early stopping on pairs of its validation part.

    The final fit trains on pairs of all rows for the best number of epochs.
    """
    settings, schedule, seed = read_settings(task.parameters), _read_schedule(task.parameters), task.parameters.seed
    _keras_utils.make_deterministic(task.parameters)

    tables, examples = _split_training.read(task, targets.classes(task.training), _EMBEDDINGS)
    features, held_out = examples.training.features, examples.held_out
    if held_out is not None:
        _require_both_classes(task, held_out)
    scaling = _keras_utils.measure(task, examples)
    networks = PairNetwork(settings, scaling)
    epochs, outcome = _keras_utils.train(
        task,
        networks.of_pairs,
        Pairs(examples.training, schedule.batch_size, seed=seed, redraw=True),
        None if held_out is None else Pairs(held_out, _PAIRS_AT_A_TIME, seed=seed, redraw=False),
        schedule,
        earlier,
    )

    drawn = np.random.default_rng(seed).choice(len(features), min(settings.partners, len(features)), replace=False)
    partners = features[drawn]
    network = networks.compared_with(partners)
    chosen = {
        "hidden_layers": settings.hidden_layers,
        "width": settings.width,
        "classifier_width": settings.classifier_width,
        "partners": len(drawn),
        "dropout": settings.dropout,
        "weight_decay": settings.weight_decay,
        "learning_rate": settings.learning_rate,
        "batch_size": schedule.batch_size,
        **outcome,
    }
    on_split = None if held_out is None else _keras_utils.probabilities(network, held_out.features)
    summary = _split_training.summarize(tables, examples, chosen, on_split)
    state = {"network": settings._asdict(), "embeddings": tables.source.names}
    arrays = {**scaling._asdict(), "partners": partners}
    return Fitted(_keras_utils.NetworkModel(network, networks.of_pairs, state, arrays), summary, epochs)


def load(task: Task, directory: Path) -> _keras_utils.NetworkModel:
    """Load a saved model."""
    _keras_utils.make_deterministic(task.parameters)
    state = saved_state.load(directory)
    networks = PairNetwork(Settings(**state.settings["network"]), _keras_utils.Scaling.from_state(state))
    _keras_utils.set_weights(networks.of_pairs, state)
    network = networks.compared_with(state.arrays["partners"])
    return _keras_utils.NetworkModel(network, networks.of_pairs, state.settings, state.arrays)


class Settings(NamedTuple):
    """The parameters described at the top of this module."""

    hidden_layers: int
    width: int
    classifier_width: int
    partners: int
    dropout: float
    weight_decay: float
    learning_rate: float


def read_settings(parameters: Parameters) -> Settings:
    """Read the parameters of this module."""
    return Settings(
        hidden_layers=parameters.get_int("HIDDEN_LAYERS", 2, at_least=1, at_most=20),
        width=parameters.get_int("WIDTH", 16, at_least=1, at_most=4_096),
        classifier_width=parameters.get_int("CLASSIFIER_WIDTH", 16, at_least=1, at_most=4_096),
        partners=parameters.get_int("PARTNERS", 1_000, at_least=1, at_most=10_000),
        dropout=parameters.get_float("DROPOUT", 0.2, at_least=0, at_most=0.9),
        weight_decay=parameters.get_float("WEIGHT_DECAY", 0.001, at_least=0, at_most=10),
        learning_rate=parameters.get_float("LEARNING_RATE", 0.001, at_least=1e-6, at_most=0.1),
    )


def _read_schedule(parameters: Parameters) -> _keras_utils.Schedule:
    return _keras_utils.Schedule.read(parameters, batch_size=1024, max_epochs=200, early_stopping=10)


def _require_both_classes(task: Task, held_out: _keras_utils.Part) -> None:
    above, below = (held_out.labels > 0.5).any(), (held_out.labels < 0.5).any()
    if above and below:
        return
    raise BadDataError(
        f"{task.training.path.name}: no target of the split's validation part is {'below' if above else 'above'} 0.5, "
        "so there are no held-out pairs. Run `adversarial_validation` with a larger VALIDATION_SHARE."
    )


class Pairs(keras.utils.PyDataset):  # type: ignore[misc]  # Keras's class is untyped here
    """Passes pairs of opposite class to Keras: shape (batch, 2, features), and 1 where the left row is above.

    Every row of the rarer class is in two pairs, once left and once right, with a row of the other class.

    Parameters
    ----------
    part
        The rows; labels are 0 and 1, both of them present.
    size
        Pairs of a batch.
    seed
        Determines the pairs.
    redraw
        Whether every epoch has new pairs, in complete batches only, or all epochs have the same pairs.
    """

    def __init__(self, part: _keras_utils.Part, size: int, *, seed: int, redraw: bool) -> None:
        super().__init__()
        self._features, self._redraw = part.features, redraw
        self._above, self._below = np.flatnonzero(part.labels > 0.5), np.flatnonzero(part.labels < 0.5)
        self._random = np.random.default_rng(seed)
        self._rows, self._labels = self._draw()
        self._size = min(size, len(self._labels))

    def __len__(self) -> int:
        batches = len(self._labels) / self._size
        return math.floor(batches) if self._redraw else math.ceil(batches)

    def __getitem__(self, batch: int) -> tuple[_keras_utils.Features, NDArray[np.float32]]:
        part = slice(batch * self._size, (batch + 1) * self._size)
        return self._features[self._rows[part]], self._labels[part, np.newaxis]

    def on_epoch_end(self) -> None:
        """Draw new pairs."""
        if self._redraw:
            self._rows, self._labels = self._draw()

    def _draw(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        count = min(len(self._above), len(self._below))
        above, below = (self._random.permutation(side)[:count] for side in (self._above, self._below))
        order = self._random.permutation(2 * count)
        pairs = np.column_stack([np.concatenate([above, below]), np.concatenate([below, above])])
        return pairs[order], (order < count).astype(np.float32)


class PairNetwork:
    """Networks of shared weights, for pairs and for single rows.

    Parameters
    ----------
    settings
        Their parameters.
    scaling
        The scaling of the features.

    Attributes
    ----------
    of_pairs : keras.Model
        Compiled; from a table's features of two rows, shape (pairs, 2, features), to the logit of the probability that
        the left row has the higher target.
    """

    def __init__(self, settings: Settings, scaling: _keras_utils.Scaling) -> None:
        decay, features = settings.weight_decay, len(scaling.means)
        widths = _keras_utils.layer_widths(settings.width, settings.hidden_layers)
        row = keras.Input((features,))
        extracted = _keras_utils.hidden_layers(
            scaling.apply(row), widths, dropout=settings.dropout, weight_decay=decay, momentum=_MOMENTUM
        )
        self._extractor = keras.Model(row, extracted)
        # one layer on the concatenated units of both rows, as two halves
        self._left, self._right = (
            layers.Dense(
                settings.classifier_width,
                use_bias=False,
                kernel_initializer="he_normal",
                kernel_regularizer=keras.regularizers.L2(decay / 2),
            )
            for _ in range(2)
        )
        sums = keras.Input((settings.classifier_width,))
        units = layers.Activation("relu")(layers.BatchNormalization(momentum=_MOMENTUM)(sums))
        units = layers.Dropout(settings.dropout)(units)
        self._head = keras.Model(sums, _keras_utils.logit(units, weight_decay=decay))

        pairs = keras.Input((2, features))
        # both rows of all pairs in one batch, see the top of this module
        extracted = ops.reshape(self._extractor(ops.reshape(pairs, (-1, features))), (-1, 2, widths[-1]))
        logits = self._head(self._left(extracted[:, 0]) + self._right(extracted[:, 1]))
        self.of_pairs = _keras_utils.compiled(keras.Model(pairs, logits), keras.optimizers.Adam(settings.learning_rate))

    def compared_with(self, partners: _keras_utils.Features) -> Any:
        """Build a network from a row's features to the logit of its mean probability in comparison with partners.

        Parameters
        ----------
        partners
            A table's features, shape (partners, features).
        """
        row = keras.Input((partners.shape[1],))
        theirs = self._right(self._extractor(partners, training=False))
        return keras.Model(row, _MeanPairwiseScore(theirs, self._head)(self._left(self._extractor(row))))


class _MeanPairwiseScore(layers.Layer):  # type: ignore[misc]  # as above
    """From a row's half of the classifier's first layer to the logit of its mean probability.

    Parameters
    ----------
    theirs
        The partners' half, shape (partners, units).
    head
        The rest of the classifier.
    """

    def __init__(self, theirs: Any, head: Any) -> None:
        super().__init__()
        self._theirs, self._head = theirs, head

    def call(self, ours: Any) -> Any:
        """Compute the logits, shape (rows, 1), partner by partner: all pairs at once would take gigabytes."""

        def add(partner: Any, total: Any) -> Any:
            return total + ops.sigmoid(self._head(ours + self._theirs[partner], training=False))

        mean = ops.fori_loop(0, len(self._theirs), add, ops.zeros_like(ours[:, :1])) / len(self._theirs)
        return ops.log(mean) - ops.log(1 - mean)

    def compute_output_shape(self, input_shape: tuple[int | None, int]) -> tuple[int | None, int]:
        """Return the shape of the logits."""
        return (input_shape[0], 1)
