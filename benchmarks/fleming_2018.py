"""The methods of 2018 for adversarial validation, t-SNE and the models after it, on libraries that still run.

Run inside the ``classic`` image by ``benchmarks/fleming.py``, one method a process: ``fleming_2018.py METHOD /data``.
Prints one line of JSON: ``seconds``, ``peak_memory_mib``, and the method's score. The polynomial terms are held
in memory as in 2018: all of them, in float64.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

SEED = 67
PARTNERS = 1_000
THREADS = int(os.environ.get("THREADS", "2"))


class Run:
    """A run's directory."""

    def __init__(self, directory: Path) -> None:
        from numerai_contract.tables import Table

        self.directory = directory
        self.training = Table(directory / "training.parquet")
        self.tournament = Table(directory / "tournament.parquet", self.training.feature_names)

    def features(self, table: Table, *, maps: bool) -> NDArray[np.float64]:
        """Read all features of a table, with the coordinates of the plain maps beside them; float64."""
        from numerai_contract.embeddings import STANDARD, read_embedding

        plain = [embedding for embedding in STANDARD if not embedding.polynomial] if maps else []
        columns = [table.features(), *(read_embedding(self.directory, embedding, table) for embedding in plain)]
        return np.hstack(columns).astype(np.float64)

    def training_rows(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Give a mask of the training rows, and their labels."""
        from numerai_contract.split import read_split

        learn = read_split(self.directory, self.training).training
        return learn, self.training.targets[learn] > 0.5

    def logloss(self, probabilities: NDArray[np.float64]) -> float | None:
        """Score predictions of the tournament table on its validation rows."""
        from numerai_contract.scores import logloss

        validation = self.tournament.of_type("validation")
        return logloss(probabilities[validation], self.tournament.targets[validation])


def adversarial_validation(run: Run) -> dict[str, Any]:
    """Score a random forest of 100 trees, grown to single rows, on five stratified folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    features = np.vstack([run.features(table, maps=False) for table in (run.training, run.tournament)])
    labels = np.arange(len(features)) >= len(run.training)
    aucs = []
    for fitted, scored in StratifiedKFold(5, shuffle=True, random_state=SEED).split(features, labels):
        forest = RandomForestClassifier(100, n_jobs=THREADS, random_state=SEED).fit(features[fitted], labels[fitted])
        aucs.append(roc_auc_score(labels[scored], forest.predict_proba(features[scored])[:, 1]))
    return {"auc": float(np.mean(aucs))}


def tsne(run: Run, perplexity: int = 30, *, polynomial: bool = False) -> dict[str, Any]:
    """Draw one map by Barnes and Hut's approximation."""
    from sklearn.manifold import TSNE
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features = np.vstack([run.features(table, maps=False) for table in (run.training, run.tournament)])
    steps = [PolynomialFeatures(2, include_bias=False)] if polynomial else []
    scaled = make_pipeline(*steps, StandardScaler()).fit_transform(features)
    found = TSNE(perplexity=perplexity, init="pca", random_state=SEED, n_jobs=THREADS).fit(scaled)
    return {"kl_divergence": float(found.kl_divergence_)}


def tsne_polynomial(run: Run) -> dict[str, Any]:
    """Draw one map of the polynomial terms."""
    return tsne(run, polynomial=True)


def logistic_regression(run: Run) -> dict[str, Any]:
    """Fit scikit-learn's pipeline, with the C of 2018."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    learn, labels = run.training_rows()
    model = make_pipeline(
        PolynomialFeatures(2, include_bias=False), StandardScaler(), LogisticRegression(C=0.01, max_iter=1_000)
    )
    model.fit(run.features(run.training, maps=True)[learn], labels)
    return {"logloss": run.logloss(model.predict_proba(run.features(run.tournament, maps=True))[:, 1])}


def pairwise_regression(run: Run) -> dict[str, Any]:
    """Predict which row of a pair is positive, from the concatenated terms of both; each pair in both orders."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    learn, labels = run.training_rows()
    scaled = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler())
    terms = scaled.fit_transform(run.features(run.training, maps=True)[learn])
    random = np.random.default_rng(SEED)
    classes = [np.flatnonzero(labels == label) for label in (True, False)]
    count = min(len(rows) for rows in classes)
    positive, negative = (random.permutation(rows)[:count] for rows in classes)
    left, right = np.concatenate([positive, negative]), np.concatenate([negative, positive])
    model = LogisticRegression(C=0.01, max_iter=1_000)
    model.fit(np.hstack([terms[left], terms[right]]), np.arange(2 * count) < count)
    # a comparison with each of 1,000 partners, as in 2018, would repeat each row's sum a thousand times; as no term
    # mixes both rows, the sums of each side are computed once
    of_left, of_right = np.split(model.coef_[0], 2)
    partners = terms[random.permutation(len(terms))[:PARTNERS]] @ of_right + model.intercept_[0]
    sums = scaled.transform(run.features(run.tournament, maps=True)) @ of_left
    means = np.mean([1 / (1 + np.exp(-(sums + partner))) for partner in partners], axis=0)
    return {"logloss": run.logloss(means)}


def gradient_boosted_trees(run: Run) -> dict[str, Any]:
    """Grow boosted trees on all terms at once; by histograms, since the exact ones of 2018 take hours."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    learn, labels = run.training_rows()
    trees = HistGradientBoostingClassifier(learning_rate=0.05, early_stopping=True, random_state=SEED)
    model = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler(), trees)
    model.fit(run.features(run.training, maps=True)[learn], labels)
    return {"logloss": run.logloss(model.predict_proba(run.features(run.tournament, maps=True))[:, 1])}


def factorization_machines(run: Run) -> dict[str, Any]:
    """Sample a machine of rank 8 on all terms, by the Gibbs sampler."""
    import myfm
    from scipy.sparse import csr_matrix
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    learn, labels = run.training_rows()
    terms = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler())
    training = csr_matrix(terms.fit_transform(run.features(run.training, maps=True))[learn])
    model = myfm.MyFMGibbsClassifier(rank=8, random_seed=SEED).fit(training, labels, n_iter=100)
    tournament = csr_matrix(terms.transform(run.features(run.tournament, maps=True)))
    return {"logloss": run.logloss(model.predict_proba(tournament))}


METHODS: dict[str, Callable[[Run], dict[str, Any]]] = {
    method.__name__: method
    for method in (
        adversarial_validation,
        tsne,
        tsne_polynomial,
        logistic_regression,
        pairwise_regression,
        gradient_boosted_trees,
        factorization_machines,
    )
}


def main() -> None:
    """Run the method of the command line."""
    method, directory = sys.argv[1:]
    began = time.monotonic()
    found = METHODS[method](Run(Path(directory)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
    print(json.dumps({"seconds": time.monotonic() - began, "peak_memory_mib": peak, **found}))


if __name__ == "__main__":
    main()
