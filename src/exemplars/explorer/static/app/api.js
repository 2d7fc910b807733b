/** All that is asked of the server (or, in an exported file, of the answers it carries). */
import { signal, useLayoutEffect, useState } from "app/html";
import { readLines } from "app/ndjson";
import { embedded } from "app/embedded";

const ROOT = new URL("api/v1", document.baseURI.replace(/[^/]*(#.*)?$/, "")).href;
const TOKEN = "exemplars-token";

/** Whether the server answers; `tries` counts reconnections, so that pages ask again. */
export const server = signal({ up: true, tries: 0 });

export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Takes the token out of the address (`#t=…`) into the storage of this origin.
 * @returns {boolean} Whether there was one. */
export function keepToken() {
  const found = /^#t=([\w-]+)(?:&(.*))?$/.exec(location.hash);
  if (!found) return false;
  localStorage.setItem(TOKEN, found[1]);
  history.replaceState(null, "", found[2] ? "#" + found[2] : "#/");
  return true;
}

async function ask(path, { method = "GET", body, signal: abort, headers = {} } = {}) {
  const token = localStorage.getItem(TOKEN);
  const sent = { ...headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(ROOT + path, {
      method, headers: sent, signal: abort, cache: method === "GET" ? "default" : "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    server.value = { ...server.peek(), up: false };
    throw new ApiError(0, "the server does not answer");
  }
  if (!server.peek().up) server.value = { up: true, tries: server.peek().tries + 1 };
  if (!response.ok) throw new ApiError(response.status, await reason(response));
  return response;
}

async function reason(response) {
  try {
    const { error, errors } = await response.json();
    if (response.status === 401) return "the token is missing or old: open the link that `exemplars explore` printed";
    return String(error ?? errors?.[0] ?? response.statusText);
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** What is being prepared on the server, for the status line; null when nothing is. */
export const preparing = signal(null);

/** Asks until the answer is ready: a cold view cache answers 202 while it is being made. */
async function askReady(path, options) {
  while (true) {
    const response = await ask(path, options);
    if (response.status !== 202) {
      preparing.value = null;
      return response;
    }
    preparing.value = await response.json();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** @param {string} path Below /api/v1, with its query. */
export async function getJson(path, options = {}) {
  if (embedded) return embedded.json(path);
  return (await askReady(path, options)).json();
}

/** @returns {Promise<ArrayBuffer>} */
export async function getBinary(path, options = {}) {
  if (embedded) return embedded.binary(path);
  return (await askReady(path, options)).arrayBuffer();
}

export async function send(method, path, body, options = {}) {
  if (embedded) return embedded.post(path, body);
  return (await ask(path, { ...options, method, body })).json();
}

/** Streams the lines of an answer; abort the signal and the server stops its work. */
export async function* streamLines(path, body, abort) {
  if (embedded) {
    yield* embedded.lines(path, body);
    return;
  }
  const response = await ask(path, { method: "POST", body, signal: abort });
  try {
    yield* readLines(response.body);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    server.value = { ...server.peek(), up: false };
    throw new ApiError(0, "the server stopped answering in mid-stream");
  }
}

/** Asks again whether the server is there. */
export async function reconnect() {
  try {
    await ask("/app");
  } catch (error) {
    if (error.status) throw error;
  }
}

const KEPT = 300;
/** @type {Map<string, Promise<any>>} */
const answers = new Map();

/** The answer to a GET, asked once: answers are of one fingerprint and do not change. */
export function cached(path) {
  let answer = answers.get(path);
  if (!answer) {
    answer = getJson(path);
    answer.catch(() => answers.delete(path));
    answers.set(path, answer);
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
  }
  return answer;
}

export function forget(prefix) {
  for (const path of answers.keys()) if (path.startsWith(prefix)) answers.delete(path);
}

/** @typedef {{data: any, error: Error | null, loading: boolean}} Answer */

/** A value that is loaded; the last one stays while the next is on its way.
 * @param {string | null} key Null asks for nothing. @param {(key: string) => Promise<any>} load
 * @returns {Answer} */
export function useLoaded(key, load) {
  const [state, setState] = useState({ key: null, data: null, error: null, loading: key !== null });
  const { tries } = server.value;
  useLayoutEffect(() => { // before the browser paints: an answer is under way that much earlier
    if (key === null) return undefined;
    let current = true;
    setState((s) => ({ ...s, loading: true, error: null }));
    load(key).then(
      (data) => current && setState({ key, data, error: null, loading: false }),
      (error) => current && error.name !== "AbortError" && setState({ key, data: null, error, loading: false }),
    );
    return () => {
      current = false;
    };
  }, [key, tries]);
  return state;
}

/** @param {string | null} path @returns {Answer} */
export const useGet = (path) => useLoaded(path, cached);
