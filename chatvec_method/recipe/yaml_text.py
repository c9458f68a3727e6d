"""YAML as recipes and model cards have it, read within bounds.

A text of some hundred bytes can stand for billions of values, by aliases of aliases; one can hold
itself; a tag can turn a word into something that its value is not. Here a text is counted while it
is read, and anything that is no plain data ends in one of YAML's own errors.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_CHARACTERS = 500_000
MOST_VALUES = 10_000
"""Keys, values and lists, each counted as often as an alias repeats it."""
DEEPEST = 30
LONGEST_NUMBER = 100
"""Characters of what is no text: a number, a date."""
PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in "str int float bool null map seq timestamp".split()
)


def load_yaml(text: str) -> Any:
    """Return what a text says.

    Raises:
        yaml.YAMLError: It is no YAML, no plain data, or beyond the bounds.
    """
    return yaml.load(_checked(text), _BoundedLoader)


def compose_yaml(text: str) -> yaml.Node | None:
    """Return a text's nodes; None where it is empty. Errors as `load_yaml`."""
    return yaml.compose(_checked(text), _BoundedLoader)


def _checked(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters, and {MOST_CHARACTERS} are the most")
    return text


class _BoundedLoader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, which counts."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0
        self._depth = 0
        self._sizes: dict[str, int] = {}
        """Of what has an anchor, once it is complete."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        alias = isinstance(event, yaml.AliasEvent)
        before = self._values
        if alias and event.anchor in self.anchors and event.anchor not in self._sizes:
            self._refuse(f"`*{event.anchor}` stands within what it repeats")
        self._values += self._sizes.get(event.anchor, 1) if alias else 1
        if self._values > MOST_VALUES:
            self._refuse(f"more than {MOST_VALUES} values, those that aliases repeat counted")
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"values within values, deeper than {DEEPEST}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias and event.anchor is not None:
            self._sizes[event.anchor] = self._values - before
        return node

    def _refuse(self, reason: str) -> None:
        raise yaml.composer.ComposerError(None, None, reason, self.peek_event().start_mark)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node.tag not in PLAIN:
            raise yaml.constructor.ConstructorError(
                None, None, f"the tag {node.tag!r:.60}, and a recipe has none", node.start_mark
            )
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value!r:.60} is none of its kind", node.start_mark
            ) from error

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        is_text = node.tag == "tag:yaml.org,2002:str"
        if not is_text and len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} characters", node.start_mark
            )
        try:
            node.value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise yaml.constructor.ConstructorError(
                None, None, "half of a character", node.start_mark
            ) from error
