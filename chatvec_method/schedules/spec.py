"""Shapes as people write them: `linear:1:0.3`, `gaussian:low=0.3`, `step:0-7:0.3,8-31:1`, `0.7`.

The name of a shape, and behind colons its numbers, in order or by name; what is left out has a
default. The shapes themselves are in `schedule.py`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatvec_method.errors import ChatVecError
from chatvec_method.intake import read_bytes
from chatvec_method.schedules import shapes as schedule
from chatvec_method.schedules.shapes import Numbers


@dataclass(frozen=True)
class Parameter:
    """A number of a shape."""

    name: str
    default: float
    help: str


@dataclass(frozen=True)
class Form:
    """A shape that can be asked for by name."""

    summary: str
    example: str
    read: Callable[[Form, str], Callable[[int], Numbers]]
    """What its numbers, as text, mean: a function from the number of layers. Raises ValueError."""
    function: Callable[..., Numbers]
    parameters: tuple[Parameter, ...] = ()
    """In the order of the function's arguments; empty if it takes a list."""


@dataclass(frozen=True)
class Shape:
    """A shape with its numbers."""

    text: str
    """As it was written."""
    function: Callable[[int], Numbers]

    def numbers(self, layers: int) -> Numbers:
        """Return a number for each of so many layers.

        Raises:
            ChatVecError: The shape does not fit so many layers.
        """
        try:
            return self.function(layers)
        except ValueError as error:
            raise _refusal(self.text, error) from error


def parse_shape(text: str) -> Shape:
    """Return the shape that a text names.

    Raises:
        ChatVecError: It names none, or its numbers are not right.
    """
    name, numbers = name_and_numbers(text)
    if name not in FORMS:
        examples = ", ".join(f"`{form.example}`" for form in FORMS.values())
        raise ChatVecError(f"`{text}` is no shape of a schedule.", f"Write for example {examples}.")
    try:
        return Shape(text, FORMS[name].read(FORMS[name], numbers))
    except ValueError as error:
        raise _refusal(text, error) from error


def name_and_numbers(text: str) -> tuple[str, str]:
    """Return the name of a shape and what stands behind it; a number alone is a constant."""
    name, *numbers = re.split(r"[:\s]\s*", text.strip(), maxsplit=1)
    return ("constant", text) if is_number(name) else (name, "".join(numbers))


def names_a_file(text: str) -> bool:
    """Tell whether a shape has a file read, which a server's must not."""
    name, numbers = name_and_numbers(text)
    words = re.split(r"[,:\s]+", numbers.strip())
    return name == "per-layer" and not all(is_number(word) for word in words)


def _refusal(text: str, error: ValueError) -> ChatVecError:
    example = FORMS[name_and_numbers(text)[0]].example
    return ChatVecError(f"the schedule `{text}`: {error}.", f"Write for example `{example}`.")


def _by_name(form: Form, text: str) -> Callable[[int], Numbers]:
    """Read numbers in the order of the parameters, or as `name=value`."""
    given: dict[str, float] = {}
    names = [parameter.name for parameter in form.parameters]
    for i, word in enumerate(re.split(r"[:,]|\s+", text)):
        if not word:
            continue
        name, equals, value = word.partition("=")
        if not equals:
            if i >= len(names):
                raise ValueError(f"it takes no more numbers than {', '.join(names)}")
            name, value = names[i], word
        if name not in names:
            raise ValueError(f"it has no number `{name}`, only {', '.join(names)}")
        if name in given:
            raise ValueError(f"it has the number `{name}` twice")
        given[name] = _number(value)
    values = [given.get(parameter.name, parameter.default) for parameter in form.parameters]
    form.function(1, *values)  # refuses now what it would refuse for any number of layers
    return lambda layers: form.function(layers, *values)


def _ranges(form: Form, text: str) -> Callable[[int], Numbers]:
    ranges = []
    for place, value in _pairs(text, "layers"):
        first, _, last = place.partition("-")
        if not (first.isdigit() and (last or first).isdigit()):
            raise ValueError(f"`{place}` is no range of layers")
        ranges.append((int(first), int(last or first), _number(value)))
    return lambda layers: form.function(layers, ranges)


def _points(form: Form, text: str) -> Callable[[int], Numbers]:
    pairs = [(_number(depth), _number(value)) for depth, value in _pairs(text, "a depth")]
    form.function(1, pairs)
    return lambda layers: form.function(layers, pairs)


def _pairs(text: str, what: str) -> list[tuple[str, str]]:
    pairs = []
    for word in filter(None, re.split(r"[,\s]+", text)):
        place, colon, value = word.partition(":")
        if not colon:
            raise ValueError(f"`{word}` is not {what} and a number with a colon between them")
        pairs.append((place, value))
    return pairs


def _list(form: Form, text: str) -> Callable[[int], Numbers]:
    """Read numbers one by one, or a CSV file's."""
    words = re.split(r"[,:\s]+", text.strip())
    if all(is_number(word) for word in words):
        values = [_number(word) for word in words]
    else:
        values = _csv_numbers(Path(text))
    return lambda layers: form.function(layers, values)


def _csv_numbers(file: Path) -> list[float]:
    """Return a file's numbers: of its only row, or the last of each row, under a header or not."""
    try:
        lines = io.StringIO(read_bytes(file).decode("utf-8-sig"), newline="")
        rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file"
        raise ValueError(
            f"{file} is not a list of numbers, or cannot be read ({reason})"
        ) from error
    if rows and not is_number(rows[0][-1]):
        rows = rows[1:]
    for i, row in enumerate(rows):
        if len(row) == 2 and row[0].strip() != str(i):
            raise ValueError(f"{file}: layer {i} is expected where {row[0].strip()} stands")
    cells = rows[0] if len(rows) == 1 else [row[-1] for row in rows]
    return [_number(cell) for cell in cells]


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"`{text.strip()}` is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text.strip()} is not finite")
    return number


def _named(*parameters: tuple[str, float, str]) -> tuple[Parameter, ...]:
    return tuple(Parameter(*parameter) for parameter in parameters)


_ENDS: Sequence[tuple[str, float, str]] = (
    ("from", 1, "At the first layer."),
    ("to", 0, "At the last layer."),
)
FORMS = {
    "constant": Form(
        "The same number for every layer; `0.7` is short for `constant:0.7`.",
        "constant:0.7",
        _by_name,
        schedule.constant,
        _named(("value", 1, "The number.")),
    ),
    "linear": Form(
        "A straight line from the first layer to the last.",
        "linear:1:0.3",
        _by_name,
        schedule.linear,
        _named(*_ENDS),
    ),
    "cosine": Form(
        "Half a wave from the first layer to the last: gentle at both ends.",
        "cosine:1:0.3",
        _by_name,
        schedule.cosine,
        _named(*_ENDS),
    ),
    "gaussian": Form(
        "A bump at a depth.",
        "gaussian:0.5:0.2:0.3:1",
        _by_name,
        schedule.gaussian,
        _named(
            ("center", 0.5, "The depth of the peak: 0 at the first layer, 1 at the last."),
            ("width", 0.2, "Its standard deviation, as a share of the depth."),
            ("low", 0, "Far from the peak."),
            ("high", 1, "At the peak; below --low for a dip."),
        ),
    ),
    "trapezoid": Form(
        "A ramp up, a plateau, and a ramp down.",
        "trapezoid:0.25:0.75:0.3:1",
        _by_name,
        schedule.trapezoid,
        _named(
            ("up", 0.25, "The depth at which the plateau begins: 0 at the first layer."),
            ("down", 0.75, "The depth at which it ends: 1 at the last layer."),
            ("low", 0, "At both ends."),
            ("high", 1, "On the plateau."),
        ),
    ),
    "middle": Form(
        "The middle of the depth, with ramps, and nothing at both ends (Layer Swapping).",
        "middle:0.2:0.1:0.8",
        _by_name,
        schedule.middle,
        _named(
            ("ends", 0.2, "The share of the depth at either end that gets 0."),
            ("ramp", 0.1, "The share of the depth of either ramp."),
            ("high", 1, "Between the ramps."),
        ),
    ),
    "step": Form(
        "A number for each range of layers.",
        "step:0-7:0.3,8-31:1",
        _ranges,
        schedule.step,
    ),
    "points": Form(
        "Straight lines between points, each a depth from 0 to 1 and a number.",
        "points:0:1,0.5:0.2,1:1",
        _points,
        schedule.points,
    ),
    "per-layer": Form(
        "Numbers one by one, or a CSV file of them (one a row; layer numbers may stand before).",
        "per-layer:ratios.csv",
        _list,
        schedule.per_layer,
    ),
}
