/** One photo's card: the photo, its answer, and what can be done with it. */

import { boxed, chosenRow, several } from "./boxes.js";
import { button, element } from "./element.js";
import { heatFigure } from "./heat.js";
import { either, has, percent, say } from "./language.js";
import { verdictOf } from "./photo.js";
import { problemBox } from "./problem.js";
import { ranking } from "./ranking.js";

const NAMED = 4; // candidates that a headline lists
const TONES = { answer: "good", unsure: "so-so", "unknown car": "off", "not a car": "off", "poor photo": "off", unreadable: "bad" };

/** Make a card. `does` has the actions: choose(entry, number); heat(entry) and feedback(entry), or null where there is
none; and `named` says whether the card names its model. */
export function photoCard(entry, does) {
  const children = entry.row ? answered(entry, does) : [pending(entry)];
  const headline = element("h3", { className: "file", tabIndex: -1, textContent: entry.name });
  const body = element("div", { className: "answer" }, headline, ...children);
  return element("article", { className: `card ${entry.state}`, "aria-label": entry.name }, pictureOf(entry, does), body);
}

const heatOf = (entry) => entry.heats?.[entry.chosen ?? 0];

function pictureOf(entry, does) {
  if (entry.heatShown && heatOf(entry)) return heatFigure(heatOf(entry));
  const source = entry.picture ?? entry.thumb;
  const shown = source
    ? element("img", { src: source, alt: say("photoOf", { name: entry.name }), decoding: "sync" }) // else a choice of another car flickers
    : element("span", { className: "nothing", "aria-hidden": "true", textContent: "?" });
  const framed = source && entry.size && (entry.row?.box || several(entry));
  const photo = framed ? boxed(shown, entry, (number) => does.choose(entry, number)) : shown;
  const picture = element("div", { className: entry.wide ? "photo wide" : "photo" }, photo);
  if (!several(entry)) return picture;
  const hint = element("figcaption", { className: "soft", textContent: say("chooseCar", { count: entry.row.cars.length }) });
  return element("figure", {}, picture, hint);
}

function pending(entry) {
  if (entry.state === "refused") {
    return element("p", { className: "verdict bad" }, element("strong", { textContent: say("refused") }), ` ${entry.why()}`);
  }
  return element("p", { className: `soft ${entry.state === "sent" ? "busy" : ""}`, textContent: say(entry.state) });
}

function answered(entry, does) {
  const row = chosenRow(entry);
  const known = row.verdict === "answer" || row.verdict === "unsure";
  return [
    several(entry) ? element("p", { className: "soft small", textContent: say("carOf", { number: (entry.chosen ?? 0) + 1, count: entry.row.cars.length }) }) : null,
    known ? ranking(row.top, row.candidates, say("ranking")) : null,
    element("p", { className: `verdict ${TONES[row.verdict] ?? ""}`, textContent: row.verdict === "unsure" ? say("oneOf", { count: row.candidates.length }) : verdictText(row) }),
    row.verdict === "unsure" && row.make
      ? element("p", { textContent: say("makeLikely", { make: row.make, percent: percent(row.make_confidence) }) })
      : null,
    row.flaws ? element("p", { textContent: row.flaws.map((flaw) => say(`flaw.${flaw === "small" && row.box ? "smallCar" : flaw}`)).join(" ") }) : null,
    row.error ? element("p", { textContent: reason(row.error) }) : null,
    row.why ? element("p", { textContent: say(`why.${row.why}`) }) : null,
    element("p", { className: "soft", textContent: say(row.why && row.verdict === "not a car" ? "takeWhole" : `advice.${row.verdict}`) }),
    known || row.top.length === 0 ? null : similar(row),
    row.top.length ? actions(entry, does) : null,
    entry.heatProblem ? problemBox(entry.heatProblem, { again: () => does.heat(entry) }) : null,
    entry.model && does.named ? element("p", { className: "soft by", textContent: say("by", { model: entry.model }) }) : null,
  ];
}

/** The verdict in words. */
export function verdictText(row) {
  const more = row.candidates.length - NAMED;
  const first = row.candidates.slice(0, NAMED);
  const names = more > 0 ? say("alsoMore", { names: first.join(", "), count: more }) : either(first);
  return say(`verdict.${verdictOf(row)}`, { names });
}

/** Why a photo cannot be read, from "<reason>: <detail>", whose detail is for programmers. */
function reason(error) {
  const word = error.split(": ", 1)[0];
  return say(has("reason", word) ? `reason.${word}` : "reason.damaged");
}

/** What an unknown car looks most like, folded, since none of it is an answer. */
function similar(row) {
  return element("details", {}, element("summary", { textContent: say("leastUnlike") }), ranking(row.top, [], say("leastUnlike")));
}

function actions(entry, does) {
  if (!does.heat && !does.feedback) return null;
  if (!entry.file) return element("p", { className: "soft", textContent: say("noFile") });
  const text = entry.heatWaits ? "heatWait" : entry.heatShown ? "heatHide" : "heat";
  const heat = heatOf(entry) === null
    ? element("span", { className: "soft", textContent: say("heatNone") })
    : button(say(text), () => does.heat(entry), { className: "quiet", "data-role": "heat", "aria-disabled": String(Boolean(entry.heatWaits)) });
  // A correction is stored with the whole photo, and training would take it for its main car.
  const wrong = does.feedback && !entry.told && !entry.chosen
    ? button(say(["answer", "unsure"].includes(chosenRow(entry).verdict) ? "wrong" : "teach"), () => does.feedback(entry), { className: "quiet", "data-role": "wrong" })
    : null;
  const told = entry.told ? element("span", { className: "good", textContent: say("feedbackDone") }) : null;
  return element("div", { className: "row" }, heat, wrong, told);
}
