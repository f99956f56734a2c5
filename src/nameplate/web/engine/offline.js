/** The service worker: it keeps all files of this version, so that later visits need no network.

Browsers look for changes of this file, and its version changes with every other file. */

const VERSION = "0"; // the SHA-256 of this version's list of files, set by `nameplate export --web`
const INDEX = "index.html";
const OURS = `nameplate ${registration.scope} `; // an origin may hold several sites
const NAME = OURS + VERSION;

/** Keep a file once its SHA-256 is that of this version, so that two versions never mix. */
async function keep(cache, { path, sha256 }) {
  const answer = await fetch(path === INDEX ? "./" : path, { cache: "no-cache" }); // hosts redirect from index.html
  if (!answer.ok) throw new Error(`${path}: status ${answer.status}`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await answer.clone().arrayBuffer()));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${path} is of another version`);
  await cache.put(path, answer);
}

async function install() {
  const cache = await caches.open(NAME);
  const site = await fetch("site.json", { cache: "no-cache" });
  const { digest, files } = await site.clone().json();
  if (digest !== VERSION) throw new Error("the files are being replaced; the next visit tries again");
  await cache.put("site.json", site);
  for (const file of files) await keep(cache, file);
  await cache.put("./", await cache.match(INDEX));
  await skipWaiting();
}

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith(OURS) && name !== NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
}

async function answer(request) {
  const cache = await caches.open(NAME);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(registration.scope)) event.respondWith(answer(event.request));
});
