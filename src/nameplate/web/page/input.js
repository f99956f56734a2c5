/** The ways to add photos: drop, paste, choose files, take with the camera. */

import { byId } from "./element.js";

const PICKERS = ["pick", "camera"];

/** `take(files)` gets the files; `open` says whether files are accepted now. */
export function listen(take, open) {
  for (const id of PICKERS) {
    byId(id).addEventListener("change", ({ target }) => {
      take([...target.files]);
      target.value = ""; // the same file may be chosen again
    });
  }
  document.addEventListener("paste", ({ clipboardData }) => {
    if (open() && clipboardData?.files.length) take([...clipboardData.files]);
  });
  listenToDrops(take, open);
}

/** Take what was chosen before anybody listened, on a slow line. */
export function takeChosen() {
  for (const input of PICKERS.map(byId)) if (input.files.length) input.dispatchEvent(new Event("change"));
}

function listenToDrops(take, open) {
  const place = document.documentElement; // the whole window takes drops, and shows it
  const brings = (event) => open() && [...event.dataTransfer.types].some((type) => type === "Files" || type === "text/uri-list");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    place.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? place.classList.remove("over"));
  addEventListener("drop", (event) => {
    place.classList.remove("over");
    if (!brings(event)) return;
    event.preventDefault(); // else the browser would leave this page for the photo
    const folders = [...event.dataTransfer.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.()?.isDirectory ?? false);
    take([...event.dataTransfer.files], folders);
  });
}
