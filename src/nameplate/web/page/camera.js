/** The live camera of a phone or a laptop: a viewfinder, and a photo of what it shows. */

import { byId } from "./element.js";

const WANTED = { width: { ideal: 1920 }, height: { ideal: 1440 } };
const PROBLEMS = { NotAllowedError: "refused", SecurityError: "refused", NotFoundError: "missing", OverconstrainedError: "missing" };

let stream = null;
let taken = 0;

/** Whether a page may ask for the camera here: browsers allow it over https and on this machine alone. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

/** Connect the viewfinder. `take(files)` gets the photo; `failed(why)` hears "refused", "missing" or "busy". */
export function listenToCamera(take, failed) {
  const dialog = byId("viewfinder");
  byId("live").hidden = !hasCamera();
  byId("capture").hidden = hasCamera();
  byId("live").onclick = () => start({ facingMode: { ideal: "environment" } }).catch(failed);
  byId("turn").onclick = () => turn().catch((why) => (dialog.close(), failed(why)));
  byId("viewfinder-cancel").onclick = () => dialog.close();
  dialog.onclose = end;
  byId("shutter").onclick = async () => {
    const file = await photo(byId("video"));
    dialog.close();
    take([file]);
  };
}

async function start(wanted) {
  end();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...wanted } });
  } catch (error) {
    throw PROBLEMS[error.name] ?? "busy";
  }
  byId("video").srcObject = stream;
  byId("turn").hidden = (await others()).length === 0;
  if (!byId("viewfinder").open) byId("viewfinder").showModal();
  await byId("video").play().catch(() => {}); // closed meanwhile
  byId("shutter").focus();
}

/** The cameras that are not on. */
async function others() {
  const found = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const on = stream?.getVideoTracks()[0]?.getSettings().deviceId;
  const place = found.findIndex(({ deviceId }) => deviceId === on);
  return [...found.slice(place + 1), ...found.slice(0, Math.max(0, place))];
}

const turn = async () => start({ deviceId: { exact: (await others())[0].deviceId } });

function end() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId("video").srcObject = null;
}

async function photo(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((settle) => canvas.toBlob(settle, "image/jpeg", 0.95));
  return new File([blob], `camera-${++taken}.jpg`, { type: "image/jpeg" });
}
