"""Options and arguments that several commands share, and how a command line is read before it is parsed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nameplate.batch.cluster import LOCAL, is_address
from nameplate.errors import UsageError
from nameplate.types import Cars

DATA = typer.Argument(
    metavar="DATA",
    help="A folder per nameplate, a CSV or Parquet table with path and label, or the competition's folder or zip. "
    "Several are merged.",
    show_default=False,
)
Data = Annotated[list[Path], DATA]
BundleArgument = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", help="A folder that 'train' wrote, or the name of a model that ships with Nameplate."
    ),
]
Names = Annotated[
    Path | None, typer.Option(help="A file with the names of the class ids: one name per line, or rows id,name.")
]
Exclude = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Leave out the photos that this file names; 'nameplate audit' writes one."),
]
Relabel = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Give photos the labels of this table (path, label); 'nameplate audit --serve' writes one."
    ),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        help="How to read folders: auto (detect), classes (a folder per nameplate), parts (such folders in train, "
        "val and the like) or makes (a folder per make with one per model inside).",
    ),
]
RuntimeOption = Annotated[
    str,
    typer.Option(
        "--runtime",
        help="What runs the network: auto, onnxruntime, openvino or openvino-bf16; on a GPU onnxruntime-cuda or "
        "openvino-gpu.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where the network runs: cpu, cuda (NVIDIA) or gpu (Intel, by OpenVINO).")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="How many processors to use.", show_default="all that this process may use")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else.")]
RecipeOption = Annotated[
    str, typer.Option("--recipe", help="A recipe that 'nameplate recipes' lists, or a .toml file.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="Epochs of the whole training; the stages of a recipe share them in their proportion.",
        show_default="the recipe's",
    ),
]
PhotoSize = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Photo size of the recipe's last stage in pixels; the sizes of earlier stages follow in their ratio.",
        show_default="the recipe's",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Photos in each step, in every stage. Another batch wants another rate: see 'nameplate lr-find'.",
        show_default="the recipe's",
    ),
]
TtaOption = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="NAME",
        help="Test-time augmentation: mirror, scales, sharpen (if blurred or small), or several of these joined by "
        "commas, full (mirror and scales), or original (the notebook's five random passes).",
    ),
]
WholePhoto = Annotated[
    bool, typer.Option("--whole-photo", help="Name each photo as a whole, without locating the car in it.")
]
AllCars = Annotated[bool, typer.Option("--all-cars", help="Name every car that is located, not the main one alone.")]
Top = Annotated[int, typer.Option(min=1, help="How many nameplates to list for each photo.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Run on Ray: started on this machine, or on the cluster at ADDRESS (auto, HOST:PORT or ray://HOST:PORT).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="With --ray: how many processes, of --threads processors each.", show_default="as many as fit"
    ),
]


def which_cars(*, whole_photo: bool, all_cars: bool = False) -> Cars:
    """The cars that the options ask for.

    Raises:
        UsageError: the options exclude each other.
    """
    if whole_photo and all_cars:
        raise UsageError("--whole-photo locates no cars, and --all-cars names each car that is located: give one.")
    return "whole" if whole_photo else "all" if all_cars else "main"


# What the parser cannot check or does not know.

TAKE_ADDRESSES = ("predict", "serve", "feedback")
"""Commands that accept addresses and check them themselves."""
ADDRESS = re.compile(r"(--[a-z-]+=)?(?P<address>[A-Za-z][A-Za-z0-9+.-]*://.*)", re.DOTALL)


def refuse_addresses(words: Sequence[str]) -> list[str]:
    """Return a command line unchanged, or refuse an address where a command reads only files.

    `Path` would drop the second slash of `https://`, so the error must come before arguments are parsed.

    Raises:
        UsageError: a command that only reads files is given an address.

    >>> refuse_addresses(["identify", "a.jpg"])
    ['identify', 'a.jpg']
    """
    command = next((word for word in words if not word.startswith("-")), "")
    for before, word in zip(["", *words], words, strict=False):
        found = ADDRESS.fullmatch(word)
        if found and command not in TAKE_ADDRESSES and before != "--ray" and not word.startswith("--ray="):
            raise UsageError(
                f"'{found['address']}' is an address, and '{command}' reads files: nothing is fetched. "
                "Download it first, and give the file."
            )
    return list(words)


def with_address(arguments: Sequence[str]) -> list[str]:
    """Give every bare `--ray` its default address, since the parser knows no option with an optional value.

    >>> with_address(["predict", "--ray", "photos", "--ray", "auto"])
    ['predict', '--ray', 'local', 'photos', '--ray', 'auto']
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    found: list[str] = []
    for place, word in enumerate(arguments):
        found.append(word)
        following = arguments[place + 1] if place + 1 < end else ""
        if word == "--ray" and place < end and not is_address(following):
            found.append(LOCAL)
    return found


def check_ray(ray: str | None, workers: int | None) -> None:
    """Check that the options for Ray go together.

    Raises:
        UsageError: workers without Ray, or no address.
    """
    if workers is not None and ray is None:
        raise UsageError("--workers are Ray's: add --ray.")
    if ray is not None and not is_address(ray):
        raise UsageError(f"'{ray}' is no address of a Ray cluster: give auto, HOST:PORT or ray://HOST:PORT.")
