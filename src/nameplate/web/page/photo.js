/** A photo that the user gave: its thumbnails, the reason if it cannot be sent, and how many go into a request. */

import { percent, say, size } from "./language.js";

export const AT_ONCE = 500; // photos that the page takes: each has its small pictures in memory
const SHOWN = 720;
const THUMB = 200;
const TOGETHER = 4; // of one request: few, so that answers come one after the other
const FORM_BYTES = 16 * 1024; // a form's own, around its files

let last = 0;

/** A new photo. `state`: waiting, sent, stopped, refused, done. */
export const photo = (file) => ({ id: `${Date.now()}-${++last}`, kind: "photo", name: file.name, file, state: "waiting" });

/** Draw two thumbnails, for the card and for the history; a photo that the browser cannot show has none. */
async function draw(entry) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(entry.file);
  } catch {
    return;
  }
  entry.size = [bitmap.width, bitmap.height]; // upright, as boxes are
  entry.pixels = bitmap.width * bitmap.height;
  entry.wide = bitmap.width >= bitmap.height;
  entry.picture = small(bitmap, SHOWN, 0.85);
  entry.thumb = small(bitmap, THUMB, 0.7);
  bitmap.close();
}

function small(bitmap, longest, quality) {
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // as the service lays transparency over white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", quality);
}

/** Draw a photo's thumbnails and find out whether it can be sent: a function that gives the reason, or null. */
export async function refused(entry, limits) {
  const most = Math.min(limits.photo_bytes, limits.body_bytes - FORM_BYTES);
  if (entry.file.size > most) return () => say("refusal.bytes", { size: size(entry.file.size), limit: size(most) });
  if (entry.folder) return () => say("refusal.folder");
  try {
    await entry.file.slice(0, 1).arrayBuffer();
  } catch {
    return () => say("refusal.gone");
  }
  if (!entry.thumb) await draw(entry);
  if (entry.pixels > limits.pixels) {
    const million = (pixels) => Math.ceil(pixels / 1e5) / 10;
    return () => say("refusal.pixels", { count: million(entry.pixels), limit: million(limits.pixels) });
  }
  return null;
}

/** The first waiting photos that fit into one request; at least one. */
export function portion(waiting, limits) {
  const most = Math.min(TOGETHER, limits.photos);
  let bytes = FORM_BYTES;
  let count = 0;
  for (const { file } of waiting.slice(0, most)) {
    bytes += file.size;
    if (count > 0 && bytes > limits.body_bytes) break;
    count += 1;
  }
  return waiting.slice(0, count);
}

/** Why these photos cannot be verified in one request, or null. */
export function tooMuch(photos, limits) {
  const bytes = photos.reduce((sum, each) => sum + each.file.size, FORM_BYTES);
  if (photos.length > limits.photos) return say("tooMany", { count: photos.length, limit: limits.photos });
  if (bytes > limits.body_bytes) return say("tooHeavy", { size: size(bytes), limit: size(limits.body_bytes) });
  return null;
}

/** The answer in a few words, for the history and for screen readers. */
export function inShort(row) {
  const more = (row.cars?.length ?? 0) - 1;
  const also = more > 0 ? `; ${say("moreCars", { count: more })}` : "";
  if (row.verdict === "answer" || row.verdict === "unsure") return `${row.nameplate}, ${percent(row.confidence)}${also}`;
  return say(`verdict.${verdictOf(row)}`, { names: "" }) + also;
}

/** The verdict whose words fit: without a car, nothing is called an unknown one. */
export const verdictOf = ({ verdict, why }) => (verdict === "unknown car" && why === "no car found" ? "nothing known" : verdict);
