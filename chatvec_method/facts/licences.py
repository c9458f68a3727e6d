"""What a licence's name tells: how much stricter it is than another, and what it forbids.

Names are those of the hub. Nothing here is legal advice; a name that is not known here counts as
one with terms of its own, which somebody has to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

from chatvec_method.facts.models import Model

PERMISSIVE = ("apache-2.0", "mit", "bsd", "isc", "cc0", "unlicense", "cc-by-4.0", "cc-by-3.0")
SHARE_ALIKE = re.compile(r"cc-by-sa|gpl|mpl|cddl|epl|odbl|osl")
NON_COMMERCIAL = re.compile(r"(^|[-_.])nc([-_.]|$)|non-?commercial|research", re.IGNORECASE)
NO_DERIVATIVES = re.compile(r"(^|[-_.])nd([-_.]|$)", re.IGNORECASE)


class Strictness(IntEnum):
    """How much a licence asks for; the larger, the stricter."""

    PERMISSIVE = 0
    SHARE_ALIKE = 1
    OWN_TERMS = 2
    NOT_STATED = 3
    NON_COMMERCIAL = 4
    NO_DERIVATIVES = 5


MEANING = {
    Strictness.PERMISSIVE: "which only asks for its notice to be kept",
    Strictness.SHARE_ALIKE: "which asks for what comes out to be shared alike",
    Strictness.OWN_TERMS: "which has terms of its own",
    Strictness.NOT_STATED: "so nothing is known to be allowed",
    Strictness.NON_COMMERCIAL: "so the result is not for commercial use",
    Strictness.NO_DERIVATIVES: "which does not let you share what is made from it",
}


def licence_of(model: Model) -> str | None:
    """Return a model's licence as its card names it; None where it states none."""
    stated = model.card.license
    if stated == "other":
        stated = model.card.license_name or stated
    if isinstance(stated, list):
        stated = " and ".join(map(str, stated))
    return stated if isinstance(stated, str) else None


def strictness(licence: str | None) -> Strictness:
    """Return how strict a licence is, by its name; None is one that is not stated."""
    if not licence:
        return Strictness.NOT_STATED
    name = licence.lower()
    if NO_DERIVATIVES.search(name):
        return Strictness.NO_DERIVATIVES
    if NON_COMMERCIAL.search(name):
        return Strictness.NON_COMMERCIAL
    if SHARE_ALIKE.search(name):
        return Strictness.SHARE_ALIKE
    return Strictness.PERMISSIVE if name.startswith(PERMISSIVE) else Strictness.OWN_TERMS


def strictest(licences: Iterable[str | None]) -> str | None:
    """Return the strictest of some licences, the first of several that are as strict."""
    return max(licences, key=strictness, default=None)
