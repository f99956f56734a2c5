/** Elements of the page. Text goes in as text, never as markup. */

export const byId = (id) => document.getElementById(id);

/** An element with properties or attributes, and children: elements, texts, or nothing. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button; `role` names it for `replace`. */
export const button = (text, action, properties = {}) =>
  element("button", { type: "button", textContent: text, onclick: action, ...properties });

/** Put one element in another's place; the focus stays on what has the same data-role. */
export function replace(old, made) {
  const role = old.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
  old.replaceWith(made);
  if (role !== undefined) (made.querySelector(`[data-role="${role}"]`) ?? made).focus();
  return made;
}

/** Tell a screen reader, without moving the focus. */
export function announce(text) {
  byId("status").textContent = text;
}
