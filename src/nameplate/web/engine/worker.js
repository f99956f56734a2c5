/** The engine: a Web Worker that holds the model and answers photos, so that the page stays responsive. */

import * as ort from "../onnxruntime-web/ort.wasm.bundle.min.mjs";
import { loadModel } from "./model.js";
import { identify, unreadable } from "./pipeline.js";

const MOST_THREADS = 4;
const LARGEST = 50e6; // pixels; a phone runs out of memory beyond
const STRIPE = 512; // rows that are decoded at once: iOS gives a canvas of at most 16.7 million pixels

ort.env.wasm.wasmPaths = { wasm: new URL("../onnxruntime-web/ort-wasm-simd-threaded.wasm", import.meta.url).href };
// Threads share memory, which browsers allow only to pages that are isolated from others.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;

const at = (path) => new URL(`../${path}`, import.meta.url);

async function fetched(path) {
  const answer = await fetch(at(path));
  if (!answer.ok) throw new Error(`${path}: status ${answer.status}`);
  return answer;
}

const progress = { done: 0, all: 1 }; // bytes of the model

async function buffer(path) {
  const parts = [];
  for (let reader = (await fetched(path)).body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts).arrayBuffer();
    parts.push(value);
    progress.done += value.length;
    postMessage({ loaded: Math.min(1, progress.done / progress.all) });
  }
}

async function load() {
  const site = await (await fetched("site.json")).json();
  progress.all = site.files.filter(({ path }) => path.startsWith("model/")).reduce((sum, { bytes }) => sum + bytes, 0);
  return loadModel(site, ort, buffer);
}

/** Decode a photo to RGB, upright; what is transparent is laid over white. */
async function decoded(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  if (width * height > LARGEST) throw new RangeError(`${width}×${height} pixels`);
  const rows = Math.min(STRIPE, height);
  const context = new OffscreenCanvas(width, rows).getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.fillStyle = "white";
  const data = new Uint8Array(3 * height * width);
  for (let top = 0, to = 0; top < height; top += rows) {
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const rgba = new Uint32Array(context.getImageData(0, 0, width, Math.min(rows, height - top)).data.buffer);
    for (const pixel of rgba) {
      data[to++] = pixel;
      data[to++] = pixel >> 8;
      data[to++] = pixel >> 16;
    }
  }
  bitmap.close();
  return { height, width, data };
}

async function answer({ file, all }) {
  const model = await loading;
  let photo;
  try {
    photo = await decoded(file);
  } catch (error) {
    if (error instanceof RangeError) return unreadable(file.name, `too large: ${error.message}`);
    return unreadable(file.name, file.size ? "not a photo: this browser cannot decode it" : "empty: the file has no bytes");
  }
  return identify(file.name, photo, model, { all });
}

const loading = load();
loading.then(
  () => postMessage({ ready: true, threads: ort.env.wasm.numThreads }),
  (error) => postMessage({ ready: false, detail: String(error.message ?? error) }),
);
/** A blank photo first, unless one waits already: each network's first run takes thrice as long as its later ones. */
const warm = async (model) => asked || identify("", { height: 192, width: 256, data: new Uint8Array(3 * 192 * 256) }, model);
let asked = false;
let last = loading.then(warm).catch(() => {});

onmessage = ({ data }) => {
  if (data.id === undefined) return;
  asked = true;
  last = last.then(async () => {
    try {
      postMessage({ id: data.id, row: await answer(data) });
    } catch (error) {
      postMessage({ id: data.id, detail: String(error.message ?? error) });
    }
  });
};
