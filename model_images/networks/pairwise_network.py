"""A network that says which of two rows has the target above 0.5, stopped when pairs held out no longer gain.

After Jim Fleming's pairwise model, a Siamese network [1]_: both rows of a pair go through the same extractor (layers of
16 and 8 units), and a classifier (16 units) sees what it made of either. Pairs are drawn anew every epoch, a row above
0.5 with one below, in both orders; rows at exactly 0.5 teach nothing. A row of the tournament is set against many rows
of the training part, drawn by the seed, and gets the mean of the probabilities that it is the one above.

Extractor and normalisation see both rows of all pairs in one batch: were they to see left and right rows one after the
other, each side would be normalised by itself.

Every row is extracted once. The classifier's first layer is a sum of what it makes of the left and of the right row, so
what is left to do for a pair is an addition and the rest of the classifier: the mean over 1,000 partners takes no more
than seconds.

Two things differ from his, measured on generated rows of 50 features; figures are of rows of later eras, the first on
22,000 rows where the best possible logloss is 0.6816, the second on 20,000 where it is 0.6392. A fifth of the units are
silenced at random in training: 0.6895 and 0.6605 with it, 0.6906 and 0.6652 without. And steps are larger, from more
rows: LEARNING_RATE 0.0001 and BATCH_SIZE 128, his, came to 0.6916 and 0.6672, without silencing and in more steps.

Parameters of its own:

``HIDDEN_LAYERS`` (2), ``WIDTH`` (16)
    The extractor's layers, and the units of the first; each other has half as many as the one before.
``CLASSIFIER_WIDTH`` (16)
    Units of the classifier's hidden layer.
``PARTNERS`` (1,000)
    Rows of the training part that every row is set against; all of them where there are no more.
``DROPOUT`` (0.2)
    The share of each hidden layer's units that are silenced at random in a step of the training.
``WEIGHT_DECAY`` (0.001)
    The loss grows by half its product with the squared weights.
``LEARNING_RATE`` (0.001), ``BATCH_SIZE`` (1,024)
    The size of a step, and the pairs it is computed from.
``MAX_EPOCHS`` (200), ``PATIENCE`` (10)
    How often pairs are drawn at most; stop after so many epochs without gain, and go back to the best one.
``EMBEDDINGS`` (perplexity_30)
    The maps whose coordinates are further features, by comma, or ``none``.
``ROW_LIMIT`` (500,000, fewer where their features would fill more than half of MEMORY_LIMIT)
    Above it, either part of the split is a sample that keeps every era's and either class's share.

.. [1] Bromley et al., "Signature Verification using a 'Siamese' Time Delay Neural Network", NIPS 1993.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from numerai_contract import targets
from numerai_contract.embeddings import Embedding
from numerai_contract.exits import BadDataError
from numerai_contract.self_test import lay_preparations

from . import _nets, _on_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_EPOCHS": "3", "BATCH_SIZE": "64", "PARTNERS": "20"}
prepare_self_test = lay_preparations

_EMBEDDINGS = (Embedding(30),)
# an epoch after another of small steps: statistics of more batches are steadier
_MOMENTUM = 0.99
# held-out pairs at a time
_PAIRS_AT_A_TIME = 4_096


def run(task: Task) -> None:
    """Fit on pairs of the split's training part and predict the tournament table."""
    settings, seed = settings_of(task.parameters), task.parameters.seed
    _nets.make_deterministic(task.parameters)

    tables, examples = _on_split.read(task, targets.classes(task.training), _EMBEDDINGS)
    _refuse_one_class(task, examples.held_out)
    with task.progress.step("measuring the features"):
        scaling = _nets.Scaling.of(examples.training.features)
    network = PairNetwork(settings, scaling)
    with task.progress.step(f"training {network.of_pairs.count_params():,} weights on the {_nets.device()}"):
        fitted = _nets.fit(
            network.of_pairs,
            Pairs(examples.training, settings.schedule.batch_size, seed=seed, anew=True),
            Pairs(examples.held_out, _PAIRS_AT_A_TIME, seed=seed, anew=False),
            settings.schedule,
            task.progress,
        )
    task.note(
        f"best logloss on held-out pairs {fitted.best_loss:.5f} after epoch {fitted.best_epoch:,} of {fitted.epochs:,}"
    )

    rows = len(examples.training.labels)
    drawn = np.random.default_rng(seed).choice(rows, min(settings.partners, rows), replace=False)
    chosen = {
        "hidden_layers": settings.hidden_layers,
        "width": settings.width,
        "classifier_width": settings.classifier_width,
        "partners": len(drawn),
        "dropout": settings.dropout,
        "weight_decay": settings.weight_decay,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.schedule.batch_size,
    }
    _on_split.deliver(network.against(examples.training.features[drawn]), fitted, task, tables, examples, chosen)


class Settings(NamedTuple):
    """The parameters described at the top of this module."""

    hidden_layers: int
    width: int
    classifier_width: int
    partners: int
    dropout: float
    weight_decay: float
    learning_rate: float
    schedule: _nets.Schedule


def settings_of(parameters: Parameters) -> Settings:
    """Read the parameters of this module."""
    return Settings(
        hidden_layers=parameters.whole("HIDDEN_LAYERS", 2, at_least=1, at_most=20),
        width=parameters.whole("WIDTH", 16, at_least=1, at_most=4_096),
        classifier_width=parameters.whole("CLASSIFIER_WIDTH", 16, at_least=1, at_most=4_096),
        partners=parameters.whole("PARTNERS", 1_000, at_least=1, at_most=10_000),
        dropout=parameters.number("DROPOUT", 0.2, at_least=0, at_most=0.9),
        weight_decay=parameters.number("WEIGHT_DECAY", 0.001, at_least=0, at_most=10),
        learning_rate=parameters.number("LEARNING_RATE", 0.001, at_least=1e-6, at_most=0.1),
        schedule=_nets.Schedule.asked_for(parameters, batch_size=1024, max_epochs=200, patience=10),
    )


def _refuse_one_class(task: Task, held_out: _nets.Part) -> None:
    if 0 < held_out.labels.mean() < 1:
        return
    side = "above" if held_out.labels[0] else "below"
    raise BadDataError(
        f"{task.training.path.name}: every target of the split's validation part is {side} 0.5, so there are no pairs "
        "to stop by. Run `adversarial_validation` with a larger VALIDATION_SHARE."
    )


class Pairs(keras.utils.PyDataset):  # type: ignore[misc]  # Keras's own class is untyped here
    """Hands pairs of opposite class to Keras a batch at a time: shape (batch, 2, features), and 1 where left is above.

    Every row of the rarer class is in two pairs, once left and once right, with a row of the other class.

    Parameters
    ----------
    part
        Where rows come from; labels are 0 and 1, and there are both.
    size
        Pairs of a batch.
    seed
        Of who is paired with whom.
    anew
        Whether every epoch has pairs of its own, less those that fill no batch, or always the same, all of them.
    """

    def __init__(self, part: _nets.Part, size: int, *, seed: int, anew: bool) -> None:
        super().__init__()
        self._features, self._anew = part.features, anew
        self._above, self._below = np.flatnonzero(part.labels > 0.5), np.flatnonzero(part.labels < 0.5)
        self._random = np.random.default_rng(seed)
        self._rows, self._labels = self._drawn()
        self._size = min(size, len(self._labels))

    def __len__(self) -> int:
        batches = len(self._labels) / self._size
        return math.floor(batches) if self._anew else math.ceil(batches)

    def __getitem__(self, batch: int) -> tuple[_nets.Features, NDArray[np.float32]]:
        part = slice(batch * self._size, (batch + 1) * self._size)
        return self._features[self._rows[part]], self._labels[part, np.newaxis]

    def on_epoch_end(self) -> None:
        """Pair rows anew."""
        if self._anew:
            self._rows, self._labels = self._drawn()

    def _drawn(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        count = min(len(self._above), len(self._below))
        above, below = (self._random.permutation(side)[:count] for side in (self._above, self._below))
        order = self._random.permutation(2 * count)
        pairs = np.column_stack([np.concatenate([above, below]), np.concatenate([below, above])])
        return pairs[order], (order < count).astype(np.float32)


class PairNetwork:
    """The networks that share the weights.

    Parameters
    ----------
    settings
        Their shape, and how they learn.
    scaling
        Of the features.

    Attributes
    ----------
    of_pairs : keras.Model
        Compiled; from two rows' features as they are in the table, shape (pairs, 2, features), to the logit of the left
        one's being above.
    """

    def __init__(self, settings: Settings, scaling: _nets.Scaling) -> None:
        decay, features = settings.weight_decay, len(scaling.means)
        widths = _nets.halving(settings.width, settings.hidden_layers)
        row = keras.Input((features,))
        extracted = _nets.hidden_layers(
            scaling.apply(row), widths, dropout=settings.dropout, weight_decay=decay, momentum=_MOMENTUM
        )
        self._extractor = keras.Model(row, extracted)
        # one layer on both rows' units side by side, in two halves
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
        self._head = keras.Model(sums, _nets.logit(units, weight_decay=decay))

        pairs = keras.Input((2, features))
        # both rows of all pairs in one batch, see the top of this module
        extracted = ops.reshape(self._extractor(ops.reshape(pairs, (-1, features))), (-1, 2, widths[-1]))
        logits = self._head(self._left(extracted[:, 0]) + self._right(extracted[:, 1]))
        self.of_pairs = _nets.compiled(keras.Model(pairs, logits), keras.optimizers.Adam(settings.learning_rate))

    def against(self, partners: _nets.Features) -> Any:
        """Build a network from a row's features to the logit of its mean probability of being above its partners.

        Parameters
        ----------
        partners
            Features as they are in the table, shape (partners, features).
        """
        row = keras.Input((partners.shape[1],))
        theirs = self._right(self._extractor(partners, training=False))
        return keras.Model(row, _MeanAgainst(theirs, self._head)(self._left(self._extractor(row))))


class _MeanAgainst(layers.Layer):  # type: ignore[misc]  # as above
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
        """Compute the logits, shape (rows, 1), partner by partner: all pairs at once would fill gigabytes."""

        def add(partner: Any, total: Any) -> Any:
            return total + ops.sigmoid(self._head(ours + self._theirs[partner], training=False))

        mean = ops.fori_loop(0, len(self._theirs), add, ops.zeros_like(ours[:, :1])) / len(self._theirs)
        return ops.log(mean) - ops.log(1 - mean)

    def compute_output_shape(self, input_shape: tuple[int | None, int]) -> tuple[int | None, int]:
        """Give the shape of the logits."""
        return (input_shape[0], 1)
