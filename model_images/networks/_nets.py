"""What every network of this image is made from: features brought to one scale, batches, hidden layers, stopping.

Features go into a network as they are on disk (int8 where they can be), a batch at a time, and are imputed and
standardised inside it: the only float copy there ever is of a table is that of a batch.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import keras
import numpy as np
from keras import layers, ops

from numerai_contract import eras
from numerai_contract.exits import ModelFailureError

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.tables import Table
    from numerai_contract.task import Task

    Features: TypeAlias = NDArray[np.int8] | NDArray[np.float32]

_HELD_OUT_SHARE = 0.2
_ROW_LIMIT = 500_000
# how much of the container's memory the examples may fill; the rest is for Arrow, XLA and the network
_SHARE_OF_MEMORY = 0.5
# rows at a time where nothing is learned: as many as keep the cores busy
_ROWS_AT_A_TIME = 8_192
# columns of how many bytes are looked at together for their statistics, as float32
_COLUMNS_BYTES = 32 << 20
# a hundred batches must count for more than the first: Keras's 0.99 is made for epochs of thousands
_NORMALISATION_MOMENTUM = 0.9


def make_deterministic(parameters: Parameters) -> None:
    """Fix the seed and the number of threads of all that follows; call it before anything is computed.

    XLA reads these variables when it is first used, not when it is imported. ``PJRT_NPROC`` is the size of each of its
    pools of threads [1]_; left alone it takes all of the machine's cores, whatever the container was given.

    .. [1] ``DefaultThreadPoolSize`` in OpenXLA's ``xla/pjrt/utils.cc``.
    """
    os.environ["PJRT_NPROC"] = str(parameters.threads)
    os.environ["XLA_FLAGS"] = "--xla_gpu_exclude_nondeterministic_ops=true"
    # a share of a GPU is enough, and others may be using it
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    keras.utils.set_random_seed(parameters.seed)


class Examples(NamedTuple):
    """Rows to learn from and rows to stop by, the latter from later eras.

    Attributes
    ----------
    features : numpy.ndarray of int8 or float32, shape (rows, features)
        As in the table, NaN where missing.
    labels : numpy.ndarray of float32, shape (rows,)
    training, held_out : numpy.ndarray of int, shape (rows of either side,)
        Positions in `features` and `labels`.
    embargo : int
        Eras left out between the two.
    """

    features: Features
    labels: NDArray[np.float32]
    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    embargo: int


def read_examples(task: Task, rows: NDArray[np.bool_], labels: NDArray[np.float32]) -> Examples:
    """Read the training table's features, at most ROW_LIMIT rows of them, and hold out the last eras.

    Parameters
    ----------
    task
        Its parameters ROW_LIMIT and EMBARGO_ERAS are read.
    rows
        Marks of the rows that can be learned from, shape (rows of the table,).
    labels
        In [0, 1], shape (rows marked,).
    """
    table, parameters = task.training, task.parameters
    embargo = parameters.whole("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    limit = parameters.whole("ROW_LIMIT", _default_row_limit(table, parameters), at_least=100, at_most=100_000_000)
    drawn = eras.sample(table.era_numbers[rows], (labels * 4).round().astype(np.int8), limit, seed=parameters.seed)
    if not drawn.all():
        task.note(f"learning from {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT)")
        rows, labels = eras.within(rows, drawn), labels[drawn]
    split = eras.hold_out_last(table.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=embargo, seed=parameters.seed)
    training, held_out = np.flatnonzero(split.training), np.flatnonzero(split.held_out)
    task.note(f"{split.description}: {len(training):,} rows to learn from, {len(held_out):,} to stop by")
    with task.progress.step("reading the features"):
        features = table.features(rows)
    return Examples(features, labels, training, held_out, split.embargo)


def _default_row_limit(table: Table, parameters: Parameters) -> int:
    if parameters.memory_limit is None:
        return _ROW_LIMIT
    row_bytes = table.feature_dtype.itemsize * len(table.feature_names)
    return min(_ROW_LIMIT, max(100, int(_SHARE_OF_MEMORY * (parameters.memory_limit << 20) / row_bytes)))


class Scaling(NamedTuple):
    """What brings features to mean 0 and variance 1, learned from training rows.

    Attributes
    ----------
    medians, means, scales : numpy.ndarray of float32, shape (features,)
        A missing value becomes the median; a feature that never changes has the scale 0, so that nothing depends on it.
    """

    medians: NDArray[np.float32]
    means: NDArray[np.float32]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, features: Features, rows: NDArray[np.intp]) -> Scaling:
        """Measure the features, shape (all rows, features), on some rows, a few columns at a time."""
        columns = features.shape[1]
        medians, means, scales = (np.zeros(columns, dtype=np.float32) for _ in range(3))
        at_a_time = max(1, _COLUMNS_BYTES // (4 * len(rows)))
        for start in range(0, columns, at_a_time):
            part = slice(start, start + at_a_time)
            # feature by feature in memory: the median is three times as fast
            block = np.ascontiguousarray(features[rows, part].T, dtype=np.float32)
            missing = np.isnan(block)
            known = ~missing.all(axis=1)
            medians[part][known] = np.nanmedian(block[known], axis=1)
            np.copyto(block, medians[part][:, np.newaxis], where=missing)
            means[part] = block.mean(axis=1, dtype=np.float64)
            varies = np.ptp(block, axis=1) > 0
            scales[part][varies] = 1 / block[varies].std(axis=1, dtype=np.float64)
        return cls(medians, means, scales)

    def apply(self, inputs: Any) -> Any:
        """Impute and standardise a layer's output, shape (batch, features)."""
        known = ops.where(ops.isnan(inputs), self.medians, inputs)
        return (known - self.means) * self.scales


def hidden_layers(inputs: Any, *, count: int, width: int, dropout: float) -> Any:
    """Put `count` layers of `width` rectified units on top of `inputs`, each normalised over the batch [1]_.

    .. [1] Ioffe and Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.
    """
    units = inputs
    for _ in range(count):
        units = layers.Dense(width, use_bias=False, kernel_initializer="he_normal")(units)
        units = layers.BatchNormalization(momentum=_NORMALISATION_MOMENTUM)(units)
        units = layers.Activation("relu")(units)
        if dropout:
            units = layers.Dropout(dropout)(units)
    return units


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras's own class is untyped here
    """Hands examples to Keras a batch at a time.

    Parameters
    ----------
    examples
        Where the rows are.
    rows
        Positions of those to hand over, shape (rows,).
    size
        Rows of a batch.
    shuffle_seed
        Makes every epoch another order of the rows, and leaves out those that fill no batch; None keeps the order.
    """

    def __init__(
        self, examples: Examples, rows: NDArray[np.intp], size: int, *, shuffle_seed: int | None = None
    ) -> None:
        super().__init__()
        self._examples, self._rows, self._size = examples, rows, min(size, len(rows))
        self._random = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        batches = len(self._rows) / self._size
        return math.ceil(batches) if self._random is None else math.floor(batches)

    def __getitem__(self, batch: int) -> tuple[Features, NDArray[np.float32]]:
        rows = self._rows[batch * self._size : (batch + 1) * self._size]
        return self._examples.features[rows], self._examples.labels[rows, np.newaxis]

    def on_epoch_end(self) -> None:
        """Shuffle."""
        if self._random is not None:
            self._rows = self._random.permutation(self._rows)


class Schedule(NamedTuple):
    """How a training goes on and when it ends.

    Attributes
    ----------
    batch_size : int
        Rows of a step.
    max_epochs, patience : int
        How often every row is seen at most, and how many epochs without gain are waited for.
    """

    batch_size: int
    max_epochs: int
    patience: int

    @classmethod
    def asked_for(cls, parameters: Parameters, *, batch_size: int, max_epochs: int, patience: int) -> Schedule:
        """Read BATCH_SIZE, MAX_EPOCHS and PATIENCE; the arguments are what holds where they are not set."""
        return cls(
            batch_size=parameters.whole("BATCH_SIZE", batch_size, at_least=2, at_most=1_000_000),
            max_epochs=parameters.whole("MAX_EPOCHS", max_epochs, at_least=1, at_most=100_000),
            patience=parameters.whole("PATIENCE", patience, at_least=1, at_most=100_000),
        )


class Fitted(NamedTuple):
    """How a training went: epochs counted from 1, and the best one's logloss on the held-out rows."""

    epochs: int
    best_epoch: int
    best_loss: float


def compiled(network: Any, optimizer: Any) -> Any:
    """Make a network that gives logits ready to learn the target's value as a probability."""
    network.compile(
        optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        # beside the loss, since that is averaged over batches of different sizes and holds penalties as well
        weighted_metrics=[keras.metrics.BinaryCrossentropy(from_logits=True, name="logloss")],
    )
    return network


def fit(network: Any, examples: Examples, schedule: Schedule, task: Task) -> Fitted:
    """Train a compiled network until the held-out rows no longer gain, and put the best epoch's weights back.

    Parameters
    ----------
    network
        From `compiled`.
    examples
        What to learn from and what to stop by.
    schedule
        How long.
    task
        Its seed decides the order of the rows; its progress is told how far the training is.
    """
    follow = Follow(task.progress, schedule.max_epochs)
    stop = keras.callbacks.EarlyStopping(
        monitor="val_logloss", mode="min", patience=schedule.patience, restore_best_weights=True
    )
    network.fit(
        Batches(examples, examples.training, schedule.batch_size, shuffle_seed=task.parameters.seed),
        epochs=schedule.max_epochs,
        # Batches shuffles rows; Keras would shuffle whole batches only
        shuffle=False,
        validation_data=Batches(examples, examples.held_out, _ROWS_AT_A_TIME),
        callbacks=[follow, stop],
        verbose=0,
    )
    best = int(np.argmin(follow.losses))
    return Fitted(epochs=len(follow.losses), best_epoch=best + 1, best_loss=follow.losses[best])


class Follow(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Says how far a training is, and keeps the held-out logloss of every epoch."""

    def __init__(self, progress: Progress, max_epochs: int) -> None:
        super().__init__()
        self._progress, self._max_epochs = progress, max_epochs
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 (Keras gives it by name)
        """Say where it is within an epoch, which can take minutes."""
        self._say(batch / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002 (as above)
        """Take down how well the network does.

        Raises
        ------
        ModelFailureError
            When its weights have grown beyond all bounds.
        """
        loss = float(logs["val_logloss"])
        if not math.isfinite(loss):
            raise ModelFailureError(
                f"the held-out logloss is {loss} after epoch {len(self.losses) + 1:,}: the weights have grown beyond "
                "all bounds. Give it a smaller LEARNING_RATE."
            )
        self.losses.append(loss)
        self._say(0)

    def _say(self, part: float) -> None:
        done = len(self.losses)
        loss = f", held-out logloss {self.losses[-1]:.5f}" if self.losses else ""
        where = f"epoch {done + part:,.1f}" if part else f"epoch {done:,}"
        self._progress.update((done + part) / self._max_epochs, f"{where} of at most {self._max_epochs:,}{loss}")


def predict(network: Any, task: Task) -> NDArray[np.float64]:
    """Compute the probabilities of the tournament rows from a network's logits, in their order; shape (rows,)."""
    table = task.tournament
    probabilities = np.empty(len(table))
    with task.progress.step(f"predicting {len(table):,} rows"):
        for positions, block in table.batches():
            for start in range(0, len(positions), _ROWS_AT_A_TIME):
                part = slice(start, start + _ROWS_AT_A_TIME)
                rows = len(positions[part])
                # always as many rows, since XLA compiles the network anew for every other number
                filled = np.zeros((_ROWS_AT_A_TIME, block.shape[1]), dtype=block.dtype)
                filled[:rows] = block[part]
                logits = network.predict_on_batch(filled)[:rows, 0].astype(np.float64)
                probabilities[positions[part]] = 1 / (1 + np.exp(-logits))
                done = int(positions[part][-1]) + 1
                task.progress.update(done / len(table), f"row {done:,} of {len(table):,}")
    return probabilities


def device() -> str:
    """Name what the networks run on: "cpu" or "gpu"."""
    name: str = jax.default_backend()
    return name
