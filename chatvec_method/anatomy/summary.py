"""What the figures of an anatomy mean, in sentences, and the schedule that they suggest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from mergekit.common import ModelReference

from chatvec_method.anatomy.report import Anatomy
from chatvec_method.anatomy.sums import Sums
from chatvec_method.method.settings import dtype_name

EVEN = 0.8
"""From this share of the layers that half of the energy would take if all had the same, it is
called evenly spread."""
WORTH_SAYING = 0.005
"""How far a share of collision is from chance before it is worth a sentence."""
NAMED = 5
"""So many layers, or tokens, are named in a sentence."""


def summary(anatomy: Anatomy) -> list[str]:
    """Return what there is to say of the vectors, a sentence or two each."""
    sentences: list[str] = []
    for chat in anatomy.roles.chats:
        sentences += _of_vector(anatomy, chat)
        sentences += _of_tokens(anatomy, chat)
    for one, other in anatomy.pairs[len(anatomy.roles.chats) :]:
        sums = anatomy.whole((one, other))
        sentences.append(
            f"The vectors of {one} and {other} {_angle(sums)}; {_collision(sums)} of what both "
            "change pulls apart (50 % is chance)."
        )
    return sentences


def _of_vector(anatomy: Anatomy, chat: ModelReference) -> Iterator[str]:
    pair = (chat, anatomy.roles.cp)
    whole = anatomy.whole(pair)
    if not whole.vector:
        zero = chat in anatomy.roles.vectors
        yield f"{chat} is {'zero.' if zero else f'{anatomy.roles.base}: the chat vector is zero.'}"
        return
    if chat in anatomy.alone:
        yield f"{chat} has {_percent(whole.vector_relative)} of the norm of {anatomy.roles.cp}."
        yield (
            f"How it lies to what {anatomy.roles.cp} has changed, and where both collide, is not "
            f"shown: {anatomy.alone[chat]}."
        )
    else:
        yield (
            f"{chat} {'has' if chat in anatomy.roles.vectors else 'is'} "
            f"{_percent(whole.vector_relative)} of base's norm"
            f"{'' if chat in anatomy.roles.vectors else ' away from it'}, and "
            f"{anatomy.roles.cp} {_percent(whole.other_relative)}; the two vectors {_angle(whole)}."
        )
        yield _most_collision(anatomy, chat)
    yield _where_the_energy_is(anatomy, chat)
    yield (
        f"The largest 1 % of its elements hold {_percent(whole.largest_share)} of its energy (8.4 "
        "% if they were drawn from one normal distribution)."
    )
    if whole.asked:
        yield (
            f"At the recipe's ratio, rounding to {dtype_name(anatomy.rounded)} swallows "
            f"{_percent(whole.swallowed_share)} of the elements that it should move."
        )
    if anatomy.rank is not None:
        yield (
            f"The first {anatomy.rank} singular directions of each matrix hold "
            f"{_percent(whole.directions_share)} of its energy."
        )


def _most_collision(anatomy: Anatomy, chat: ModelReference) -> str:
    pair = (chat, anatomy.roles.cp)
    layers = {i: s.weighted_conflict for i, s in anatomy.by_layer(pair).items() if s.overlap}
    kinds = {k: s.weighted_conflict for k, s in anatomy.by_kind(pair).items() if s.overlap}
    if not layers and not kinds:
        return "Nothing that one of the two changes is changed by the other."
    worst = max((*layers.values(), *kinds.values()))
    if worst < 0.5 + WORTH_SAYING:
        return "Nowhere do they collide more than chance has it."
    named = sorted(layers, key=layers.__getitem__, reverse=True)[:NAMED]
    named = sorted(layer for layer in named if layers[layer] >= 0.5 + WORTH_SAYING)
    kind = max(kinds, key=kinds.__getitem__)
    share = _collision(anatomy.whole(pair))
    where = f"{_layers(named)} (up to {_percent(max(layers.values()))})" if named else ""
    of_kinds = f"{kind} ({_percent(kinds[kind])})" if kinds[kind] >= 0.5 + WORTH_SAYING else ""
    return (
        f"They collide most in {' and in '.join(filter(None, (where, of_kinds)))}; overall, "
        f"{share} of what both change pulls apart (50 % is chance)."
    )


def _where_the_energy_is(anatomy: Anatomy, chat: ModelReference) -> str:
    energies = {i: s.vector for i, s in anatomy.by_layer((chat, anatomy.roles.cp)).items()}
    total, held, half = sum(energies.values()), 0.0, []
    if not total:
        return "Nothing of the chat vector is inside the layers."
    for layer in sorted(energies, key=energies.__getitem__, reverse=True):
        half.append(layer)
        held += energies[layer]
        if held >= total / 2:
            break
    if len(half) >= EVEN * len(energies) / 2:
        return "The chat vector's energy is spread evenly over the layers."
    return f"Half of the chat vector's energy inside the layers is in {_layers(sorted(half))}."


def _of_tokens(anatomy: Anatomy, chat: ModelReference) -> Iterator[str]:
    for moves in (moves for moves in anatomy.tokens if moves.chat == chat and moves.most):
        whole_first = sorted(moves.most, key=lambda move: move.text is None)
        most = ", ".join(move.name for move in whole_first[:NAMED])
        yield f"In {moves.tensor}, chat training moved most: {most}."
        if moves.both:
            named = [move.name for move in whole_first if move.untrained][:NAMED]
            among = f", among them {', '.join(named)}" if named else ""
            yield (
                f"There, {moves.both} of the {moves.moved_by_chat} rows that chat training moved "
                f"are untrained in cp{among}: what they say, they know from chat alone."
            )


def _angle(sums: Sums) -> str:
    cosine = sums.cosine
    if math.isnan(cosine):
        return "have no angle, as one is zero"
    degrees = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return f"are {degrees:.0f}° apart (cosine {cosine:.3f})"


def _collision(sums: Sums) -> str:
    return _percent(sums.weighted_conflict)


def _percent(share: float) -> str:
    return "nothing" if math.isnan(share) else f"{100 * share:.3g} %"


def _layers(layers: Sequence[int]) -> str:
    """Return layers as people say them: `layers 3, 5 to 7`."""
    runs = [
        [layer for _, layer in run]
        for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])
    ]
    said = [f"{r[0]} to {r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs]
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(said)
