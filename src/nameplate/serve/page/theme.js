/** Light, dark, or as the system: set before the first paint. */

import { forever } from "./kept.js";

export const theme = () => forever.read("theme") ?? "auto";

export function setTheme(name) {
  forever.write("theme", name === "auto" ? null : name);
  apply(name);
}

function apply(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

apply(theme());
