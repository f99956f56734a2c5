/** The page's start: asks the service about itself and connects the modules. */

import { drawAnswers, keep, redraw, setActions } from "./answers.js";
import { listenToCamera } from "./camera.js";
import { addToTray, drawTray, submitClaim } from "./claim.js";
import { announce, byId, element } from "./element.js";
import { drawExamples } from "./examples.js";
import { askFeedback } from "./feedback.js";
import { remembered } from "./history.js";
import { chooseCar, identifyPhotos, toggleHeat } from "./identify.js";
import { listen, takeChosen } from "./input.js";
import { language, percent, say, sayProblem, setLanguage, size, translate } from "./language.js";
import { AT_ONCE } from "./photo.js";
import { problemBox } from "./problem.js";
import * as service from "./service.js";
import { listenToTable } from "./table.js";
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
  const { limits, version, local } = visit.service;
  const most = { identify: AT_ONCE, verify: limits.photos }[visit.task];
  const taken = local ? say("limitsLocal", { count: most }) : say("limits", { count: most, size: size(limits.photo_bytes) });
  byId("limits").textContent = visit.complaint || taken;
  byId("limits").classList.toggle("bad", visit.complaint !== "");
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
  drawTask();
  drawService();
  drawModels();
  drawLoading();
  drawExamples(take, () => complain(sayProblem(navigator.onLine ? "network" : "offline", {})));
  drawTray();
  drawAnswers({ anew: true });
}

function take(files, folders) {
  if (files.length === 0) return complain(say("noFiles"));
  complain("");
  if (visit.task === "verify") return addToTray(files, folders);
  const there = visit.running?.task === "identify" ? visit.shown.identify.length : 0;
  if (there + files.length > AT_ONCE) complain(say("tooManyAtOnce", { count: there + files.length, limit: AT_ONCE }));
  return identifyPhotos(files, folders);
}

/** Say below the buttons why a photo was not taken, until the next are given. */
function complain(text) {
  visit.complaint = text;
  drawService();
  if (text) announce(text);
}

function chooseTask(task) {
  if (visit.task === task) return drawAnswers();
  visit.task = task;
  drawTask();
  complain("");
  drawAnswers();
  const files = visit.shown.identify.map(({ file }) => file).filter(Boolean);
  const few = files.length <= visit.service.limits.photos;
  if (task === "verify" && visit.tray.length === 0 && files.length && few) addToTray(files); // what was identified may be verified
}

function drawTask() {
  document.documentElement.dataset.task = visit.task;
  byId("task").setAttribute("aria-label", say("task"));
  byId("view").setAttribute("aria-labelledby", `tab-${visit.task}`);
  for (const tab of tabs()) {
    const chosen = tab.dataset.task === visit.task;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
}

const tabs = () => [...byId("task").children];

function listenToTabs() {
  for (const tab of tabs()) tab.onclick = () => chooseTask(tab.dataset.task);
  byId("task").onkeydown = ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const all = tabs();
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.focus();
    chooseTask(next.dataset.task);
  };
}

function forget() {
  const running = visit.running?.task;
  for (const task of ["identify", "verify"]) {
    if (task === running) continue;
    visit.shown[task] = [];
    visit.halt[task] = null;
  }
  visit.entries = running ? visit.shown[running] : [];
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
  entry.node?.querySelector("h3")?.focus();
}

function wire() {
  byId("language").value = language();
  byId("language").onchange = ({ target }) => ((visit.complaint = ""), setLanguage(target.value), drawAll());
  byId("theme").value = theme();
  byId("theme").onchange = ({ target }) => setTheme(target.value);
  listenToTabs();
  listenToTable();
  listenToCamera(take, (why) => complain(say(`cameraProblem.${why}`)));
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
  setActions({ choose: chooseCar, heat: toggleHeat, feedback: (entry) => askFeedback(entry, () => told(entry)) }, chooseTask);
  listen(take, () => document.querySelector("dialog[open]") === null);
}

service.watch(drawLoading);
visit.entries = remembered();
wire();
drawAll();
begin();
takeChosen();
