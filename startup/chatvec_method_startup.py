"""Makes `chat_vector` known to every mergekit command, however it is started.

mergekit 0.1.5 has no plugin discovery: it knows a merge method only after somebody has imported
the module that registers it. Python runs `install` at start-up (from the `.pth` file next to this
module, or from the `.start` file where Python knows those, PEP 829). That puts a finder in front
of the import system which ignores every module but `mergekit.merge_methods`; once that one has
loaded, `chatvec_method.method.plugin` is imported, which registers itself, and the finder leaves.

It runs in every Python of the environment, so it imports nothing but `sys`, and whatever goes
wrong in our package becomes one log line, never an exception in somebody else's program.
"""

import sys

TARGET = "mergekit.merge_methods"


def install() -> None:
    """Wait for mergekit's merge methods to be imported, unless that is done already."""
    if TARGET not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds `mergekit.merge_methods` as the other finders do, and has its loader tell us."""

    searching = False  # a finder that asks all others, such as a second one of ours, asks us too

    def find_spec(self, name, path=None, target=None):  # noqa: ANN001, ANN202 (no typing here)
        if name != TARGET or self.searching:
            return None
        self.searching = True
        try:
            for finder in list(sys.meta_path):
                find_spec = getattr(finder, "find_spec", None)
                spec = find_spec and find_spec(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader, self)
                    return spec
            return None
        finally:
            self.searching = False


class _Loader:
    """The loader that was found, with our registration after its `exec_module`."""

    def __init__(self, loader, finder):  # noqa: ANN001, ANN204
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name):  # noqa: ANN001, ANN204
        if name.startswith("__"):  # copy and pickle ask for these before there is a `_loader`
            raise AttributeError(name)
        return getattr(self._loader, name)

    def exec_module(self, module) -> None:  # noqa: ANN001
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)


def _register() -> None:
    try:
        import chatvec_method.method.plugin  # noqa: F401 (registers itself)
    except (Exception, SystemExit) as error:
        import logging
        from importlib import metadata

        try:
            mergekit = metadata.version("mergekit")
        except metadata.PackageNotFoundError:
            mergekit = "of unknown version"
        # `logging` and not `warnings`: `python -W error` would break `import mergekit`.
        logging.getLogger("chatvec_method").warning(
            "merge method chat_vector is not available (%s: %s). chatvec-method needs mergekit "
            "0.1.5 or newer, this is mergekit %s; reinstalling with `pip install -U "
            "chatvec-method` may help. The other merge methods are not affected.",
            type(error).__name__,
            error,
            mergekit,
        )
