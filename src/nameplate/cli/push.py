"""`nameplate push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.options import BundleArgument, Json
from nameplate.errors import UsageError


@app.command()
def push(
    bundle: BundleArgument,
    to: Annotated[str, typer.Argument(metavar="hf:USER/NAME", help="The repository on the hub.", show_default=False)],
    card: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A model card that 'nameplate evaluate --card' wrote.")
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="ID", help="The hub's word for the licence, such as apache-2.0.")
    ] = "other",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is new.")] = False,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Upload the thumbnails of training photos too, if the bundle has them.")
    ] = False,
    json: Json = False,
) -> None:
    """Upload a bundle to the Hugging Face hub, with a model card. Others then load it as hf:USER/NAME."""
    from nameplate.hub import hub_name
    from nameplate.hub import push as upload
    from nameplate.model.bundle import INDEX, MAX_BYTES
    from nameplate.model.model import Model
    from nameplate.report.hub_card import hub_card
    from nameplate.storage import read_text

    name = hub_name(to)
    if name is None:
        raise UsageError(f"'{to}' is no name on the hub: write hf:USER/NAME.")
    model = Model.load(bundle)
    folder, files = model.bundle.folder, model.bundle.manifest.files
    assert folder is not None
    if INDEX in files and not thumbnails:
        raise UsageError(
            f"'{bundle}' holds thumbnails of the photos that trained it ({INDEX}). Add --thumbnails to publish them, "
            "or train it again without --index."
        )
    text = hub_card(model, name.repo, licence, None if card is None else read_text(card))
    address = upload(folder, name, text, MAX_BYTES, private=private)
    if json:
        screen.print_json({"repository": name.repo, "commit": address})
        return
    screen.step("Uploaded", f"{bundle} to {name}")
    screen.step("", address)
    screen.step("Next", f"nameplate identify --model {name} PHOTO")
