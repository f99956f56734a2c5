"""The guided tour: inspect, train, evaluate and identify on the embedded photos, and write a page with pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nameplate import __version__
from nameplate.data import Dataset, read_dataset
from nameplate.demo import photos_folder
from nameplate.evaluate.evaluator import EvaluationResult, evaluate_model
from nameplate.evaluate.metrics import confusion_matrix
from nameplate.fit.linear_probe import train_head
from nameplate.images import decode
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.report.page import png_uri, thumbnail_uri, write_page
from nameplate.report.plots import class_plot, confusion_plot
from nameplate.types import HeadRecipe, Photo, Prediction, percent

EXAMPLES, MISTAKES = 6, 8
"""How many photos of each nameplate, and how many mistakes, the page shows."""


def tour(
    output: Path,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    say: Callable[[str, str], None],
    progress: Progress = lambda *_: None,
) -> Path:
    """Run the main job on the embedded photos; write `output`/model and `output`/index.html.

    Args:
        output: the folder to write; the files of an earlier tour are replaced.
        runtime: see `Model.load`.
        threads: see `Model.load`.
        say: prints one line after a word that names it.
        progress: see `Progress`.

    Returns:
        The path of the page.
    """
    data, test = read_dataset(photos_folder("train")), read_dataset(photos_folder("test"))
    say("1. Look", f"{len(data.photos):,} photos of {len(data.nameplates)} car designs that do not exist:")
    say("", ", ".join(data.nameplates))

    start = time.monotonic()
    backbone = Model.load(runtime=runtime, threads=threads)
    recipe = HeadRecipe(holdout=0.0)  # the test photos are a folder of their own, so all others train
    trained = train_head(data, output / "model", model=backbone, recipe=recipe, overwrite=True, progress=progress)
    seconds = time.monotonic() - start
    say("2. Train", f"{trained.photos:,} photos embedded by {trained.runtime} and a head fitted in {seconds:.0f} s")

    model = Model(trained.bundle, replace(backbone.settings, runtime=trained.runtime))  # the runtime that trained
    result = evaluate_model(model, test, progress=progress)
    found, top1 = result.evaluation, result.evaluation.top1
    share = f"top-1 {percent(top1.value)} (95 % interval {percent(top1.low, '')}–{percent(top1.high, '')})"
    say("3. Evaluate", f"{found.photos} photos never seen: {share}, by {result.runtime}")
    for pair in found.confusions[:3]:
        say("", f"{pair.photos}× {pair.truth} taken for {pair.named}")

    shown = result.photos[len(result.photos) // 2]
    [answer] = model.predict([shown.path])
    name = "/".join(Path(shown.path).parts[-2:])
    say("4. Identify", f"{name}: {answer.nameplate}, {percent(answer.confidence or 0)}")

    page = output / "index.html"
    _write(page, data, result, shown, answer, seconds)
    say("5. See", str(page.resolve()))
    _say_what_next(say)
    return page


def _say_what_next(say: Callable[[str, str], None]) -> None:
    say("", "")
    say("Your own", "each nameplate's photos in a folder of its name, then:")
    say("", "nameplate train my-photos -o my-model")
    say("", "nameplate identify --model my-model photo.jpg")
    say("Any car", "with the model that ships: nameplate identify photo.jpg")


def _write(
    page: Path,
    data: Dataset,
    result: EvaluationResult,
    shown: Photo,
    answer: Prediction,
    seconds: float,
) -> None:
    nameplates = result.nameplates
    write_page(
        page,
        "tour.html",
        version=__version__,
        train_photos=len(data.photos),
        test_photos=len(result.photos),
        looks=[_look(name, data) for name in data.nameplates],
        runtime=result.runtime,
        seconds=seconds,
        evaluation=result.evaluation,
        confusion=png_uri(confusion_plot(confusion_matrix(result.y_true, result.y_pred, len(nameplates)), nameplates)),
        classes=png_uri(class_plot(result.evaluation)),
        mistakes=_mistakes(result, nameplates),
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


def _mistakes(result: EvaluationResult, nameplates: Sequence[str]) -> list[dict[str, object]]:
    found = [
        (float(probs.max()), photo, nameplates[int(probs.argmax())])
        for photo, probs in zip(result.photos, result.probabilities, strict=True)
        if nameplates[int(probs.argmax())] != photo.label
    ]
    return [
        {
            "uri": thumbnail_uri(decode(photo.path)),
            "truth": photo.label,
            "named": named,
            "confidence": confidence,
        }
        for confidence, photo, named in sorted(found, key=lambda mistake: -mistake[0])[:MISTAKES]
    ]
