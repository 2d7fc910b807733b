/** What the whole page shares: the open dictionaries, hover and selection, the tray, preferences. */
import { computed, effect, signal } from "app/html";
import { cached, getBinary, getJson } from "app/api";
import { readSafetensors } from "app/safetensors";
import { route } from "app/router";

/** The answer to GET app, or null until it is there. */
export const about = signal(null);
export const aboutError = signal(null);

export async function loadAbout() {
  try {
    about.value = await getJson("/app");
    aboutError.value = null;
  } catch (error) {
    aboutError.value = error;
  }
}

export const dictionaries = computed(() => about.value?.dictionaries ?? []);
/** The slug in the address; null on pages that are of no dictionary. */
export const slug = computed(() => (route.value.path[0] === "d" ? route.value.path[1] ?? null : null));
export const current = computed(() => dictionaries.value.find((d) => d.slug === slug.value) ?? null);
export const can = (what) => Boolean(about.value?.capabilities?.[what]);
export const whyNot = (what) => about.value?.reasons?.[what] ?? "not available here";

/** @typedef {{d: string, id: number}} Pointed */
/** @type {import("@preact/signals").Signal<Pointed | null>} */
export const hovered = signal(null);
/** @type {import("@preact/signals").Signal<Pointed | null>} */
export const selected = signal(null);
export const same = (p, d, id) => p !== null && p.d === d && p.id === id;
export const hover = (d, id) => {
  const now = hovered.peek();
  if (id === null ? now !== null : !same(now, d, id)) hovered.value = id === null ? null : { d, id };
};
export const select = (d, id) => {
  selected.value = id === null ? null : { d, id };
};

/** Something to say to a screen reader, politely. */
export const announced = signal("");

function stored(key, start) {
  let value = start;
  try {
    value = JSON.parse(localStorage.getItem(key)) ?? start;
  } catch {
    localStorage.removeItem(key);
  }
  const kept = signal(value);
  effect(() => localStorage.setItem(key, JSON.stringify(kept.value)));
  return kept;
}

export const MOST_PINNED = 12;
/** @typedef {{d: string, id: number, token: string, label: string | null}} Pin */
/** @type {import("@preact/signals").Signal<Pin[]>} */
export const tray = stored("exemplars-tray", []);
export const isPinned = (d, id) => tray.value.some((p) => p.d === d && p.id === id);

/** @param {Pin} pin */
export function togglePin(pin) {
  const pins = tray.peek();
  const there = pins.some((p) => p.d === pin.d && p.id === pin.id);
  if (!there && pins.length >= MOST_PINNED) {
    announced.value = `The tray holds ${MOST_PINNED} regions; take one out first.`;
    return;
  }
  tray.value = there ? pins.filter((p) => !(p.d === pin.d && p.id === pin.id)) : [...pins, pin];
  announced.value = there ? `Region ${pin.id} taken out of the tray.` : `Region ${pin.id} pinned.`;
}

/** "auto" follows the system. */
export const theme = stored("exemplars-theme", "auto");
export const shortcuts = stored("exemplars-shortcuts", true);
export const dark = signal(false);
/** Which order a person last listed regions in, so that next and previous follow it. */
export const lastList = signal({ d: null, ids: [] });

const system = matchMedia("(prefers-color-scheme: dark)");
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
/** Whether the reader asked for no motion. */
export const calm = signal(stillness.matches);
stillness.addEventListener("change", () => { calm.value = stillness.matches; });

export function startTheme() {
  const apply = () => {
    dark.value = theme.value === "dark" || (theme.value === "auto" && system.matches);
    document.documentElement.dataset.theme = dark.value ? "dark" : "light";
  };
  effect(apply);
  system.addEventListener("change", apply);
}

/** The dictionary's own record. */
export const loadDictionary = (d) => cached(`/d/${encodeURIComponent(d)}`);

/** @type {Map<string, Promise<any>>} */
const columnSets = new Map();

/** All columns of a dictionary as typed arrays, or one that is made when it is asked for.
 * @param {{slug: string, fingerprint: string}} of @param {string | null} [name] */
export function loadColumns({ slug: d, fingerprint }, name = null) {
  const key = `/d/${encodeURIComponent(d)}/columns/${fingerprint}${name === null ? "" : `?names=${name}`}`;
  if (!columnSets.has(key)) {
    const loading = getBinary(key).then((buffer) => {
      const { tensors } = readSafetensors(buffer);
      return Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.data]));
    });
    loading.catch(() => columnSets.delete(key));
    columnSets.set(key, loading);
  }
  return columnSets.get(key);
}

export const regionPath = (d, id, extra) =>
  `/d/${encodeURIComponent(d)}/regions/${id}${extra ? `?_extra=${extra}` : ""}`;

/** One region's row, for cards. */
export const loadRegion = (d, id) => cached(regionPath(d, id));
