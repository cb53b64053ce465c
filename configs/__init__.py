"""The one door to configuration: YAML files, overrides, and frozen checked dataclasses out of them."""

from configs._build import build, to_dict
from configs._door import SITES, available, choices, config_hash, load, load_file, resolved_json

__all__ = [
    "SITES",
    "available",
    "build",
    "choices",
    "config_hash",
    "load",
    "load_file",
    "resolved_json",
    "to_dict",
]
