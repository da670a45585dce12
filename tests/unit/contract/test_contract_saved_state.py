"""The state of a saved model: exact arrays and settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numerai_contract import saved_state
from numerai_contract.imputation import Medians


def test_saved_state_arrays_and_settings_come_back_exactly(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "empty": np.empty((0, 3), dtype=np.float32),
        "scalar": np.array(1 / 3),
        "int8": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
        "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
        "fortran": np.asfortranarray(np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)),
        "texts": np.array(["perplexity_05", "ä"]),
    }
    settings = {"third": 1 / 3, "large": 2**63, "names": ["a", "ä"], "none": None, "nested": {"yes": True}}
    saved_state.save(tmp_path, arrays, settings)
    found = saved_state.load(tmp_path)
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()
    assert found.settings == settings


def test_saved_state_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        saved_state.save(tmp_path / name, {"weights": np.arange(5.0)}, {"constant": math.pi})
        files.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("arrays", "settings"), [({"objects": np.array([{}], dtype=object)}, {}), ({}, {"number": np.float32(1)})]
)
def test_saved_state_python_objects_raise_type_error(tmp_path: Path, arrays: Any, settings: Any) -> None:
    with pytest.raises(TypeError):
        saved_state.save(tmp_path, arrays, settings)


def test_saved_state_estimator_comes_back(tmp_path: Path) -> None:
    saved_state.save_estimator(tmp_path, Medians(np.array([[1.0], [3.0], [np.nan]])))
    assert saved_state.load_estimator(tmp_path).values.tolist() == [2]


def test_medians_from_values_fill_as_the_original() -> None:
    medians = Medians(np.array([[1, np.nan], [3, 5]], dtype=np.float32))
    again = Medians.from_values(medians.values)
    assert again.fill(np.full((2, 2), np.nan, dtype=np.float32)).tolist() == [[2, 5], [2, 5]]
