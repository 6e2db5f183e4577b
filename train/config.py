"""Recipes: a YAML file read into a dataclass, checked key by key before anything is made."""

import contextlib
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from falcon_h1r.errors import ConfigError

RECIPES = Path(__file__).parent / "recipes"
RECIPE = "recipe.yaml"
"""The resolved recipe in a run's folder."""
_T = TypeVar("_T")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raise ConfigError "name is value; it must be allowed" unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}")


def known_name(name: str, known: Iterable[str], path: str, what: str) -> None:
    """Raise ConfigError with the nearest name unless `name` is one of `known`."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"{path} is not {what}; {hint}known here are {', '.join(names)}")


def _plain(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _is_plain(hint: Any, value: Any) -> bool:
    """Whether the value is of a plain class; a bool, an int to Python, is none here."""
    if not isinstance(hint, type) or not isinstance(value, hint):
        return False
    return hint is bool or not isinstance(value, bool)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """Check `value` against a type hint, making nested dataclasses and floats of integers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, value, path)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in arguments if option is not type(None)]
        if value is None and len(options) < len(arguments):
            return None
        if len(options) == 1:
            return _convert(options[0], value, path)
        for option in options:
            with contextlib.suppress(ConfigError):
                return _convert(option, value, path)
    elif origin is typing.Literal:
        if value in arguments and type(value) in {type(a) for a in arguments}:
            return value
        raise ConfigError(
            f"{path} is {value!r}; it must be one of {', '.join(map(str, arguments))}"
        )
    elif origin is dict and isinstance(value, Mapping):
        key_hint, value_hint = arguments
        return {
            _convert(key_hint, k, f"a key of {path}"): _convert(value_hint, v, f"{path}.{k}")
            for k, v in value.items()
        }
    elif origin in (tuple, list) and isinstance(value, (list, tuple)):
        return origin(_convert(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif hint is float and isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)  # YAML 1.1 reads 1e-3 as text
    elif _is_plain(hint, value):
        return value
    wanted = _plain(origin if origin in (dict, tuple, list) else hint)
    raise ConfigError(f"{path} is {value!r}; it must be of type {wanted}")


def build(cls: type[_T], data: object, where: str = "") -> _T:
    """Make a dataclass of nested mappings; an unknown key or a wrong type names its path.

    Raises ConfigError, for an unknown key with the nearest one there is.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the recipe'} is {data!r}; it must be a mapping")
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        known_name(str(key), hints, path, "a key of a recipe")
        values[str(key)] = _convert(hints[key], value, path)
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where or 'the recipe'}: {error}") from None


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe: a path, or a name in `train/recipes`."""
    path = Path(name_or_path)
    for candidate in (path, RECIPES / f"{name_or_path}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise ConfigError(f"no recipe {str(name_or_path)!r}; give a YAML file or one of {known}")


def load_recipe(cls: type[_T], name_or_path: str | Path, overrides: Sequence[str] = ()) -> _T:
    """Read a recipe of class `cls` and apply overrides of the form "a.b=c" (c is YAML).

    Raises ConfigError naming the key, before anything is made.
    """
    path = find_recipe(name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no mapping; see the files in {RECIPES.name}/")
    for override in overrides:
        _override(data, override)
    try:
        return build(cls, data)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None


def _override(data: dict[str, Any], override: str) -> None:
    """Set the key that "a.b=c" names."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form a.b=c")
    node = data
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent} has no keys below it")
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"override {override!r} is not valid YAML: {message}") from None


def recipe_text(recipe: Any) -> str:
    """The resolved recipe, a dataclass, as YAML."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)
