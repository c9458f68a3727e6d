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
    plain = gr.themes.Base(
        primary_hue="blue",
        secondary_hue="blue",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=FONTS,
        font_mono=CODE_FONTS,
    )
    # gradio's own greys and blue are too pale to be read by everybody.
    subdued = {"light": "*neutral_600", "dark": "*neutral_300"}
    names = ("body_text_color_subdued", "block_info_text_color", "input_placeholder_color")
    colours = dict.fromkeys(names, subdued["light"])
    colours |= {f"{name}_dark": subdued["dark"] for name in names}
    for theme in ("", "_dark"):
        colours[f"button_primary_background_fill{theme}"] = "*primary_700"
        colours[f"button_primary_background_fill_hover{theme}"] = "*primary_800"
    return plain.set(**colours)


def head() -> str:
    """Return what stands in the page's head."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return f"<script>{script}</script>"
