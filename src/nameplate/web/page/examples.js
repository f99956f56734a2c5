/** Photos to try: renders of cars that do not exist, so that they may be shown to anybody. */

import { byId, element } from "./element.js";
import { say } from "./language.js";

const COUNT = 6;

/** Draw a button for each example; `take(files)` gets the one that is pressed, and `failed(error)` why it cannot be had. */
export function drawExamples(take, failed) {
  const buttons = Array.from({ length: COUNT }, (_, place) => {
    const name = `example-${place + 1}.jpg`;
    const image = element("img", { loading: "lazy", width: 88, height: 66, alt: "", src: `page/${name}` });
    const label = say("example", { number: place + 1 });
    return element("button", { type: "button", className: "example", onclick: () => fetched(name).then((file) => take([file]), failed), "aria-label": label, title: label }, image);
  });
  byId("examples").querySelector(".row").replaceChildren(...buttons);
}

async function fetched(name) {
  const answer = await fetch(`page/${name}`);
  if (!answer.ok) throw new Error(`${name}: status ${answer.status}`);
  return new File([await answer.blob()], name, { type: "image/jpeg" });
}
