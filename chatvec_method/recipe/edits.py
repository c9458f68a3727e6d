"""Changes to a recipe's text that leave the rest of it as it was written, comments and all.

The round-trip library says where in the text every key and value stands; only what changes is
replaced there. (Dumping its round-trip document instead would lose comments inside `[...]`, where
people note which layers a row of numbers is for.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, ScalarNode, SequenceNode

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.file import KeyPath
from chatvec_method.recipe.yaml_text import load_yaml

MOST_READ = 80_000
"""Characters, those of the text counted for each change: some seconds."""


@dataclass(frozen=True)
class Edit:
    """A change: the value at a path set, its key renamed, both removed, or a value put above it.

    The last key may be new; mappings on the way to it are made where they are missing. A list index
    past the end appends.
    """

    path: KeyPath
    value: Any = None
    rename: str | None = None
    remove: bool = False
    insert: bool = False


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Return a recipe's text with changes made, one after the other.

    Raises:
        ChatVecError: The text is written in a way that cannot be changed without damage.
    """
    if len(edits) * len(text) > MOST_READ:
        raise ChatVecError(
            f"{len(edits)} changes to a text of {len(text)} characters are too many to make.",
            "Mend the lines that the findings name by hand.",
        )
    expected = load_yaml(text)
    for edit in edits:
        expected = changed(expected, edit)
        text = _edited_text(text, edit)
        if _loaded(text) != expected:
            raise _refusal(edit)
    return text


def _refusal(edit: Edit) -> ChatVecError:
    return ChatVecError(
        f"`{'.'.join(map(str, edit.path))}` cannot be changed with all comments kept.",
        "Write the lines that the findings name by hand.",
    )


def _loaded(text: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return None


def changed(data: Any, edit: Edit) -> Any:
    """Return what YAML reads of a recipe with a change made, against which its text is held."""
    first: Any = edit.path[0]
    rest = edit.path[1:]
    if rest:
        part = data[first] if isinstance(data, list) else data.get(first)
        new = changed(part if isinstance(part, (dict, list)) else {}, replace(edit, path=rest))
        return _with_item(data, first, new)
    if edit.rename is not None:
        return {edit.rename if key == first else key: value for key, value in data.items()}
    if edit.remove and isinstance(data, list):
        return [*data[:first], *data[first + 1 :]]
    if edit.remove:
        return {key: value for key, value in data.items() if key != first}
    if edit.insert:
        return [*data[:first], edit.value, *data[first:]]
    return _with_item(data, first, edit.value)


def _with_item(data: Any, key: Any, value: Any) -> Any:
    if isinstance(data, list):
        return [*data[:key], value, *data[key + 1 :]]
    return {**data, key: value}


def _edited_text(text: str, edit: Edit) -> str:
    parent: Any = None
    key: Any = None
    try:
        node: Any = YAML().compose(text)
    except YAMLError as error:  # YAML 1.2, where PyYAML reads 1.1
        raise _refusal(edit) from error
    rest = list(edit.path)
    while rest and (child := _child(node, rest[0])) is not None:
        parent, (key, node) = node, child
        rest = rest[1:]
    if rest:
        return _with_new(text, node, rest, edit.value)
    start, end = node.start_mark.index, _end(text, node)
    if edit.rename is not None:
        return _spliced(text, key.start_mark.index, key.end_mark.index, edit.rename)
    if edit.remove:
        return _without(text, parent, key or node, end)
    if edit.insert:
        separator = ", " if parent.flow_style else f"\n{' ' * parent.start_mark.column}- "
        return _spliced(text, start, start, _inline(edit.value) + separator)
    if key is not None and not parent.flow_style:
        return _with_value(text, key, node, edit.value)
    return _spliced(text, start, end, _inline(edit.value))


def _with_value(text: str, key: Any, node: Any, value: Any) -> str:
    """Return the text with another value behind a block's key, or below it where the old one is."""
    start, end, column = node.start_mark.index, _end(text, node), node.start_mark.column
    if node.start_mark.line == key.start_mark.line:
        new = _block(value, " " * key.start_mark.column)
        before = text[:start].rstrip(" ") if new.startswith("\n") else text[:start]
        return before + new + text[end:]
    if _is_long(value):
        lines = _entries(value)
        if len(lines) > len(value):  # comments on single numbers would say nothing any more
            lines = [*_comments(text[start:end]), *lines]
        return _spliced(text, start, end, f"\n{' ' * column}".join(lines))
    deeper = "" if column > key.start_mark.column else "  "
    return _spliced(text, start, end, deeper + _inline(value))


def _without(text: str, parent: Any, entry: Any, end: int) -> str:
    """Return the text without an entry of a collection, from the entry's (or its key's) start."""
    start = entry.start_mark.index
    if len(parent.value) == 1:
        # A block's list may stand right below its key, and `[]` may not.
        empty = "{}" if isinstance(parent, MappingNode) else "[]" if parent.flow_style else "  []"
        return _spliced(text, parent.start_mark.index, _end(text, parent), empty)
    if not parent.flow_style:
        line = text.rfind("\n", 0, start) + 1
        if text[line:start].strip() in ("", "-") and not _shares_line(text, line, start, parent):
            return _spliced(text, line, min(_line_end(text, end) + 1, len(text)), "")
        return _spliced(text, start, _next_word(text, _line_end(text, end)), "")
    after = text[end:].lstrip()
    if after.startswith(","):
        comma = text.index(",", end)
        return _spliced(text, start, _next_word(text, comma + 1), "")
    return _spliced(text, text.rindex(",", 0, start), end, "")


def _shares_line(text: str, line: int, start: int, parent: Any) -> bool:
    """Tell whether an entry is the first of a mapping that begins behind a list's dash."""
    return isinstance(parent, MappingNode) and text[line:start].strip() == "-"


def _next_word(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip())


def _child(node: Any, key: str | int) -> tuple[Any, Any] | None:
    """Return the key's and the value's node below a node; None without such a key."""
    if isinstance(node, MappingNode):
        return next(((k, v) for k, v in node.value if k.value == key), None)
    if isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
        return None, node.value[key]
    return None


def _with_new(text: str, node: Any, path: list[str | int], value: Any) -> str:
    """Return the text with a new entry in a collection, or in place of a scalar."""
    key, *rest = path
    for part in reversed(rest):
        value = {part: value}
    if not isinstance(node, CollectionNode):
        return _spliced(text, node.start_mark.index, _end(text, node), _inline({key: value}))
    in_list = isinstance(node, SequenceNode)
    if node.flow_style:
        entry = _inline(value) if in_list else f"{_inline(key)}: {_inline(value)}"
        separator = ", " if node.value else ""
        last = _end(text, _last(node)) if node.value else node.end_mark.index - 1
        return _spliced(text, last, last, separator + entry)
    indent = " " * node.start_mark.column
    entry = _entry(value) if in_list else f"{_inline(key)}: {_block(value, indent)}"
    entry = entry.replace(": \n", ":\n", 1)
    end = _line_end(text, _end(text, node))
    return _spliced(text, end, end, f"\n{indent}{entry}")


def _last(node: Any) -> Any:
    last = node.value[-1]
    return last[1] if isinstance(node, MappingNode) else last


def _end(text: str, node: Any) -> int:
    """Return where a node's text ends; a block's own mark lies behind what follows it."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        return _end(text, _last(node))
    end: int = node.end_mark.index
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        return len(text[:end].rstrip())  # the mark is behind the empty lines that follow
    return end


def _line_end(text: str, position: int) -> int:
    """Return the end of the line, so that a comment behind a value stays there."""
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _spliced(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _inline(value: Any) -> str:
    """Return a value on one line, as it may stand anywhere in YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_inline(k)}: {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        bare = value.translate(str.maketrans("", "", "_-/.@"))
        plain = bare.isalnum() and value[0].isalpha() and _loaded(value) == value
        return value if plain else _dumped(value, default_style='"')
    return _dumped(value).removesuffix("\n...")


def _dumped(value: Any, **style: Any) -> str:
    text: str = yaml.safe_dump(value, width=float("inf"), allow_unicode=True, **style)
    return text.removesuffix("\n")


def _block(value: Any, indent: str) -> str:
    """Return a value as it may stand behind a block's key: what is long on lines of its own."""
    if _is_long(value):
        return "".join(f"\n{indent}  {line}" for line in _entries(value))
    if not isinstance(value, str) or "\n" not in value:
        return _inline(value)
    lines = [f"{indent}  {line}".rstrip() for line in value.split("\n")]
    block = "|-\n" + "\n".join(lines)
    return block if _loaded(f"x: {block}") == {"x": value} else _inline(value)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(entry, dict) for entry in value)


def _entry(value: Any) -> str:
    return f"- {_inline(value)}"


def _entries(values: list[Any]) -> list[str]:
    """Return the lines of a list, each entry on one, or its keys on lines of their own if long."""
    lines = []
    for value in values:
        if not isinstance(value, dict) or not any(map(_is_long, value.values())):
            lines.append(_entry(value))
            continue
        within = []
        for key, part in value.items():
            if _is_long(part):
                within += [f"{_inline(key)}:", *(f"  {line}" for line in _entries(part))]
            else:
                within.append(f"{_inline(key)}: {_inline(part)}")
        lines += [("  " if i else "- ") + line for i, line in enumerate(within)]
    return lines


def _comments(text: str) -> list[str]:
    """Return the comments in a block that is replaced, to stand above what replaces it."""
    matches = (re.search(r"""(?:^|\s)(#[^'"]*)$""", line) for line in text.splitlines())
    return [match[1] for match in matches if match]
