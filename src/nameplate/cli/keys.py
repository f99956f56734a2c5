"""`nameplate keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nameplate.cli import screen
from nameplate.cli.commands import Json, app

keys = typer.Typer(help="Make, list and revoke the API keys of 'nameplate serve'.", no_args_is_help=True)
app.add_typer(keys, name="keys")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Keeps the keys' hashes.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; logs show it.", show_default=False)]


@keys.command()
def add(
    file: File,
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="It may also exchange bundles.")] = False,
    json: Json = False,
) -> None:
    """Make a key and show it, this once: the file keeps its hash alone. A service that runs knows it a second later."""
    from nameplate.serving.keys import add_key

    token = add_key(file, name, admin=admin)
    if json:
        screen.print_json({"file": str(file), "name": name, "admin": admin, "key": token})
        return
    screen.out.print(token)
    screen.note("keep it", f"The key of '{name}' cannot be shown again: {file} holds its hash alone.")


@keys.command("list")
def list_(file: File, json: Json = False) -> None:
    """List whose keys there are, and since when."""
    from nameplate.serving.keys import read_keys

    found = read_keys(file)
    if json:
        screen.print_json([{"name": key.name, "created": key.created, "admin": key.admin} for key in found])
        return
    for key in found:
        screen.out.print(f"{key.name:24}  {key.created}{'  admin' if key.admin else ''}")
    if not found:
        screen.notes.print(f"{file} holds no keys: every request that needs one is refused.")


@keys.command()
def remove(file: File, name: Name, json: Json = False) -> None:
    """Revoke a key. A service that runs refuses it a second later."""
    from nameplate.serving.keys import remove_key

    remove_key(file, name)
    if json:
        screen.print_json({"file": str(file), "removed": name})
    else:
        screen.out.print(f"Removed the key of '{name}'")
