"""Pipelines put plainly: without steps that do nothing, as values for a report, as Python that makes them anew."""

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
# columns of a line of Python, about
_LINE = 100
_MODULE = '''\
"""{about}"""

{imports}


def build() -> Pipeline:
    """Make the pipeline, not yet fitted."""
    return {expression}


if __name__ == "__main__":
    print(build())
'''


def tidy(estimator: Any) -> Any:
    """Rebuild a pipeline of TPOT's with scikit-learn's own words and Python's own numbers; it computes the same.

    Parameters
    ----------
    estimator
        Not fitted; it is left as it is.
    """
    if isinstance(estimator, Pipeline):
        steps = [step for step in map(tidy, _parts(estimator)) if step != _PASSTHROUGH]
        return make_pipeline(*_flat(steps, Pipeline))
    if isinstance(estimator, FeatureUnion):
        parts = [tidy(part) for part in _parts(estimator) if not isinstance(part, SkipTransformer)]
        return parts[0] if len(parts) == 1 else make_union(*_flat(parts, FeatureUnion))
    if isinstance(estimator, Passthrough):
        return _PASSTHROUGH
    return estimator.__class__(**{name: _plain(value) for name, value in estimator.get_params(deep=False).items()})


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return tidy(value) if isinstance(value, BaseEstimator) else value


def _parts(whole: Any) -> list[Any]:
    """List a pipeline's steps, or what a union puts side by side, without their names."""
    return [part for _, part in (whole.steps if isinstance(whole, Pipeline) else whole.transformer_list)]


def _flat(parts: list[Any], kind: type) -> list[Any]:
    """Put the parts of a pipeline within a pipeline, or of a union within a union, in its place."""
    return [inner for part in parts for inner in (_parts(part) if isinstance(part, kind) else [part])]


def _settings(thing: Any) -> dict[str, Any]:
    """Look up what an estimator, or a cross-validation, has set otherwise than by default."""
    parameters = inspect.signature(thing.__class__).parameters
    usual = {name: parameter.default for name, parameter in parameters.items()}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        # XGBoost's takes all but a few as keywords without a name
        usual = thing.__class__().get_params(deep=False)
    estimator = isinstance(thing, BaseEstimator)
    now = thing.get_params(deep=False) if estimator else {name: getattr(thing, name) for name in parameters}
    return {name: value for name, value in now.items() if repr(value) != repr(usual.get(name, inspect.Parameter.empty))}


def described(pipeline: Any) -> list[Any]:
    """Describe a tidy pipeline in values that JSON can hold: its steps, and what they have set otherwise than usual."""
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


def source(pipeline: Any, about: str) -> str:
    """Write a module with a function ``build()`` that makes the pipeline anew, not fitted.

    Parameters
    ----------
    pipeline
        Tidy.
    about
        The module's docstring.
    """
    writer = _Writer()
    expression = writer.expression(pipeline, 4)
    return _MODULE.format(about=about, imports="\n".join(writer.imports()), expression=expression)


class _Writer:
    """Writes expressions, and keeps what they have to import."""

    def __init__(self) -> None:
        self._imported = {("sklearn.pipeline", "Pipeline")}

    def imports(self) -> list[str]:
        """Write the lines that import it all."""
        by_module: dict[str, list[str]] = {}
        for module, name in sorted(self._imported):
            by_module.setdefault(module, []).append(name)
        return [f"from {module} import {', '.join(names)}" for module, names in by_module.items()]

    def expression(self, value: Any, indent: int) -> str:
        """Write what makes a value; `indent` is that of its first line."""
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

    def _call(self, what: Any, arguments: list[tuple[str, Any]], indent: int) -> str:
        name = self._name(what)
        written = [f"{key}=" * bool(key) + self.expression(value, indent + 4) for key, value in arguments]
        line = f"{name}({', '.join(written)})"
        if "\n" not in line and indent + len(line) <= _LINE:
            return line
        lines = "".join(f"{' ' * (indent + 4)}{each},\n" for each in written)
        return f"{name}(\n{lines}{' ' * indent})"

    def _name(self, thing: Any) -> str:
        """Import a thing from where it is public: the shortest path of modules that has it."""
        path, name = thing.__module__.split("."), str(thing.__name__)
        for length in range(1, len(path) + 1):
            module = ".".join(path[:length])
            if getattr(importlib.import_module(module), name, None) is thing:
                self._imported.add((module, name))
                return name
        raise ValueError(f"{thing!r} cannot be imported from {thing.__module__}")
