"""The tensors of the models, as mergekit's own loaders find them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mergekit.common import ModelReference
from mergekit.io.tasks import LoaderCache, LoadTensor
from mergekit.options import MergeOptions
from torch import Tensor

from chatvec_method.facts.plan import PlannedTensor


@contextmanager
def fresh_loaders(options: MergeOptions) -> Iterator[None]:
    """Let mergekit open the models anew, and let go of them.

    It keeps open what it has opened, by name and for the life of the process, also when the files
    have changed since or the name means another folder now.
    """
    cache = LoaderCache()
    cache.loaders.clear()
    cache.setup(options)
    try:
        yield
    finally:
        cache.loaders.clear()


def load_tensor(tensor: PlannedTensor, model: ModelReference) -> Tensor | None:
    """Return a model's tensor under whichever name it has it; None if it lacks it.

    Where the file can be mapped, nothing of it is read yet.
    """
    weight = tensor.inputs[model]
    return LoadTensor(
        model=model,
        tensor=weight.name,
        optional=True,
        aliases=weight.aliases,
        tied_names=weight.tied_names,
    ).execute()
