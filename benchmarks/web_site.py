"""Compares a site that `nameplate export BUNDLE --web SITE` wrote with `identify`, photo by photo, in a real Chromium.

python benchmarks/web_site.py BUNDLE SITE PHOTOS… --most 200
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nameplate.data.dataset import list_photos
from nameplate.model.model import Model
from nameplate.types import Prediction

ASK = """async (input) => {
  const { identify } = await import("./page/service.js");
  const found = [];
  for (const file of input.files) {
    const begun = performance.now();
    const { results } = await identify([file], {});
    found.push([results[0], performance.now() - begun]);
  }
  return found;
}"""
"""Asks the engine in the page about files that an input holds: [row, milliseconds] each."""
TOGETHER = 20
"""Photos that are given to the page at once."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files on a free port; the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("site", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=200)
    given = parser.parse_args()
    found = [Path(photo.path) for folder in given.photos for photo in list_photos(folder)]
    paths = random.Random(0).sample(found, min(given.most, len(found)))  # noqa: S311 - a sample, no secret
    answers, first, times = in_browser(given.site, paths)
    expected = Model.load(given.bundle, runtime="onnxruntime").predict(paths)
    print(json.dumps(compared(expected, answers) | {"first_ms": round(first)} | quantiles(times), indent=2))


def in_browser(site: Path, paths: list[Path]) -> tuple[list[dict[str, object]], float, list[float]]:
    """The site's rows, milliseconds from opening the page to the first answer, and those of each later answer."""
    from playwright.sync_api import sync_playwright

    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        begun = time.monotonic()
        page.goto(address)
        page.set_input_files("#pick", paths[0])
        page.wait_for_selector("#cards .card.done")
        first = 1000 * (time.monotonic() - begun)
        page.evaluate("document.body.append(Object.assign(document.createElement('input'), "
                      "{ type: 'file', id: 'asked', multiple: true }))")  # fmt: skip
        rows, times = [], []
        for start in range(0, len(paths), TOGETHER):
            page.set_input_files("#asked", paths[start : start + TOGETHER])
            for row, elapsed in page.locator("#asked").evaluate(ASK):
                rows.append(row)
                times.append(elapsed)
        browser.close()
    return rows, first, times


def compared(expected: list[Prediction], rows: list[dict[str, object]]) -> dict[str, object]:
    """How many answers are the same, and how far the probabilities are apart."""
    gaps, names, verdicts, other = [], 0, 0, []
    for one, row in zip(expected, rows, strict=True):
        listed = {each["nameplate"]: each["confidence"] for each in row["top"]}  # type: ignore[attr-defined]
        gap = max((abs(share - listed[name]) for name, share in one.top if name in listed), default=1.0)
        gaps.append(gap)
        names += one.nameplate == row["nameplate"]
        verdicts += one.verdict == row["verdict"]
        if one.nameplate != row["nameplate"] or one.verdict != row["verdict"]:
            other.append([one.photo, one.verdict, row["verdict"], round(gap, 4)])
    return {
        "photos": len(rows),
        "same_nameplate": names,
        "same_verdict": verdicts,
        "largest_gap": max(gaps),
        "median_gap": statistics.median(gaps),
        "others": other,
    }


def quantiles(times: list[float]) -> dict[str, object]:
    """The median and the 95th percentile, in milliseconds."""
    return {"median_ms": round(statistics.median(times)), "p95_ms": round(sorted(times)[int(0.95 * len(times))])}


if __name__ == "__main__":
    main()
