/** From an embedding to an answer: probabilities, distances to known cars, and the verdict, as in Nameplate. */

/** The calibrated probabilities of an embedding, in the order of the nameplates. */
export function probabilities(embedding, { weight, bias }, temperature) {
  const classes = bias.data.length;
  const logits = Float64Array.from(bias.data);
  for (const [row, value] of embedding.entries()) {
    for (let each = 0, at = row * classes; each < classes; each++, at++) logits[each] += value * weight.data[at];
  }
  const largest = logits.reduce((one, other) => Math.max(one, other));
  const shares = logits.map((logit) => Math.exp((logit - largest) / temperature));
  const sum = shares.reduce((one, other) => one + other, 0);
  return Float32Array.from(shares, (share) => share / sum);
}

/** Distance to the nearest nameplate, to the nearest car that model or backbone knows, and the log-odds of no car. */
export function outlierScores(embedding, known) {
  const mapped = whitened(embedding, known);
  const near = nearest(mapped, known.centres);
  const cars = known.cars ? Math.min(near, nearest(mapped, known.cars)) : near;
  const odds = known.gate ? dot(embedding, known.gate.data, 0) + known.gate.data[embedding.length] : null;
  return { near, cars, odds };
}

function whitened(embedding, { mean, scale, directions, shares }) {
  const rank = shares.data.length;
  const rows = Float64Array.from(embedding, (value, place) => (value - mean.data[place]) / scale.data[place]);
  const along = new Float64Array(rank);
  for (const [row, value] of rows.entries()) for (let each = 0; each < rank; each++) along[each] += value * directions.data[row * rank + each];
  for (let each = 0; each < rank; each++) along[each] *= shares.data[each];
  return rows.map((value, row) => value - dot(along, directions.data, row * rank));
}

const dot = (row, matrix, from) => row.reduce((sum, value, place) => sum + value * matrix[from + place], 0);

/** Squared distance to the nearest of the rows of a matrix, divided by their length. */
function nearest(mapped, { data, shape: [count, width] }) {
  let least = Infinity;
  for (let row = 0, at = 0; row < count; row++) {
    let sum = 0;
    for (let place = 0; place < width; place++, at++) sum += (mapped[place] - data[at]) ** 2;
    least = Math.min(least, sum);
  }
  return least / width;
}

/** How far a photo is beyond the threshold of `not a car`: above 0 it shows no whole car. */
function carMargin({ near, cars, odds }, thresholds, { ALWAYS_A_CAR }) {
  if (odds === null || thresholds.no_car == null) return thresholds.far == null ? -Infinity : cars - thresholds.far;
  const margin = odds - thresholds.no_car;
  if (thresholds.near == null) return margin;
  return Math.min(margin, (near - thresholds.middle) / thresholds.spread - ALWAYS_A_CAR);
}

/** The classes in the prediction set, most probable first; never empty. */
function predictionSet(probs, threshold, { COVERAGE }) {
  const order = [...probs.keys()].sort((one, other) => probs[other] - probs[one]);
  let count = 0;
  if (threshold == null) for (let sum = 0; sum < COVERAGE && count < order.length; count++) sum += probs[order[count]];
  else count = probs.reduce((found, each) => found + (each >= Math.fround(threshold)), 0);
  return order.slice(0, Math.max(1, count));
}

/** The answer for one car, in the form of a row of /v1/identify. `photo` has flaws, covered and box. */
export function decide(photo, probs, scores, { nameplates, makes, thresholds }, rules) {
  const order = [...probs.keys()].sort((one, other) => probs[other] - probs[one]).slice(0, rules.TOP);
  const top = order.map((each) => ({ nameplate: nameplates[each], confidence: probs[each] }));
  const row = { ...top[0], top, box: photo.box, ...judged(probs, scores, { nameplates, makes, thresholds }, rules) };
  if (photo.flaws.length) Object.assign(row, { flaws: photo.flaws, verdict: row.verdict === "unknown car" ? "poor photo" : row.verdict });
  return row;
}

function judged(probs, scores, { nameplates, makes, thresholds }, rules) {
  const nothing = { candidates: [], make: null, make_confidence: null };
  if (scores) {
    if (carMargin(scores, thresholds, rules) > 0) return { ...nothing, verdict: "not a car" };
    const entropy = -probs.reduce((sum, each) => sum + each * Math.log(Math.max(each, 1e-12)), 0);
    const score = (scores.near - thresholds.middle) / thresholds.spread + entropy;
    if (thresholds.near != null && score > thresholds.near) return { ...nothing, verdict: "unknown car" };
  }
  const set = predictionSet(probs, thresholds.nameplate, rules);
  const sums = new Map();
  for (const [place, make] of makes.entries()) sums.set(make, (sums.get(make) ?? 0) + probs[place]);
  const candidates = set.map((each) => nameplates[each]);
  const of = (make) => ({ make, make_confidence: sums.get(make) });
  if (set.length === 1) return { verdict: "answer", candidates, ...of(makes[set[0]]) };
  const [names, shares] = [[...sums.keys()], [...sums.values()]];
  const left = predictionSet(shares, thresholds.make, rules);
  return { ...nothing, verdict: "unsure", candidates, ...(left.length === 1 ? of(names[left[0]]) : {}) };
}

/** Say why a photo shows no known car, where the detector knows it. */
export function withReason(row, covered, { PART }) {
  if (covered === 0 && (row.verdict === "not a car" || row.verdict === "unknown car")) return { ...row, why: "no car found" };
  return covered !== null && covered > PART && row.verdict === "not a car" ? { ...row, why: "a part of a car" } : row;
}
