"""Makes a bundle from a trained network: exports it, checks it against torch, calibrates and evaluates it."""

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
from nameplate.fit.run import EVALUATION_RUNTIME, WEIGHTS, Run, data_record, exported_record, versions
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
from nameplate.types import Evaluation, Exported, Floats

PARITY_PHOTOS = 2000
"""Largest number of photos for the comparison with torch; they are held-out photos where there are any."""
CHUNK = 64
"""Number of batches of model inputs that are in memory at once, while each runtime embeds them."""
WHITENING_PHOTOS = 6000
"""Largest number of training photos for the whitening."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a run."""

    bundle: Bundle
    evaluation: Evaluation | None
    """Metrics on the held-out photos; None where none were held out."""
    parity: tuple[Parity, ...]
    """The agreement of each runtime with torch."""
    probabilities: Floats
    """float32 N×C: probabilities of the held-out photos that can still be read."""
    indices: NDArray[np.int64]
    """int64 (N,): the index in `Split.photos` of each of these photos."""
    exported: Exported
    """The epoch whose weights the bundle holds."""
    runtime: str = EVALUATION_RUNTIME
    """The runtime that the metrics are of."""


def finish(
    folder: Path, run: Run, split: Split, network: Network, state: State, say: Callable[[str], None]
) -> Finished:
    """Write the weights and the bundle of a run.

    Args:
        folder: the folder of the run.
        run: the settings of the run.
        split: its photos and their parts.
        network: with the weights to keep.
        state: the state at the end; it says which epoch's weights these are, and with that the input size.
        say: called with a short text at each step.

    Raises:
        NameplateError: the exported network is not the trained one, or something cannot be written.
    """
    rounded = round_weights(network)
    _save_weights(folder, run, rounded)
    say("export")
    # Whitening and detector are fitted on the network as it is exported, with its weights rounded to float16.
    embeddings, classes = training_embeddings(run, split, rounded.embed, state)
    white = whiten(embeddings, classes)
    size = exported(run.recipe, state).epoch
    embedder = Embedder(rounded, white, places=has_places(rounded, size.height, size.width))
    head, known = head_of(rounded, white), fit_detector(white(embeddings), classes)
    candidate = BundleParts(embedder, head, known, rounded)
    return make_bundle(folder / IN_RUN, folder.resolve().name, run, split, state, candidate, say)


@dataclass(frozen=True, slots=True, eq=False)
class BundleParts:
    """The parts of a bundle, and the network that they must agree with."""

    embedder: torch.nn.Module
    """uint8 N×H×W×3 → embeddings float32 N×D, or these and the map N×h×w×D; on the CPU."""
    head: tuple[Floats, Floats]
    """Weight D×C and bias C of the classifier."""
    known: MahalanobisDetector
    """Fitted on the embeddings of the training photos."""
    network: torch.nn.Module
    """uint8 N×H×W×3 → the logits N×C that embedder and classifier together must give; on the CPU."""


def make_bundle(
    target: Path,
    name: str,
    run: Run,
    split: Split,
    state: State,
    candidate: BundleParts,
    say: Callable[[str], None],
) -> Finished:
    """Export an embedder, compare it with torch, calibrate and evaluate it, and write the bundle.

    Args:
        target: the folder of the bundle; a bundle that is there is replaced.
        name: name of the bundle.
        run: the settings of the run.
        split: its photos and their parts.
        state: the state at the end of the run.
        candidate: the parts of the bundle.
        say: called with a short text at each step.

    Raises:
        NameplateError: the exported network disagrees with the trained one, or the bundle cannot be written.
    """
    kept = exported(run.recipe, state)
    draft = _draft(name, run, split, kept, candidate)
    say("evaluate")
    # OpenVINO can crash on unsupported CPUs, so each runtime is tried in another process first.
    able = {trial.runtime for trial in probe(draft, run.threads) if trial.error is None}
    held_out, inputs = _embed_held_out(draft, split, run, [EVALUATION_RUNTIME, *sorted(able - {EVALUATION_RUNTIME})])
    say("compare the exported network with torch")
    # bfloat16 is left out: it differs from torch by more than the comparison allows, and has a check of its own.
    runtimes = ["onnxruntime", *sorted(able & {"openvino"})]
    parity = check_parity(candidate.network, draft, inputs, runtimes, run.threads)
    calibrated = calibrate_bundle(draft, held_out)
    provenance = _provenance(run, split, state, kept, parity)
    index = _index(draft, split, run) if run.index else None
    bundle = finalize(target, calibrated, provenance, index=index, overwrite=True)
    indices = held_out.embedded[0].indices
    return Finished(bundle, calibrated.evaluation, parity, calibrated.probs, indices, kept)


def _draft(name: str, run: Run, split: Split, kept: Exported, candidate: BundleParts) -> Bundle:
    """The bundle with the exported backbone, before calibration."""
    size = kept.epoch
    backbone, (weight, bias) = export_onnx(candidate.embedder, size.height, size.width), candidate.head
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=split.nameplates,
        ids=split.ids,
        preprocess=run.recipe.preprocess(size.height, size.width),
        embedding=len(weight),
        temperature=1.0,
        files={BACKBONE: File(sha256(backbone), len(backbone))},
    )
    return Bundle(manifest, backbone, weight, bias, photos_csv(split.photos, split.groups), candidate.known)


def _embed_held_out(
    draft: Bundle, split: Split, run: Run, runtimes: Sequence[str]
) -> tuple[HeldOut, NDArray[np.uint8]]:
    """Embed the held-out photos in each runtime; each photo is decoded only once.

    Returns:
        The embeddings, and up to `PARITY_PHOTOS` model inputs, uint8 N×H×W×3, for the comparison with torch. They show
        held-out photos, or training photos where none are held out.

    Raises:
        NameplateError: none of the photos can be read.
    """
    opened = {name: make_runtime(name, draft.backbone, run.threads) for name in runtimes}
    embeddings: dict[str, list[Floats]] = {name: [] for name in runtimes}
    chosen = np.flatnonzero(split.holdout)
    for_parity = _spread(chosen if len(chosen) else np.flatnonzero(split.train))
    indices: list[NDArray[np.int64]] = []
    inputs: list[NDArray[np.uint8]] = []
    prepared = _prepared(draft, split, chosen, run)
    # All model inputs together may not fit into memory, and single batches would leave most processors idle.
    while chunk := list(itertools.islice(prepared, CHUNK)):
        for name, runtime in opened.items():
            embeddings[name].extend(runtime.embed(batch for batch, _ in chunk))
        indices.extend(of for _, of in chunk)
        inputs.extend(batch[np.isin(of, for_parity)] for batch, of in chunk)
    # Nothing was embedded above, so training photos serve for the comparison with torch.
    if not len(chosen):
        inputs = [batch for batch, _ in _prepared(draft, split, for_parity, run)]
    empty = np.zeros((0, draft.manifest.embedding), np.float32)
    where = np.concatenate([np.zeros(0, np.int64), *indices])
    embedded = (RuntimeEmbeddings(name, np.concatenate([empty, *rows]), where) for name, rows in embeddings.items())
    return HeldOut(tuple(embedded), split.classes), np.concatenate(inputs)


def _spread(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every n-th index, so that at most `PARITY_PHOTOS` are left."""
    return chosen[:: -(-len(chosen) // PARITY_PHOTOS)]


def _prepared(
    bundle: Bundle, split: Split, chosen: NDArray[np.int64], run: Run
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Batches of model inputs with the indices of their photos; unreadable photos are left out.

    Raises:
        NameplateError: none of the photos can be read.
    """
    paths = [split.photos[i].path for i in chosen]
    found = False
    for batch in plain_batches(paths, in_order(np.arange(len(paths)), BATCH), bundle.manifest.preprocess, run.threads):
        if len(batch.indices):
            found = True
            yield batch.photos, chosen[batch.indices]
    if not found and len(paths):
        raise unreadable(paths)


def training_embeddings(
    run: Run, split: Split, embed: Callable[[torch.Tensor], torch.Tensor], state: State
) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of augmented training photos, as a further epoch would draw them.

    The network has fitted the training photos, so that their embeddings vary less than those of new photos. With a new
    augmentation they vary more like them.

    Returns:
        Embeddings float32 N×D and classes int64 (N,); N ≤ `WHITENING_PHOTOS`.

    Raises:
        NameplateError: none of the photos can be read.
    """
    recipe, kept = run.recipe, exported(run.recipe, state).epoch
    chosen = np.random.default_rng(recipe.seed).permutation(np.flatnonzero(split.train))[:WHITENING_PHOTOS]
    paths = [split.photos[i].path for i in chosen]
    batches = in_order(np.arange(len(paths)), BATCH)
    size = recipe.preprocess(kept.height, kept.width)
    embeddings, indices = [], []
    with torch.inference_mode():
        for batch in training_batches(paths, batches, size, recipe.augmentation, recipe.seed, state.epoch, run.threads):
            if len(batch.indices):
                embeddings.append(embed(torch.from_numpy(batch.photos)).numpy())
                indices.append(chosen[batch.indices])
    if not indices:
        raise unreadable(paths)
    return np.concatenate(embeddings), split.classes[np.concatenate(indices)]


def _index(bundle: Bundle, split: Split, run: Run) -> bytes:
    """The neighbour index of the training photos as a file; photos that can no longer be read are left out."""
    indices: list[NDArray[np.int64]] = []

    def inputs() -> Iterator[NDArray[np.uint8]]:
        for batch, of in _prepared(bundle, split, np.flatnonzero(split.train), run):
            indices.append(of)
            yield batch

    embeddings = np.concatenate(list(make_runtime(EVALUATION_RUNTIME, bundle.backbone, run.threads).embed(inputs())))
    return make_index([split.photos[i] for i in np.concatenate(indices)], embeddings, run.threads)


def _save_weights(folder: Path, run: Run, network: Network) -> None:
    """Write the weights, under the tensor names of timm, for later runs."""
    metadata = {"backbone": run.recipe.backbone, "nameplates": "\n".join(run.nameplates)}
    tensors = {name: value.contiguous() for name, value in network.body.state_dict().items()}
    try:
        with whole_file(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise NameplateError(f"Cannot write '{folder / WEIGHTS}': {error}.") from None


def _provenance(run: Run, split: Split, state: State, kept: Exported, parity: tuple[Parity, ...]) -> dict[str, object]:
    backbone = find_backbone(run.recipe.backbone)
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": asdict(run.recipe),
        "metrics": None,
        "data": data_record(split),
        "runtime": EVALUATION_RUNTIME,
        "backbone": f"{backbone.timm}, {run.weights}",
        **({"licence": run.licence} if run.licence else {}),
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
