/** The pipeline of Nameplate in the browser: locate → preprocess → embed → classify → decide. */

import { locate, partOf } from "./locate.js";
import { flaws } from "./quality.js";
import { crop, even, preprocess } from "./resize.js";
import { decide, outlierScores, probabilities, withReason } from "./verdict.js";

/** Answer one photo, as a row of /v1/identify; with `all`, `cars` has every car.

`model` has: manifest, rules, head, known (null without), embed(input) → Float32Array, look(view) → {boxes, scores}. */
export async function identify(name, photo, model, { all = false } = {}) {
  const { preprocess: size } = model.manifest;
  const seeks = all || size.locate !== "none";
  const cars = seeks ? await locate(photo, model.look, model.rules) : [];
  const covered = seeks ? (cars[0]?.area ?? 0) : null;
  const rows = [];
  for (const car of all && cars.length ? cars : [cars[0] ?? null]) rows.push(await answer(photo, car, model));
  if (rows.some((row) => row === null)) return notComputed(name);
  rows[0] = withReason(rows[0], covered, model.rules);
  return { photo: name, ...rows[0], ...(all ? { cars: covered ? rows : [] } : {}) };
}

async function answer(photo, car, model) {
  const { manifest, rules, head, known } = model;
  const part = car ? partOf(car, rules) : null;
  const located = part !== null && part === car.box;
  const pixels = located ? crop(photo, part) : photo;
  const input = preprocess(pixels, manifest.preprocess);
  const embedding = await model.embed(input);
  const probs = probabilities(embedding, head, manifest.temperature);
  const scores = known ? outlierScores(embedding, known) : null;
  if (![...probs, ...(scores ? [scores.near, scores.cars, scores.odds ?? 0] : [])].every(Number.isFinite)) return null;
  const seen = { flaws: flaws(pixels, input, manifest.preprocess, rules), box: located ? pixelBox(car.box, photo) : null };
  return decide(seen, probs, scores, manifest, rules);
}

/** A box in whole pixels, at least one along each axis. */
function pixelBox([top, left, bottom, right], { height, width }) {
  const [x, y] = [Math.min(even(left * width), width - 1), Math.min(even(top * height), height - 1)];
  return { left: x, top: y, right: Math.max(x + 1, even(right * width)), bottom: Math.max(y + 1, even(bottom * height)) };
}

const notComputed = (name) => unreadable(name, "not computed: of this photo the model computes no finite numbers");

/** The row of a photo that has no answer. */
export const unreadable = (photo, error) => ({ photo, nameplate: null, confidence: null, verdict: "unreadable", candidates: [], make: null, make_confidence: null, top: [], box: null, error });
