/** The language of the page: texts, plural forms, numbers. */

import { forever } from "./kept.js";
import { WORDS } from "./words.js";

let current = forever.read("language") ?? (navigator.languages ?? []).map((each) => each.slice(0, 2)).find((each) => each in WORDS);
if (!(current in WORDS)) current = "en";

export const language = () => current;

export function setLanguage(name) {
  current = name;
  forever.write("language", name);
}

/** The text at a key such as "verdict.answer", with {names} filled in, from `values` or else other texts;
`count` chooses among plural forms. */
export function say(key, values = {}) {
  let text = key.split(".").reduce((found, part) => found?.[part], WORDS[current]);
  if (text !== undefined && typeof text !== "string") text = text[new Intl.PluralRules(current).select(values.count)];
  if (text === undefined) throw new Error(`no text for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(values[name] ?? WORDS[current][name]));
}

/** What is wrong and what the user can do, in one sentence. */
export const sayProblem = (kind, values) => say(`problem.${has("problem", kind) ? kind : "unexpected"}`, values);

export const has = (group, key) => Object.hasOwn(WORDS[current][group], key);

const shown = (value) => (typeof value === "number" ? new Intl.NumberFormat(current).format(value) : String(value));

/** A probability in percent; never rounded to "0 %" or "100 %". */
export function percent(chance) {
  const format = new Intl.NumberFormat(current, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
  if (chance > 0.999) return `> ${format.format(0.999)}`;
  if (chance < 0.001) return `< ${format.format(0.001)}`;
  return format.format(chance);
}

/** A file's size, rounded so that a size above a limit never looks equal to it. */
export function size(bytes) {
  const mebibytes = bytes / 2 ** 20;
  const format = new Intl.NumberFormat(current, { maximumSignificantDigits: 3, roundingMode: "ceil" });
  return `${format.format(mebibytes)} ${current === "ru" ? "МиБ" : "MiB"}`;
}

/** "A, B or C" */
export const either = (names) => new Intl.ListFormat(current, { type: "disjunction" }).format(names);

/** Set all fixed texts of the document in the current language. */
export function translate() {
  document.documentElement.lang = current;
  for (const each of document.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  document.title = `Nameplate — ${say("title")}`;
}
