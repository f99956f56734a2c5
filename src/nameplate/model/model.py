"""`Model`: decode → locate → preprocess → embed → classify → decide, behind the public Python API."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA, TOP
from nameplate.errors import BundleError, PhotoError, UsageError
from nameplate.images.quality import flaws
from nameplate.model.bundle import Bundle, all_finite
from nameplate.model.classifier import probabilities
from nameplate.model.pipeline import (
    NOT_COMPUTED,
    EmbeddedCar,
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
from nameplate.model.tta import TTAEmbedder
from nameplate.model.verdict import (
    car_margin,
    model_indices,
    with_flaws,
    with_model,
    with_reason,
    with_verdict,
)
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
from nameplate.runtime.blas import one_blas_thread
from nameplate.runtime.select import available_cpus
from nameplate.types import Cars, Floats, Limits, Prediction


class Model:
    """A model that recognises the make and model of cars in photos.

    >>> from nameplate import Model
    >>> from nameplate.demo import photo
    >>> model = Model.load("cars196")
    >>> len(model.nameplates)
    206
    >>> model.embed([photo()]).shape
    (1, 2884)
    >>> [answer] = model.predict([photo()])
    >>> answer.nameplate in model.nameplates, len(answer.top)
    (True, 5)
    """

    def __init__(self, bundle: Bundle, settings: Settings, runtime: ChosenRuntime | None = None) -> None:
        self.bundle = bundle
        self.settings = settings
        # One runtime for all calls, because opening one takes longer than a photo.
        self.runtime = runtime or ChosenRuntime(
            bundle, settings.runtime, settings.threads, settings.batching, settings.watch
        )
        self.embedder = TTAEmbedder(bundle, settings, self.runtime)

    @classmethod
    def load(
        cls,
        name: str | Path = DEFAULT_BUNDLE,
        *,
        runtime: str = "auto",
        threads: int | None = None,
        limits: Limits | None = None,
        tta: str = NO_TTA,
        cars: Cars = "main",
    ) -> Model:
        """Read a bundle from disk.

        Args:
            name: a bundle's folder, or the name of one that ships.
            runtime: `auto`, `onnxruntime`, `openvino` or `openvino-bf16`; on a GPU `onnxruntime-cuda` or
                `openvino-gpu`.
            threads: processors to use; None: all that this process may use.
            limits: largest file, most pixels, longest time and most memory for one photo.
            tta: test-time augmentation of `predict` and `verify`, see `model.tta`.
            cars: which cars of a photo are named: its `main` car, `all` of them (`Prediction.cars`), or the `whole`
                photo, without locating any.

        Raises:
            BundleError: there is no such bundle; it is damaged, unsafe or made by a newer Nameplate; or its backbone
                does not work.
            UsageError: there is no such runtime, test-time augmentation or choice of cars, or fewer than one thread.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but it is the number of processors to use: give 1 or more.")
        if cars not in get_args(Cars):
            raise UsageError(f"cars is '{cars}', but it is one of {', '.join(get_args(Cars))}.")
        settings = Settings(runtime, threads or available_cpus(), limits or Limits(), tta=tta, cars=cars)
        return cls(load_proven(name), settings)

    @property
    def nameplates(self) -> tuple[str, ...]:
        """The nameplates that the model knows, in the order of the columns of probabilities."""
        return self.bundle.manifest.nameplates

    def embed(self, photos: Photos) -> Floats:
        """Embeddings of photos.

        Args:
            photos: one or many, of any kind (`sources.PhotoLike`).

        Returns:
            float32 N×D; 1×D of one photo.

        Raises:
            PhotoError: a photo cannot be read; the message says which.
            UsageError: `photos` is neither a photo nor a list of photos.
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
        """Recognise the car in each photo. For a photo that cannot be read, `error` says why.

        Args:
            photos: one or many, of any kind (`sources.PhotoLike`); one photo gives a list of one.
            top: number of nameplates to list for each photo, 1 or more.

        Raises:
            BundleError: the bundle has no head, so it embeds photos but knows no nameplates.
            UsageError: `photos` is neither a photo nor a list of photos, or `top` is below 1.
        """
        return list(self.stream(photos, top=top))

    def stream(self, photos: Photos, *, top: int = TOP) -> Iterator[Prediction]:
        """`predict` for any number of photos, one answer at a time, in order, in flat memory."""
        return (prediction for prediction, _ in self.answers(photos, top=top))

    def answers(self, photos: Photos, *, top: int = TOP) -> Iterator[tuple[Prediction, Floats | None]]:
        """`stream`, each prediction with the probabilities of all nameplates, float32 (C,); None where unreadable."""
        self.require_head()
        if top < 1:
            raise UsageError(
                f"top is {top}, but it is the number of nameplates to list for each photo: give 1 or more."
            )
        return self._answers(each_photo(photos), top)

    def _answers(self, photos: Iterable[PhotoLike], top: int) -> Iterator[tuple[Prediction, Floats | None]]:
        names: deque[str] = deque()  # of the photos that are in the pipeline; it reads ahead of what it yields

        def named() -> Iterator[Source]:
            for number, photo in enumerate(photos):
                names.append(photo_name(photo, number))
                yield as_source(photo, self.settings.limits)

        for photo in self.embedder.rows(named()):
            yield self.answer(names.popleft(), photo, top)

    def answer(self, name: str, photo: Outcome, top: int = TOP) -> tuple[Prediction, Floats | None]:
        """The prediction for a photo that left the pipeline, with its probabilities; None where it is unreadable."""
        if isinstance(photo, UnreadablePhoto):
            return Prediction(name, failure=photo.failure), None
        with one_blas_thread():
            probs, found = self._answer_car(name, photo.car, photo.runtime, top)
            if found.failure is not None:
                return found, None
            found = with_reason(found, photo.covered)
            if photo.all_cars:
                others = (self._answer_car(name, car, photo.runtime, top)[1] for car in photo.others)
                found = replace(found, cars=(found, *others) if photo.covered else ())
            return found, probs

    def _answer_car(self, name: str, car: EmbeddedCar, runtime: str, top: int) -> tuple[Floats, Prediction]:
        """Probabilities and prediction of one car of a photo."""
        probs = self._probs(car, runtime)
        found = with_flaws(self.decide(name, probs, car.embedding, top), flaws(car.quality))
        return probs, replace(found, box=car.box)

    def decide(self, name: str, probs: Floats, embedding: Floats, top: int = TOP) -> Prediction:
        """The prediction with its verdict.

        A photo whose probabilities or distances are not finite numbers gets an error instead of an answer.

        Args:
            name: what to call the photo.
            probs: calibrated probabilities, float32 (C,).
            embedding: float32 (D,), of the first view; distances do not depend on test-time augmentation.
            top: number of nameplates to list.
        """
        best = np.argsort(-probs, kind="stable")[:top]  # stable: equal probabilities keep the order of the nameplates
        ranked = tuple((self.nameplates[i], float(probs[i])) for i in best)
        plain = Prediction(name, *ranked[0], top=ranked)
        detector, thresholds = self.bundle.ood_detector, self.bundle.manifest.thresholds
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found just below
            distances = None if detector is None else detector.distances(embedding[None])
            odds = None if detector is None else detector.non_car_log_odds(embedding[None])
        scores = (*(distances or ()), *(() if odds is None else (odds,)))
        if not all_finite(probs) or not all(np.isfinite(each).all() for each in scores):
            return Prediction(name, failure=NOT_COMPUTED)
        decided = with_verdict(plain, probs, self.nameplates, self.makes, thresholds, distances, odds)
        fields = self.bundle.manifest.fields
        return with_model(decided, probs, self.nameplates, self.makes, fields, self._models)

    def car_margin(self, embeddings: Floats) -> Floats | None:
        """`verdict.car_margin` of embeddings: float32 N×D → float32 (N,), above 0 for `not a car`.

        None where the bundle has no detector.
        """
        detector = self.bundle.ood_detector
        if detector is None:
            return None
        thresholds = self.bundle.manifest.thresholds
        return car_margin(detector.distances(embeddings), detector.non_car_log_odds(embeddings), thresholds)

    def verify(
        self, photos: Photos, claimed: str, *, rate: float = DEFAULT_RATE, lies: Lies = DEFAULT_LIES
    ) -> Verified:
        """Decide whether an advert's photos show the car that it names.

        Args:
            photos: the photos of one advert: one or many, of any kind (`sources.PhotoLike`).
            claimed: a nameplate, some words of one, or a make.
            rate: accepted rate of false accepts, and of false rejects.
            lies: the kind of wrong claims that the rate refers to, see `Lies`.

        Raises:
            UnknownClaimError: the model knows no such nameplate.
            UsageError: the bundle has no thresholds for this rate or this kind of wrong claims.
            BundleError: the bundle has no head.
        """
        self.require_head()
        self.check_claim(claimed, rate, lies)  # raise before any photo is decoded
        return self.judge_claim(claimed, list(self.all_cars().answers(photos)), rate=rate, lies=lies)

    def judge_claim(
        self,
        claimed: str,
        answers: Sequence[tuple[Prediction, Floats | None]],
        *,
        rate: float = DEFAULT_RATE,
        lies: Lies = DEFAULT_LIES,
    ) -> Verified:
        """`verify` for photos whose predictions and probabilities `answers` has already given."""
        claim, thresholds = self.check_claim(claimed, rate, lies)
        # Nameplates exclude each other, so the probability of a claim is the sum over its nameplates.
        columns = [self.nameplates.index(name) for name in claim.nameplates]
        scores = [(p, None if probs is None else float(probs[columns].sum())) for p, probs in answers]
        return decide(claim, scores, thresholds, rate, lies)

    def check_claim(self, claimed: str, rate: float, lies: Lies) -> tuple[Claimed, ClaimThresholds | None]:
        """The claim in terms of the model's nameplates, and the thresholds that apply to it.

        Raises:
            UnknownClaimError: the model knows no such nameplate.
            UsageError: the bundle has no thresholds for this rate or this kind of wrong claims.
        """
        claim = read_claim(claimed, self.nameplates, self.makes)
        manifest = self.bundle.manifest
        thresholds = manifest.make_claims if claim.whole_make else manifest.claims
        check_rate(rate, lies, thresholds)
        return claim, thresholds

    def all_cars(self) -> Model:
        """The model with the settings of `verify`: all cars of a photo are named, where the bundle locates cars."""
        if self.bundle.manifest.preprocess.locate == "none" or self.settings.cars != "main":
            return self
        return self._all_cars

    @cached_property
    def _all_cars(self) -> Model:
        return Model(self.bundle, replace(self.settings, cars="all"), self.runtime)

    @property
    def makes(self) -> tuple[str, ...]:
        """The make of each nameplate. In bundles that do not contain makes, each nameplate is its own make."""
        return self.bundle.manifest.makes or self.nameplates

    @cached_property
    def _models(self) -> NDArray[np.int64]:
        return model_indices(self.makes, self.bundle.manifest.fields)

    def probs(self, photo: EmbeddedPhoto) -> Floats:
        """Calibrated probabilities of a photo's main car, or of the whole photo, float32 (C,): the mean over its
        views.
        """
        return self._probs(photo.car, photo.runtime)

    def _probs(self, car: EmbeddedCar, runtime: str) -> Floats:
        return np.asarray(self.probabilities(car.views, runtime).mean(0), np.float32)

    def probabilities(self, embeddings: Floats, runtime: str) -> Floats:
        """Calibrated probabilities: float32 N×D embeddings → float32 N×C, rows sum to 1.

        Args:
            embeddings: float32 N×D.
            runtime: name of the runtime that computed them; each has its own temperature.
        """
        return probabilities(self.logits(embeddings), self.bundle.manifest.temperature_of(runtime))

    def logits(self, embeddings: Floats) -> Floats:
        """The head's output before calibration and softmax: float32 N×D → float32 N×C."""
        weight, bias = self.require_head()
        return embeddings @ weight + bias

    def rows(self, photos: Photos) -> Iterator[Outcome]:
        """Embed photos as they are, without test-time augmentation, in order; the runtime stays open between calls."""
        sources = as_sources(each_photo(photos), self.settings.limits)
        return embed_stream(self.bundle, sources, self.settings, runtime=self.runtime)

    def require_head(self) -> tuple[Floats, Floats]:
        """The head's weight, float32 D×C, and bias, float32 (C,).

        Raises:
            BundleError: the bundle has no head.
        """
        if self.bundle.weight is None or self.bundle.bias is None:
            raise BundleError(
                f"'{self.bundle.manifest.name}' has no head, so it embeds photos but knows no nameplates. "
                "Fit one with 'nameplate train DATA -o BUNDLE'."
            )
        return self.bundle.weight, self.bundle.bias

    def with_settings(self, **changes: object) -> Model:
        """The same bundle with other settings, see `Settings`."""
        return Model(self.bundle, replace(self.settings, **changes))  # type: ignore[arg-type]
