/** The page's requests to the service. A page without one has another module of this name: see engine/service.js. */

import { thisVisit } from "./kept.js";
import { Refusal } from "./refusal.js";

export const key = () => thisVisit.read("key");
export const setKey = (value) => thisVisit.write("key", value || null);

/** The service has loaded its models already. */
export const watch = () => {};

export const service = () => ask("v1/service");
export const models = async () => (await ask("v1/models")).models;

/** Identify photos, one row each. Files are sent unchanged: a smaller photo may get another answer. */
export const identify = (files, { model, all = false, heatmap = false, car = null, signal }) =>
  ask(`v1/identify?${query({ model, all, heatmap, car })}`, form({ photos: files }), signal);

export const verify = (files, claimed, { model, signal }) =>
  ask(`v1/verify?${query({ model })}`, form({ claimed, photos: files }), signal);

export const tell = (fields) => ask("v1/feedback", form(fields));

/** Query parameters for the chosen model; without one, the service uses its first. */
const query = (chosen) => new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));

function form(fields) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) if (each !== "") made.append(name, each);
  }
  return made;
}

async function ask(path, body, signal) {
  if (key() && !/^[\x21-\x7e]+$/.test(key())) throw new Refusal("no-key"); // no header can carry it
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  let answer;
  let said;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", body, signal, headers, cache: "no-store", credentials: "omit" });
    said = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(navigator.onLine ? "network" : "offline");
  }
  const value = parsed(said);
  if (answer.ok && value !== null) return value;
  throw refusal(answer, value ?? {});
}

function refusal(answer, said) {
  const { status } = answer;
  const named = /^urn:nameplate:problem:([\w-]+)$/.exec(said.type)?.[1];
  const kind = named ?? { 401: "no-key", 413: "too-large", 429: "too-many", 502: "network", 504: "network" }[status] ?? "unexpected";
  const seconds = Number(answer.headers.get("Retry-After") ?? said.retry_after ?? Number.NaN);
  const retryAfter = Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
  return new Refusal(kind, { status, code: said.code ?? null, detail: String(said.detail ?? ""), retryAfter, results: said.results ?? null });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
