"""Feature names as long and as meaningless as Numerai's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST = _words(
    "abating absorbing ambient bounded brazen calm candid coastal cursive dapper distant drowsy earnest elastic faint"
    " feral fluent frugal genial granular hollow humid idle jagged keen lateral limber lucid mellow modal muted nimble"
    " oblique opaque patient placid quaint rapid rustic silent"
)
_SECOND = _words(
    "acoustic alpine amber annual arid azure baltic boreal ceramic copper cubic digital dorsal ebony fabled fiscal"
    " glacial gothic helical ionic ivory kinetic lunar marine mosaic nordic orbital pastoral polar prismatic quartz"
    " radial saline scarlet solar tidal tropic umber vernal woven"
)
_THIRD = _words(
    "albatross anvil aqueduct badger barometer beacon bobbin cistern compass cormorant dinghy easel falcon ferry"
    " gondola grotto harrier isthmus jetty kestrel lantern lichen magnolia meridian nautilus orchard osprey pagoda"
    " plover quarry rampart schooner sextant sparrow thicket turbine valley walrus weir zephyr"
)


def feature_names(count: int, rng: np.random.Generator) -> list[str]:
    """Draw ``count`` different names of the form ``feature_<word>_<word>_<word>`` (at most 64,000)."""
    seconds, thirds = len(_SECOND), len(_THIRD)
    picks = rng.permutation(len(_FIRST) * seconds * thirds)[:count]
    return [
        f"feature_{_FIRST[pick // (seconds * thirds)]}_{_SECOND[pick // thirds % seconds]}_{_THIRD[pick % thirds]}"
        for pick in picks.tolist()
    ]
