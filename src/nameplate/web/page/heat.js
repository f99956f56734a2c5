/** The heat map of a photo: which regions speak for the nameplate, and a box around the strongest. */

import { place } from "./boxes.js";
import { element } from "./element.js";
import { say } from "./language.js";

/** Make a figure from the answer of /v1/identify?heatmap=true. */
export function heatFigure({ nameplate, region, width, height, png }) {
  const image = element("img", { src: `data:image/png;base64,${png}`, alt: say("heatOf", { name: nameplate }) });
  return element(
    "figure",
    {},
    element("div", { className: width >= height ? "photo wide" : "photo" }, element("div", { className: "framed" }, image, region ? place(element("span", { className: "frame", "aria-hidden": "true" }), region, [width, height]) : null)),
    element("figcaption", { className: "soft", textContent: say(region ? "heatLegend" : "heatPlain", { name: nameplate }) }),
  );
}
