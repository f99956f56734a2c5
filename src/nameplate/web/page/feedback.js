/** The form for corrections ("wrong? tell us"). It says what will be stored before anything is sent. */

import { byId } from "./element.js";
import { say } from "./language.js";
import { problemBox } from "./problem.js";
import { tell } from "./service.js";

/** Ask which car it really is, and send that; `done` runs once it is stored. */
export function askFeedback(entry, done) {
  const dialog = byId("feedback");
  const form = dialog.querySelector("form");
  form.reset();
  byId("feedback-problem").replaceChildren();
  byId("feedback-stored").textContent = say("feedbackStored", { name: entry.name });
  form.onsubmit = (event) => {
    event.preventDefault();
    send(entry, form, () => {
      dialog.close();
      done();
    });
  };
  byId("feedback-cancel").onclick = () => dialog.close();
  // Its button may have been drawn anew meanwhile, and then the browser has nothing to give the focus back to.
  dialog.onclose = () => entry.node?.querySelector("[data-role=wrong]")?.focus();
  dialog.showModal();
}

async function send(entry, form, done) {
  const submit = form.querySelector("[type=submit]");
  const { right, comment } = form.elements;
  submit.disabled = true;
  try {
    await tell({
      photo: entry.file,
      nameplate: right.value.trim(),
      predicted: entry.row.nameplate ?? "",
      model: entry.model,
      comment: comment.value.trim(),
    });
    done();
  } catch (refusal) {
    byId("feedback-problem").replaceChildren(problemBox(refusal));
  } finally {
    submit.disabled = false;
  }
}
