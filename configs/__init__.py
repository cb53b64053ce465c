"""The one door to configuration: YAML files, overrides, and frozen checked dataclasses out of them."""

from configs._build import build, to_dict
from configs._door import available, choices, config_hash, load, resolved_json

__all__ = ["available", "build", "choices", "config_hash", "load", "resolved_json", "to_dict"]
