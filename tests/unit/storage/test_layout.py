from __future__ import annotations

from pathlib import Path

from numerai_pipeline.storage.layout import CONTAINER_RUN, DataLayout, fingerprint


def test_a_run_is_found_by_round_and_fingerprint() -> None:
    run = DataLayout(Path("/data")).run("1335", "abc")
    assert run.predictions("svm") == Path("/data/rounds/1335/abc/predictions/svm.csv")
    assert run.report("svm") == Path("/data/rounds/1335/abc/reports/svm.json")
    assert run.training.parent == run.tournament.parent == run.run_metadata.parent == run.directory


def test_a_container_sees_the_same_layout_elsewhere() -> None:
    run = DataLayout(Path("/srv")).run("1335", "abc")
    for name in ("training", "tournament", "run_metadata"):
        relative = getattr(run, name).relative_to(run.directory)
        assert getattr(CONTAINER_RUN, name) == CONTAINER_RUN.directory / relative


def test_a_fingerprint_depends_on_every_setting_but_not_on_their_order() -> None:
    settings = {"source": "numerai", "seed": 67}
    assert fingerprint(settings) == fingerprint(dict(reversed(settings.items())))
    assert fingerprint(settings) != fingerprint({**settings, "seed": 68})
    assert len(fingerprint(settings)) == 12
