"""Conversions of pipelines: without steps that have no effect, to JSON values for a report, to Python source."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union

from ._library import Passthrough, SkipTransformer

_PASSTHROUGH = "passthrough"
# approximate length of a line of Python
_LINE_LENGTH = 100
_MODULE = '''\
"""{docstring}"""

{imports}


def build() -> Pipeline:
    """Create the pipeline, not yet fitted."""
    return {expression}


if __name__ == "__main__":
    print(build())
'''


def tidy(estimator: Any) -> Any:
    """Rebuild a pipeline of TPOT with scikit-learn's classes and Python's numbers; its results are the same.

    Parameters
    ----------
    estimator
        Not fitted; it is not changed.
    """
    if isinstance(estimator, Pipeline):
        steps = [step for step in map(tidy, _parts(estimator)) if step != _PASSTHROUGH]
        return make_pipeline(*_flat(steps, Pipeline))
    if isinstance(estimator, FeatureUnion):
        parts = [tidy(part) for part in _parts(estimator) if not isinstance(part, SkipTransformer)]
        return parts[0] if len(parts) == 1 else make_union(*_flat(parts, FeatureUnion))
    if isinstance(estimator, Passthrough):
        return _PASSTHROUGH
    return estimator.__class__(**{name: _to_builtin(value) for name, value in estimator.get_params(deep=False).items()})


def _to_builtin(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_to_builtin, value))
    return tidy(value) if isinstance(value, BaseEstimator) else value


def _parts(whole: Any) -> list[Any]:
    """List the steps of a pipeline, or the parts of a union, without their names."""
    return [part for _, part in (whole.steps if isinstance(whole, Pipeline) else whole.transformer_list)]


def _flat(parts: list[Any], kind: type) -> list[Any]:
    """Replace a pipeline within a pipeline, or a union within a union, by its parts."""
    return [inner for part in parts for inner in (_parts(part) if isinstance(part, kind) else [part])]


def _settings(thing: Any) -> dict[str, Any]:
    """Return the parameters of an estimator, or a cross-validation, that differ from the defaults."""
    parameters = inspect.signature(thing.__class__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # XGBoost's signature has most of them as **kwargs
        defaults = thing.__class__().get_params(deep=False)
    estimator = isinstance(thing, BaseEstimator)
    current = thing.get_params(deep=False) if estimator else {name: getattr(thing, name) for name in parameters}
    return {
        name: value
        for name, value in current.items()
        if repr(value) != repr(defaults.get(name, inspect.Parameter.empty))
    }


def described(pipeline: Any) -> list[Any]:
    """Describe a tidy pipeline in JSON values: its steps, and their parameters that differ from the defaults."""
    return [_described(step) for step in _parts(pipeline)]


def _described(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_described(inner) for inner in value]
    if isinstance(value, FeatureUnion):
        return {"union": described(value)}
    if not isinstance(value, BaseEstimator):
        return getattr(value, "__name__", repr(value))
    return {value.__class__.__name__: {name: _described(set_to) for name, set_to in _settings(value).items()}}


def source(pipeline: Any, docstring: str) -> str:
    """Write a module with a function ``build()`` that creates the pipeline, not fitted.

    Parameters
    ----------
    pipeline
        Tidy.
    docstring
        The module's docstring.
    """
    writer = _Writer()
    expression = writer.expression(pipeline, 4)
    return _MODULE.format(docstring=docstring, imports="\n".join(writer.imports()), expression=expression)


class _Writer:
    """Writes expressions, and records the imports they need."""

    def __init__(self) -> None:
        self._imported = {("sklearn.pipeline", "Pipeline")}

    def imports(self) -> list[str]:
        """Write the import statements."""
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self._imported):
            by_module.setdefault(module, []).append(name)
        return [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]

    def expression(self, value: Any, indent: int) -> str:
        """Write the expression of a value; `indent` is that of its first line."""
        if isinstance(value, str):
            return json.dumps(value)
        if value is None or isinstance(value, (bool, int, float)):
            return repr(value)
        if isinstance(value, (list, tuple)):
            inner = ", ".join(self.expression(each, indent) for each in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
        if callable(value) and hasattr(value, "__name__"):
            return self._name(value)
        if isinstance(value, (Pipeline, FeatureUnion)):
            maker: Any = make_pipeline if isinstance(value, Pipeline) else make_union
            return self._call(maker, [("", part) for part in _parts(value)], indent)
        return self._call(value.__class__, list(_settings(value).items()), indent)

    def _call(self, function: Any, arguments: list[tuple[str, Any]], indent: int) -> str:
        name = self._name(function)
        written = [f"{key}=" * bool(key) + self.expression(value, indent + 4) for key, value in arguments]
        line = f"{name}({', '.join(written)})"
        if "\n" not in line and indent + len(line) <= _LINE_LENGTH:
            return line
        lines = "".join(f"{' ' * (indent + 4)}{each},\n" for each in written)
        return f"{name}(\n{lines}{' ' * indent})"

    def _name(self, thing: Any) -> str:
        """Import an object from its public module: the shortest module path that has it."""
        path, name = thing.__module__.split("."), str(thing.__name__)
        for length in range(1, len(path) + 1):
            module = ".".join(path[:length])
            if getattr(importlib.import_module(module), name, None) is thing:
                self._imported.add((module, name))
                return name
        raise ValueError(f"{thing!r} cannot be imported from {thing.__module__}")
