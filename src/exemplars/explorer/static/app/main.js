/** Starts the page: token, theme, router, keys; then the page that the address names. */
import { html, render, useEffect } from "app/html";
import { keepToken } from "app/api";
import { about, aboutError, dictionaries, loadAbout, startTheme } from "app/state";
import { route, startRouter } from "app/router";
import { startKeys } from "app/keys";
import { Frame } from "app/frame";
import { Problem, Waiting, useGetDictionary } from "app/dictionary";
import { Home } from "app/home";
import { Overview } from "app/overview";
import { Regions } from "app/regions";
import { RegionPage } from "app/region";
import { SpherePage } from "app/sphere-page";
import { MapPage } from "app/map-page";
import { TextPage } from "app/text-page";
import { SteerPage } from "app/steer-page";
import { GrowthPage } from "app/growth-page";
import { ResolutionPage } from "app/resolution-page";
import { DriftPage } from "app/drift-page";
import { FrozenDrift, FrozenSteer, FrozenText } from "app/frozen";
import { NotesPage } from "app/notes-page";
import { AboutPage } from "app/about-page";

const OF_DICTIONARY = {
  "": Overview, sphere: SpherePage, map: MapPage, regions: Regions, r: RegionPage, text: TextPage,
  steer: SteerPage, growth: GrowthPage, resolution: ResolutionPage,
};

/** Pages that an exported file has in the place of those that need a model. */
const FROZEN = { text: ["traces", FrozenText], steer: ["sessions", FrozenSteer] };

function Page() {
  const { path } = route.value;
  const [first, second, third = ""] = path;
  if (!first) return html`<${Home} />`;
  if (first === "notes") return html`<${NotesPage} />`;
  if (first === "about") return html`<${AboutPage} />`;
  if (first === "drift" && about.value.export?.drift) return html`<${FrozenDrift} />`;
  if (first === "drift" && path[2]) return html`<${DriftPage} key=${path.join("/")} a=${second} b=${path[2]} />`;
  const Chosen = first === "d" && second ? OF_DICTIONARY[third] : null;
  if (Chosen) return html`<${OfDictionary} key=${second} d=${second} page=${Chosen} part=${third} id=${path[3]} />`;
  return html`<div class="page narrow"><h1>There is no such page</h1><p>The address ends in <code>${path.join("/")}</code>. <a href="#/">All dictionaries</a></p></div>`;
}

function OfDictionary({ d, page: Chosen, part, id }) {
  const answer = useGetDictionary(d);
  if (!dictionaries.value.some((x) => x.slug === d)) {
    return html`<div class="page narrow"><h1>No dictionary is open as <code>${d}</code></h1><p><a href="#/">The dictionaries that are open</a></p></div>`;
  }
  if (answer.error) return html`<div class="page"><${Problem} error=${answer.error} /></div>`;
  if (!answer.data) return html`<div class="page"><${Waiting} what="Opening the dictionary" /></div>`;
  const [kind, Frozen] = FROZEN[part] ?? [];
  const Shown = answer.data.frozen?.[kind]?.length ? Frozen : Chosen;
  return html`<${Shown} key=${d} d=${answer.data} id=${id} />`;
}

function App() {
  useEffect(() => { loadAbout(); }, []);
  if (aboutError.value && !about.value) {
    return html`<main class="page narrow"><h1>exemplars</h1><${Problem} error=${aboutError.value} again=${loadAbout} /></main>`;
  }
  if (!about.value) return html`<p class="boot">Opening the dictionaries …</p>`;
  return html`<${Frame}><${Page} /></${Frame}>`;
}

keepToken();
addEventListener("hashchange", () => keepToken() && loadAbout()); // before the router, which then sees the address without it
startTheme();
startRouter();
startKeys();
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
