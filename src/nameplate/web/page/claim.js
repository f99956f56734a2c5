/** The form that verifies an advert: a tray with its photos, and its claim. */

import { drawAnswers, halted, keep } from "./answers.js";
import { announce, button, byId, element } from "./element.js";
import { say } from "./language.js";
import { nearest } from "./nearest.js";
import { photo, refused, tooMuch } from "./photo.js";
import { problemBox } from "./problem.js";
import * as service from "./service.js";
import { begin, known, show, visit } from "./visit.js";

/** Add photos to the tray. */
export async function addToTray(files, folders = []) {
  const entries = files.map((file, place) => Object.assign(photo(file), { folder: folders[place] }));
  visit.tray.push(...entries);
  drawTray();
  for (const entry of entries) {
    entry.why = await refused(entry, visit.service.limits);
    drawTray();
  }
}

/** Draw the tray's photos, each with a button to remove it, and the reason if they cannot be sent. */
export function drawTray() {
  const count = visit.tray.length;
  byId("tray-title").textContent = count ? say("advertPhotos", { count }) : say("noAdvertPhotos");
  byId("tray").replaceChildren(...visit.tray.map(item));
}

function item(entry) {
  const picture = entry.thumb ? element("img", { src: entry.thumb, alt: "" }) : element("span", { className: "nothing", "aria-hidden": "true", textContent: "?" });
  const away = button("×", () => remove(entry), { className: "quiet away", "aria-label": say("remove", { name: entry.name }) });
  const why = entry.why ? element("span", { className: "bad small", textContent: entry.why() }) : null;
  return element("li", {}, picture, element("span", { className: "name small", textContent: entry.name }), why, away);
}

function remove(entry) {
  const place = visit.tray.indexOf(entry);
  visit.tray = visit.tray.filter((each) => each !== entry);
  drawTray();
  (byId("tray").querySelectorAll("button")[Math.min(place, visit.tray.length - 1)] ?? byId("pick")).focus();
}

let waits = false; // for the photos that are being identified

/** Send the claim with all photos of the tray that may be sent. */
export async function submitClaim() {
  if (waits || visit.running?.task === "verify") return;
  const photos = visit.tray.filter(({ why }) => !why);
  const problem = photos.length ? tooMuch(photos, visit.service.limits) : say("noAdvertPhotos");
  byId("tray-title").className = problem ? "bad" : "";
  if (problem) {
    byId("tray-title").textContent = problem;
    announce(problem);
    byId("pick").focus();
    return;
  }
  await verify(photos, byId("claimed").value.trim());
}

async function verify(photos, claimed) {
  waits = true;
  if (visit.running) announce(say("waiting"));
  while (visit.running) await visit.running.ended;
  waits = false;
  const { signal, end } = begin("verify", photos);
  visit.halt.verify = null;
  show("verify", []);
  drawAnswers();
  byId("answers-title").focus();
  await known(signal);
  const { model } = visit;
  try {
    const found = await service.verify(photos.map(({ file }) => file), claimed, { model, signal });
    show("verify", [advert(found, photos, model)]);
    announce(say(`claim.${found.verdict}`, { claimed: found.claimed }));
  } catch (error) {
    halted("verify", error, () => verify(photos, claimed), error.code === "unknown claim" ? () => unknown(claimed) : null);
  } finally {
    end();
    drawAnswers();
    keep();
  }
}

/** That the model does not know the car of an advert, and the names that are most like it. */
function unknown(claimed) {
  const { nameplates, makes } = visit.models.find(({ name }) => name === visit.model);
  const names = nearest(claimed, [...new Set([...makes, ...nameplates])]);
  const choose = (name) => {
    byId("claimed").value = name;
    submitClaim();
  };
  return element(
    "div",
    { className: "problem", role: "alert" },
    element("p", { textContent: say(names.length ? "claimNear" : "claimUnknown", { claimed }) }),
    element("div", { className: "row" }, ...names.map((name) => button(name, () => choose(name), { className: "quiet", lang: "en" }))),
  );
}

const advert = (found, photos, model) => ({
  id: `${Date.now()}`,
  kind: "advert",
  state: "done",
  found,
  model,
  thumbs: photos.map(({ thumb }) => thumb),
  names: photos.map(({ name }) => name),
  sizes: photos.map(({ size }) => size),
});
