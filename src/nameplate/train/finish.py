"""`finish`: a trained network → the bundle, exported, checked against torch, judged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file

from nameplate.errors import NameplateError
from nameplate.fit.finalize import HeldOut, RuntimeEmbeddings, calibrate_bundle, finalize
from nameplate.fit.run import JUDGED_BY, WEIGHTS, Run, data_record, exported_record, versions
from nameplate.fit.split import Split, photos_csv
from nameplate.model.bundle import BACKBONE, IN_RUN, SCHEMA, Bundle, File, Manifest
from nameplate.model.neighbours import make_index
from nameplate.model.ood import MahalanobisDetector, fit_detector
from nameplate.model.runtime_choice import probe
from nameplate.runtime.base import BATCH
from nameplate.runtime.select import make_runtime
from nameplate.storage import sha256, whole_file
from nameplate.train.backbones import find_backbone
from nameplate.train.checkpoint import State
from nameplate.train.data import in_order, plain_batches, training_batches, unreadable
from nameplate.train.export import Embedder, Parity, check_parity, export_onnx, head_of, round_weights, whiten
from nameplate.train.loop import exported
from nameplate.train.network import Network, has_places
from nameplate.types import Evaluation, Exported, Floats, Preprocess

PARITY_PHOTOS = 2000
"""Photos, at most, on which the runtimes are held against torch: held-out ones where there are any."""
STRETCH = 64
"""Batches of prepared photos that are kept in memory at once, while each runtime embeds them."""
WHITENING_PHOTOS = 6000
"""Training photos, at most, that the embedding is whitened by."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a run."""

    bundle: Bundle
    evaluation: Evaluation | None
    """On the held-out photos; None where none were held out."""
    parity: tuple[Parity, ...]
    probabilities: Floats
    """Of the held-out photos that can still be read, N×C."""
    places: NDArray[np.int64]
    """int64 (N,): which of `Split.photos` these are."""
    exported: Exported
    """Which epoch's weights the bundle holds."""
    runtime: str = JUDGED_BY
    """What computed the embeddings that are judged."""


def finish(
    folder: Path, run: Run, parts: Split, network: Network, state: State, say: Callable[[str], None]
) -> Finished:
    """Write a run's weights and bundle.

    Args:
        folder: the run's.
        run: what was trained.
        parts: its photos.
        network: with the weights to keep.
        state: where the run ended; says which epoch's weights these are, and so the picture's size.
        say: called with what is being done.

    Raises:
        NameplateError: the exported network is not the trained one, or something cannot be written.
    """
    rounded = round_weights(network)
    _save_weights(folder, run, rounded)
    say("export")
    embeddings, classes = training_embeddings(run, parts, rounded.embed, state)
    white = whiten(embeddings, classes)
    size = exported(run.recipe, state).epoch
    embedder = Embedder(rounded, white, places=has_places(rounded, size.height, size.width))
    head, known = head_of(rounded, white), fit_detector(white(embeddings), classes)
    candidate = Candidate(embedder, head, known, rounded)
    return make_bundle(folder / IN_RUN, folder.resolve().name, run, parts, state, candidate, say)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A trained network taken apart as a bundle holds it, and what the parts together must answer."""

    embedder: torch.nn.Module
    """uint8 N×H×W×3 → float32 N×D, or that and its map N×h×w×D; on the CPU."""
    head: tuple[Floats, Floats]
    """Weight D×C and bias C."""
    known: MahalanobisDetector
    """Where the training photos lie."""
    network: torch.nn.Module
    """uint8 N×H×W×3 → the logits N×C that embedder and head must give; on the CPU."""


def make_bundle(
    target: Path,
    name: str,
    run: Run,
    parts: Split,
    state: State,
    candidate: Candidate,
    say: Callable[[str], None],
) -> Finished:
    """Export an embedder, hold it against torch, calibrate and judge it, and write the bundle.

    Args:
        target: the bundle's folder, replaced where it is there.
        name: what the bundle is called.
        run: what was trained.
        parts: its photos.
        state: where the run ended.
        candidate: what becomes the bundle.
        say: called with what is being done.

    Raises:
        NameplateError: the exported network is not the trained one, or the bundle cannot be written.
    """
    kept = exported(run.recipe, state)
    draft = _draft(name, run, parts, kept, candidate)
    say("judge")
    able = {trial.runtime for trial in probe(draft, run.threads) if trial.error is None}
    held_out, pictures = _embed_held_out(draft, parts, run, [JUDGED_BY, *sorted(able - {JUDGED_BY})])
    say("hold the exported network against torch")
    runtimes = ["onnxruntime", *sorted(able & {"openvino"})]
    parity = check_parity(candidate.network, draft, pictures, runtimes, run.threads)
    calibrated = calibrate_bundle(draft, held_out)
    provenance = _provenance(run, parts, state, kept, parity)
    index = _index(draft, parts, run) if run.index else None
    bundle = finalize(target, calibrated, provenance, index=index, overwrite=True)
    places = held_out.embedded[0].places
    return Finished(bundle, calibrated.evaluation, parity, calibrated.probs, places, kept)


def _draft(name: str, run: Run, parts: Split, kept: Exported, candidate: Candidate) -> Bundle:
    """The bundle before it is calibrated, its backbone exported."""
    size = kept.epoch
    backbone, (weight, bias) = export_onnx(candidate.embedder, size.height, size.width), candidate.head
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=parts.nameplates,
        ids=parts.ids,
        preprocess=Preprocess(size.height, size.width, run.recipe.fit, run.recipe.interpolation),
        embedding=len(weight),
        temperature=1.0,
        files={BACKBONE: File(sha256(backbone), len(backbone))},
    )
    return Bundle(manifest, backbone, weight, bias, photos_csv(parts.photos, parts.groups), candidate.known)


def _embed_held_out(
    draft: Bundle, parts: Split, run: Run, runtimes: Sequence[str]
) -> tuple[HeldOut, NDArray[np.uint8]]:
    """Embed the held-out photos by each runtime, decoding each photo once.

    Returns:
        What the runtimes gave, and up to `PARITY_PHOTOS` prepared photos, uint8 N×H×W×3, to hold the runtimes against
        torch on: held-out ones, or training photos where none are held out.

    Raises:
        NameplateError: none of the photos can be read.
    """
    opened = {name: make_runtime(name, draft.backbone, run.threads) for name in runtimes}
    embeddings: dict[str, list[Floats]] = {name: [] for name in runtimes}
    chosen = np.flatnonzero(parts.held)
    for_parity = _spread(chosen if len(chosen) else np.flatnonzero(parts.train))
    places: list[NDArray[np.int64]] = []
    pictures: list[NDArray[np.uint8]] = []
    prepared = _prepared(draft, parts, chosen, run)
    # All prepared photos would not fit into memory, and a batch alone would keep most processors idle.
    while stretch := list(itertools.islice(prepared, STRETCH)):
        for name, runtime in opened.items():
            embeddings[name].extend(runtime.embed(batch for batch, _ in stretch))
        places.extend(of for _, of in stretch)
        pictures.extend(batch[np.isin(of, for_parity)] for batch, of in stretch)
    if not len(chosen):
        pictures = [batch for batch, _ in _prepared(draft, parts, for_parity, run)]
    empty = np.zeros((0, draft.manifest.embedding), np.float32)
    where = np.concatenate([np.zeros(0, np.int64), *places])
    embedded = (RuntimeEmbeddings(name, np.concatenate([empty, *rows]), where) for name, rows in embeddings.items())
    return HeldOut(tuple(embedded), parts.classes), np.concatenate(pictures)


def _spread(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every n-th place, so that `PARITY_PHOTOS` are left at most."""
    return chosen[:: -(-len(chosen) // PARITY_PHOTOS)]


def _prepared(
    bundle: Bundle, parts: Split, chosen: NDArray[np.int64], run: Run
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Pictures as the bundle wants them, and which of the photos they are of; unreadable ones are left out.

    Raises:
        NameplateError: none can be read.
    """
    paths = [parts.photos[place].path for place in chosen]
    found = False
    for batch in plain_batches(paths, in_order(np.arange(len(paths)), BATCH), bundle.manifest.preprocess, run.threads):
        if len(batch.places):
            found = True
            yield batch.photos, chosen[batch.places]
    if not found and len(paths):
        raise unreadable(paths)


def training_embeddings(
    run: Run, parts: Split, embed: Callable[[torch.Tensor], torch.Tensor], state: State
) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of training photos as one epoch more would see them: as they are the network knows them too well.

    Returns:
        float32 N×D and their classes, int64 (N,); N ≤ `WHITENING_PHOTOS`.

    Raises:
        NameplateError: none can be read any more.
    """
    recipe, kept = run.recipe, exported(run.recipe, state).epoch
    chosen = np.random.default_rng(recipe.seed).permutation(np.flatnonzero(parts.train))[:WHITENING_PHOTOS]
    paths = [parts.photos[place].path for place in chosen]
    batches = in_order(np.arange(len(paths)), BATCH)
    size = (kept.height, kept.width)
    embeddings, places = [], []
    with torch.inference_mode():
        for batch in training_batches(paths, batches, size, recipe.augmentation, recipe.seed, state.epoch, run.threads):
            if len(batch.places):
                embeddings.append(embed(torch.from_numpy(batch.photos)).numpy())
                places.append(chosen[batch.places])
    if not places:
        raise unreadable(paths)
    return np.concatenate(embeddings), parts.classes[np.concatenate(places)]


def _index(bundle: Bundle, parts: Split, run: Run) -> bytes:
    """The index of the photos that trained; those that are gone are left out."""
    places: list[NDArray[np.int64]] = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for batch, of in _prepared(bundle, parts, np.flatnonzero(parts.train), run):
            places.append(of)
            yield batch

    embeddings = np.concatenate(list(make_runtime(JUDGED_BY, bundle.backbone, run.threads).embed(pictures())))
    return make_index([parts.photos[place] for place in np.concatenate(places)], embeddings, run.threads)


def _save_weights(folder: Path, run: Run, network: Network) -> None:
    metadata = {"backbone": run.recipe.backbone, "nameplates": "\n".join(run.nameplates)}
    tensors = {name: value.contiguous() for name, value in network.body.state_dict().items()}
    try:
        with whole_file(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise NameplateError(f"Cannot write '{folder / WEIGHTS}': {error}.") from None


def _provenance(run: Run, parts: Split, state: State, kept: Exported, parity: tuple[Parity, ...]) -> dict[str, object]:
    backbone = find_backbone(run.recipe.backbone)
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": asdict(run.recipe),
        "metrics": None,
        "data": data_record(parts),
        "runtime": JUDGED_BY,
        "backbone": f"{backbone.timm}, {run.weights}",
        "epochs": state.epoch,
        "exported": exported_record(kept),
        "steps": state.steps,
        "seconds": round(state.seconds),
        "device": run.device,
        "processes": run.processes,
        "threads": run.threads,
        "bfloat16_training": run.bfloat16,
        "parity": [asdict(each) for each in parity],
        "versions": run.versions | versions("onnx", "onnxruntime"),
    }
