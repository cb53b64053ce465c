"""The only place that knows Hydra: a name and overrides in, a frozen checked dataclass tree out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ccfexp._io import canonical_json
from ccfexp.errors import ConfigError, did_you_mean
from configs._build import build, known_keys, to_dict, type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra.core.override_parser.types import Override

__all__ = ["SITES", "available", "choices", "config_hash", "load", "load_file", "resolved_json"]

T = TypeVar("T")

FOLDER = Path(__file__).resolve().parent
"""Where the YAML files lie, in the repository, in an installed package and in a Flower bundle alike."""

SITES = FOLDER / "site"
"""The files of the demonstration's hospitals; a real hospital keeps its own outside."""


def load(name: str, overrides: Sequence[str], schema: type[T], *, folder: Path = FOLDER) -> T:
    """Load a configuration.

    Args:
        name: a YAML file in the folder, without its ending: "default", or "group/name" in a subfolder.
        overrides: texts "key=value"; nested keys are written "a.b=c", entries of a list "a.0.b=c".
        schema: the dataclass that the result is; its own fields and defaults are the only source of what exists.
        folder: where the YAML files lie.

    Returns:
        The checked dataclass; the same name and overrides always give an equal one.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), a value of a wrong type (with key, value and
            expected type), an impossible value (with its bound), or YAML that cannot be read.
    """
    names = available(folder)
    if name not in names:
        raise ConfigError(f"Unknown configuration {name!r}.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    # Hydra puts what lies in a subfolder under the subfolder's name.
    parents = name.split("/")[:-1]
    checked = [_check_override(text, schema, folder, parents) for text in overrides]
    return build(schema, _compose(name, checked, folder))


def load_file(path: Path, schema: type[T]) -> T:
    """Load one YAML file that stands by itself, outside this folder, with nothing merged into it.

    Raises:
        ConfigError: the file cannot be read, is not a mapping, names a key twice, or does not fit the schema.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be read as YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read ({error.strerror}); check its name and its rights") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} must be a mapping of keys to values")
    return build(schema, {str(key): value for key, value in values.items()})


def available(folder: Path = FOLDER) -> list[str]:
    """Return the names that `load` knows, sorted.

    Parts of others are left out: files whose name starts with an underscore, and choices of a group (`choices`). So
    are the files of single hospitals, which `load_file` reads.
    """
    paths = (
        path
        for path in folder.rglob("*.yaml")
        if not path.name.startswith("_") and path.parent != folder / SITES.name and not _is_choice(path)
    )
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths)


def choices(group: str, folder: Path = FOLDER) -> list[str]:
    """Return the names of a group's files, sorted: `load(name, ["+group=choice"], ...)` adds one to a configuration."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml") if _is_choice(path))


def _is_choice(path: Path) -> bool:
    """Whether a file's keys belong to the configuration that it is added to, as its first line then says."""
    with path.open(encoding="utf-8") as file:
        return file.readline().strip() == "# @package _global_"


def resolved_json(config: object) -> str:
    """Return every value of a configuration as readable JSON, as `--dry-run` prints it and checkpoints carry it."""
    return json.dumps(to_dict(config), indent=2, ensure_ascii=False, allow_nan=False)


def config_hash(config: object) -> str:
    """Return the SHA-256 of a configuration's canonical JSON: equal exactly if all values are equal."""
    return hashlib.sha256(canonical_json(to_dict(config)).encode()).hexdigest()


def _compose(name: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Let Hydra merge the YAML files and the overrides into plain values."""
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            config = compose(name, overrides=overrides)
        values = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"The configuration {name!r} cannot be read: {error}") from error
    for part in name.split("/")[:-1]:
        values = values[part]  # type: ignore[call-overload,index]
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {name!r} is not a mapping of keys to values.")
    return {str(key): value for key, value in values.items()}


def _check_override(text: str, schema: type, folder: Path, parents: Sequence[str]) -> str:
    """Check one override's key against the schema, and return it in the form that Hydra accepts for any known key."""
    try:
        override: Override = OverridesParser.create().parse_override(text)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"The override {text!r} cannot be read; write key=value.") from error
    key = override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(f"The override {text!r} gives several values; give one, or a list: {key}=[a,b].")
    if override.is_delete() or override.package is not None:
        raise ConfigError(f"The override {text!r} removes or moves a key; write key=value.")
    if (folder / key).is_dir():  # a choice among the files of a subfolder
        choices = sorted(path.stem for path in (folder / key).glob("*.yaml"))
        if override.value() not in choices:
            hint = did_you_mean(str(override.value()), choices)
            raise ConfigError(f"The override {text!r} names no file of {key}.{hint} Known: {', '.join(choices)}.")
        return text
    _check_key(key, schema)
    # '++' sets a key whether or not the YAML file names it: what exists is said by the schema.
    return "++" + "".join(f"{parent}." for parent in parents) + text.lstrip("+")


def _check_key(key: str, schema: Any) -> None:
    """Walk down the schema along a dotted key."""
    here: Any = schema
    walked = ""
    for part in key.split("."):
        if get_origin(here) is tuple and part.isdigit():
            items = get_args(here)
            here = items[min(int(part), len(items) - 1)] if items[-1] is not Ellipsis else items[0]
        elif get_origin(here) is not None and get_origin(here) is not tuple and known_keys(here) is None:
            here = get_args(here)[-1]  # a mapping: any key may stand
        else:
            known = known_keys(here)
            if known is None:
                raise ConfigError(f"Unknown key {key}: {walked} is {type_name(here)} and has no keys below it.")
            if part not in known:
                hint = did_you_mean(part, known) or f" Known in {walked or 'the configuration'}: {', '.join(known)}."
                raise ConfigError(f"Unknown key {walked + '.' if walked else ''}{part}.{hint}")
            here = get_type_hints(_dataclass_of(here))[part]
        walked = f"{walked}.{part}" if walked else part


def _dataclass_of(schema: Any) -> Any:
    """Return the dataclass in a type that has known keys: itself or a member of a union."""
    options = (schema, *get_args(schema))
    return next(option for option in options if isinstance(option, type) and known_keys(option) is not None)
