/** The answers in the view that is seen: a card each, or a table of many; the progress, and the problem that stopped it. */

import { advertCard } from "./advert.js";
import { photoCard } from "./card.js";
import { announce, button, byId, element, replace } from "./element.js";
import { drawHistory, remember } from "./history.js";
import { say } from "./language.js";
import { problemBox } from "./problem.js";
import { drawTable, tableRow, toggleRow } from "./table.js";
import { earlier, show, taskOf, visit } from "./visit.js";

const CARDS = 6; // more photos become a table

let does = {}; // what cards can do: see card.js
let choose = () => {}; // turns to a view

export function setActions(actions, chooseTask) {
  does = actions;
  choose = chooseTask;
}

/** Draw what has changed; with `anew` everything, as after a change of language. */
export function drawAnswers({ anew = false } = {}) {
  const entries = visit.shown[visit.task];
  const many = tabular();
  byId("results").hidden = entries.length === 0 && visit.running?.task !== visit.task && visit.halt[visit.task] === null;
  byId("many").hidden = !many;
  for (const entry of entries) if (anew || entry.node?.tagName !== (many ? "TBODY" : "ARTICLE")) entry.node = made(entry);
  if (many) drawTable(entries, { anew });
  arrange(byId("cards"), many ? [] : entries.map(({ node }) => node));
  drawProgress();
  drawHalt();
  drawHistory(earlier(), open);
}

/** Set the children of an element, unless they are there already: what is moved would lose the focus. */
function arrange(parent, children) {
  const there = [...parent.children];
  if (children.length !== there.length || children.some((each, place) => each !== there[place])) parent.replaceChildren(...children);
}

const tabular = () => visit.task === "identify" && visit.shown.identify.length > CARDS;

/** Redraw one entry in its place. */
export function redraw(entry) {
  entry.node = entry.node?.isConnected ? replace(entry.node, made(entry)) : null;
  if (entry.node && tabular()) drawTable(visit.shown.identify);
}

/** Store all answers in the history of this visit. */
export const keep = () => remember(visit.entries);

const actions = () => ({ ...does, feedback: visit.service.feedback ? does.feedback : null, heat: visit.service.local ? null : does.heat, named: visit.models.length > 1 });
const card = (entry) => photoCard(entry, actions());

function made(entry) {
  if (entry.kind === "advert") return advertCard(entry);
  return tabular() ? tableRow(entry, { card, open: () => (toggleRow(entry), redraw(entry)) }) : card(entry);
}

/** Draw the progress of the requests that this view asked for. */
export function drawProgress() {
  const running = visit.running?.task === visit.task ? visit.running : null;
  byId("running").hidden = running === null;
  const photos = running?.photos ?? [];
  const done = photos.filter(({ state }) => state === "done" || state === "refused").length;
  const progress = byId("progress");
  const several = running?.task === "identify" && photos.length > 1;
  if (several) Object.assign(progress, { max: photos.length, value: done });
  else progress.removeAttribute("value");
  byId("progress-text").textContent = several ? say("progress", { done, count: photos.length }) : say("working");
}

/** Draw the problem that stopped the requests, with the button that continues. */
export function drawHalt() {
  const { task } = visit;
  const halt = visit.halt[task];
  if (halt === null) return byId("halt").replaceChildren();
  const goOn = () => {
    visit.halt[task] = null;
    drawHalt();
    byId("answers-title").focus();
    halt.again();
  };
  if (halt.refusal) return byId("halt").replaceChildren(halt.box?.() ?? problemBox(halt.refusal, { again: goOn }));
  const box = element("div", { className: "problem calm" }, say("cancelled"), " ", button(say("goOn"), goOn, { "data-role": "again" }));
  return byId("halt").replaceChildren(box);
}

/** Set the problem that stopped a view's requests; `again` continues them, and `box` draws it in another way. */
export function halted(task, error, again, box = null) {
  if (error.name !== "AbortError" && error.kind === undefined) throw error;
  visit.halt[task] = { refusal: error.name === "AbortError" ? null : error, again, box };
  if (error.kind === "no-key") {
    byId("key").hidden = false;
    byId("key-value").focus();
  }
  if (error.name === "AbortError") announce(say("cancelled"));
}

/** Show an entry of the history again. */
export function open(entry) {
  const task = taskOf(entry);
  const running = visit.running?.task === task;
  if (!running) visit.halt[task] = null;
  show(task, running ? [entry, ...visit.shown[task]] : [entry]);
  choose(task);
  entry.node.querySelector("h3, button")?.focus();
}
