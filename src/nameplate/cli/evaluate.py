"""`nameplate evaluate`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nameplate.cli import screen
from nameplate.cli.app import app
from nameplate.cli.options import (
    BundleArgument,
    Data,
    Exclude,
    Json,
    LayoutOption,
    Names,
    Relabel,
    RuntimeOption,
    Threads,
    TtaOption,
    WholePhoto,
    which_cars,
)
from nameplate.defaults import NO_TTA
from nameplate.errors import DataError, UsageError
from nameplate.types import Verdict, percent

if TYPE_CHECKING:
    from nameplate.data import Refused
    from nameplate.data.dataset import Dataset
    from nameplate.evaluate.comparison import ModelComparison
    from nameplate.evaluate.evaluator import EvaluationResult
    from nameplate.evaluate.figures import EvaluationFigures
    from nameplate.evaluate.ood import KnownVerdicts, OODResult
    from nameplate.model.embeddings import Progress
    from nameplate.model.model import Model


@app.command()
def evaluate(
    bundle: BundleArgument,
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PAGE",
            help="The HTML page to write; JSON and a table of photos are written beside it.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Another bundle to compare with, on photos that trained neither."),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="CARD", help="The Markdown model card to write; text that you added yourself is kept."),
    ] = None,
    ood: Annotated[
        list[Path] | None,
        typer.Option(
            "--ood",
            "--strangers",
            metavar="PHOTOS",
            help="Out-of-distribution photos, of what the model does not know, to test its verdicts; repeatable.",
        ),
    ] = None,
    names: Names = None,
    exclude: Exclude = None,
    relabel: Relabel = None,
    layout: LayoutOption = "auto",
    include_trained: Annotated[
        bool,
        typer.Option(
            help="Also use photos that trained the model or that --exclude kept from it. The figures are then too good."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a report that is there; a model card is always renewed.")
    ] = False,
    all_classes: Annotated[bool, typer.Option(help="Show a row for every nameplate.")] = False,
    whole_photo: WholePhoto = False,
    tta: TtaOption = NO_TTA,
    runtime: RuntimeOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Evaluate a model on labelled photos that did not train it; write a page and a model card."""
    from nameplate.cli.labelled import as_json as how_read
    from nameplate.cli.labelled import read_labelled
    from nameplate.evaluate.comparison import evaluate_with_tta
    from nameplate.evaluate.evaluator import evaluate_model
    from nameplate.evaluate.figures import as_json, compute_figures
    from nameplate.evaluate.ood import evaluate_ood, known_verdicts
    from nameplate.model.model import Model
    from nameplate.model.runtime_choice import common_runtime

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"The report is a page: '{output}' must end with .html.")
    if card is not None and card.suffix.lower() != ".md":
        raise UsageError(f"The model card is Markdown: '{card}' must end with .md.")
    if card is not None and include_trained:
        raise UsageError(
            "A model card says what a model is worth on photos that did not train it: no --include-trained."
        )
    _refuse_overwriting(output, card, (*data, names, exclude, relabel, *(ood or ())), overwrite=overwrite)
    cars = which_cars(whole_photo=whole_photo)
    model = Model.load(bundle, runtime=runtime, threads=threads, tta=tta, cars=cars)
    model.require_head()
    other = None if against is None else Model.load(against, runtime=runtime, threads=threads, tta=tta, cars=cars)
    if other is not None:  # what is compared comes from one runtime
        shared = common_runtime([model.bundle, other.bundle], runtime, model.settings.threads)
        model, other = model.with_settings(runtime=shared), other.with_settings(runtime=shared)
    with screen.progress() as report:
        dataset = read_labelled(data, names, exclude, layout, report, relabel)
        result = evaluate_model(model, dataset, include_trained=include_trained, progress=report)
        result, gained = evaluate_with_tta(model, result, report)
        others: list[Refused] = []
        unknown = [evaluate_ood(model, result, source, report, others.append) for source in ood or []]
        held = None if other is None else _against(other, str(against), dataset, result, include_trained, report)
    _tell_left_out(result, others)
    measured = compute_figures(result)
    verdicts = known_verdicts(model, result)
    said = as_json(measured, result, model.bundle, held) | {"verdicts": asdict(verdicts), "data": how_read(dataset)}
    files = screen.left_out_json((*dataset.refused, *others), result.unreadable)
    said["left_out"] = {**cast("dict[str, object]", said["left_out"]), "files": files}
    said |= {"strangers": [each.as_json() for each in unknown]} if unknown else {}
    said |= {"tta": gained.as_json()} if gained else {}
    lines = []
    if output is not None:
        from nameplate.report.evaluation import write_report

        written = write_report(said, measured, result, output, model.settings.threads, held)
        lines.append(f"{written.page}, {written.json}, {written.photos}")
    if card is not None:
        from nameplate.report.card import write_card

        # without folders: a card is published, and where photos lie on one machine is no one's business
        command = ["nameplate", "evaluate", Path(bundle).name, *(path.name for path in data), "--card", card.name]
        write_card(card, measured, result, model, shlex.join(command))
        lines.append(str(card))
    if json:
        screen.print_json(said)
        return
    screen.print_evaluation(result.evaluation, all_classes=all_classes)
    screen.step("Runtime", result.runtime)
    _print_more(measured, held)
    _print_verdicts(verdicts, unknown)
    if gained is not None:
        screen.step("TTA", gained.sentence())
    for line in lines:
        screen.step("Wrote", line)


def _against(
    other: Model, name: str, dataset: Dataset, result: EvaluationResult, include_trained: bool, report: Progress
) -> ModelComparison:
    from nameplate.evaluate.comparison import compare_models, evaluate_with_tta
    from nameplate.evaluate.evaluator import evaluate_model

    try:
        theirs = evaluate_model(other, dataset, include_trained=include_trained, progress=report)
        theirs, _ = evaluate_with_tta(other, theirs, report)
    except DataError as error:
        raise DataError(f"--against {name}: {error}") from None
    return compare_models(result, theirs, name)


def _refuse_overwriting(
    page: Path | None, card: Path | None, inputs: Sequence[Path | None], *, overwrite: bool
) -> None:
    from nameplate.data.inputs import refuse_existing, refuse_overwriting_input

    report: tuple[Path, ...] = ()
    if page is not None:
        from nameplate.report.evaluation import EvaluationFiles

        report = EvaluationFiles.beside(page)
    refuse_overwriting_input([card, *report], inputs)
    refuse_existing(report, overwrite=overwrite)


def _tell_left_out(result: EvaluationResult, of_ood: Sequence[Refused]) -> None:
    from nameplate.cli.labelled import tell_not_evaluated

    screen.tell_refused([(entry.name, entry.reason) for entry in of_ood], "left out of --ood")
    screen.tell_refused(list(result.unreadable), "unreadable")
    if result.trained:
        screen.notes.print(f"{result.trained:,} photos left out: they trained this model.")
    if result.leaked:
        those = screen.counted(result.leaked, "photo")
        screen.notes.print(f"{those} left out: copies of photos that trained this model say nothing of it.")
    if result.excluded:
        screen.notes.print(f"{result.excluded:,} photos left out: --exclude kept them from this model's training.")
    tell_not_evaluated(result)
    if result.unknown_nameplates:
        photos = sum(count for _, count in result.unknown)
        left = (
            f"{screen.counted(len(result.unknown_nameplates), 'nameplate')} left out, {screen.counted(photos, 'photo')}"
        )
        screen.notes.print(f"{left}: the model does not know them, and the figures are of the rest.")


def _print_more(measured: EvaluationFigures, against: ModelComparison | None) -> None:
    """Print the figures beyond accuracy."""
    from nameplate.evaluate.calibration import RISKS
    from nameplate.evaluate.comparison import loss_verdict, verdict

    calibration, selective = measured.calibration, measured.selective
    screen.out.print()
    screen.step("Make right", measured.makes.top1.percent)
    screen.step("Log-loss", f"{measured.log_loss.value:.3f} ({measured.log_loss.low:.3f}–{measured.log_loss.high:.3f})")
    chance = f"a model whose confidences are true shows {percent(calibration.by_chance.value)} by chance"
    screen.step("Calibration", f"error (ECE) {calibration.ece.percent}; {chance}")
    for risk, point in zip(RISKS, selective.within, strict=True):
        photos = "not even the surest" if point is None else f"the surest {100 * point.coverage:.0f} % of photos"
        sure = "" if point is None else f", confidence ≥ {100 * point.threshold:.0f} %"
        screen.step(f"≤ {100 * risk:g} % wrong", f"{photos}{sure}")
    if against is not None:
        screen.step("Against", verdict(against))
        screen.step("", loss_verdict(against))


def _print_verdicts(known: KnownVerdicts, ood: Sequence[OODResult]) -> None:
    """Print the verdicts on known photos and on photos of what the model does not know."""
    right = "" if known.right is None else f"; answers right {known.right.percent}"
    held = "" if known.kept_held is None else f", sets of {known.size:.2f} hold the truth {known.kept_held.percent}"
    screen.step("Verdicts", f"{_shares(known.verdicts)}{right}{held}")
    if known.kept_held is not None:  # the rest get no set at all
        screen.step("", f"of all known photos {known.held.percent} get a set that holds the truth")
    for each in ood:
        screen.step("Out of set", f"{each.source}: {_shares(each.verdicts)}")
        for name, found in (("as unknown cars", each.near), ("as no cars", each.far)):
            auroc = f"AUROC {found.auroc.value:.3f} ({found.auroc.low:.3f}–{found.auroc.high:.3f})"
            screen.step("", f"{name}: {auroc}, {found.false_accepts.percent} pass where 95 % of known ones do")


def _shares(verdicts: Mapping[Verdict, int]) -> str:
    photos = sum(verdicts.values())
    return ", ".join(f"{verdict} {percent(count / photos)}" for verdict, count in verdicts.items())
