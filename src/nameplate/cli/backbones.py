"""The networks that can be trained: `nameplate backbones`, `backbone` and `convert-weights`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.ending import needs_train_extra
from nameplate.cli.options import Json, Threads


@app.command()
def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="A pattern of timm's names with * and ?, such as 'convnext*'."),
    ] = None,
    json: Json = False,
) -> None:
    """List the networks that can be trained: the common ones, or all of timm's that match a pattern."""
    with needs_train_extra():
        from nameplate.train.backbones import list_backbones
    found = list_backbones(pattern)
    if json:
        screen.print_json(found)
    else:
        screen.print_backbones(found)


@app.command()
def backbone(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="One of 'nameplate backbones', such as timm:convnext_tiny.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The bundle to write.")],
    weights: Annotated[
        str,
        typer.Option(help="auto (those that belong to NAME), a .safetensors file, a run's folder, or none (random)."),
    ] = "auto",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Input size of the network, in pixels.", show_default="that of the weights' training"
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Export a network with its weights as a bundle, for 'train --backbone BUNDLE', which then needs no torch."""
    with needs_train_extra():
        from nameplate.train.headless import export_backbone
    from nameplate.experiments.candidates import parse_size

    begun = time.monotonic()
    made = export_backbone(
        name,
        output,
        weights=weights,
        size=None if size is None else parse_size(size),
        threads=threads,
        overwrite=overwrite,
        say=lambda text: screen.notes.print(f"{text} …"),
    )
    manifest, seconds = made.bundle.manifest, time.monotonic() - begun
    height, width = manifest.preprocess.height, manifest.preprocess.width
    size_bytes = manifest.files["backbone.onnx"].bytes
    if json:
        screen.print_json(
            {
                "bundle": str(output),
                "backbone": made.backbone.timm,
                "weights": made.weights,
                "licence": made.backbone.licence,
                "height": height,
                "width": width,
                "embedding": manifest.embedding,
                "bytes": size_bytes,
                "parity": made.parity,
                "seconds": seconds,
            }
        )
        return
    screen.step("Exported", f"{made.backbone.timm}, {height}×{width}, an embedding of {manifest.embedding:,} numbers")
    screen.step("Weights", made.weights)
    for each in made.parity:
        screen.step("As torch", f"{each.pictures} pictures by {each.runtime}, gap ≤ {each.gap:.1e} of their spread")
    screen.step("Wrote", f"{output}  ({size_bytes / 1e6:.0f} MB, {seconds:.0f} s)")
    screen.step("Next", f"nameplate train DATA --backbone '{output}' -o OUT")


@app.command("convert-weights")
def convert_weights(
    source: Annotated[Path, typer.Argument(metavar="IN.pth", help="The file of pickled weights.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", show_default=False)],
    json: Json = False,
) -> None:
    """Convert pickled weights to safetensors without running any code in them."""
    with needs_train_extra():
        from nameplate.train.weights import convert_weights as convert
    from nameplate.data.inputs import refuse_overwriting_input

    refuse_overwriting_input([target], [source])
    made = convert(source, target)
    if json:
        screen.print_json({"output": str(target), "tensors": made.tensors, "dropped": made.dropped})
        return
    if made.dropped:
        more = f" and {len(made.dropped) - 10:,} more" if len(made.dropped) > 10 else ""
        screen.note("left out", ", ".join(made.dropped[:10]) + more)
    screen.out.print(f"Wrote {target}: {made.tensors:,} tensors")
