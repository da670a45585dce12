"""The parts of TPOT that are used here, imported without warnings, update check and drawing libraries."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

# for drawings of pipelines, which are not used: not in the image (see overrides.txt)
_NOT_INSTALLED = ("matplotlib", "matplotlib.pyplot")

sys.modules.update({name: ModuleType(name) for name in _NOT_INSTALLED})
try:
    with warnings.catch_warnings():
        # of pkg_resources, which a dependency of TPOT needs
        warnings.simplefilter("ignore")
        import update_checker

        # TPOT queries the package index for a newer version at every import
        update_checker.update_check = lambda *_: None
        from tpot.builtin_modules import Passthrough, SkipTransformer
        from tpot.config import get_search_space
        from tpot.config.template_search_spaces import get_template_search_spaces
        from tpot.evolvers import BaseEvolver
        from tpot.evolvers.base_evolver import ind_crossover, ind_mutate
        from tpot.search_spaces.nodes import EstimatorNode
        from tpot.search_spaces.pipelines import ChoicePipeline, SequentialPipeline, UnionPipeline
finally:
    for name in _NOT_INSTALLED:
        del sys.modules[name]

__all__ = [
    "BaseEvolver",
    "ChoicePipeline",
    "EstimatorNode",
    "Passthrough",
    "SequentialPipeline",
    "SkipTransformer",
    "UnionPipeline",
    "get_search_space",
    "get_template_search_spaces",
    "ind_crossover",
    "ind_mutate",
]
