"""Settings of fields as people say them, with units."""

from collections.abc import Mapping
from typing import Any

PHRASES = {
    "width": "{} neurons a layer",
    "depth": "{} layers",
    "n_frequencies": "{} frequencies",
    "skip": "input again at layer {}",
    "n_levels": "{} levels",
    "n_features_per_level": "{} features a level",
    "log2_hashmap_size": "tables of 2^{} entries",
    "base_resolution": "coarsest level {} cells a side",
    "finest_resolution": "finest level {} cells a side",
    "resolution": "{} cells a side",
    "density_components": "{} components of density",
    "app_components": "{} components of color",
    "l1_weight": "L1 weight {:g}",
    "tv_weight": "total variation weight {:g}",
    "n_nodes": "{:,} occupied nodes",
}
IMPLIED = ("aabb", "divisor")  # of no interest to people


def settings_text(config: Mapping[str, Any]) -> str:
    """Return a field's constructor arguments in a line; those that are empty or zero are left out.

    Args:
        config: as a field's `config` returns it.
    """
    known = {name: value for name, value in config.items() if value and name not in IMPLIED}
    return ", ".join(
        PHRASES[name].format(value) if name in PHRASES else f"{name.replace('_', ' ')} {value}"
        for name, value in known.items()
    )
