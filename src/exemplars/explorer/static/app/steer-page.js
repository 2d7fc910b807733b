/** To come. */
import { html } from "app/html";

export const SteerPage = () => html`<div class="page"><h1>Steer</h1></div>`;
