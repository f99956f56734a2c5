/** The page's start: asks the service about itself and connects the modules. */

import { drawAnswers, keep, redraw, setActions } from "./answers.js";
import { addToTray, drawTray, submitClaim } from "./claim.js";
import { announce, byId, element } from "./element.js";
import { askFeedback } from "./feedback.js";
import { remembered } from "./history.js";
import { chooseCar, identifyPhotos, toggleHeat } from "./identify.js";
import { listen } from "./input.js";
import { language, percent, say, setLanguage, size, translate } from "./language.js";
import { problemBox } from "./problem.js";
import * as service from "./service.js";
import { setTheme, theme } from "./theme.js";
import { visit } from "./visit.js";

const begin = () => (visit.begun = askService());

async function askService() {
  byId("trouble").replaceChildren();
  try {
    visit.service = await service.service();
    byId("key").hidden = !visit.service.keys;
    drawService();
    if (visit.service.keys && !service.key()) return byId("key-value").focus();
    visit.models = await service.models();
    visit.model = visit.models.find(({ name }) => name === visit.model)?.name ?? visit.models.find((each) => each.default)?.name ?? "";
    drawModels();
  } catch (refusal) {
    if (refusal.kind === "no-key") byId("key").hidden = false;
    byId("trouble").replaceChildren(problemBox(refusal, { again: begin }));
  }
}

function drawService() {
  const { limits, version } = visit.service;
  byId("limits").textContent = visit.service.local ? say("limitsLocal") : say("limits", { count: limits.photos, size: size(limits.photo_bytes) });
  byId("version").textContent = say("version", { version });
}

function drawModels() {
  byId("chooser").hidden = visit.models.length < 2;
  byId("model").replaceChildren(...visit.models.map(({ name }) => element("option", { value: name, textContent: name, selected: name === visit.model })));
  const chosen = visit.models.find(({ name }) => name === visit.model);
  if (chosen && visit.service.local) drawAbout(chosen);
  byId("knows").textContent = chosen ? say("knows", { count: chosen.nameplates.length }) : "";
  const names = chosen ? [...new Set([...chosen.makes, ...chosen.nameplates])].sort() : [];
  byId("nameplates").replaceChildren(...names.map((value) => element("option", { value })));
}

/** What the model of a page without a service knows, with all its names. */
function drawAbout({ nameplates, makes }) {
  const years = nameplates.map((name) => Number(/ ((?:19|20)\d\d)$/.exec(name)?.[1])).filter(Boolean);
  const known = { count: nameplates.length, makes: new Set(makes).size, first: String(Math.min(...years)), last: String(Math.max(...years)) };
  byId("about-title").textContent = years.length ? say("aboutYears", known) : say("about", known);
  byId("about-names").replaceChildren(...nameplates.map((textContent) => element("li", { textContent })));
}

/** How far the model of a page without a service is loaded. */
function drawLoading(state = loading) {
  loading = state;
  const { loaded, ready, kept } = state;
  const text = kept ? "loadingKept" : ready ? "loadingDone" : ready === false ? "loadingFailed" : "loading";
  byId("loading").textContent = say(text, { percent: percent(Math.min(loaded ?? 0, 0.999)) });
  byId("loading").classList.toggle("bad", ready === false);
}

let loading = {};

function drawAll() {
  translate();
  drawService();
  drawModels();
  drawLoading();
  drawTray();
  drawAnswers({ anew: true });
}

function take(files, folders) {
  if (files.length === 0) return announceNoFiles();
  byId("limits").classList.remove("bad");
  drawService();
  return visit.task === "identify" ? identifyPhotos(files, folders) : addToTray(files, folders);
}

function announceNoFiles() {
  byId("limits").textContent = say("noFiles");
  byId("limits").classList.add("bad");
  announce(say("noFiles"));
}

function chooseTask(task) {
  visit.task = task;
  byId("claim").hidden = task !== "verify";
  const files = visit.shown.map(({ file }) => file).filter(Boolean);
  if (task === "verify" && visit.tray.length === 0 && files.length) addToTray(files); // what was identified may be verified
}

function forget() {
  visit.entries = visit.running ? visit.shown : [];
  visit.shown = visit.running ? visit.shown : [];
  visit.halt = visit.running ? visit.halt : null;
  keep();
  drawAnswers();
  announce(say("cleared"));
  byId("photos").focus();
}

function told(entry) {
  entry.told = true;
  redraw(entry);
  keep();
  announce(say("feedbackDone"));
  entry.node.querySelector("h3").focus();
}

function wire() {
  byId("language").value = language();
  byId("language").onchange = ({ target }) => (setLanguage(target.value), drawAll());
  byId("theme").value = theme();
  byId("theme").onchange = ({ target }) => setTheme(target.value);
  byId("task").onchange = ({ target }) => chooseTask(target.value);
  byId("task").querySelector("input").checked = true; // a reload may remember the other
  byId("model").onchange = ({ target }) => ((visit.model = target.value), drawModels());
  byId("cancel").onclick = () => (visit.running?.stop(), byId("answers-title").focus());
  byId("clear").onclick = forget;
  byId("claim").onsubmit = (event) => (event.preventDefault(), submitClaim());
  byId("key").onsubmit = (event) => {
    event.preventDefault();
    service.setKey(byId("key-value").value.trim());
    announce(say("keyTaken"));
    begin();
  };
  setActions({ choose: chooseCar, heat: toggleHeat, feedback: (entry) => askFeedback(entry, () => told(entry)) });
  listen(take, () => !byId("feedback").open);
}

service.watch(drawLoading);
visit.entries = remembered();
wire();
drawAll();
begin();
