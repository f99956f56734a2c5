"""Types of the plain data that passes between packages."""

from __future__ import annotations

import html
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from nameplate.errors import Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# These two are strings, so that `import nameplate` and `nameplate --help` need not import numpy.
Floats: TypeAlias = "NDArray[np.float32]"
"""A float32 array of any shape; the docstring of what uses it states the shape."""
Doubles: TypeAlias = "NDArray[np.float64]"
"""A float64 array of any shape."""


def percent(share: float, unit: str = " %") -> str:
    """A share of 0–1 in percent with one decimal; only what is exactly 0 or 1 is shown as such.

    >>> [percent(share) for share in (0, 0.0002, 0.9718, 0.99999, 1)]
    ['0 %', '<0.1 %', '97.2 %', '>99.9 %', '100 %']
    """
    share = round(share, 9)  # the end of an interval may be 1 but for rounding
    if share in (0, 1):
        return f"{100 * share:.0f}{unit}"
    shown = f"{100 * share:.1f}"
    return f"{ {'0.0': '<0.1', '-0.0': '>-0.1', '100.0': '>99.9'}.get(shown, shown) }{unit}"


def html_table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """A table of two columns, for `_repr_html_`: notebooks show it in their own style."""

    def row(cells: tuple[str, str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


Fit = Literal["squash", "pad", "crop"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
SplitName = Literal["train", "validation", "test"]
Layout = Literal["auto", "classes", "parts", "makes"]
"""How a folder of photos is read: `auto` decides by looking; `classes` is a folder for each nameplate, `parts` has
these inside folders of splits, and `makes` has a folder for each make with one for each model inside."""
Verdict = Literal["answer", "unsure", "unknown car", "not a car", "poor photo", "unreadable"]
Locate = Literal["none", "ssd"]
"""How the car is located before a photo is preprocessed: `none` names the whole photo, `ssd` is the detector of
model/detector.py. A detector that gives other boxes needs another name, because bundles are fitted to its crops."""
Cars = Literal["main", "all", "whole"]
"""Which cars of a photo are named: the `main` one where the bundle locates cars, else the whole photo; `all` that are
located, whatever the bundle says; or the `whole` photo, whatever the bundle says."""
Why = Literal["no car found", "a part of a car"]
"""Why a photo shows no car that can be named, where it is known: see `model.verdict.with_reason`."""
Flaw = Literal["small", "dark", "blurred"]
"""A photo is too small, too dark or too blurred to recognise a car: see images/quality.py."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a photo. A photo that exceeds one of them is refused."""

    bytes: int = 64 * 1024 * 1024
    """Size of the file in bytes."""
    pixels: int = 120_000_000
    """Width × height as the header states them (a photo of a phone with 108 megapixels passes). Formats other than JPEG
    also have Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS` (89 million)."""
    seconds: float = 10.0
    """Time to decode one photo, in seconds."""
    memory: int = 768 * 1024 * 1024
    """Peak memory of decoding in bytes, as estimated from the header. It holds for one photo, and for all photos
    together that a process decodes at the same time (those that would exceed it wait)."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a decoded photo becomes the model input, which has a fixed size. Stored in every bundle."""

    height: int = 224
    """Height of the model input in pixels."""
    width: int = 224
    """Width of the model input in pixels."""
    fit: Fit = "squash"
    """`squash` ignores the aspect ratio, `pad` adds grey bars, `crop` cuts the longer side. No fit zooms in."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter; all filters are antialiased."""
    locate: Locate = "none"
    """Whether the photo is first cropped to its main car."""


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A box in pixels of the upright photo, as the file states its size."""

    left: int
    top: int
    right: int
    """The first column right of the box."""
    bottom: int
    """The first row below the box."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a nameplate says about the car beside its make."""

    model: str | None
    """None where the nameplate is a make alone."""
    body: str | None = None
    """As it is written in the nameplate (`Sedan`, `Crew Cab`); None where the nameplate does not say it."""
    years: str | None = None
    """A year or a range of years, as it is written in the nameplate; None where the nameplate does not say it."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a data set: its path, and what is known before its pixels are read."""

    path: str
    """Path of the file."""
    label: str | None = None
    """The class as the data names it (name of a folder, class id); None where the photo has no label."""
    split: SplitName | None = None
    """The split that the data assigns; None where it assigns none."""
    source: str = ""
    """Name of the data set that the photo came from."""
    group: str | None = None
    """Photos of one group (one advert, copies of one image) always stay in the same split."""
    sha256: str | None = None
    """Hexadecimal digest of the file; None until the file is read."""
    width: int | None = None
    """Width as stored in pixels, before EXIF orientation; None until the file is read."""
    height: int | None = None
    """Height as stored in pixels, before EXIF orientation; None until the file is read."""

    def with_(self, **changes: object) -> Photo:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How a linear classifier is trained on the embeddings of a frozen backbone."""

    holdout: float = 0.15
    """Fraction of the photos of every nameplate that are kept out of training, to evaluate the model."""
    seed: int = 20
    """Seed of the split and the folds."""
    folds: int = 3
    """Number of cross-validation folds that choose the regularisation."""
    mirror: bool = True
    """Whether to train on every photo mirrored as well (this helps: docs/experiments.md, 2026-11-22)."""
    balanced: bool = False
    """Whether every nameplate has the same weight, however many photos it has."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of a model for one photo."""

    photo: str
    """Path of the photo, or `photo N` where it came as bytes or pixels."""
    nameplate: str | None = None
    """The most probable nameplate; None where the photo cannot be read."""
    confidence: float | None = None
    """Calibrated probability of `nameplate`, 0–1."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable nameplates with their probabilities, best first."""
    failure: Failure | None = None
    """Why the photo cannot be read; None where it can be."""
    verdict: Verdict = "unreadable"
    """How far the answer can be trusted: see model/verdict.py."""
    candidates: tuple[str, ...] = ()
    """For `answer` and `unsure` the prediction set, which contains the true nameplate in 95 % of such cases; most
    probable first."""
    make: str | None = None
    """The make, where it is certain enough. For `unsure` it may be although the nameplate is not."""
    make_confidence: float | None = None
    """Probability of `make`: the sum over the nameplates of the make."""
    model: str | None = None
    """The model, without its make, where all `candidates` are of one: "S4" of two model years of an Audi S4."""
    model_confidence: float | None = None
    """Probability of `model`: the sum over its nameplates."""
    body: str | None = None
    """The body, where `candidates` name one model and all have the same."""
    years: str | None = None
    """A year or a range of years, where `candidates` name one model and all have the same."""
    flaws: tuple[Flaw, ...] = ()
    """Flaws of the photo itself. Never empty for `poor photo`; for other verdicts a reason to check the answer."""
    why: Why | None = None
    """For `not a car` and `unknown car`, the reason where it is known."""
    box: PixelBox | None = None
    """The car that this prediction is about; None where the whole photo was named."""
    cars: tuple[Prediction, ...] | None = None
    """The prediction of each car that was located, the main car first, each with its box; None unless all cars were
    asked for (`Cars`)."""

    @property
    def error(self) -> str | None:
        """`failure` as text: `not a photo: ...`."""
        return None if self.failure is None else str(self.failure)

    def _repr_html_(self) -> str:
        rows = [(name, percent(share)) for name, share in self.top]
        return html_table((f"{self.photo}: {self.error or self.verdict}", ""), rows)

    @property
    def flawed(self) -> str:
        """`flaws` in words: `too small and too dark`; empty where there are none."""
        return " and ".join(f"too {flaw}" for flaw in self.flaws)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    @property
    def percent(self) -> str:
        """`78.7 % (76.1–81.1)`."""
        return f"{percent(self.value)} ({percent(self.low, '')}–{percent(self.high, '')})"


@dataclass(frozen=True, slots=True)
class ClassResult:
    """The results of one class."""

    nameplate: str
    photos: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Number of photos of the class `truth` that were predicted as `named`. The fields are named as the JSON's keys."""

    truth: str
    named: str
    photos: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of a model on labelled photos."""

    photos: int
    """Number of photos that were evaluated, without unreadable ones."""
    top1: Metric
    top5: Metric
    macro_f1: Metric
    log_loss: float
    classes: tuple[ClassResult, ...] = ()
    confusions: tuple[Confusion, ...] = field(default=())
    """Pairs of different nameplates, most frequent first."""

    @property
    def table(self) -> list[tuple[str, str]]:
        """What a notebook shows: figures in words, then the most frequent confusions."""
        figures = [("top-1", self.top1.percent), ("top-5", self.top5.percent), ("macro-F1", self.macro_f1.percent)]
        rows = [*figures, ("log-loss", f"{self.log_loss:.3f}")]
        return rows + [(f"{pair.truth} → {pair.named}", f"{pair.photos}×") for pair in self.confusions[:10]]

    def _repr_html_(self) -> str:
        return html_table((f"{self.photos:,} photos", "with 95 % intervals"), self.table)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The metrics of one epoch of training: a row of metrics.csv."""

    epoch: int
    """Number of the epoch from 1, over all stages."""
    stage: int
    """Number of the stage from 1."""
    height: int
    """Height of the model input in pixels."""
    width: int
    """Width of the model input in pixels."""
    learning_rate: float
    """Learning rate of the last layer of the backbone at the end of the epoch."""
    train_loss: float
    """Mean loss over the steps of the epoch, with augmentation, mixing and label smoothing as in the recipe."""
    validation_loss: float | None
    """Mean cross-entropy; None where there is no holdout."""
    validation_top1: float | None
    """Accuracy on the validation photos; None where there is no holdout."""
    photos_per_second: float
    """Training photos per second of the epoch."""
    seconds: float
    """Seconds since the run began, without the pauses between an interruption and the resumption."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The epoch whose weights the bundle of a run contains."""

    epoch: Epoch
    """The epoch; its size of the model input is that of the bundle."""
    epochs: int
    """Number of epochs of the run."""
    chosen: bool
    """Whether the epoch was chosen on the holdout among several. The metrics on the same holdout are then
    optimistic."""
    best: Epoch | None
    """The epoch with the highest accuracy on the holdout, and among equals the lowest loss; None where there is no
    holdout."""
