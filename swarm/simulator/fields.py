"""Fields of a scenario: each says its range, and a file that is out of it is told so by the field's full name.

A dataclass is a table of TOML. A number with a unit is written in the unit of its key's ending: `calm_s = 2.5` is 2,500 ms,
`loss = 0.1` is 100,000 parts in a million; inside, all are integers.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from swarm.simulator.chance import MILLION
from swarm.simulator.errors import ScenarioError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
MAX_TEXT = 200


def whole(default: int, low: int, high: int) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A whole number."""
    return _field(default, lambda value, where: _number(value, where, low, high, 1))


def share(default: int, high: float = 1.0) -> Any:  # noqa: ANN401
    """A share of one, kept in parts in a million."""
    return _field(default, lambda value, where: _number(value, where, 0, high, MILLION))


def seconds(key: str, default: int, low: float, high: float) -> Any:  # noqa: ANN401
    """A time, written in seconds under `key` and kept in milliseconds."""
    return _field(default, lambda value, where: _number(value, where, low, high, 1000), key=key)


def text(default: str = "") -> Any:  # noqa: ANN401
    """A line of ASCII."""
    return _field(default, _text)


def flag() -> Any:  # noqa: ANN401
    """True or false, false if not said."""
    return _field(default=False, read=_flag)


def rising(default: tuple[int, ...], count: int, low: int, high: int) -> Any:  # noqa: ANN401
    """So many whole numbers, none below the one before; any number of them in any order if `count` is 0."""

    def read(value: object, where: str) -> tuple[int, ...]:
        if type(value) is not list or (count and len(value) != count):
            message = f"{where}: a list of {count or 'whole'} numbers is wanted, not {value!r}"
            raise ScenarioError(message)
        found = tuple(_number(one, where, low, high, 1) for one in value)
        if count and list(found) != sorted(found):
            message = f"{where}: no number may be below the one before it"
            raise ScenarioError(message)
        return found

    return _field(default, read)


def table(kind: type[T]) -> Any:  # noqa: ANN401
    """A table of its own, with its defaults if it is not there."""
    return _field(None, lambda value, where: read_table(kind, value, where), factory=kind)


def optional(kind: type[T]) -> Any:  # noqa: ANN401
    """A table of its own, or None."""
    return _field(None, lambda value, where: read_table(kind, value, where))


def tables(kind: type[T]) -> Any:  # noqa: ANN401
    """Any number of tables, `[[like this]]`."""

    def read(value: object, where: str) -> tuple[T, ...]:
        if type(value) is not list:
            message = f"{where}: written as [[{where}]]"
            raise ScenarioError(message)
        return tuple(read_table(kind, one, f"{where}[{at}]") for at, one in enumerate(value))

    return _field((), read)


def read_table(kind: type[T], value: object, where: str = "") -> T:
    """Make a dataclass of a table.

    Raises:
        ScenarioError: A key is unknown, or a value is of the wrong type or out of its range.
    """
    if type(value) is not dict:
        message = f"{where}: a table is wanted, not {value!r}"
        raise ScenarioError(message)
    known = {one.metadata["key"] or one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for key, inner in value.items():
        full = f"{where}.{key}" if where else key
        if key not in known:
            message = f"{full}: there is no such field"
            raise ScenarioError(message, f"here are: {', '.join(known)}")
        given[known[key].name] = known[key].metadata["read"](inner, full)
    return kind(**given)


def _field(
    default: object,
    read: Callable[[Any, str], object],
    *,
    key: str = "",
    factory: Callable[[], object] | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field
    metadata = {"read": read, "key": key}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _number(value: object, where: str, low: float, high: float, scale: int) -> int:
    kinds = (int,) if scale == 1 else (int, float)
    if type(value) not in kinds:
        message = f"{where}: a {'whole ' if scale == 1 else ''}number is wanted, not {value!r}"
        raise ScenarioError(message)
    assert isinstance(value, (int, float))  # noqa: S101 - for the type
    if not low <= value <= high:
        message = f"{where}: {value!r} is outside {low:,} to {high:,}"
        raise ScenarioError(message)
    return round(value * scale)


def _text(value: object, where: str) -> str:
    if (
        type(value) is not str
        or len(value) > MAX_TEXT
        or not (value.isascii() and value.isprintable())
    ):
        message = f"{where}: a line of at most {MAX_TEXT} ASCII characters is wanted, not {value!r}"
        raise ScenarioError(message)
    return value


def _flag(value: object, where: str) -> bool:
    if type(value) is not bool:
        message = f"{where}: true or false is wanted, not {value!r}"
        raise ScenarioError(message)
    return value
