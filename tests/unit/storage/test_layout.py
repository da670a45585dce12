from __future__ import annotations

from pathlib import Path

from numerai_pipeline.storage.layout import DataLayout, fingerprint


def test_run_layout_has_paths_by_round_and_fingerprint() -> None:
    run = DataLayout(Path("/data")).run("1335", "abc")
    assert run.predictions("svm") == Path("/data/rounds/1335/abc/predictions/svm.csv")
    assert run.report("svm") == Path("/data/rounds/1335/abc/reports/svm.json")
    assert run.training.parent == run.tournament.parent == run.run_metadata.parent == run.directory


def test_fingerprint_depends_on_each_setting_and_not_on_order() -> None:
    settings = {"source": "numerai", "seed": 67}
    assert fingerprint(settings) == fingerprint(dict(reversed(settings.items())))
    assert fingerprint(settings) != fingerprint({**settings, "seed": 68})
    assert len(fingerprint(settings)) == 12
