/** The history of this visit: answers and thumbnails, stored for this tab only. */

import { element, byId } from "./element.js";
import { say } from "./language.js";
import { thisVisit } from "./kept.js";
import { inShort } from "./photo.js";

const KEPT = 60;
const FIELDS = ["id", "kind", "name", "state", "model", "row", "thumb", "wide", "size", "found", "thumbs", "names", "sizes", "told"];

/** Read the entries from before the page was reloaded, newest first. */
export function remembered() {
  try {
    return JSON.parse(thisVisit.read("history")) ?? [];
  } catch {
    return [];
  }
}

/** Store the newest entries; fewer if the browser's storage is full. */
export function remember(entries) {
  const done = entries.filter((entry) => entry.state === "done");
  for (let count = Math.min(KEPT, done.length); count > 0; count = Math.floor(count / 2)) {
    if (thisVisit.write("history", JSON.stringify(done.slice(0, count).map(small)))) return;
  }
  thisVisit.write("history", null);
}

const small = (entry) => Object.fromEntries(FIELDS.map((field) => [field, entry[field]]));

/** Draw the entries; `open` shows one again. */
export function drawHistory(entries, open) {
  byId("history").hidden = entries.length === 0;
  byId("visits").replaceChildren(...entries.slice(0, KEPT).map((entry) => element("li", {}, visit(entry, open))));
}

function visit(entry, open) {
  const [name, answer] = entry.kind === "photo" ? [entry.name, inShort(entry.row)] : [entry.found.claimed, say(`claimShort.${entry.found.verdict}`)];
  const thumb = entry.kind === "photo" ? entry.thumb : entry.thumbs[0];
  return element(
    "button",
    { type: "button", className: "visit", onclick: () => open(entry), "aria-label": say("show", { name, answer }) },
    thumb ? element("img", { src: thumb, alt: "" }) : element("span", { className: "nothing", textContent: "?" }),
    element("span", { className: "name", textContent: answer }),
    element("span", { className: "soft", textContent: name }),
  );
}
