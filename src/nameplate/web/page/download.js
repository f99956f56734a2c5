/** All answers as a file: CSV for spreadsheets, JSON for programs. */

import { element } from "./element.js";

const COLUMNS = ["photo", "verdict", "nameplate", "confidence", "candidates", "make", "make_confidence", "error"];

/** The answers as CSV (RFC 4180) in UTF-8. Only `answer` and `unsure` have a name: no other verdict vouches for one. */
export function toCsv(entries) {
  const rows = entries.map((entry) => COLUMNS.map((column) => value(entry, column)));
  return `\ufeff${[COLUMNS, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`; // with the mark by which spreadsheets know UTF-8
}

/** The answers as JSON: for each photo the row that the model gave, or why there is none. */
export const toJson = (entries) => `${JSON.stringify(entries.map((entry) => (entry.row ? { ...entry.row, photo: entry.name } : { photo: entry.name, verdict: null, error: missing(entry) })), null, 2)}\n`;

const missing = (entry) => (entry.state === "refused" ? entry.why() : "not identified");

function value(entry, column) {
  const { row } = entry;
  if (column === "photo") return entry.name;
  if (!row) return column === "error" ? missing(entry) : "";
  if (column === "verdict" || column === "error") return row[column] ?? "";
  const found = row.verdict === "answer" || row.verdict === "unsure" ? row[column] : null;
  return Array.isArray(found) ? found.join("; ") : (found ?? "");
}

/** A cell; an apostrophe stands before what a spreadsheet would run as a formula (OWASP, "CSV Injection"). */
function cell(content) {
  const text = typeof content === "string" && /^[=+\-@\t\r]/.test(content) ? `'${content}` : String(content);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Have the browser save a text as a file. */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
