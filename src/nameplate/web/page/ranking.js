/** Nameplates with their probabilities, as bars. */

import { element } from "./element.js";
import { percent } from "./language.js";

/** A bar whose width is a share of its column. Screen readers skip it, since its number is beside it. */
export function bar(share, tone = "") {
  const filled = element("span", { className: "filled" });
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("span", { className: `bar ${tone}`, "aria-hidden": "true" }, filled);
}

const LEAST = 0.005; // a smaller probability says nothing to people

/** An ordered list of {nameplate, confidence}; those in `candidates` stand out, and the first of them is the headline. */
export function ranking(top, candidates, label) {
  const shown = top.filter(({ confidence }, place) => place === 0 || confidence >= LEAST);
  const rows = shown.map(({ nameplate, confidence }, place) =>
    element(
      "li",
      { className: candidates.includes(nameplate) ? (place === 0 ? "left best" : "left") : "" },
      element("span", { className: "name", textContent: nameplate }),
      element("span", { className: "number", textContent: percent(confidence) }),
      bar(confidence),
    ),
  );
  return element("ol", { className: "ranking", "aria-label": label }, ...rows);
}
