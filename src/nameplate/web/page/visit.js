/** The state of this visit: the service, the photos that were given, and the answers. */

export const visit = {
  service: { version: "", feedback: false, keys: false, limits: { photos: 1, photo_bytes: 2 ** 20, body_bytes: 2 ** 20, pixels: 1e7 } },
  begun: null, // a promise: the service has said what it takes and which models it has, or has failed to
  models: [],
  model: "", // the name of the one that is asked
  task: "identify",
  entries: [], // all that was given, newest first
  shown: [], // those of them that are drawn as cards, in order
  tray: [], // photos of the advert that is to be verified
  running: null, // the requests under way: see `begin`
  halt: null, // why they stopped: a Refusal, or "cancelled"; and what goes on with them
};

/** Begin requests; `end` ends them. Only one task runs at a time: others await `visit.running.ended`. */
export function begin(task, photos) {
  const stop = new AbortController();
  let resolve;
  const ended = new Promise((over) => (resolve = over));
  visit.running = { task, photos, ended, stop: () => stop.abort() };
  const end = () => {
    visit.running = null;
    resolve();
  };
  return { signal: stop.signal, end };
}

/** Wait until the service has said which models it has, since photos may be given before; or until `signal` aborts. */
export const known = (signal) => Promise.race([visit.begun, new Promise((resolve) => signal.addEventListener("abort", resolve))]);

/** Show these entries; those shown before move to the history. */
export function show(entries) {
  visit.shown = entries;
  for (const entry of entries) if (!visit.entries.includes(entry)) visit.entries.unshift(entry);
}

/** Answers that are not drawn as cards. */
export const earlier = () => visit.entries.filter((entry) => entry.state === "done" && !visit.shown.includes(entry));
