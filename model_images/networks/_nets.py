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
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

    Features: TypeAlias = NDArray[np.int8] | NDArray[np.float32]
    Blocks: TypeAlias = Iterable[tuple[NDArray[np.intp], Features]]

_HELD_OUT_SHARE = 0.2
_ROW_LIMIT = 500_000
# how much of the container's memory the examples may fill; the rest is for Arrow, XLA and the network
_SHARE_OF_MEMORY = 0.5
# rows at a time where nothing is learned: as many as keep the cores busy
_ROWS_AT_A_TIME = 8_192
# columns of how many bytes are looked at together for their statistics, as float32
_COLUMNS_BYTES = 32 << 20
# a hundred batches must count for more than the first: Keras's 0.99 is made for epochs of thousands
_MOMENTUM = 0.9


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


class Part(NamedTuple):
    """Some rows of a table.

    Attributes
    ----------
    features : numpy.ndarray of int8 or float32, shape (rows, features)
        As in the table, NaN where missing.
    labels : numpy.ndarray of float32, shape (rows,)
        In [0, 1].
    """

    features: Features
    labels: NDArray[np.float32]


class Examples(NamedTuple):
    """Rows to learn from, and rows to stop by."""

    training: Part
    held_out: Part


def read_examples(task: Task, rows: NDArray[np.bool_], labels: NDArray[np.float32]) -> tuple[Examples, int]:
    """Read the training table's features, at most ROW_LIMIT rows of them, and hold out the last eras.

    Parameters
    ----------
    task
        Its parameters ROW_LIMIT and EMBARGO_ERAS are read.
    rows
        Marks of the rows that can be learned from, shape (rows of the table,).
    labels
        In [0, 1], shape (rows marked,).

    Returns
    -------
    examples : Examples
    embargo : int
        Eras left out between the two parts.
    """
    table, parameters = task.training, task.parameters
    embargo = parameters.whole("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    default = row_limit(table.feature_dtype.itemsize * len(table.feature_names), parameters)
    limit = parameters.whole("ROW_LIMIT", default, at_least=100, at_most=100_000_000)
    drawn = eras.sample(table.era_numbers[rows], (labels * 4).round().astype(np.int8), limit, seed=parameters.seed)
    if not drawn.all():
        task.note(f"learning from {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT)")
        rows, labels = eras.within(rows, drawn), labels[drawn]
    split = eras.hold_out_last(table.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=embargo, seed=parameters.seed)
    learning, stopping = split.training.sum(), split.held_out.sum()
    task.note(f"{split.description}: {learning:,} rows to learn from, {stopping:,} to stop by")
    with task.progress.step("reading the features"):
        training, held_out = (
            Part(table.features(eras.within(rows, side)), labels[side]) for side in (split.training, split.held_out)
        )
    return Examples(training, held_out), split.embargo


def row_limit(row_bytes: int, parameters: Parameters) -> int:
    """Say how many rows of so many bytes to learn from at most, where ROW_LIMIT does not."""
    if parameters.memory_limit is None:
        return _ROW_LIMIT
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
    def of(cls, features: Features) -> Scaling:
        """Measure features, shape (rows, features), a few columns at a time."""
        columns = features.shape[1]
        medians, means, scales = (np.zeros(columns, dtype=np.float32) for _ in range(3))
        at_a_time = max(1, _COLUMNS_BYTES // (4 * len(features)))
        for start in range(0, columns, at_a_time):
            part = slice(start, start + at_a_time)
            # feature by feature in memory: the median is three times as fast
            block = np.ascontiguousarray(features[:, part].T, dtype=np.float32)
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


def hidden_layers(
    inputs: Any, widths: Sequence[int], *, dropout: float = 0, weight_decay: float = 0, momentum: float = _MOMENTUM
) -> Any:
    """Put layers of rectified units on top of `inputs`, each normalised over the batch [1]_.

    Parameters
    ----------
    inputs
        Shape (batch, units).
    widths
        Units of each layer.
    dropout
        The share of them that is silenced at random in a step of the training.
    weight_decay
        The loss grows by half its product with the layers' squared weights.
    momentum
        How much of the mean and the variance that the units are normalised by after the training outlives a step of it.

    .. [1] Ioffe and Szegedy, "Batch Normalization", ICML 2015, arXiv:1502.03167.
    """
    units = inputs
    for width in widths:
        units = layers.Dense(
            width,
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(weight_decay / 2) if weight_decay else None,
        )(units)
        units = layers.BatchNormalization(momentum=momentum)(units)
        units = layers.Activation("relu")(units)
        if dropout:
            units = layers.Dropout(dropout)(units)
    return units


def logit(units: Any, *, weight_decay: float) -> Any:
    """Put the last layer on top of `units`: from zero, so that what it says is what it has learned."""
    penalty = keras.regularizers.L2(weight_decay / 2)
    return layers.Dense(1, kernel_initializer="zeros", kernel_regularizer=penalty)(units)


def halving(width: int, count: int) -> list[int]:
    """Give `count` layers their units: the first `width`, each other half as many as the one before, at least 1."""
    return [max(1, width >> layer) for layer in range(count)]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras's own class is untyped here
    """Hands examples to Keras a batch at a time.

    Parameters
    ----------
    part
        What to hand over.
    size
        Rows of a batch.
    shuffle_seed
        Makes every epoch another order of the rows, and leaves out those that fill no batch; None keeps the order.
    """

    def __init__(self, part: Part, size: int = _ROWS_AT_A_TIME, *, shuffle_seed: int | None = None) -> None:
        super().__init__()
        self._part, self._rows, self._size = part, np.arange(len(part.labels)), min(size, len(part.labels))
        self._random = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        batches = len(self._rows) / self._size
        return math.ceil(batches) if self._random is None else math.floor(batches)

    def __getitem__(self, batch: int) -> tuple[Features, NDArray[np.float32]]:
        rows = self._rows[batch * self._size : (batch + 1) * self._size]
        return self._part.features[rows], self._part.labels[rows, np.newaxis]

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


def fit(
    network: Any,
    training: keras.utils.PyDataset,
    held_out: keras.utils.PyDataset,
    schedule: Schedule,
    progress: Progress,
) -> Fitted:
    """Train a compiled network until the held-out rows no longer gain, and put the best epoch's weights back.

    Parameters
    ----------
    network
        From `compiled`.
    training, held_out
        What to learn from, in another order every epoch, and what to stop by: `Batches`, or what gives batches as well.
    schedule
        How long; the size of a batch is up to `training`.
    progress
        Is told how far the training is.
    """
    follow = Follow(progress, schedule.max_epochs)
    stop = keras.callbacks.EarlyStopping(
        monitor="val_logloss", mode="min", patience=schedule.patience, restore_best_weights=True
    )
    network.fit(
        training,
        epochs=schedule.max_epochs,
        # rows are shuffled where batches are made; Keras would shuffle whole batches only
        shuffle=False,
        validation_data=held_out,
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


def predict(network: Any, blocks: Blocks, rows: int, progress: Progress) -> NDArray[np.float64]:
    """Compute probabilities from a network's logits.

    Parameters
    ----------
    network
        From features to a logit.
    blocks
        Positions of rows, and their features: `numerai_contract.tables.Table.batches`.
    rows
        How many there are in all.
    progress
        Is told how far it is.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
    """
    probabilities = np.empty(rows)
    with progress.step(f"predicting {rows:,} rows"):
        for positions, block in blocks:
            for start in range(0, len(positions), _ROWS_AT_A_TIME):
                part = slice(start, start + _ROWS_AT_A_TIME)
                logits = outputs(network, block[part])[:, 0].astype(np.float64)
                probabilities[positions[part]] = 1 / (1 + np.exp(-logits))
                done = int(positions[part][-1]) + 1
                progress.update(done / rows, f"row {done:,} of {rows:,}")
    return probabilities


def outputs(network: Any, features: Features) -> NDArray[np.float32]:
    """Compute what a network makes of rows, at most 8,192; shape (rows, the network's outputs)."""
    # always as many rows, since XLA compiles the network anew for every other number
    filled = np.zeros((_ROWS_AT_A_TIME, features.shape[1]), dtype=features.dtype)
    filled[: len(features)] = features
    found: NDArray[np.float32] = network.predict_on_batch(filled)[: len(features)]
    return found


def device() -> str:
    """Name what the networks run on: "cpu" or "gpu"."""
    name: str = jax.default_backend()
    return name
