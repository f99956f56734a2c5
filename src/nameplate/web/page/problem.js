/** Problems in a sentence, which says what the user can do. What the service says in detail is for programmers. */

import { announce, button, element } from "./element.js";
import { say, sayProblem } from "./language.js";

const POINTLESS = ["not-allowed", "not-found", "too-large", "not-a-photo", "unreadable", "unprocessable", "bad-request"];

/** A box for a refusal. `again` tries again, after the time that the service names; `close` removes the box. */
export function problemBox(refusal, { again = null, close = null } = {}) {
  const offer = again && !POINTLESS.includes(refusal.kind);
  return element(
    "div",
    { className: "problem", role: "alert" },
    element("p", { textContent: sayProblem(refusal.kind, { status: refusal.status ?? "?" }) }),
    element(
      "div",
      { className: "row" },
      offer ? againButton(refusal, again) : null,
      close ? button(say("dismiss"), close, { className: "quiet" }) : null,
    ),
  );
}

/** A button that counts down until it may be pressed. */
function againButton(refusal, again) {
  const until = (refusal.until ??= Date.now() + 1000 * (refusal.retryAfter ?? 0)); // a box drawn anew goes on counting
  const made = button("", () => made.getAttribute("aria-disabled") !== "true" && again(), { "data-role": "again" });
  function tick() {
    const left = Math.ceil((until - Date.now()) / 1000);
    made.textContent = left > 0 ? say("againIn", { count: left }) : say("again");
    made.setAttribute("aria-disabled", String(left > 0));
    return left > 0;
  }
  if (tick()) {
    const timer = setInterval(() => {
      if (tick() && made.isConnected) return;
      clearInterval(timer);
      if (made.isConnected) announce(say("againNow"));
    }, 250);
  }
  return made;
}
