/** The cars that were found in a photo: their boxes over it, and which of them the card is about. */

import { element } from "./element.js";
import { say } from "./language.js";
import { inShort } from "./photo.js";

const LITTLE = 0.015; // share of the photo below which a box has a thin line, so that it hides less of its car

/** The answer for the chosen car, in the form of a photo's row. */
export const chosenRow = ({ row, chosen = 0 }) => (chosen === 0 ? row : { photo: row.photo, ...row.cars[chosen] });

/** Whether there is a car to choose. */
export const several = ({ row, size }) => Boolean(size) && row?.cars?.length > 1;

/** A photo with the box of its car, or with one button for each of several. `choose(number)` chooses one. */
export function boxed(image, entry, choose = null) {
  const { row, size } = entry;
  const boxes = several(entry) && choose ? row.cars.map(({ box }) => box ?? whole(size)) : [row.box];
  if (boxes.length === 1) return element("div", { className: "framed" }, image, place(element("span", { className: "car", "aria-hidden": "true" }), boxes[0], size));
  const buttons = boxes.map((box, number) => place(carButton(entry, number, choose, area(box) < LITTLE * area(whole(size))), box, size));
  const small = [...boxes.keys()].sort((one, other) => area(boxes[other]) - area(boxes[one]));
  for (const [depth, number] of small.entries()) buttons[number].style.zIndex = depth + 1; // small ones over large ones
  return element("div", { className: "framed", role: "group", "aria-label": say("carsFound", { count: boxes.length }) }, image, ...buttons);
}

function carButton({ row, chosen = 0 }, number, choose, little) {
  const name = say("carIs", { number: number + 1, count: row.cars.length, answer: inShort(row.cars[number]) });
  return element(
    "button",
    { type: "button", className: little ? "car little" : "car", onclick: () => choose(number), "aria-label": name, "aria-pressed": String(number === chosen), "data-role": `car-${number}` },
    element("span", { className: "tag", "aria-hidden": "true", textContent: number + 1 }),
  );
}

/** Lay an element over a box that is in pixels of a photo of this size. */
export function place(made, { left, top, right, bottom }, [width, height]) {
  const sides = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  for (const [side, share] of Object.entries(sides)) made.style[side] = `${100 * share}%`;
  return made;
}

const whole = ([right, bottom]) => ({ left: 0, top: 0, right, bottom });
const area = ({ left, top, right, bottom }) => (right - left) * (bottom - top);
