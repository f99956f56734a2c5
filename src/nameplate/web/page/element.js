/** Elements of the page. Text is always inserted as text, never as markup, so that no file name can be a script. */

export const byId = (id) => document.getElementById(id);

/** Make an element with properties or attributes, and children: elements, texts, or nothing. */
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

/** Replace an element by another; the focus moves to the element with the same data-role. */
export function replace(old, made) {
  const role = old.contains(document.activeElement) ? document.activeElement.dataset.role : undefined;
  old.replaceWith(made);
  if (role !== undefined) (made.querySelector(`[data-role="${role}"]`) ?? made).focus();
  return made;
}

/** Announce a text to screen readers, without moving the focus. */
export function announce(text) {
  byId("status").textContent = text;
}
