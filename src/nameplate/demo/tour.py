"""`tour`: look, train, evaluate, identify on the embedded photos, and a page with the pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nameplate import __version__
from nameplate.datasets import Dataset, read_dataset
from nameplate.demo import photos_folder
from nameplate.evaluation.judge import Judged, judge
from nameplate.models.collection import Progress
from nameplate.models.model import Model
from nameplate.photos import decode
from nameplate.reports.page import png_uri, thumbnail_uri, write_page
from nameplate.reports.plots import class_plot, confusion_plot
from nameplate.training.frozen import Recipe, train_head
from nameplate.types import Photo, Prediction

EXAMPLES, MISTAKES = 6, 8
"""Photos of each nameplate, and mistakes, that the page shows."""


def tour(
    output: Path,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None],
    progress: Progress = lambda *_: None,
) -> Path:
    """Walk through the main job; writes `output`/model and `output`/index.html.

    Args:
        output: a folder; what an earlier tour left there is replaced.
        runtime: see `Model.load`.
        threads: see `Model.load`.
        say: shows one line.
        progress: see `Progress`.

    Returns:
        The page.
    """
    data, test = read_dataset(photos_folder("train")), read_dataset(photos_folder("test"))
    say(f"[bold]1. Look[/bold]      {len(data.photos):,} photos of {len(data.nameplates)} car designs that do not exist")
    say(f"             {', '.join(data.nameplates)}")

    start = time.monotonic()
    backbone = Model.load(runtime=runtime, threads=threads)
    # The test part is apart already, so all other photos train.
    trained = train_head(
        data, output / "model", model=backbone, recipe=Recipe(holdout=0.0, mirror=True), overwrite=True, progress=progress
    )
    seconds = time.monotonic() - start
    say(f"[bold]2. Train[/bold]     {trained.photos:,} photos embedded and a head fitted in {seconds:.0f} s")

    model = Model(trained.bundle, backbone.settings)
    judged = judge(model, test, progress=progress)
    top1 = judged.evaluation.top1
    say(
        f"[bold]3. Evaluate[/bold]  {judged.evaluation.photos} photos never seen: top-1 {100 * top1.value:.1f} % "
        f"(95 % interval {100 * top1.low:.1f}–{100 * top1.high:.1f})"
    )
    for pair in judged.evaluation.confusions[:3]:
        say(f"             {pair.photos}× {pair.truth} taken for {pair.named}")

    shown = judged.photos[len(judged.photos) // 2]
    [answer] = model.predict([shown.path])
    say(f"[bold]4. Identify[/bold]  {Path(shown.path).parent.name}/{Path(shown.path).name}: "
        f"[green]{answer.nameplate}[/green], {100 * (answer.confidence or 0):.1f} %")

    page = output / "index.html"
    _write(page, data, judged, shown, answer, model.nameplates, seconds, trained.runtime)
    say(f"[bold]5. See[/bold]       {page.resolve()}\n")
    say("Now your own photos, each nameplate's in a folder of its name:")
    say("  nameplate train my-photos -o my-model")
    say("  nameplate identify --model my-model photo.jpg")
    say("or any car at once, with the model that ships: nameplate identify photo.jpg")
    return page


def _write(
    page: Path,
    data: Dataset,
    judged: Judged,
    shown: Photo,
    answer: Prediction,
    nameplates: Sequence[str],
    seconds: float,
    runtime: str,
) -> None:
    truths = np.array([nameplates.index(str(photo.label)) for photo in judged.photos])
    named = judged.probabilities.argmax(1)
    write_page(
        page,
        "tour.html",
        version=__version__,
        train_photos=len(data.photos),
        test_photos=len(judged.photos),
        looks=[_look(name, data) for name in data.nameplates],
        runtime=runtime,
        seconds=seconds,
        evaluation=judged.evaluation,
        confusion=png_uri(confusion_plot(truths, named, nameplates)),
        classes=png_uri(class_plot(judged.evaluation)),
        mistakes=_mistakes(judged, nameplates),
        answer={"uri": thumbnail_uri(decode(shown.path)), "truth": shown.label, "top": answer.top},
    )


def _look(nameplate: str, data: Dataset) -> dict[str, object]:
    photos = [photo.path for photo in data.photos if photo.label == nameplate]
    chosen = photos[:: max(1, len(photos) // EXAMPLES)][:EXAMPLES]
    return {
        "nameplate": nameplate,
        "photos": len(photos),
        "examples": [thumbnail_uri(decode(path)) for path in chosen],
    }


def _mistakes(judged: Judged, nameplates: Sequence[str]) -> list[dict[str, object]]:
    found = [
        (float(chances.max()), photo, nameplates[int(chances.argmax())])
        for photo, chances in zip(judged.photos, judged.probabilities, strict=True)
        if nameplates[int(chances.argmax())] != photo.label
    ]
    return [
        {"uri": thumbnail_uri(decode(photo.path)), "truth": photo.label, "named": named, "confidence": confidence}
        for confidence, photo, named in sorted(found, key=lambda mistake: -mistake[0])[:MISTAKES]
    ]
