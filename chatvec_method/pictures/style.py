"""The look that all pictures share."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from chatvec_method.errors import ChatVecError, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Theme: TypeAlias = Literal["light", "dark"]


WIDTH, DPI = 9.0, 140
"""In inches, and dots per inch: a README shows pictures about 900 dots wide."""


COLOURS = {"light": ("#ffffff", "#24292f"), "dark": ("#0d1117", "#c9d1d9")}
"""Of the ground and of what is written on it."""


LONGEST_NAME = 60


LINES = ("#1f7ab8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that can be told apart with any colour vision, on light and on dark ground."""


CJK_FONTS = (
    "Noto Sans CJK KR|Noto Sans CJK JP|Noto Sans CJK SC|Noto Sans KR|NanumGothic|"
    "Apple SD Gothic Neo|Hiragino Sans|PingFang SC|Malgun Gothic|Yu Gothic|Microsoft YaHei|"
    "WenQuanYi Zen Hei|IPAexGothic"
).split("|")
"""For what DejaVu Sans lacks: whichever of these are installed."""
CJK_FILES = tuple(font.replace(" ", "") for font in CJK_FONTS)


@cache
def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib had made its list of them."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    for file in findSystemFonts():
        name = Path(file).name.replace(" ", "").replace("CJK-Regular", "CJKJP-Regular")
        if any(name.startswith((f"{each}-Regular", f"{each}.")) for each in CJK_FILES):
            with suppress(OSError, RuntimeError):  # a file that is none
                fontManager.addfont(file)


@contextmanager
def style(theme: Theme) -> Iterator[tuple[str, str]]:
    """Have all pictures look alike, whatever a person's own style is; yield ground and ink.

    Raises:
        ChatVecError: matplotlib is not installed, or cannot draw what is drawn below this.
    """
    matplotlib = require_matplotlib()
    from matplotlib.font_manager import fontManager

    ground, ink = COLOURS[theme]
    if not any(font.name in CJK_FONTS for font in fontManager.ttflist):
        _add_new_fonts()
    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(font for font in CJK_FONTS if font in installed)]
    settings: Any = {"font.size": 9, "font.family": fonts, "axes.titlesize": 10, "figure.dpi": DPI}
    settings |= dict.fromkeys(["text.color", "axes.labelcolor", "xtick.color", "ytick.color"], ink)
    settings |= dict.fromkeys(["figure.facecolor", "axes.facecolor"], ground)
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        # A name in a script for which no font is installed is shown as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        try:
            yield ground, ink
        except Exception as error:  # of fonts, of settings, of matplotlib itself
            version = matplotlib.__version__
            raise ChatVecError(
                f"matplotlib {version} cannot draw the picture ({first_line(error)}).",
                "Do without it, or report it with this line.",
                code="no-picture",
            ) from error


def new_figure(width: float, height: float) -> Figure:
    """Return an empty picture, in inches, on a canvas in memory; call it within `style`.

    Without pyplot, which would look for a window system or a notebook to show it in.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def require_matplotlib() -> ModuleType:
    """Import matplotlib, whatever the environment says of how it should show pictures.

    Every Jupyter kernel sets MPLBACKEND to a module of its own, for what it starts too. Where that
    module is not installed, importing matplotlib would fail.

    Raises:
        ChatVecError: It is not installed.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except ImportError as error:
        raise ChatVecError(
            "pictures need matplotlib, which is not installed.",
            "Run `pip install 'chatvec-method[pictures]'`.",
            code="no-matplotlib",
        ) from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def can_show(text: str) -> bool:
    """Tell whether the fonts of pictures have every character; within `style`."""
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = matplotlib.rcParams["font.family"]
    installed = [get_font(findfont(FontProperties(family=[font]))) for font in fonts]
    return all(any(font.get_char_index(ord(letter)) for font in installed) for letter in text)


def as_png(figure: Figure) -> bytes:
    """Return a picture's file, without a date or the name of a program."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def shown(ratio: float) -> str:
    """Return a ratio as tables and pictures show it, with three digits.

    Where straight lines cross 0, mergekit's arithmetic leaves something like 1e-15, or -0.
    """
    return f"{round(ratio, 6) + 0.0:.3g}"


def short(name: str, most: int = LONGEST_NAME) -> str:
    """Return a name or its end, which tells more than its beginning."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
