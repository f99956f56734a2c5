/** Nameplates with their probabilities, as bars. */

import { element } from "./element.js";
import { percent } from "./language.js";

/** A bar whose width is a share of its column. Screen readers skip it, since its number is beside it. */
export function bar(share, tone = "") {
  const filled = element("span", { className: "filled" });
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("span", { className: `bar ${tone}`, "aria-hidden": "true" }, filled);
}

/** An ordered list of {nameplate, confidence}; those in `candidates` stand out. */
export function ranking(top, candidates, label) {
  const rows = top.map(({ nameplate, confidence }) =>
    element(
      "li",
      { className: candidates.includes(nameplate) ? "left" : "" },
      element("span", { className: "name", textContent: nameplate }),
      element("span", { className: "number", textContent: percent(confidence) }),
      bar(confidence),
    ),
  );
  return element("ol", { className: "ranking", "aria-label": label }, ...rows);
}
