/** The whole cars in a photo, by the detector's boxes: `model.detector` of Nameplate, with its constants. */

import { cut, even, squash } from "./resize.js";

const WHOLE = [0, 0, 1, 1];

/** The cars, the main one first: [{box, area, score}]; boxes are top, left, bottom, right as shares of the photo. */
export async function locate(photo, look, rules) {
  const found = [];
  for (const [first, last] of windows(photo, rules)) {
    const boxes = await look(squash(cut(photo, first, last), rules.size));
    found.push(...candidates(boxes, rules).map((each) => onThePhoto(each, first, last, photo.height, rules)).filter(Boolean));
  }
  const best = byScore(found).slice(0, rules.CANDIDATES);
  return inOrder(withoutOverlaps(best, rules), rules).slice(0, rules.MOST_CARS);
}

/** The part of the photo to name a car from: all of it where the car fills it. */
export const partOf = ({ box, area }, { NEARLY_ALL }) => (area > NEARLY_ALL ? WHOLE : box);

/** The parts of a photo that the network looks at, as first row and the row after its last; the whole photo first. */
function windows({ height, width }, { PORTRAIT, WINDOW_OVERLAP, MOST_WINDOWS }) {
  if (height <= PORTRAIT * width) return [[0, height]];
  const count = Math.min(Math.ceil((height / width - WINDOW_OVERLAP) / (1 - WINDOW_OVERLAP)), MOST_WINDOWS);
  const tops = Array.from({ length: count }, (_, place) => even((place * (height - width)) / (count - 1)));
  return [[0, height], ...tops.map((top) => [top, top + width])];
}

const byScore = (cars) => [...cars].sort((one, other) => other.score - one.score); // stable

function candidates({ boxes, scores }, { LEAST_SCORE, CANDIDATES }) {
  const found = [];
  for (const [place, score] of scores.entries()) {
    if (score >= Math.fround(LEAST_SCORE)) found.push({ score, box: [...boxes.subarray(4 * place, 4 * place + 4)] });
  }
  return byScore(found).slice(0, CANDIDATES);
}

/** A box of a window as one of the photo; null where the window cuts the car. */
function onThePhoto({ score, box: [top, left, bottom, right] }, first, last, height, { EDGE }) {
  if ((top < Math.fround(EDGE) && first > 0) || (bottom > Math.fround(1 - EDGE) && last < height)) return null;
  const row = (share) => Math.fround(Math.fround(first + Math.fround(share * (last - first))) / height);
  return { score, box: [row(top), left, row(bottom), right] };
}

function withoutOverlaps(cars, rules) {
  const kept = [];
  for (const { box, score } of cars) {
    const sides = [Math.fround(box[2] - box[0]), Math.fround(box[3] - box[1])];
    if (Math.min(...sides) < Math.fround(rules.LEAST_SIDE) || kept.some((other) => sameCar(box, other.box, rules))) continue;
    kept.push({ box, score, area: (box[2] - box[0]) * (box[3] - box[1]) });
  }
  return kept;
}

/** Whether a box shows the same car as a better one, or a part of it. */
function sameCar(box, better, { OVERLAP, INSIDE }) {
  const side = (axis) => Math.fround(Math.min(box[axis + 2], better[axis + 2]) - Math.max(box[axis], better[axis]));
  if (side(0) <= 0 || side(1) <= 0) return false;
  const area = ([top, left, bottom, right]) => Math.fround(Math.fround(bottom - top) * Math.fround(right - left));
  const both = Math.fround(side(0) * side(1));
  return both > OVERLAP * (area(box) + area(better) - both) || both > INSIDE * area(box);
}

/** The main car first, the largest of those whose score is near the best one; the others follow by score. */
function inOrder(cars, { CLEAR }) {
  if (cars.length === 0) return [];
  const clear = cars.filter(({ score }) => score >= CLEAR * cars[0].score);
  const main = clear.reduce((largest, each) => (each.area > largest.area ? each : largest));
  return [main, ...cars.filter((each) => each !== main)];
}
