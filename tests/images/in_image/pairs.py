"""Runs in the networks image: compares the pairwise network with its definition. Prints the results as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from numerai_contract import operations
from numerai_contract.parameters import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEATURES, _ROWS, _PARTNERS = 6, 40, 15

module = operations.load("pairwise_network")
nets = module._keras_utils
nets.make_deterministic(Parameters({"THREADS": "1"}))
random = np.random.default_rng(3)


def features(rows: int) -> NDArray[np.float32]:
    """Draw rows, some of their values missing."""
    drawn = random.normal(1, 2, (rows, _FEATURES)).astype(np.float32)
    drawn[random.random(drawn.shape) < 0.1] = np.nan
    return drawn


ours, partners = features(_ROWS), features(_PARTNERS)
network = module.PairNetwork(module.read_settings(Parameters({"DROPOUT": "0"})), nets.Scaling.of(features(500)))
# random weights, running means and variances included, as after a training
for weight in network.of_pairs.weights:
    if weight.path.startswith("seed"):
        continue
    drawn = random.normal(0, 0.5, weight.shape)
    weight.assign(1 + drawn**2 if "variance" in weight.path else drawn)


def chances(both: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the whole network's probabilities that the left row is above."""
    logits = np.asarray(network.of_pairs(both, training=False), dtype=np.float64)[:, 0]
    return 1 / (1 + np.exp(-logits))


def in_training(both: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute logits as a step of the training does, normalised over the batch."""
    return np.asarray(network.of_pairs(both, training=True))


fast = nets.probabilities(network.compared_with(partners), ours)
loop = np.mean([chances(np.stack([ours, np.broadcast_to(one, ours.shape)], axis=1)) for one in partners], axis=0)

whole = np.nan_to_num(np.stack([features(_ROWS), features(_ROWS)], axis=1))
shifted = whole + np.array([0, 5], dtype=np.float32)[:, np.newaxis]

labels = np.array([1] * 5 + [0] * 7, dtype=np.float32)
marked = np.arange(12, dtype=np.float32)[:, np.newaxis]
pairs = module.Pairs(nets.Part(marked, labels), 100, seed=1, redraw=True)
epochs = []
for _ in range(2):
    rows, answers = pairs[0]
    epochs.append([[*map(int, pair), int(answer)] for pair, answer in zip(rows[:, :, 0], answers[:, 0], strict=True)])
    pairs.on_epoch_end()

found = {
    "fast": fast.tolist(),
    "loop": loop.tolist(),
    "effect_of_shift": float(np.abs(in_training(shifted) - in_training(whole)).max()),
    "epochs": epochs,
}
print(json.dumps(found))
