"""`finish`: a trained network → the bundle, exported, checked against torch, judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file

from nameplate.errors import NameplateError
from nameplate.evaluation.calibration import fit_temperatures
from nameplate.evaluation.golden import with_golden
from nameplate.evaluation.metrics import evaluate
from nameplate.evaluation.verdicts import with_verdicts
from nameplate.fit.parts import Parts, photos_csv
from nameplate.fit.record import JUDGED_BY, data_record, exported_record, metrics_record, versions
from nameplate.models.bundle import BACKBONE, IN_RUN, SCHEMA, Bfloat16Check, Bundle, File, Manifest, save_bundle
from nameplate.models.head import probabilities
from nameplate.models.index import make_index
from nameplate.models.known import Known, fit_known
from nameplate.models.runtime import BATCH, make_runtime, probe
from nameplate.storage import sha256, whole_file
from nameplate.training.backbones import find_backbone
from nameplate.training.batches import in_order, plain_batches, training_batches, unreadable
from nameplate.training.checkpoint import State
from nameplate.training.export import (
    Embedder,
    Floats,
    Parity,
    check_parity,
    export_onnx,
    head_of,
    round_weights,
    whiten,
)
from nameplate.training.loop import exported
from nameplate.training.network import Network, has_places
from nameplate.training.run import WEIGHTS, Run
from nameplate.types import Evaluation, Exported, Preprocess

PARITY_PHOTOS = 2000
"""Photos, at most, on which the runtimes are held against torch: held-out ones where there are any."""
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
    """int64 (N,): which of `Parts.photos` these are."""
    exported: Exported
    """Which epoch's weights the bundle holds."""
    runtime: str = JUDGED_BY
    """What computed the embeddings that are judged."""


def finish(
    folder: Path, run: Run, parts: Parts, network: Network, state: State, say: Callable[[str], None]
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
    head, known = head_of(rounded, white), fit_known(white(embeddings), classes)
    return make_bundle(folder / IN_RUN, folder.resolve().name, run, parts, state, embedder, head, known, rounded, say)


def make_bundle(
    target: Path,
    name: str,
    run: Run,
    parts: Parts,
    state: State,
    embedder: torch.nn.Module,
    head: tuple[Floats, Floats],
    known: Known,
    truth: torch.nn.Module,
    say: Callable[[str], None],
) -> Finished:
    """Export an embedder, hold it against torch, calibrate and judge it, and write the bundle.

    Args:
        target: the bundle's folder, replaced where it is there.
        name: what the bundle is called.
        run: what was trained.
        parts: its photos.
        state: where the run ended.
        embedder: uint8 N×H×W×3 → float32 N×D, or that and its map N×h×w×D, on the CPU.
        head: weight D×C and bias C.
        known: where its training photos lie.
        truth: uint8 N×H×W×3 → the logits that embedder and head must give, on the CPU.
        say: called with what is being done.

    Raises:
        NameplateError: the exported network is not the trained one, or the bundle cannot be written.
    """
    recipe, kept = run.recipe, exported(run.recipe, state)
    size = kept.epoch
    backbone, (weight, bias) = export_onnx(embedder, size.height, size.width), head
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        nameplates=parts.nameplates,
        ids=parts.ids,
        preprocess=Preprocess(size.height, size.width, recipe.fit, recipe.interpolation),
        embedding=len(weight),
        temperature=1.0,
        files={BACKBONE: File(sha256(backbone), len(backbone))},
    )
    draft = Bundle(manifest, backbone, weight, bias)
    say("hold the exported network against torch")
    chosen = np.flatnonzero(parts.held if parts.held.any() else parts.train)
    pictures = np.concatenate([p for p, _ in _prepared(draft, parts, chosen[:: -(-len(chosen) // PARITY_PHOTOS)], run)])
    able = {trial.runtime for trial in probe(draft, run.threads) if trial.error is None}
    parity = check_parity(truth, draft, pictures, ["onnxruntime", *sorted(able & {"openvino"})], run.threads)
    say("judge")
    embedded = {
        name: _embeddings(draft, parts, run, name, parts.held) for name in (JUDGED_BY, *sorted(able - {JUDGED_BY}))
    }
    computed = {name: (found @ weight + bias, of) for name, (found, of) in embedded.items()}
    logits, places = computed[JUDGED_BY]
    classes = parts.classes[places]
    temperatures = fit_temperatures({name: (found, parts.classes[of]) for name, (found, of) in computed.items()})
    temperature = temperatures.get(JUDGED_BY, 1.0)
    chances = probabilities(logits, temperature) if len(places) else logits
    judged = evaluate(chances, classes, parts.nameplates) if len(places) else None
    manifest = replace(
        manifest,
        temperature=temperature,
        temperatures=temperatures,
        bfloat16=_bfloat16_check(parts, computed),
        provenance=_provenance(run, parts, state, kept, judged, parity),
    )
    manifest = with_verdicts(manifest, chances, classes, known.distances(embedded[JUDGED_BY][0]))
    manifest = with_golden(manifest, backbone, weight, bias)
    table = photos_csv(parts.photos, parts.groups)
    index = _index(draft, parts, run) if run.index else None
    bundle = save_bundle(target, manifest, backbone, (weight, bias), table, known, index=index, overwrite=True)
    return Finished(bundle, judged, parity, chances, places, kept)


def _prepared(
    bundle: Bundle, parts: Parts, chosen: NDArray[np.int64], run: Run
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
    run: Run, parts: Parts, embed: Callable[[torch.Tensor], torch.Tensor], state: State
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


def _embeddings(
    bundle: Bundle, parts: Parts, run: Run, name: str, chosen: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.int64]]:
    """Embeddings of chosen photos by one runtime, float32 N×D, and which photos they are of; some may be gone."""
    runtime = make_runtime(name, bundle.backbone, run.threads)
    places: list[NDArray[np.int64]] = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for batch, of in _prepared(bundle, parts, np.flatnonzero(chosen), run):
            places.append(of)
            yield batch

    embeddings = list(runtime.embed(pictures()))
    if not embeddings:
        return np.zeros((0, bundle.manifest.embedding), np.float32), np.zeros(0, np.int64)
    return np.concatenate(embeddings), np.concatenate(places)


def _index(bundle: Bundle, parts: Parts, run: Run) -> bytes:
    """The index of the photos that trained; those that are gone are left out."""
    embeddings, places = _embeddings(bundle, parts, run, "onnxruntime", parts.train)
    return make_index([parts.photos[place] for place in places], embeddings, run.threads)


def _bfloat16_check(parts: Parts, computed: dict[str, tuple[Floats, NDArray[np.int64]]]) -> Bfloat16Check | None:
    """What bfloat16 costs on the held-out photos; None where it did not run on all of them."""
    exact, places = computed["onnxruntime"]
    logits, same = computed.get("openvino-bf16", (exact, np.zeros(0, np.int64)))
    if not len(same) or not np.array_equal(same, places):
        return None
    truth = parts.classes[places]
    right, right_bfloat16 = (float((each.argmax(1) == truth).mean()) for each in (exact, logits))
    return Bfloat16Check(len(places), right, right_bfloat16)


def _save_weights(folder: Path, run: Run, network: Network) -> None:
    metadata = {"backbone": run.recipe.backbone, "nameplates": "\n".join(run.nameplates)}
    tensors = {name: value.contiguous() for name, value in network.body.state_dict().items()}
    try:
        with whole_file(folder / WEIGHTS) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise NameplateError(f"Cannot write '{folder / WEIGHTS}': {error}.") from None


def _provenance(
    run: Run, parts: Parts, state: State, kept: Exported, judged: Evaluation | None, parity: tuple[Parity, ...]
) -> dict[str, object]:
    backbone = find_backbone(run.recipe.backbone)
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": asdict(run.recipe),
        "metrics": metrics_record(judged),
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
