/** Single-key shortcuts. Pages say what their keys do while they are shown; later pages win. */
import { useLayoutEffect, useRef } from "app/html";
import { shortcuts } from "app/state";

/** @typedef {Record<string, (event: KeyboardEvent) => void>} Keys */

/** @type {{current: Keys}[]} */
const stack = [];

/** The map that the help shows: what is pressed, and what it does. */
export const KEY_MAP = [
  ["Everywhere", [["/", "search"], ["Ctrl or ⌘ K", "commands"], ["?", "this help"], ["Esc", "close"]]],
  ["Of a dictionary", [["V", "overview"], ["S", "sphere"], ["M", "map"], ["R", "regions"], ["T", "live text"], ["G", "growth"]]],
  ["Of a region", [["O", "open its page"], ["P", "pin to the tray"], ["J K", "next, previous"], ["U D", "coarser region, first finer one"], ["[ ]", "nearer, farther neighbour"], ["L", "label it"], ["C", "copy as Python"]]],
  ["In a picture", [["← → ↑ ↓", "turn or move"], ["+ −", "nearer, farther"], ["0", "start view"], ["Enter", "open the region"]]],
  ["In a strip of tokens", [["← →", "token by token"], ["Home End", "first, last"], ["Enter", "show its region"]]],
];

const typing = (target) => target instanceof HTMLElement &&
  (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

export function startKeys() {
  addEventListener("keydown", (event) => {
    const chord = (event.ctrlKey || event.metaKey) && !event.altKey;
    const name = chord ? `mod+${event.key.toLowerCase()}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.defaultPrevented || event.altKey || (!chord && typing(event.target))) return;
    if (document.querySelector("dialog[open]") && !chord) return;
    if (!chord && event.key.length === 1 && !shortcuts.peek()) return;
    for (let i = stack.length - 1; i >= 0; i--) {
      const does = stack[i].current[name];
      if (does) {
        does(event);
        event.preventDefault();
        return;
      }
    }
  });
}

/**
 * Keys of what is shown; they hold as soon as it is.
 * @param {Keys} keys
 * @param {{under?: boolean}} [place] The frame's keys lie under those of every page.
 */
export function useKeys(keys, { under = false } = {}) {
  const held = useRef(keys);
  held.current = keys;
  useLayoutEffect(() => {
    if (under) stack.unshift(held);
    else stack.push(held);
    return () => {
      stack.splice(stack.indexOf(held), 1);
    };
  }, []);
}
