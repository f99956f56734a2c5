/** The heat map of a photo: which regions speak for the nameplate, and a box around the strongest. */

import { element } from "./element.js";
import { say } from "./language.js";

/** Make a figure from the answer of /v1/identify?heatmap=true. */
export function heatFigure({ nameplate, region, width, height, png }) {
  const image = element("img", { src: `data:image/png;base64,${png}`, alt: say("heatOf", { name: nameplate }) });
  return element(
    "figure",
    {},
    element("div", { className: width >= height ? "photo wide" : "photo" }, element("div", { className: "framed" }, image, region ? frame(region, width, height) : null)),
    element("figcaption", { className: "soft", textContent: say(region ? "heatLegend" : "heatPlain", { name: nameplate }) }),
  );
}

function frame({ left, top, right, bottom }, width, height) {
  const made = element("span", { className: "frame", "aria-hidden": "true" });
  const place = { left: left / width, top: top / height, width: (right - left) / width, height: (bottom - top) / height };
  for (const [side, share] of Object.entries(place)) made.style[side] = `${100 * share}%`;
  return made;
}
