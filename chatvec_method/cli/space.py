"""What runs in a Hugging Face Space: see `chatvec live --space`.

Everybody may ask there, so nothing is written to its disk, and it may stand in the hub's pages.
"""

from __future__ import annotations

import os

from chatvec_method import api
from chatvec_method.demo import world_recipe
from chatvec_method.serving.address import bound
from chatvec_method.serving.app import api as app_of
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.guard import Guard
from chatvec_method.serving.page.mounting import mount_page
from chatvec_method.serving.running import server_of

PORT = 7860
"""Where a Space is to be reached, if nothing else is said."""
FRAMES = "'self' https://huggingface.co https://*.hf.space"


def serve_space(recipe: str | None = None) -> None:
    """Serve a recipe's merge to everybody, where a Space is to be reached.

    Args:
        recipe: Its file; None for the demonstration's world.
    """
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")
    port = int(os.environ.get("GRADIO_SERVER_PORT", PORT))
    place = bound(host, port, None, public=True)
    live = api.live(world_recipe() if recipe is None else recipe)
    engine = Engine(live)
    app = mount_page(app_of(engine), engine, live, world=recipe is None, frames=FRAMES)
    server_of(Guard(app, public=True), engine).run(sockets=[place])
