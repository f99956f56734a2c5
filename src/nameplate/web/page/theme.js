/** The theme: light, dark, or the system's. It is set before the first paint, so that nothing flashes. */

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
