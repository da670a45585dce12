"""Shared parts of the networks: scaling of features, batches, hidden layers, training, and trained models.

Features are in memory as int8 if possible (`numerai_contract.feature_matrix`), become float32 a batch at a time, and
are imputed and standardised inside the network.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import keras
import numpy as np
from keras import layers, ops

from numerai_contract import eras, saved_state
from numerai_contract.exits import ModelFailureError
from numerai_contract.feature_matrix import FeatureMatrix
from numerai_contract.imputation import Medians
from numerai_contract.split_tables import FeatureSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from numpy.typing import NDArray

    from numerai_contract.fitting import Fitted
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan
    from numerai_contract.progress import Progress
    from numerai_contract.saved_state import SavedState
    from numerai_contract.tables import TableView
    from numerai_contract.targets import LabeledRows
    from numerai_contract.task import Task

    Features: TypeAlias = NDArray[np.int8] | NDArray[np.float32]

_HELD_OUT_SHARE = 0.2
# rows at a time in predictions: enough to keep the cores busy
_ROWS_AT_A_TIME = 8_192
# size of the columns whose statistics are computed at a time, in bytes of float32
_COLUMNS_BYTES = 32 << 20
_WEIGHT = "weight_{:04}"
# for epochs of about a hundred batches; Keras's default of 0.99 is for epochs of thousands
_MOMENTUM = 0.9


def make_deterministic(parameters: Parameters) -> None:
    """Set the seed and the number of threads; call this before the first computation.

    XLA reads these variables at its first use, not at its import. ``PJRT_NPROC`` is the size of each of its thread
    pools [1]_; the default is the number of the host's cores, beyond the container's limit.

    .. [1] ``DefaultThreadPoolSize`` in OpenXLA's ``xla/pjrt/utils.cc``.
    """
    os.environ["PJRT_NPROC"] = str(parameters.threads)
    os.environ["XLA_FLAGS"] = "--xla_gpu_exclude_nondeterministic_ops=true"
    # a share of a GPU is enough, and other processes may be using it
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    keras.utils.set_random_seed(parameters.seed)


class Part(NamedTuple):
    """Some rows of a table.

    Attributes
    ----------
    features : FeatureMatrix, shape (rows, columns)
    labels : numpy.ndarray of float32, shape (rows,)
        In [0, 1].
    """

    features: FeatureMatrix
    labels: NDArray[np.float32]


class Examples(NamedTuple):
    """Training rows, and held-out rows for early stopping; None in the final fit, which trains on all rows."""

    training: Part
    held_out: Part | None

    @property
    def held_out_rows(self) -> int:
        """Number of held-out rows."""
        return 0 if self.held_out is None else len(self.held_out.labels)


def read_examples(task: Task, labeled: LabeledRows, plan: Plan) -> tuple[Examples, int]:
    """Read the features of the planned training rows, and hold out the last eras, except in the final fit.

    Parameters
    ----------
    task
        Provides the table, EMBARGO and ROW_LIMIT.
    labeled
        The rows of the table that the network may learn from.
    plan
        The plan of the fit.

    Returns
    -------
    examples : Examples
    embargo : int
        Weeks left out between the two parts.
    """
    parameters = task.parameters
    rows, labels = task.sample_rows(labeled, plan.rows)
    if task.is_final:
        with task.progress.step("reading the features"):
            return Examples(Part(FeatureMatrix.read(task.training, rows), labels), None), 0
    split = eras.hold_out_last(
        task.training.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=parameters.embargo, seed=parameters.seed
    )
    task.note(
        f"{split.description}: {split.training.sum():,} training rows, {split.held_out.sum():,} for early stopping"
    )
    task.follow(plan, eras.within(rows, split.training))
    with task.progress.step("reading the features"):
        training, held_out = (
            Part(FeatureMatrix.read(task.training, eras.within(rows, side)), labels[side])
            for side in (split.training, split.held_out)
        )
    return Examples(training, held_out), split.embargo


class Scaling(NamedTuple):
    """Imputation, and standardisation of features to mean 0 and variance 1, measured on training rows.

    Attributes
    ----------
    medians, means, scales : numpy.ndarray of float32, shape (features,)
        A missing value becomes the median; a constant feature has the scale 0, so that it has no effect.
    """

    medians: NDArray[np.float32]
    means: NDArray[np.float32]
    scales: NDArray[np.float32]

    @classmethod
    def from_state(cls, state: SavedState) -> Scaling:
        """Restore the scaling of a saved model."""
        return cls(**{name: state.arrays[name] for name in cls._fields})

    @classmethod
    def of(cls, features: FeatureMatrix) -> Scaling:
        """Measure features, shape (rows, features), a few columns at a time."""
        columns = features.shape[1]
        medians = Medians(features).values
        means, scales = np.zeros(columns, dtype=np.float32), np.zeros(columns, dtype=np.float32)
        at_a_time = max(1, _COLUMNS_BYTES // (4 * len(features)))
        for start in range(0, columns, at_a_time):
            part = slice(start, start + at_a_time)
            block = np.ascontiguousarray(features[:, part].T, dtype=np.float32)
            np.copyto(block, medians[part][:, np.newaxis], where=np.isnan(block))
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
    """Add layers of rectified units to `inputs`, each normalised over the batch [1]_.

    Parameters
    ----------
    inputs
        Shape (batch, units).
    widths
        Units of each layer.
    dropout
        The share of units that a training step drops at random.
    weight_decay
        The L2 penalty: half its product with the layers' squared weights is added to the loss.
    momentum
        The share of the running mean and variance that a training step keeps; predictions are normalised by them.

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
    """Add the last layer to `units`; its weights start at zero, so that its first outputs add no noise."""
    penalty = keras.regularizers.L2(weight_decay / 2)
    return layers.Dense(1, kernel_initializer="zeros", kernel_regularizer=penalty)(units)


def layer_widths(width: int, count: int) -> list[int]:
    """Return the widths of `count` layers: the first is `width`, each other half of the layer before, at least 1."""
    return [max(1, width >> layer) for layer in range(count)]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras's class is untyped here
    """Passes examples to Keras a batch at a time.

    Parameters
    ----------
    part
        The examples.
    size
        Rows of a batch.
    shuffle_seed
        Shuffles the rows in every epoch, and leaves out the rows of an incomplete batch; None keeps the order.
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
    """The schedule of a training.

    Attributes
    ----------
    batch_size : int
        Rows of a step.
    max_epochs, early_stopping : int
        Maximum number of epochs, and number without improvement after which the training ends.
    """

    batch_size: int
    max_epochs: int
    early_stopping: int

    @classmethod
    def read(cls, parameters: Parameters, *, batch_size: int, max_epochs: int, early_stopping: int) -> Schedule:
        """Read BATCH_SIZE, MAX_EPOCHS and PATIENCE; the arguments are their defaults."""
        return cls(
            batch_size=parameters.get_int("BATCH_SIZE", batch_size, at_least=2, at_most=1_000_000),
            max_epochs=parameters.get_int("MAX_EPOCHS", max_epochs, at_least=1, at_most=100_000),
            early_stopping=parameters.get_int("PATIENCE", early_stopping, at_least=1, at_most=100_000),
        )


def compiled(network: Any, optimizer: Any) -> Any:
    """Compile a network with logits as outputs to learn the target's value as a probability."""
    network.compile(
        optimizer,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        # in addition to the loss, which is averaged over batches of different sizes and includes penalties
        weighted_metrics=[keras.metrics.BinaryCrossentropy(from_logits=True, name="logloss")],
    )
    return network


def measure(task: Task, examples: Examples) -> Scaling:
    """Measure the features of the training rows."""
    with task.progress.step("measuring the features"):
        return Scaling.of(examples.training.features)


def train(
    task: Task,
    network: Any,
    training: keras.utils.PyDataset,
    held_out: keras.utils.PyDataset | None,
    schedule: Schedule,
    earlier: Fitted | None,
) -> tuple[int, dict[str, Any]]:
    """Train a compiled network, with early stopping or for a number of epochs.

    Parameters
    ----------
    task
        For its log and notes.
    network
        From `compiled`.
    training, held_out
        Datasets of batches, such as `Batches`; `training` has another order every epoch. With held-out rows the
        training ends early, and the network has the weights of the best epoch.
    schedule
        Its batch size is not used here: `training` determines the size of a batch.
    earlier
        The first fit, in the final fit, which has no held-out rows: its choice is the number of epochs.

    Returns
    -------
    epochs : int
        The epochs of the weights, counted from 1.
    chosen : dict
        For the report.
    """
    is_final = earlier is not None
    recorder = _ProgressCallback(task.progress, earlier.choice if earlier else schedule.max_epochs, held_out)
    stop = keras.callbacks.EarlyStopping(
        monitor="val_logloss", mode="min", patience=schedule.early_stopping, restore_best_weights=True
    )
    with task.progress.step(f"training {network.count_params():,} weights on the {device()}"):
        network.fit(
            training,
            epochs=recorder.max_epochs,
            # the datasets shuffle rows; Keras would shuffle whole batches only
            shuffle=False,
            validation_data=held_out,
            callbacks=[recorder] if is_final else [recorder, stop],
            verbose=0,
        )
    epochs = len(recorder.losses)
    chosen = {"epochs": epochs, "device": device()}
    if is_final:
        return epochs, chosen
    best = int(np.argmin(recorder.losses))
    loss = recorder.losses[best]
    task.note(f"best {recorder.noun} {loss:.5f} after epoch {best + 1:,} of {epochs:,}")
    return best + 1, {**chosen, "best_epoch": best + 1, "best_held_out_logloss": loss}


def train_on_rows(
    task: Task, network: Any, examples: Examples, schedule: Schedule, earlier: Fitted | None
) -> tuple[int, dict[str, Any]]:
    """Train a compiled network on single rows, see `train`."""
    shuffled = Batches(examples.training, schedule.batch_size, shuffle_seed=task.parameters.seed)
    held_out = None if examples.held_out is None else Batches(examples.held_out)
    epochs, chosen = train(task, network, shuffled, held_out, schedule, earlier)
    if examples.held_out is None:
        return epochs, chosen
    constant = _constant_logloss(examples.training.labels, examples.held_out.labels)
    if chosen["best_held_out_logloss"] >= constant:
        task.note(
            f"warning: the best held-out logloss {chosen['best_held_out_logloss']:.5f} is not below that of a constant,"
            f" {constant:.5f}: the network has learned nothing that lasts. Use more rows, or lower LEARNING_RATE."
        )
    return epochs, {**chosen, "constant_held_out_logloss": constant}


def _constant_logloss(training: NDArray[np.float32], held_out: NDArray[np.float32]) -> float:
    """Return the logloss on held-out labels of the training labels' mean."""
    constant = float(np.clip(training.mean(dtype=np.float64), 1e-6, 1 - 1e-6))
    mean = float(held_out.mean(dtype=np.float64))
    return -mean * math.log(constant) - (1 - mean) * math.log1p(-constant)


class _ProgressCallback(keras.callbacks.Callback):  # type: ignore[misc]  # as above
    """Logs the progress of a training, and records the logloss of every epoch.

    Parameters
    ----------
    progress
        The progress log.
    max_epochs
        Maximum number of epochs.
    held_out
        The held-out rows; without them the logloss is that of the training rows.
    """

    def __init__(self, progress: Progress, max_epochs: int, held_out: object) -> None:
        super().__init__()
        self.noun = "training logloss" if held_out is None else "held-out logloss"
        self.max_epochs = max_epochs
        self.losses: list[float] = []
        self._progress, self._measure = progress, "logloss" if held_out is None else "val_logloss"

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 (Keras passes it by name)
        """Log the progress within an epoch, which can take minutes."""
        self._log(batch / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002 (as above)
        """Record the logloss.

        Raises
        ------
        ModelFailureError
            When it is not finite, because the weights diverged.
        """
        loss = float(logs[self._measure])
        if not math.isfinite(loss):
            raise ModelFailureError(
                f"the {self.noun} is {loss} after epoch {len(self.losses) + 1:,}: the weights "
                "diverged. Set a smaller LEARNING_RATE."
            )
        self.losses.append(loss)
        self._log(0)

    def _log(self, part: float) -> None:
        done = len(self.losses)
        loss = f", {self.noun} {self.losses[-1]:.5f}" if self.losses else ""
        position = f"epoch {done + part:,.1f}" if part else f"epoch {done:,}"
        self._progress.update((done + part) / self.max_epochs, f"{position} of at most {self.max_epochs:,}{loss}")


class NetworkModel(NamedTuple):
    """A trained network with its state.

    Attributes
    ----------
    network : keras.Model
        From the features of a row to a logit.
    trained : keras.Model
        The network that was trained and whose weights are saved: `network`, or another one with the same layers.
    settings : dict
        JSON values by which the network is built again; the names of its embeddings, if any, are in ``embeddings``.
    arrays : dict
        NumPy arrays by which it is built again, such as the scaling of the features.
    """

    network: Any
    trained: Any
    settings: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        names = self.settings.get("embeddings")
        blocks = FeatureSource.from_names(task, names).batches(table) if names else table.batches()
        return task.predict_rows(table, blocks, lambda block: probabilities(self.network, block), _ROWS_AT_A_TIME)

    def save(self, directory: Path) -> None:
        """Save the weights, in the order of the layers, and the state by which the network is built again."""
        weights = {_WEIGHT.format(number): array for number, array in enumerate(self.trained.get_weights())}
        saved_state.save(directory, {**self.arrays, **weights}, self.settings)


def set_weights(trained: Any, state: SavedState) -> None:
    """Set the weights of a network, built as before, to those that `NetworkModel.save` has saved."""
    count = len(trained.get_weights())
    trained.set_weights([state.arrays[_WEIGHT.format(number)] for number in range(count)])


def probabilities(network: Any, features: Features | FeatureMatrix) -> NDArray[np.float64]:
    """Compute probabilities from a network's logits, for any number of rows; shape (rows,)."""

    def of_block(block: Features) -> NDArray[np.float64]:
        logits = outputs(network, block)[:, 0].astype(np.float64)
        return np.asarray(1 / (1 + np.exp(-logits)))

    starts = range(0, len(features), _ROWS_AT_A_TIME)
    return np.concatenate([of_block(features[start : start + _ROWS_AT_A_TIME]) for start in starts])


def outputs(network: Any, features: Features) -> NDArray[np.float32]:
    """Compute the outputs of a network for at most 8,192 rows; shape (rows, outputs of the network)."""
    # always the same number of rows, since XLA compiles the network again for every other number
    filled = np.zeros((_ROWS_AT_A_TIME, features.shape[1]), dtype=features.dtype)
    filled[: len(features)] = features
    found: NDArray[np.float32] = network.predict_on_batch(filled)[: len(features)]
    return found


def device() -> str:
    """Return the device of the networks: "cpu" or "gpu"."""
    name: str = jax.default_backend()
    return name
