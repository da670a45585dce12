"""Fixtures of all tests: settings of a single test, model registries and images."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from numerai_pipeline.models.registry import load_registry
from tests.samples import DEPLOYMENT, FLEMING, INDEPENDENT, ROOT, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdist.remote import Producer


def new_airflow_home() -> tempfile.TemporaryDirectory[str]:
    """Give Airflow a new home: never the user's, never an earlier session's."""
    home = tempfile.TemporaryDirectory(prefix="airflow-tests-")
    os.environ |= {
        "AIRFLOW_HOME": home.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        # attempts without a scheduler have no database for it
        "AIRFLOW_VAR_NUMERAI_DEPLOYMENT": DEPLOYMENT,
    }
    for name in [name for name in os.environ if name.startswith("NUMERAI_") and name != "NUMERAI_TEST_ARCHIVE"]:
        del os.environ[name]
    return home


# Here and not in a fixture: Airflow reads its home when it is imported, which another conftest.py may do right after.
HOME = new_airflow_home()


# The files that take longest, longest first, so that no worker ends with one alone.
LONG = (
    "tests/end_to_end",
    "tests/faults",
    "tests/containers/test_real_models.py",
    "tests/images/test_every_model.py",
    "tests/images/test_auto_weka_image.py",
    "tests/images/test_auto_sklearn_image.py",
    "tests/images/test_tpot_image.py",
    "tests/containers",
    "tests/images",
)
# What looks for processes and containers of the whole checkout, or starts a web server in it, goes one after the other.
ONE_AT_A_TIME = ("tests/end_to_end", "tests/browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, place in enumerate(LONG) if item.nodeid.startswith(place)), len(LONG))

    items.sort(key=rank)


class TogetherScheduling(LoadScopeScheduling):
    """Hands each worker whole files of tests, in order, and to one of them all that want the checkout to themselves."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/faults"):
            return "faults"  # its environment takes longer to start than its tests to run
        return "the checkout" if nodeid.startswith(ONE_AT_A_TIME) else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TogetherScheduling:
    """Share the suite among workers; what pytest-xdist calls where it is asked for them (`-n 2`)."""
    config.option.loadscopereorder = False
    return TogetherScheduling(config, log)


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts from default settings and an empty data volume."""
    from numerai_pipeline.core.settings import load_settings

    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path / "data"))
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture
def images_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of model images with this registry; every image named in it gets a Dockerfile."""

    def make(registry: dict[str, object] | str, images: list[str] | None = None) -> Path:
        directory = tmp_path / "model_images"
        directory.mkdir(exist_ok=True)
        text = registry if isinstance(registry, str) else yaml.safe_dump(registry, sort_keys=False)
        (directory / "models.yaml").write_text(text)
        for image in images if images is not None else ["classic"]:
            (directory / image).mkdir(exist_ok=True)
            (directory / image / "Dockerfile").write_text("FROM scratch\n")
        return directory

    return make


@pytest.fixture
def whole_registry() -> dict[str, object]:
    """Every model of the mission, as the registry will have them."""
    return {
        "images": {"classic": {"description": "everything"}},
        "tasks": {
            **{name: task(cores=2) for name in INDEPENDENT},
            "adversarial_validation": task(predicts=False),
            "tsne": task(predicts=False, depends_on=["adversarial_validation"]),
            **{name: task(depends_on=["tsne"], group="fleming") for name in FLEMING},
        },
    }


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Connect to the Docker engine; a test that needs one fails without it."""
    client = docker.from_env()
    client.ping()
    yield client
    client.close()


@pytest.fixture(scope="session")
def model_image(engine: docker.DockerClient) -> Callable[[str], str]:
    """Name a model image as it is in this checkout; a test that needs it fails where it is not built."""
    references = load_registry(ROOT / "model_images").image_names

    def reference(name: str) -> str:
        found = references[name]
        if not engine.images.list(found):
            pytest.fail(f"{found} is not built: run `make images`")
        return found

    return reference


@pytest.fixture(scope="session")
def classic_image(model_image: Callable[[str], str]) -> str:
    """Name the classic image."""
    return model_image("classic")


@pytest.fixture
def real_archive() -> Path:
    """Find the zip of real data; skip the test with a message without one."""
    places = [os.environ.get("NUMERAI_TEST_ARCHIVE", ""), str(ROOT.parent / "shared/data/numerai_dataset_2017-12.zip")]
    for place in filter(None, places):
        if Path(place).is_file():
            return Path(place).resolve()
    pytest.skip("no real data: set NUMERAI_TEST_ARCHIVE to a zip of the classic layout")
