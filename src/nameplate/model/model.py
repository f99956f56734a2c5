"""`Model`: decode → preprocess → embed → classify, the one composition of the four verbs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA, TOP
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.images.quality import flaws
from nameplate.model.bundle import Bundle, numbers
from nameplate.model.classifier import probabilities
from nameplate.model.pipeline import (
    NOT_COMPUTED,
    EmbeddedPhoto,
    Outcome,
    Settings,
    Source,
    UnreadablePhoto,
    embed_stream,
)
from nameplate.model.proof import load_proven
from nameplate.model.runtime_choice import ChosenRuntime
from nameplate.model.sources import PhotoLike, Photos, as_list, as_source, as_sources, each_photo, photo_name
from nameplate.model.tta import Looks
from nameplate.model.verdict import car_margin, judged, with_flaws
from nameplate.model.verification import (
    DEFAULT_LIES,
    DEFAULT_RATE,
    Claimed,
    ClaimThresholds,
    Lies,
    Verified,
    check_rate,
    decide,
    read_claim,
)
from nameplate.runtime.select import available_cpus
from nameplate.types import Floats, Limits, Prediction


class Model:
    """A model that names cars.

    >>> from nameplate import Model
    >>> from nameplate.demo import photo
    >>> model = Model.load("cars196")
    >>> len(model.nameplates)
    196
    >>> model.embed([photo()]).shape
    (1, 1604)
    >>> [answer] = model.predict([photo()])
    >>> answer.nameplate in model.nameplates, len(answer.top)
    (True, 5)
    """

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.runtime = ChosenRuntime(bundle, settings.runtime, settings.threads, settings.batching, settings.watch)
        self.looks = Looks(bundle, settings, self.runtime)

    @classmethod
    def load(
        cls,
        name: str | Path = DEFAULT_BUNDLE,
        *,
        runtime: str = "auto",
        threads: int | None = None,
        limits: Limits | None = None,
        tta: str = NO_TTA,
    ) -> Model:
        """Read a bundle from disk.

        Args:
            name: a bundle's folder, or the name of one that ships.
            runtime: `auto`, `onnxruntime`, `openvino` or `openvino-bf16`.
            threads: processors to use; None takes those that this process may use.
            limits: what one photo may cost.
            tta: how often and how each photo is looked at to name it, see `models.tta`.

        Raises:
            BundleError: no such bundle, damaged, unsafe, made by a newer Nameplate, without a backbone that works, or
                unable to look closer.
            UsageError: no such runtime or test-time augmentation, or fewer than one thread.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}: how many processors to use, so 1 or more.")
        return cls(load_proven(name), Settings(runtime, threads or available_cpus(), limits or Limits(), tta=tta))

    @property
    def nameplates(self) -> tuple[str, ...]:
        """The nameplates that it knows, in the order of the probabilities' columns."""
        return self.bundle.manifest.nameplates

    def embed(self, photos: Photos) -> Floats:
        """Embeddings of photos.

        Args:
            photos: one or many, of any kind (`sources.PhotoLike`).

        Returns:
            float32 N×D; 1×D of one photo.

        Raises:
            PhotoError: a photo cannot be read; says which.
            UsageError: this is neither a photo nor a list of them.
        """
        listed = as_list(photos)
        found = np.zeros((len(listed), self.bundle.manifest.embedding), np.float32)
        for number, photo in enumerate(self.rows(listed)):
            if isinstance(photo, UnreadablePhoto):
                named = f"{photo_name(listed[number], number)}: {photo.failure.detail}"
                raise PhotoError(photo.failure.reason, named)
            found[number] = photo.embedding
        return found

    def predict(self, photos: Photos, *, top: int = TOP) -> list[Prediction]:
        """Name the car in each photo; one that cannot be read gets its reason in `error`.

        Args:
            photos: one or many, of any kind (`sources.PhotoLike`); of one photo a list of one comes back.
            top: how many nameplates to give for each, 1 or more.

        Raises:
            BundleError: the bundle has no head: it embeds, but knows no nameplates.
            UsageError: this is neither a photo nor a list of them, or `top` is below 1.
        """
        return list(self.stream(photos, top=top))

    def stream(self, photos: Photos, *, top: int = TOP) -> Iterator[Prediction]:
        """`predict` for any number of photos, one answer at a time, in order, in flat memory."""
        return (prediction for prediction, _ in self.answers(photos, top=top))

    def answers(self, photos: Photos, *, top: int = TOP) -> Iterator[tuple[Prediction, Floats | None]]:
        """`stream`, each answer with the probabilities of all nameplates, float32 (C,); None where unreadable."""
        self.require_head()
        if top < 1:
            raise UsageError(f"top is {top}: how many nameplates to give for each photo, so 1 or more.")
        return self._answers(each_photo(photos), top)

    def _answers(self, photos: Iterable[PhotoLike], top: int) -> Iterator[tuple[Prediction, Floats | None]]:
        names: deque[str] = deque()

        def named() -> Iterator[Source]:
            for number, photo in enumerate(photos):
                names.append(photo_name(photo, number))
                yield as_source(photo, self.settings.limits)

        for photo in self.looks.rows(named()):
            yield self.answer(names.popleft(), photo, top)

    def answer(self, name: str, photo: Outcome, top: int = TOP) -> tuple[Prediction, Floats | None]:
        """The prediction for a photo that the pipeline is done with, and its probabilities; None where unreadable."""
        if isinstance(photo, UnreadablePhoto):
            return Prediction(name, failure=photo.failure), None
        probs = self.probs(photo)
        found = with_flaws(self.judged(name, probs, photo.embedding, top), flaws(photo.quality))
        return found, None if found.failure is not None else probs

    def judged(self, name: str, probs: Floats, embedding: Floats, top: int = TOP) -> Prediction:
        """The prediction and its verdict, from probabilities (C,) and the embedding (D,) of the photo as it is.

        Where either gives no numbers to judge by there is no answer, but an error.
        """
        best = np.argsort(-probs, kind="stable")[:top]
        ranked = tuple((self.nameplates[i], float(probs[i])) for i in best)
        plain = Prediction(name, *ranked[0], top=ranked)
        known, thresholds = self.bundle.known, self.bundle.manifest.thresholds
        with np.errstate(over="ignore", invalid="ignore"):
            distances = None if known is None else known.distances(embedding[None])
            odds = None if known is None else known.no_car_odds(embedding[None])
        told = (*(distances or ()), *(() if odds is None else (odds,)))
        if not numbers(probs) or not all(np.isfinite(each).all() for each in told):
            return Prediction(name, failure=NOT_COMPUTED)
        return judged(plain, probs, self.nameplates, self.makes, thresholds, distances, odds)

    def car_margin(self, embeddings: Floats) -> Floats | None:
        """How far photos are beyond what passes for a whole car, above 0 they are `not a car`: float32 N×D → float32
        (N,), or None where the bundle cannot tell.
        """
        known = self.bundle.known
        if known is None:
            return None
        thresholds = self.bundle.manifest.thresholds
        return car_margin(known.distances(embeddings), known.no_car_odds(embeddings), thresholds)

    def verify(
        self, photos: Photos, claimed: str, *, rate: float = DEFAULT_RATE, lies: Lies = DEFAULT_LIES
    ) -> Verified:
        """Say whether an advert's photos show the car that it names.

        Args:
            photos: of one advert: one or many, of any kind (`sources.PhotoLike`).
            claimed: a nameplate, some words of one, or a make.
            rate: of false accepts, and of false rejects, that is put up with.
            lies: the wrong claims that the rate is of, see `Lies`.

        Raises:
            UnknownClaimError: the model knows no such nameplate.
            UsageError: the rate, or the lies, are not what it can be cut for.
            BundleError: the bundle has no head.
        """
        self.require_head()
        self.check_claim(claimed, rate, lies)  # before any work
        return self.judge_claim(claimed, list(self.answers(photos)), rate=rate, lies=lies)

    def judge_claim(
        self,
        claimed: str,
        answers: Sequence[tuple[Prediction, Floats | None]],
        *,
        rate: float = DEFAULT_RATE,
        lies: Lies = DEFAULT_LIES,
    ) -> Verified:
        """`verify` on what `answers` gave for an advert's photos."""
        claim, thresholds = self.check_claim(claimed, rate, lies)
        columns = [self.nameplates.index(name) for name in claim.nameplates]
        scores = [(p, None if probs is None else float(probs[columns].sum())) for p, probs in answers]
        return decide(claim, scores, thresholds, rate, lies)

    def check_claim(self, claimed: str, rate: float, lies: Lies) -> tuple[Claimed, ClaimThresholds | None]:
        """What is claimed, and where it is cut.

        Raises:
            UnknownClaimError: the model knows no such nameplate.
            UsageError: the rate, or the lies, are not what it can be cut for.
        """
        claim = read_claim(claimed, self.nameplates, self.makes)
        manifest = self.bundle.manifest
        thresholds = manifest.make_claims if claim.whole_make else manifest.claims
        check_rate(rate, lies, thresholds)
        return claim, thresholds

    @property
    def makes(self) -> tuple[str, ...]:
        """The make of each nameplate; where the bundle does not say, each is its own."""
        return self.bundle.manifest.makes or self.nameplates

    def probs(self, photo: EmbeddedPhoto) -> Floats:
        """Calibrated probabilities of a photo, float32 (C,): the mean over all its views."""
        return np.asarray(self.probabilities(photo.views, photo.runtime).mean(0), np.float32)

    def probabilities(self, embeddings: Floats, runtime: str) -> Floats:
        """Calibrated probabilities: float32 N×D embeddings → float32 N×C, rows sum to 1.

        Args:
            embeddings: float32 N×D.
            runtime: the name of the runtime that computed them: each has a temperature of its own.
        """
        return probabilities(self.logits(embeddings), self.bundle.manifest.temperature_of(runtime))

    def logits(self, embeddings: Floats) -> Floats:
        """What the head says before calibration: float32 N×D → float32 N×C."""
        weight, bias = self.require_head()
        return embeddings @ weight + bias

    def rows(self, photos: Photos) -> Iterator[Outcome]:
        """Embedded photos with what is known of each, in order, one look each; the runtime stays open between calls."""
        sources = as_sources(each_photo(photos), self.settings.limits)
        return embed_stream(self.bundle, sources, self.settings, runtime=self.runtime)

    def require_head(self) -> tuple[Floats, Floats]:
        """Weight and bias.

        Raises:
            BundleError: the bundle has none.
        """
        if self.bundle.weight is None or self.bundle.bias is None:
            raise BundleError(
                f"'{self.bundle.manifest.name}' embeds photos but names no cars: it has no head. "
                "Fit one with 'nameplate train DATA -o BUNDLE'."
            )
        return self.bundle.weight, self.bundle.bias

    def with_settings(self, **changes: object) -> Model:
        """The same model run otherwise (see `Settings`)."""
        return Model(self.bundle, replace(self.settings, **changes))  # type: ignore[arg-type]
