/** The engine as the page's service: it stands in the place of page/service.js, and answers in a worker of this page. */

import { Refusal } from "./refusal.js";

const PHOTOS = 1000;
const PIXELS = 50e6; // as in worker.js
const BYTES = 2 ** 28;

const waiting = new Map();
let site = null;
let worker = null;
let listener = () => {};
let state = {}; // what the listener has heard last
let last = 0;
let answering = null; // the last photo's answer

export const key = () => null;
export const setKey = () => {};

/** `told({loaded, ready, kept, detail})` hears how much of the model is loaded, 0–1, that it is ready or cannot be,
and that everything is kept for visits without a network. */
export function watch(told) {
  listener = told;
  told(state);
}

function report(change) {
  state = change;
  listener(change);
}

export async function service() {
  await load();
  if (worker === null) start();
  const limits = { photos: PHOTOS, photo_bytes: BYTES, body_bytes: 2 * BYTES, pixels: PIXELS };
  return { version: site.version, feedback: false, keys: false, local: true, limits };
}

export async function models() {
  await load();
  const { name, nameplates, makes, preprocess } = site.model;
  return [{ name, nameplates, makes, default: true, locates: preprocess.locate !== "none" }];
}

/** Identify photos, one row each, one after the other. */
export async function identify(files, { all = false, signal }) {
  const results = [];
  for (const file of files) {
    signal?.throwIfAborted();
    results.push(await ask(file, all, signal));
  }
  return { results };
}

/** What needs a service: the page of a site does not offer it. */
const needsService = async () => {
  throw new Refusal("not-found");
};
export { needsService as tell, needsService as verify };

async function load() {
  try {
    site ??= await (await fetch("site.json", { cache: "no-cache" })).json();
  } catch {
    throw new Refusal(navigator.onLine ? "network" : "offline");
  }
}

function start() {
  worker = new Worker("engine/worker.js", { type: "module" });
  worker.onerror = (event) => failed(event.message ?? "");
  worker.onmessage = ({ data }) => {
    if (data.loaded !== undefined) return report({ loaded: data.loaded });
    if (data.ready) return begun();
    if (data.ready === false) return failed(data.detail);
    const { settle, refuse } = waiting.get(data.id);
    waiting.delete(data.id);
    return data.row ? settle(data.row) : refuse(new Refusal("engine", { detail: data.detail }));
  };
}

/** Keep the files for visits without a network, once that delays neither the model nor a photo that waits. */
async function begun() {
  report({ ready: true });
  await Promise.allSettled([answering]);
  try {
    await navigator.serviceWorker.register("offline.js");
    await navigator.serviceWorker.ready;
    report({ ready: true, kept: true });
  } catch {
    // a page that is opened without https works too, though only with its server
  }
}

/** The engine cannot be loaded: everything that waits fails, and the next question starts it anew. */
function failed(detail) {
  worker.terminate();
  worker = null;
  report({ ready: false, detail });
  for (const { refuse } of waiting.values()) refuse(new Refusal("engine", { detail }));
  waiting.clear();
}

function ask(file, all, signal) {
  if (worker === null) start();
  const id = ++last;
  answering = new Promise((settle, refuse) => {
    waiting.set(id, { settle, refuse });
    signal?.addEventListener("abort", () => refuse(signal.reason));
    worker.postMessage({ id, file, all });
  });
  return answering;
}

start(); // at once, since the model takes longer to load than the page
