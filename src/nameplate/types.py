"""The plain data that passes between rooms."""

from __future__ import annotations

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
Fit = Literal["squash", "pad", "crop"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
SplitName = Literal["train", "validation", "test"]
Layout = Literal["auto", "classes", "parts", "makes"]
"""How a folder of photos is read: told by looking; a folder per nameplate; in parts; a folder per make and model."""
Verdict = Literal["answer", "unsure", "unknown car", "not a car", "poor photo", "unreadable"]
Flaw = Literal["small", "dark", "blurred"]
"""What a photo is too much of to judge a car by it: see images/quality.py."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a photo may cost before it is refused."""

    bytes: int = 64 * 1024 * 1024
    """Size of the file."""
    pixels: int = 120_000_000
    """Width × height as the header states them (a 108-megapixel phone's photo passes). Formats other
    than JPEG are also held to Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS` (89 million)."""
    seconds: float = 10.0
    """Time to decode one photo."""
    memory: int = 768 * 1024 * 1024
    """Bytes that decoding may take at its peak, as estimated from the header: one photo alone, and all together that
    a process decodes at once (those that would take more wait for their turn)."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a decoded photo becomes the model's fixed-size picture; stored in every bundle."""

    height: int = 224
    """Height of the model's picture in pixels."""
    width: int = 224
    """Width of the model's picture in pixels."""
    fit: Fit = "squash"
    """squash ignores the aspect ratio, pad adds grey bars, crop cuts the longer side; no fit zooms in."""
    interpolation: Interpolation = "bicubic"
    """Resampling filter; all are antialiased."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a data set: where it is and what is known of it before its pixels are read."""

    path: str
    """Where the file is."""
    label: str | None = None
    """The class as the data names it (folder name, class id), None where unlabelled."""
    split: SplitName | None = None
    """The part that the data itself puts it in, None where it does not say."""
    source: str = ""
    """The data set that it came from."""
    group: str | None = None
    """Photos of one group (one advert, copies of one picture) never part in a split."""
    sha256: str | None = None
    """Digest of the file's bytes, hexadecimal; None until read."""
    width: int | None = None
    """Pixels as stored, before EXIF orientation; None until read."""
    height: int | None = None
    """Pixels as stored, before EXIF orientation; None until read."""

    def with_(self, **changes: object) -> Photo:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How a head on frozen embeddings is trained."""

    holdout: float = 0.15
    """Share of every nameplate kept out of training, to say what the model is worth."""
    seed: int = 20
    """Seed of the split and the folds."""
    folds: int = 3
    """Cross-validation folds that choose the regularisation."""
    mirror: bool = True
    """Whether to train on every photo mirrored as well (a gain: docs/experiments.md, 2026-11-22)."""
    balanced: bool = False
    """Whether every nameplate weighs alike, however many photos it has."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one photo."""

    photo: str
    """The photo's path, or `photo N` where it came as bytes or pixels."""
    nameplate: str | None = None
    """The most probable nameplate; None where the photo could not be read."""
    confidence: float | None = None
    """Calibrated probability of `nameplate`, 0–1."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable nameplates with their probabilities, best first."""
    failure: Failure | None = None
    """Why the photo could not be read; None where it was."""
    verdict: Verdict = "unreadable"
    """What may be done with the answer: see model/verdict.py."""
    candidates: tuple[str, ...] = ()
    """With `answer` and `unsure` the nameplates that hold the truth in 95 % of such cases, most probable first."""
    make: str | None = None
    """The make, where it is sure: with `unsure` it may be though the nameplate is not."""
    make_confidence: float | None = None
    """Probability of `make`: the sum over its nameplates."""
    flaws: tuple[Flaw, ...] = ()
    """What is wrong with the photo itself; never empty with `poor photo`, and with others a reason to look twice."""

    @property
    def error(self) -> str | None:
        """`failure` as text: `not a photo: ...`."""
        return None if self.failure is None else str(self.failure)

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
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f})"


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How one class fared."""

    nameplate: str
    photos: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often photos of `truth` were named `named`."""

    truth: str
    named: str
    photos: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's answers held against the truth."""

    photos: int
    """Photos judged (unreadable ones are not)."""
    top1: Metric
    top5: Metric
    macro_f1: Metric
    log_loss: float
    classes: tuple[ClassResult, ...] = ()
    confusions: tuple[Confusion, ...] = field(default=())
    """Pairs of different nameplates, most frequent first."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch of training did: a row of metrics.csv."""

    epoch: int
    """From 1, over all stages."""
    stage: int
    """From 1."""
    height: int
    """Of the network's picture."""
    width: int
    """Of the network's picture."""
    learning_rate: float
    """Of the backbone's last layer, at the epoch's end."""
    train_loss: float
    """Mean over the epoch's steps, augmented, mixed and smoothed as the recipe says."""
    validation_loss: float | None
    """Mean cross-entropy; None where nothing is held out."""
    validation_top1: float | None
    """Share of validation photos named rightly."""
    photos_per_second: float
    """Training photos, over the epoch's time."""
    seconds: float
    """Since the run began, pauses between interruption and resumption left out."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Which epoch's weights a run's bundle holds."""

    epoch: Epoch
    """That one; its photo size is the bundle's."""
    epochs: int
    """How many there were."""
    chosen: bool
    """Whether the held-out photos chose it among several: judged on the same photos, it then flatters."""
    best: Epoch | None
    """The epoch that named most held-out photos rightly, of equals with the least loss; None where none was judged."""
