"""Values that are seldom meant, and changes of data at random places."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{{ 'x' * 99999999999 }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    "{{ raise_exception('no') }}",
    "{% for %}",
    "{{ messages[99].content }}",
    "{{ ''.__class__.__mro__ }}",
    "{% for m in messages %}\x1b[8m{{ m.content }}\x07{% endfor %}",
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}",
    '{{ "\\ud800" }}',
    "",
)
LARGEST_TEXT = 1_000_000
"""Characters that a repeated value may have."""
WORDS = (
    "",
    " ",
    "x",
    "0",
    "../../x",
    "/etc/passwd",
    "C:\\x",
    "\x00",
    "\x1b[8mhidden",
    "\u202ereversed",
    "<img src=x onerror=alert(1)>",
    "# heading\n\n| a | b |",
    "`` ` ``",
    "{{ x }}",
    "한국어",
    "x" * 5000,
    "nan",
    "1e999",
    "LlamaForCausalLM",
    "union",
    "base",
    "chat",
    "cp",
)
NUMBERS = (
    *(0, 1, 2, 3, -1, -7, 64, 127, 30000, 10**6, 10**9, 2**31, 2**63, 2**64, -(2**63), 10**40),
    *(0.0, 0.5, -0.5, 1e-300, 1e300, 1.5, float("inf"), float("-inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [{}], {"": None}, [None], {"a": {"b": {}}}, [1, 2, 3]),
    *(["x"], [""], {"content": "x"}, {"content": 5}, [0] * 3000, {"filter": "mlp", "value": 1}),
)


def value(random: Random) -> Any:
    """Return some value, of any kind."""
    return random.choice(
        [
            lambda: random.choice(WORDS),
            lambda: random.choice(NUMBERS),
            lambda: copy.deepcopy(random.choice(OTHERS)),
            lambda: random.choice(TEMPLATES),
            lambda: random.randint(-5, 200),
            lambda: _nested(random),
        ]
    )()


def _nested(random: Random) -> Any:
    nested: Any = random.choice(WORDS)
    for _ in range(random.choice([2, 10, 40, 300])):
        nested = [nested] if random.random() < 0.5 else {"x": nested}
    return nested


def _repeated(old: Any, times: int) -> list[Any]:
    """Return a value several times, if no text of 100 MB comes of that."""
    return [old] * (times if len(str(old)) * times < LARGEST_TEXT else 2)


def changed(data: Any, random: Random, pool: tuple[Any, ...] = ()) -> Any:
    """Return data with one change at a random place.

    Args:
        data: Of dicts, lists and scalars.
        random: Decides.
        pool: Other values that are tried, those that have a meaning where the data are used.
    """
    data = copy.deepcopy(data)
    holder, key = _place(data, random)
    if holder is None:
        return value(random)
    old = holder[key]
    new = random.choice(pool) if pool and random.random() < 0.3 else value(random)
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice([str(new)[:100], f"{key}x", str(key).upper()])] = old
        case 2 if isinstance(holder, dict):
            holder[f"{key}"] = _repeated(old, random.choice([2, 50, 3000]))
        case 3 if isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(old)] * random.choice([1, 2, 50])
        case 4:
            holder[key] = {"x": old}
        case 5 if isinstance(old, int | float) and not isinstance(old, bool):
            holder[key] = random.choice([old + 1, old - 1, -old, old * 2, str(old), float(old)])
        case _:
            holder[key] = new
    return data


def _place(data: Any, random: Random) -> tuple[Any, Any]:
    """Return a random container within data, and a random key of it; none where data is none."""
    places: list[tuple[Any, Any]] = []
    rest = [data]
    while rest and len(places) < 3000:
        holder = rest.pop()
        if isinstance(holder, dict):
            keys: list[Any] = list(holder)
        elif isinstance(holder, list):
            keys = list(range(len(holder)))
        else:
            continue
        places += [(holder, key) for key in keys[:200]]
        rest += [holder[key] for key in keys[:200]]
    return random.choice(places) if places else (None, None)
