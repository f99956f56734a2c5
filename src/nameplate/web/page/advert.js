/** The card of an advert: the claim, the verdict, and each photo's contribution. */

import { boxed } from "./boxes.js";
import { verdictText } from "./card.js";
import { element } from "./element.js";
import { either, has, percent, say } from "./language.js";
import { bar } from "./ranking.js";

const TONES = { accept: "good", reject: "bad", unsure: "so-so" };
const NAMED = 4;

export function advertCard({ found, thumbs, names, sizes, model }) {
  const { claimed, verdict, score } = found;
  return element(
    "article",
    { className: "card advert", "aria-label": claimed },
    element("h3", { className: "nameplate", tabIndex: -1, textContent: say(`claim.${verdict}`, { claimed }) }),
    element(
      "p",
      { className: `verdict ${TONES[verdict]}` },
      score === null ? say("noScore") : `${say("score")}: ${percent(score)}`,
      score === null ? null : bar(score, TONES[verdict]),
    ),
    has("claimCode", found.code) ? element("p", { textContent: say(`claimCode.${found.code}`) }) : null,
    element("p", { className: "soft", textContent: say(`claimAdvice.${verdict}`) }),
    found.nameplates.length === 1 && found.nameplates[0] === claimed ? null : element("p", { className: "soft", textContent: meant(found.nameplates) }),
    element("h4", { textContent: say("parts") }),
    element("ul", { className: "parts" }, ...found.photos.map((row, place) => part(row, thumbs[place], names[place], sizes?.[place]))),
    element("p", { className: "soft by", textContent: say("by", { model }) }),
  );
}

function meant(nameplates) {
  const more = nameplates.length - NAMED;
  const first = nameplates.slice(0, NAMED);
  const names = more > 0 ? say("alsoMore", { names: first.join(", "), count: more }) : either(first);
  return say("meant", { count: nameplates.length, names });
}

function part(row, thumb, name, size) {
  const picture = thumb ? element("img", { src: thumb, alt: "" }) : element("span", { className: "nothing", "aria-hidden": "true", textContent: "?" });
  const named = row.verdict === "answer" ? row.nameplate : verdictText(row);
  return element(
    "li",
    { className: row.score === null ? "left-out" : "" },
    row.box && size && thumb ? boxed(picture, { row, size }) : picture,
    element("span", { className: "name" }, name, element("span", { className: "soft", textContent: named })),
    element("span", { className: "number", textContent: row.score === null ? say("leftOut") : percent(row.score) }),
    row.score === null ? null : bar(row.score),
  );
}
