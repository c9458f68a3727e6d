"""An anatomy as tables for people, as data for `--json` and as lines for `--csv`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from chatvec_method.anatomy import Anatomy, Pair, Sums, suggested_schedule, summary
from chatvec_method.anatomy.tokens import TokenMove
from chatvec_method.cli.layout import figures, prose, records, verbatim
from chatvec_method.method.settings import dtype_name

if TYPE_CHECKING:
    from rich.console import Console

WITH_CP = {
    "‖τ‖/‖base‖": "vector_relative",
    "‖λ‖/‖base‖": "other_relative",
    "cos(τ,λ)": "cosine",
    "sign conflict": "conflict",
    "weighted": "weighted_conflict",
    "largest 1 %": "largest_share",
    "swallowed": "swallowed_share",
}
ALONE = {
    "‖τ‖/‖cp‖": "vector_relative",
    "share of ‖τ‖²": "share",
    "largest 1 %": "largest_share",
    "swallowed": "swallowed_share",
}
AMONG_CHATS = {
    "‖τ₁‖/‖%s‖": "vector_relative",
    "‖τ₂‖/‖%s‖": "other_relative",
    "cos(τ₁,τ₂)": "cosine",
    "sign conflict": "conflict",
    "weighted": "weighted_conflict",
}
SHOWN_TOKENS = 10
OF_VECTORS = (
    "Largest 1 %: their share of τ's energy. Swallowed: of the elements that τ should "
    "move, those that rounding leaves as cp has them."
)
LEGEND = (
    "τ is the chat vector, chat − base, and λ the language vector, cp − base. Sign conflict: the "
    "share of elements that both move, in opposite directions; weighted: by |τ|·|λ|, where 50 % is "
    f"chance. {OF_VECTORS}"
)
LEGEND_ALONE = f"τ is the chat vector, chat − base, and ‖τ‖² its energy. {OF_VECTORS}"
FIGURES = (
    "elements base_norm vector_norm vector_relative other_norm other_relative cosine conflict "
    "weighted_conflict moved_share"
).split()
OF_VECTOR = ("largest_share", "swallowed_share")
OF_BOTH = ("other_norm", "other_relative", "cosine", "conflict", "weighted_conflict")


def print_anatomy(console: Console, anatomy: Anatomy) -> None:
    """Print the figures by kind of tensor and by layer, the tokens, and what it all means."""
    for pair in anatomy.pairs:
        verbatim(console, _title(anatomy, pair), "bold")
        _print_figures(console, anatomy, pair)
        console.print()
    for tokens in (t for t in anatomy.tokens if t.most):
        header = ["token", "row", "by chat", "by cp", ""]
        rows = [
            (
                _token(move),
                str(move.row),
                f"{move.by_chat:.3f}",
                "-" if move.by_cp is None else f"{move.by_cp:.3f}",
                "untrained in cp" if move.untrained else "",
            )
            for move in tokens.most[:SHOWN_TOKENS]
        ]
        title = f"{tokens.tensor}: moved most by {tokens.chat} (1 is the norm of a typical row)"
        prose(console, title, style="bold")
        records(console, "", header, rows, right=(1, 2, 3))
        console.print()
    pairs = anatomy.compared or len(anatomy.roles.chats) > 1
    prose(console, LEGEND if pairs else LEGEND_ALONE, style="dim")
    console.print()
    for sentence in summary(anatomy):
        prose(console, sentence)
    for chat in anatomy.compared:
        console.print()
        if len(anatomy.roles.chats) > 1:
            verbatim(console, f"# {chat}")
        verbatim(console, suggested_schedule(anatomy, chat))


def as_data(anatomy: Anatomy) -> dict[str, Any]:
    """Return an anatomy as `--json` prints it."""
    return {
        "recipe": anatomy.survey.recipe.name,
        "base": None if anatomy.roles.base is None else str(anatomy.roles.base),
        "cp": str(anatomy.roles.cp),
        "rounded": dtype_name(anatomy.rounded),
        "rank": anatomy.rank,
        "bytes_read": anatomy.bytes_read,
        "vectors": [_pair_data(anatomy, pair) for pair in anatomy.pairs],
        "tokens": [
            {
                "tensor": moves.tensor,
                "chat": str(moves.chat),
                "rows": moves.rows,
                "typical_norm": moves.typical_norm,
                "moved_by_chat": moves.moved_by_chat,
                "untrained_by_cp": moves.untrained_by_cp,
                "both": moves.both,
                "most": [{**vars(move), "untrained": move.untrained} for move in moves.most],
            }
            for moves in anatomy.tokens
        ],
        "summary": summary(anatomy),
        "heuristic_schedules": {
            str(chat): suggested_schedule(anatomy, chat) for chat in anatomy.compared
        },
    }


def csv_rows(anatomy: Anatomy) -> Iterator[dict[str, Any]]:
    """Yield the figures of every tensor for every pair of vectors, a line each."""
    for chat, other in anatomy.pairs:
        for tensor in anatomy.tensors:
            planned = tensor.planned
            yield {
                "chat": str(chat),
                "other": str(other),
                "tensor": planned.name,
                "layer": planned.layer,
                "kind": planned.kind,
                "ratio": planned.ratios[chat],
                "rounded": dtype_name(tensor.rounded),
                **_figures_data(anatomy, (chat, other), tensor.sums[chat, other]),
            }


def _print_figures(console: Console, anatomy: Anatomy, pair: Pair) -> None:
    chat, other = pair
    with_cp, alone = other == anatomy.roles.cp, chat in anatomy.alone
    if with_cp:
        columns = dict(ALONE if alone else WITH_CP)
    else:
        by = "cp" if alone else "base"
        columns = {name.replace("%s", by): key for name, key in AMONG_CHATS.items()}
    if with_cp and anatomy.rank is not None:
        columns[f"first {anatomy.rank}"] = "directions_share"
    places: dict[str, Sums] = {"all": anatomy.whole(pair), **anatomy.by_kind(pair)}
    places |= {f"layer {i}": sums for i, sums in anatomy.by_layer(pair).items()}
    whole = anatomy.whole(pair).vector

    def figure(sums: Sums, key: str) -> float:
        if key == "share":
            return sums.vector / whole if whole else math.nan
        return float(getattr(sums, key))

    rows = [
        (name, *(_shown(figure(sums, key), key) for key in columns.values()))
        for name, sums in places.items()
    ]
    figures(console, "", ["", *columns], rows, ends=(0, len(anatomy.by_kind(pair))))


def _token(move: TokenMove) -> str:
    if move.text is not None:
        return repr(move.text)
    return "" if move.token is None else "part of a character"


def _title(anatomy: Anatomy, pair: Pair) -> str:
    chat, other = pair
    if other == anatomy.roles.cp and chat in anatomy.alone:
        return f"τ of {chat}"
    if other == anatomy.roles.cp:
        return f"τ of {chat} and λ of {other}"
    return f"τ₁ of {chat} and τ₂ of {other}"


def _shown(figure: float, key: str) -> str:
    if math.isnan(figure):
        return "-"
    return f"{figure:+.3f}" if key == "cosine" else f"{100 * figure:.2f} %"


def _pair_data(anatomy: Anatomy, pair: Pair) -> dict[str, Any]:
    def data(places: Mapping[Any, Sums]) -> dict[str, Any]:
        return {str(k): _figures_data(anatomy, pair, sums) for k, sums in places.items()}

    return {
        "chat": str(pair[0]),
        "other": str(pair[1]),
        "relative_to": str(anatomy.reference(pair[0])),
        "not_compared": anatomy.alone.get(pair[0]) if pair[1] == anatomy.roles.cp else None,
        "whole": _figures_data(anatomy, pair, anatomy.whole(pair)),
        "kinds": data(anatomy.by_kind(pair)),
        "layers": data(anatomy.by_layer(pair)),
        "tensors": data({tensor.planned.name: tensor.sums[pair] for tensor in anatomy.tensors}),
    }


def _figures_data(anatomy: Anatomy, pair: Pair, sums: Sums) -> dict[str, float | None]:
    """Return figures by name, None where there is none (a vector that is zero has no angle)."""
    found = {name: float(getattr(sums, name)) for name in (*FIGURES, *OF_VECTOR)}
    found["elements"] = sums.elements
    if pair[1] != anatomy.roles.cp:
        found |= dict.fromkeys(OF_VECTOR, math.nan)
    elif pair[0] in anatomy.alone:
        found |= dict.fromkeys(OF_BOTH, math.nan)
    if pair[0] in anatomy.alone:
        found["base_norm"] = math.nan
    if anatomy.rank is not None:
        found["directions_share"] = sums.directions_share
    return {name: None if math.isnan(figure) else figure for name, figure in found.items()}
