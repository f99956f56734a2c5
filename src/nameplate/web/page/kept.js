/** The browser's storage. If the browser forbids it, nothing is stored and everything else works. */

function keeper(name) {
  return {
    read(key) {
      try {
        return window[name].getItem(`nameplate.${key}`);
      } catch {
        return null;
      }
    },
    /** Whether there was room for it; null forgets. */
    write(key, value) {
      try {
        if (value === null) window[name].removeItem(`nameplate.${key}`);
        else window[name].setItem(`nameplate.${key}`, value);
        return true;
      } catch {
        return false;
      }
    },
  };
}

/** Until the user clears it: language and theme. */
export const forever = keeper("localStorage");
/** Until the tab is closed: history and key. */
export const thisVisit = keeper("sessionStorage");
