/** The answers on the page: one card each, the progress, and the problem that stopped the requests. */

import { advertCard } from "./advert.js";
import { photoCard } from "./card.js";
import { announce, button, byId, element, replace } from "./element.js";
import { drawHistory, remember } from "./history.js";
import { say } from "./language.js";
import { problemBox } from "./problem.js";
import { earlier, show, visit } from "./visit.js";

let does = {}; // what cards can do: see card.js

export function setActions(actions) {
  does = actions;
}

/** Draw what has changed; with `anew` everything, as after a change of language. */
export function drawAnswers({ anew = false } = {}) {
  byId("results").hidden = visit.shown.length === 0 && visit.running === null && visit.halt === null;
  const cards = visit.shown.map((entry) => (entry.node = (!anew && entry.node) || card(entry)));
  const there = [...byId("cards").children]; // moved elements would lose the focus
  if (cards.length !== there.length || cards.some((each, place) => each !== there[place])) byId("cards").replaceChildren(...cards);
  drawProgress();
  drawHalt();
  drawHistory(earlier(), open);
}

/** Redraw one entry's card in its place. */
export function redraw(entry) {
  entry.node = entry.node?.isConnected ? replace(entry.node, card(entry)) : null;
}

/** Store all answers in the history of this visit. */
export const keep = () => remember(visit.entries);

const actions = () => ({ ...does, feedback: visit.service.feedback ? does.feedback : null, heat: visit.service.local ? null : does.heat, named: visit.models.length > 1 });
const card = (entry) => (entry.kind === "photo" ? photoCard(entry, actions()) : advertCard(entry));

/** Draw the progress. */
export function drawProgress() {
  byId("running").hidden = visit.running === null;
  const photos = visit.running?.photos ?? [];
  const done = photos.filter(({ state }) => state === "done" || state === "refused").length;
  const progress = byId("progress");
  const many = visit.running?.task === "identify" && photos.length > 1;
  if (many) Object.assign(progress, { max: photos.length, value: done });
  else progress.removeAttribute("value");
  byId("progress-text").textContent = many ? say("progress", { done, count: photos.length }) : say("working");
}

/** Draw the problem that stopped the requests, with the button that continues. */
export function drawHalt() {
  const { halt } = visit;
  if (halt === null) return byId("halt").replaceChildren();
  const goOn = () => {
    visit.halt = null;
    drawHalt();
    byId("answers-title").focus();
    halt.again();
  };
  if (halt.refusal) return byId("halt").replaceChildren(problemBox(halt.refusal, { again: goOn }));
  const box = element("div", { className: "problem calm" }, say("cancelled"), " ", button(say("goOn"), goOn, { "data-role": "again" }));
  return byId("halt").replaceChildren(box);
}

/** Set the problem that stopped the requests; `again` continues them. */
export function halted(error, again) {
  if (error.name !== "AbortError" && error.kind === undefined) throw error;
  visit.halt = { refusal: error.name === "AbortError" ? null : error, again };
  if (error.kind === "no-key") {
    byId("key").hidden = false;
    byId("key-value").focus();
  }
  if (error.name === "AbortError") announce(say("cancelled"));
}

/** Show an entry of the history again. */
export function open(entry) {
  if (visit.running === null) visit.halt = null;
  show(visit.running ? [entry, ...visit.shown] : [entry]);
  drawAnswers();
  entry.node.querySelector("h3").focus();
}
