"""Write a model card in Markdown, or renew one (`write_card`).

The measured parts are written anew; everything that a person wrote around them is kept. Model cards are described in
M. Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.evaluate.calibration import RISKS
from nameplate.evaluate.evaluator import EvaluationResult, worst_pairs
from nameplate.evaluate.figures import EvaluationFigures
from nameplate.evaluate.ood import known_verdicts
from nameplate.model.bundle import Manifest
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto
from nameplate.storage import open_regular, whole_file
from nameplate.types import percent

SPEED_PHOTOS, WARM_PHOTOS = 512, 32
"""The largest number of photos that are timed, and of photos before them that only warm up."""
WORST = 8
"""The number of hardest nameplates, and of most confused pairs, on the card."""
MAKE_PHOTOS = 15
"""The number of photos that gives a make a row of its own; the other makes share a row."""


POOR_PHOTO = (
    "A photo that looks like an unknown car, but is too small, too dark or too blurred to judge, gets the verdict "
    "`poor photo`, and `flaws` says what is wrong with it."
)
"""The sentence of the card on flawed photos."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The throughput from photo files to answers."""

    photos: int
    per_second: float
    threads: int
    runtime: str
    cpu: str


def write_card(target: Path, figures: EvaluationFigures, result: EvaluationResult, model: Model, command: str) -> None:
    """Write a model card, or renew one.

    The measured parts stand between `<!-- measured: NAME -->` and `<!-- end -->`. In an existing card they are
    replaced, missing ones are added at the end, and everything else is kept.

    Args:
        target: The Markdown file.
        figures: The figures of the evaluation.
        result: The evaluation itself.
        model: The model; it is described, and timed on some of the photos.
        command: The command that the card names as its origin.

    Raises:
        NameplateError: The existing card cannot be read, or one of its parts has no end; or the new card cannot be
            written.
    """
    try:
        old = f"# Model card: `{model.bundle.manifest.name}`\n"
        if target.exists():
            with open_regular(target) as file:
                old = file.read().decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NameplateError(f"Cannot read the card '{target}': {error}. Give another name to --card.") from None
    parts = {
        "model": describe(model),
        "figures": _figures(figures, result, model, speed(model, result), command),
        "makes": _makes(figures),
        "hardest": _hardest(figures, result),
    }
    with whole_file(target) as temporary:
        temporary.write_text(renew(old, parts), "utf-8")


def renew(card: str, parts: Mapping[str, str]) -> str:
    r"""Replace the measured parts in a card's text.

    Args:
        card: The text of the card.
        parts: The new text of each part, by name.

    Raises:
        NameplateError: A part begins and does not end.

    >>> renew("My words.\n<!-- measured: a -->\nold\n<!-- end -->\nMore.\n", {"a": "new"})
    'My words.\n<!-- measured: a -->\nnew\n<!-- end -->\nMore.\n'
    """
    for name, text in parts.items():
        begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
        part = f"{begin}\n{text.strip()}\n{end}"
        before, found, rest = card.partition(begin)
        _, ended, after = rest.partition(end)
        if found and not ended:
            raise NameplateError(f"The card has '{begin}' without '{end}' after it. Put it back, or remove both.")
        card = f"{before}{part}{after}" if found else f"{card.rstrip()}\n\n{part}\n"
    return card


def speed(model: Model, result: EvaluationResult) -> Speed:
    """Time a model on the files of evaluated photos; some are processed first to warm up."""
    paths = [photo.path for photo in result.photos]
    for _ in model.stream(paths[:WARM_PHOTOS]):
        pass
    timed = paths[:SPEED_PHOTOS]
    begun = time.perf_counter()
    runs = {photo.runtime for photo in model.rows(timed) if isinstance(photo, EmbeddedPhoto)}
    seconds = time.perf_counter() - begun
    return Speed(len(timed), len(timed) / seconds, model.settings.threads, "/".join(sorted(runs)), cpu_name())


def cpu_name() -> str:
    """The name of the processor, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {_cell(text)} |" for name, text in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def describe(model: Model) -> str:
    """The card's table of what the bundle's manifest says: nameplates, input, training, data, licence."""
    manifest = model.bundle.manifest
    size, provenance = manifest.preprocess, manifest.provenance
    versions = _mapping(provenance.get("versions"))
    megabytes = sum(file.bytes for file in manifest.files.values()) / 1e6
    data = _mapping(provenance.get("data"))
    crop = "the whole photo" if size.locate == "none" else "a crop of the main car, which a detector locates"
    rows = [
        ("names", f"{len(manifest.nameplates):,} nameplates"),
        ("backbone", f"{provenance.get('backbone', 'not recorded')}; {manifest.embedding:,} numbers a photo"),
        ("model input", f"{size.height}×{size.width} (height × width), {size.fit}, {size.interpolation}; {crop}"),
        ("size", f"{megabytes:.1f} MB"),
        ("recipe", _recipe(_mapping(provenance.get("recipe")))),
        ("data", f"{_number(data.get('photos'))} photos, SHA-256 `{str(data.get('sha256', 'not recorded'))[:16]}…`"),
        ("made", f"{provenance.get('made', 'not recorded')}, Nameplate {versions.get('nameplate', '?')}"),
    ]
    if members := provenance.get("members"):
        rows.append(("ensemble", _members(members)))
    if gate := _gate_sources(_mapping(provenance.get("gate"))):
        rows.append(("gate of `not a car`", gate))
    if licence := provenance.get("licence"):
        terms = _mapping(licence)
        rows.append(
            ("licence", "; ".join(f"{what}: {text}" for what, text in terms.items()) if terms else str(licence))
        )
    if note := provenance.get("note"):
        rows.append(("note", str(note)))
    return _table(rows)


def _members(members: object) -> str:
    """The members of an ensemble in words."""
    found = [_mapping(each) for each in members] if isinstance(members, list) else []
    names = [str(each.get("name", "?")) for each in found]
    weights = [f" ({each['weight']:.2f})" if isinstance(each.get("weight"), float) else "" for each in found]
    shown = ", ".join(f"{name}{weight}" for name, weight in zip(names, weights, strict=True))
    return f"mean of {len(found)} members: {shown}; unknown cars and other things are told by the detector of the first"


def _gate_sources(gate: dict[str, object]) -> str:
    """What the gate was learned on: {"cars": {source: photos}, "others": {source: photos}} in words; "" for nothing."""
    words = []
    for side, name in (("cars", "photos of cars"), ("others", "photos of other things")):
        sources = _mapping(gate.get(side))
        if sources:
            words.append(f"{name}: {', '.join(f'{source} ({_number(n)})' for source, n in sources.items())}")
    return "; ".join(words)


def _mapping(value: object) -> dict[str, object]:
    """The value where it is a JSON object, else an empty one: provenance may hold anything."""
    return value if isinstance(value, dict) else {}


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def _recipe(recipe: dict[str, object]) -> str:
    stages = recipe.get("stages")
    sizes = ""
    if isinstance(stages, list):
        shown = (
            f"{each.get('epochs', '?')} epochs at {each.get('height', '?')}×{each.get('width', '?')}"
            for each in map(_mapping, stages)
        )
        sizes = f": {', '.join(shown)}"
    seed = f", seed {recipe['seed']}" if "seed" in recipe else ""
    return f"`{recipe.get('name', 'not recorded')}`{sizes}{seed}; whole in `bundle.json`"


def _figures(figures: EvaluationFigures, result: EvaluationResult, model: Model, timed: Speed, command: str) -> str:
    manifest = model.bundle.manifest
    found, calibration, loss = figures.evaluation, figures.calibration, figures.log_loss
    rows = [
        ("top-1", found.top1.percent),
        ("top-5", found.top5.percent),
        ("macro-F1", found.macro_f1.percent),
        ("make right", figures.makes.top1.percent),
        ("log-loss", f"{loss.value:.3f} ({loss.low:.3f}–{loss.high:.3f})"),
        (
            "calibration error (ECE)",
            f"{calibration.ece.percent}; by chance alone {percent(calibration.by_chance.value)}; "
            f"temperature {manifest.temperature_of(result.runtime):.3f}",
        ),
        ("surest answers", _surest(figures)),
        ("verdicts", _verdicts(model, result)),
        ("bfloat16", _bfloat16(manifest)),
        (
            "speed",
            f"{timed.per_second:,.0f} photos a second from files ({timed.photos:,} photos, {timed.runtime}, "
            f"{timed.threads} threads, {timed.cpu})",
        ),
    ]
    head = (
        f"On {found.photos:,} photos of {len(found.classes):,} nameplates that did not train it, "
        f"by {result.runtime}; 95 % intervals in brackets."
    )
    return f"{head}\n\n{_table(rows)}\n\n{POOR_PHOTO}\n\nMade by `{command}`."


def _surest(figures: EvaluationFigures) -> str:
    said = []
    for risk, point in zip(RISKS, figures.selective.within, strict=True):
        share = (
            "none" if point is None else f"{100 * point.coverage:.0f} % (confidence ≥ {100 * point.threshold:.0f} %)"
        )
        said.append(f"at most {100 * risk:g} % wrong among {share}")
    return "; ".join(said)


def _verdicts(model: Model, result: EvaluationResult) -> str:
    found = known_verdicts(model, result)
    shares = ", ".join(f"{name} {percent(count / len(result.y_true))}" for name, count in found.verdicts.items())
    right = "" if found.right is None else f"; answers right {found.right.percent}"
    if found.kept_held is None:
        return f"{shares}{right}"
    sets = f"sets of {found.size:.2f} nameplates, where one is given, hold the truth {found.kept_held.percent}"
    return f"{shares}{right}; {sets}; of all known photos {found.held.percent} get one that does"


def _bfloat16(manifest: Manifest) -> str:
    check = manifest.bfloat16
    if check is None:
        return "not measured, so not used"
    shares = f"top-1 {percent(check.top1_bfloat16)}, in float32 {percent(check.top1_float32)}"
    return f"{shares}, on {check.photos:,} photos when it was made"


def _makes(figures: EvaluationFigures) -> str:
    results = figures.makes.results
    large = [each for each in results if each.photos >= MAKE_PHOTOS]
    small = [each for each in results if each.photos < MAKE_PHOTOS]
    rows = [(each.make, each.photos, each.top1.value, each.recall) for each in large]
    if small:
        photos = sum(each.photos for each in small)
        right, make = (
            sum(share * each.photos for share, each in zip(shares, small, strict=True)) / photos
            for shares in ([each.top1.value for each in small], [each.recall for each in small])
        )
        word = "the other" if large else "all"
        rows.append((f"{word} {len(small)} makes", photos, right, make))
    lines = ["| make | photos | nameplate right | make right |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {_cell(name)} | {n} | {100 * right:.0f} % | {100 * make:.0f} % |" for name, n, right, make in rows]
    return "\n".join(lines)


def _hardest(figures: EvaluationFigures, result: EvaluationResult) -> str:
    classes = sorted(figures.evaluation.classes, key=lambda each: (each.f1, each.nameplate))[:WORST]
    lines = ["The hardest nameplates, by F1:", ""]
    lines += [f"- {each.nameplate}: {100 * each.f1:.0f} % ({each.photos} photos)" for each in classes]
    pairs = worst_pairs(result, WORST)
    if pairs:
        lines += ["", "Taken for each other most often:", ""]
        lines += [f"- {p.first} and {p.second}: {p.photos} photo{'s' * (p.photos > 1)}" for p in pairs]
    return "\n".join(lines)
