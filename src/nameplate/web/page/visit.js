/** The state of this visit: the service, the photos that were given, and the answers. */

export const visit = {
  service: { version: "", feedback: false, keys: false, limits: { photos: 1, photo_bytes: 2 ** 20, body_bytes: 2 ** 20, pixels: 1e7 } },
  begun: null, // a promise: the service has said what it takes and which models it has, or has failed to
  models: [],
  model: "", // the name of the one that is asked
  complaint: "", // why the photos that were given last were not all taken
  task: "identify", // the view that is seen; the other is "verify"
  entries: [], // all that was given, newest first
  shown: { identify: [], verify: [] }, // those of them that each view draws, in order
  tray: [], // photos of the advert that is to be verified
  running: null, // the requests under way: see `begin`
  halt: { identify: null, verify: null }, // why they stopped: a Refusal, or none if they were cancelled; and what goes on with them
};

/** The view that an entry belongs to. */
export const taskOf = ({ kind }) => (kind === "advert" ? "verify" : "identify");

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

/** Show these entries in a view; those shown there before move to the history. */
export function show(task, entries) {
  visit.shown[task] = entries;
  const known = new Set(visit.entries);
  visit.entries = [...entries.filter((entry) => !known.has(entry)).reverse(), ...visit.entries];
}

/** Answers that neither view draws. */
export function earlier() {
  const drawn = new Set([...visit.shown.identify, ...visit.shown.verify]);
  return visit.entries.filter((entry) => entry.state === "done" && !drawn.has(entry));
}
