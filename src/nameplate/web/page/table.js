/** Many photos as a table: a row each, which opens its card; a summary, a filter, and files with all rows. */

import { chosenRow } from "./boxes.js";
import { save, toCsv, toJson } from "./download.js";
import { byId, element } from "./element.js";
import { percent, say } from "./language.js";

const TONES = { answer: "good", unsure: "so-so", unreadable: "bad", refused: "bad" };
const ORDER = ["answer", "unsure", "unknown car", "not a car", "poor photo", "unreadable", "refused", "stopped", "sent", "waiting"];

/** What became of a photo: a verdict, or the state of one without. */
const outcome = (entry) => (entry.row ? chosenRow(entry).verdict : entry.state);
const named = (entry) => ["answer", "unsure"].includes(outcome(entry));

/** Open a row's card, or close it. */
export function toggleRow(entry) {
  entry.opened = !entry.opened;
}

/** A photo's row, as a group of rows, since its card opens below. `card` makes the card, `open` opens it. */
export function tableRow(entry, { card, open }) {
  const found = outcome(entry);
  const row = entry.row && chosenRow(entry);
  const name = named(entry) ? row.nameplate : "–";
  const picture = entry.thumb ? element("img", { src: entry.thumb, alt: "" }) : element("span", { className: "nothing", "aria-hidden": "true", textContent: "?" });
  const opener = element(
    "button",
    { type: "button", className: "opener", onclick: open, "data-role": "open", "aria-expanded": String(Boolean(entry.opened)), "aria-label": say("openRow", { name: entry.name }) },
    picture,
  );
  return element(
    "tbody",
    { role: "rowgroup" },
    element(
      "tr",
      { role: "row", onclick: ({ target }) => target.closest("button") ?? open() },
      cell("thumb", opener),
      cell("file", entry.name),
      cell("name", name),
      cell("number", named(entry) ? percent(row.confidence) : ""),
      cell(`verdict ${TONES[found] ?? "soft"}`, say(`short.${found}`)),
    ),
    entry.opened ? element("tr", { role: "row", className: "opened" }, element("td", { role: "cell", colSpan: 5 }, card(entry))) : null,
  );
}

const cell = (className, child) => element("td", { role: "cell", className }, child);

let asked = []; // the entries that are drawn

/** Draw the table of entries that have rows as their nodes, the summary above it, and what the filter leaves. */
export function drawTable(entries, { anew = false } = {}) {
  asked = entries;
  const rows = entries.map(({ node }) => node);
  const { tBodies, tHead } = byId("table");
  if (rows.length !== tBodies.length || rows.some((each, place) => each !== tBodies[place])) byId("table").replaceChildren(tHead, ...rows);
  byId("filter").placeholder = say("filter");
  byId("filter").setAttribute("aria-label", say("filter"));
  byId("only").setAttribute("aria-label", say("only"));
  for (const kind of ["csv", "json"]) byId(kind).setAttribute("aria-label", say("save", { kind: kind.toUpperCase() }));
  drawSummary(anew);
  drawFilter();
}

function drawSummary(anew) {
  const counts = new Map(ORDER.map((each) => [each, 0]));
  for (const entry of asked) counts.set(outcome(entry), counts.get(outcome(entry)) + 1);
  const found = [...counts].filter(([, count]) => count > 0);
  const parts = found.map(([each, count]) => `${say(`short.${each}`)}: ${count}`);
  // A line ends between two counts, and not within one.
  const text = [say("photos", { count: asked.length }), ...parts].map((part) => part.replaceAll(" ", "\u00a0")).join("\u00a0· ");
  if (byId("summary").textContent === text && !anew) return;
  byId("summary").textContent = text;
  const chosen = byId("only").value;
  const options = [["", say("onlyAll")], ...found.map(([each]) => [each, say(`short.${each}`)])];
  byId("only").replaceChildren(...options.map(([value, textContent]) => element("option", { value, textContent, selected: value === chosen })));
}

function drawFilter() {
  const words = byId("filter").value.trim().toLowerCase();
  const only = byId("only").value;
  const matches = (entry) => (!only || outcome(entry) === only) && `${entry.name} ${named(entry) ? chosenRow(entry).nameplate : ""}`.toLowerCase().includes(words);
  for (const entry of asked) entry.node.hidden = !matches(entry);
  byId("none").hidden = asked.some(({ node }) => !node.hidden);
}

/** Connect the controls above the table. */
export function listenToTable() {
  byId("filter").oninput = drawFilter;
  byId("only").onchange = drawFilter;
  byId("csv").onclick = () => save("nameplate.csv", "text/csv", toCsv(asked));
  byId("json").onclick = () => save("nameplate.json", "application/json", toJson(asked));
}
