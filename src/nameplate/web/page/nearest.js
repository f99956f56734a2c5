/** The names that are most like what somebody wrote. */

const LEAST = 0.3; // share of common letter triples below which a name is another one

/** At most `most` of the names, the most alike first. */
export function nearest(written, names, most = 4) {
  const sought = triples(written);
  const scored = names.map((name) => [likeness(sought, triples(name)), name]).filter(([score]) => score >= LEAST);
  return scored.sort(([one], [other]) => other - one).slice(0, most).map(([, name]) => name);
}

function triples(text) {
  const padded = `  ${text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "  ").trim()} `;
  return new Set(Array.from({ length: Math.max(0, padded.length - 2) }, (_, place) => padded.slice(place, place + 3)));
}

/** How much of what was written is in a name, and a little of how much of the name was written. */
function likeness(written, name) {
  const both = [...written].filter((each) => name.has(each)).length;
  return 0.8 * (both / Math.max(1, written.size)) + 0.2 * (both / Math.max(1, name.size));
}
