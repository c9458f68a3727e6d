"""How the page looks: gradio's plainest theme with the fonts of the machine, and a style sheet."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
STYLE = HERE / "page.css"
FONTS = ("system-ui", "Noto Sans CJK KR", "Noto Sans KR", "sans-serif")
CODE_FONTS = ("ui-monospace", "monospace")


def theme() -> gr.themes.Base:
    """Return the theme, which has nothing of other servers, fonts least of all."""
    return gr.themes.Base(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=FONTS,
        font_mono=CODE_FONTS,
    )


def head() -> str:
    """Return what stands in the page's head."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return f"<script>{script}</script>"
