/** Identifies the photos on the page, a few per request, until none waits. */

import { drawAnswers, drawProgress, halted, keep, redraw } from "./answers.js";
import { chosenRow } from "./boxes.js";
import { announce, byId } from "./element.js";
import { say } from "./language.js";
import { AT_ONCE, inShort, photo, portion, refused } from "./photo.js";
import * as service from "./service.js";
import { begin, known, show, visit } from "./visit.js";

const SPOKEN = 6; // answers that a screen reader reads out

/** Take new photos: while requests are under way they join the others, otherwise they replace what is shown. */
export async function identifyPhotos(files, folders = []) {
  while (visit.running?.task === "verify") await visit.running.ended;
  const there = visit.running ? visit.shown.identify : [];
  const entries = files.slice(0, AT_ONCE - there.length).map((file, place) => Object.assign(photo(file), { folder: folders[place] }));
  visit.halt.identify = visit.running ? visit.halt.identify : null;
  show("identify", [...there, ...entries]);
  if (visit.running) visit.running.photos.push(...entries);
  drawAnswers();
  byId("results").scrollIntoView({ block: matchMedia("(max-width: 42rem)").matches ? "start" : "nearest" });
  if (visit.running === null) await work(entries);
}

async function work(entries) {
  const photos = [...entries];
  const { signal, end } = begin("identify", photos);
  drawProgress();
  await known(signal);
  try {
    for (let next = take(photos); next.length; next = take(photos)) await identifyNext(next, signal);
    const spoken = photos.slice(0, SPOKEN).map((entry) => `${entry.name}: ${entry.row ? inShort(entry.row) : say("refused")}`);
    announce([say("progress", { done: photos.length, count: photos.length }), ...spoken].slice(photos.length > SPOKEN ? 0 : 1).join("; "));
  } catch (error) {
    stopped(photos, error);
  } finally {
    end();
    drawAnswers();
    keep();
  }
}

function stopped(photos, error) {
  const left = photos.filter(({ state }) => state === "waiting" || state === "sent");
  turn(left, "stopped");
  halted("identify", error, () => {
    turn(left, "waiting");
    show("identify", [...new Set([...visit.shown.identify, ...left])]);
    drawAnswers();
    work(left);
  });
}

function turn(entries, state) {
  for (const entry of entries) {
    entry.state = state;
    redraw(entry);
  }
}

const take = (photos) => portion(photos.filter(({ state }) => state === "waiting"), visit.service.limits);

async function identifyNext(entries, signal) {
  const sent = [];
  for (const entry of entries) {
    entry.why = await refused(entry, visit.service.limits);
    entry.state = entry.why ? "refused" : "sent";
    redraw(entry);
    if (!entry.why) sent.push(entry);
  }
  signal.throwIfAborted();
  if (sent.length) await send(sent, signal);
  drawProgress();
}

async function send(entries, signal) {
  const { model } = visit;
  const rows = await results(entries, { model, all: locates(model), signal });
  for (const [place, entry] of entries.entries()) {
    Object.assign(entry, { row: rows[place], model, state: "done", chosen: 0, heats: {} });
    redraw(entry);
  }
}

/** Return one row per photo, also if the service refused because no photo could be read. */
async function results(entries, options) {
  try {
    return (await service.identify(entries.map(({ file }) => file), options)).results;
  } catch (refusal) {
    if (refusal.results?.length === entries.length) return refusal.results;
    throw refusal;
  }
}

/** Whether a model names located cars; of any other, a request for all cars would change the answer. */
const locates = (model) => visit.models.find(({ name }) => name === model)?.locates ?? false;

/** Turn to another car of a photo. */
export function chooseCar(entry, number) {
  Object.assign(entry, { chosen: number, heatProblem: null });
  redraw(entry);
  announce(inShort(chosenRow(entry)));
}

/** Show or hide the heat map of a photo's chosen car; it is requested only once. */
export async function toggleHeat(entry) {
  if (entry.heatWaits) return;
  entry.heatProblem = null;
  entry.heatShown = !entry.heatShown;
  if (entry.heatShown && entry.heats?.[entry.chosen ?? 0] === undefined) await fetchHeat(entry, entry.chosen ?? 0);
  redraw(entry);
}

async function fetchHeat(entry, car) {
  entry.heatWaits = true;
  redraw(entry);
  try {
    const asked = car ? { all: true, car: car + 1 } : {};
    const [row] = (await service.identify([entry.file], { model: entry.model, heatmap: true, ...asked })).results;
    entry.heats = { ...entry.heats, [car]: row.heatmap };
    announce(row.heatmap ? say("heatLegend", { name: row.heatmap.nameplate }) : say("heatNone"));
  } catch (refusal) {
    Object.assign(entry, { heatProblem: refusal, heatShown: false });
  } finally {
    entry.heatWaits = false;
  }
}
