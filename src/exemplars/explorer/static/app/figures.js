/** Figures to keep: a chart as SVG, a picture as PNG at twice its size, with legend and caption. */
import { html } from "app/html";
import { announced } from "app/state";
import { gpu } from "app/gl";
import { css } from "app/tables";
import { plain } from "app/text";
import { columnName, writeColumn } from "app/format";
import { Picture } from "app/picture";

const FONT = "Inter, Segoe UI, Roboto, Helvetica Neue, Liberation Sans, Arial, sans-serif";
const INK = "#1d1e21", SOFT = "#585b62", MARGIN = 14, LINE = 16;
/** What of the stylesheet a chart depends on; all may stand as attributes of SVG. */
const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-opacity", "opacity", "font-size", "font-weight", "text-anchor"];

/** @typedef {{of: any | any[], name: string, title?: string, said?: string, legend?: [string, string][]}} About
 *   The dictionary, or two; a name for the file; what the caption says; swatches of colour and their meaning. */

/** Title, what is shown, and of which dictionary, in lines.
 * @param {About} about @returns {string[]} */
export function captionOf({ of, title, said }) {
  const each = [of].flat().map((d, i, all) => `${all.length > 1 ? `${"AB"[i]}: ` : ""}${plain(d.title || d.slug, 80)} · fingerprint ${d.fingerprint}`);
  return [title, said].filter(Boolean).map((line) => printable(plain(line, 300))).concat(each.map(printable));
}

/** Without what XML cannot say. */
const printable = (text) => text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");

const fileName = ({ of, name }, kind) => `${[...[of].flat().map((d) => d.slug), name].join("-").replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 120)}.${kind}`;

export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  announced.value = `Saved ${name}.`;
}

/** A place out of sight with the colours of paper, whatever the theme. */
function onPaper(element) {
  const paper = document.createElement("div");
  paper.className = "paper";
  paper.setAttribute("aria-hidden", "true");
  paper.append(element);
  document.body.append(paper);
  return paper;
}

/** An element beside another: of the same kind of document. */
const made = (like, name, attributes, text) => {
  const element = document.createElementNS(like.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
};

/** A chart of the page as a file of its own: white, its colours its own, with legend and caption.
 * @param {SVGSVGElement} chart @param {About} about @returns {string} */
export function standaloneSvg(chart, about) {
  const box = chart.getBoundingClientRect();
  const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
  const clone = /** @type {SVGSVGElement} */ (chart.cloneNode(true));
  const paper = onPaper(clone);
  clone.setAttribute("width", String(width));
  clone.setAttribute("height", String(height));
  for (const element of [clone, ...clone.querySelectorAll("*")]) {
    const style = getComputedStyle(element);
    for (const key of KEPT) {
      const value = style.getPropertyValue(key);
      if (element !== clone || /^font|fill$/.test(key)) element.setAttribute(key, value);
    }
  }
  for (const element of [clone, ...clone.querySelectorAll("*")]) for (const name of ["class", "style", "role", "tabindex"]) element.removeAttribute(name);
  paper.remove();
  for (const [key, value] of [["x", MARGIN], ["y", MARGIN], ["overflow", "visible"]]) clone.setAttribute(key, String(value));
  const lines = captionOf(about), legend = about.legend ?? [];
  const below = MARGIN + height + 10, whole = below + (legend.length ? LINE + 4 : 0) + lines.length * LINE + MARGIN;
  const root = made(chart, "svg", { width: width + 2 * MARGIN, height: whole, viewBox: `0 0 ${width + 2 * MARGIN} ${whole}`, "font-family": FONT, "font-size": 12 });
  root.append(made(chart, "title", {}, lines[0]), made(chart, "rect", { width: "100%", height: "100%", fill: "#ffffff" }), clone);
  let x = MARGIN;
  for (const [colour, text] of legend) {
    root.append(made(chart, "rect", { x, y: below, width: 10, height: 10, fill: colour }), made(chart, "text", { x: x + 15, y: below + 9, fill: SOFT, "font-size": 11 }, printable(plain(text, 60))));
    x += 30 + text.length * 6.5;
  }
  lines.forEach((line, i) => root.append(made(chart, "text", { x: MARGIN, y: below + (legend.length ? LINE + 4 : 0) + 11 + i * LINE, fill: i ? SOFT : INK, "font-weight": i ? 400 : 600 }, line)));
  return new XMLSerializer().serializeToString(root);
}

/** @param {Element} within What holds the chart. @param {About} about */
export function saveChart(within, about) {
  const chart = /** @type {SVGSVGElement | null} */ (within.querySelector("svg.chart"));
  if (!chart) {
    announced.value = "There is no chart to save yet.";
    return;
  }
  download(new Blob([standaloneSvg(chart, { title: chart.getAttribute("aria-label"), ...about })], { type: "image/svg+xml" }), fileName(about, "svg"));
}

/** The picture drawn anew at twice its size in the colours of paper. @returns {Promise<HTMLCanvasElement>} */
function drawnTwice(picture) {
  const canvas = document.createElement("canvas");
  canvas.style.width = `${picture.width}px`;
  canvas.style.height = `${picture.height}px`;
  const paper = onPaper(canvas);
  return new Promise((resolve) => {
    const copy = new Picture(canvas, picture.scene, { onDrawn: () => {
      copy.close();
      paper.remove();
      resolve(canvas);
    } }, 2);
    Object.assign(copy, { marks: { ...picture.marks, over: null }, filter: picture.filter });
    copy.colourBy(picture.colouring);
  });
}

/** @param {Picture} picture @param {About} about @param {{text: string, at: number[], named?: boolean}[]} labels Names that stand on it. */
export async function savePicture(picture, about, labels = []) {
  if (!gpu() || !picture?.colouring) {
    announced.value = "There is no picture to save.";
    return;
  }
  const { width, height } = picture, lines = captionOf(about);
  const drawn = await drawnTwice(picture);
  const sheet = document.createElement("canvas");
  sheet.width = 2 * (width + 2 * MARGIN);
  sheet.height = 2 * (height + 2 * MARGIN + 44 + lines.length * LINE);
  const c = sheet.getContext("2d");
  c.fillStyle = "#ffffff";
  c.fillRect(0, 0, sheet.width, sheet.height);
  c.scale(2, 2);
  c.drawImage(drawn, MARGIN, MARGIN, width, height);
  c.textAlign = "center";
  for (const { text, at, named } of labels) {
    c.font = `${named ? 700 : 400} 11.5px ${FONT}`;
    const wide = c.measureText(text).width + 8;
    c.fillStyle = "rgb(255 255 255 / 0.84)";
    c.fillRect(MARGIN + at[0] - wide / 2, MARGIN + at[1] - 8, wide, 16);
    c.fillStyle = INK;
    c.fillText(text, MARGIN + at[0], MARGIN + at[1] + 4);
  }
  c.textAlign = "left";
  legendOn(c, scaleOf(picture.scene.shown ?? picture.colouring), MARGIN, height + MARGIN + 12);
  lines.forEach((line, i) => {
    c.font = `${i ? 400 : 600} 12px ${FONT}`;
    c.fillStyle = i ? SOFT : INK;
    c.fillText(line, MARGIN, height + MARGIN + 56 + i * LINE, width);
  });
  const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  download(blob, fileName(about, "png"));
}

/** @typedef {{name: string, table: string, numbers: string[], unknown?: boolean}} Scale */

/** @param {import("app/colour").Colouring} of @returns {Scale} */
export function scaleOf(of) {
  const middle = of.log ? Math.expm1((Math.log1p(of.lo) + Math.log1p(of.hi)) / 2) : (of.lo + of.hi) / 2;
  const said = (x) => writeColumn(of.column, of.log ? Math.round(x) : x);
  return { name: columnName(of.column), table: of.table, numbers: [`${of.clipped ? "≤ " : ""}${said(of.lo)}`, said(middle), `${of.clipped ? "≥ " : ""}${said(of.hi)}`], unknown: of.unknown > 0 };
}

/** @param {CanvasRenderingContext2D} c @param {Scale} scale */
function legendOn(c, scale, x, y) {
  c.font = `11px ${FONT}`;
  c.fillStyle = SOFT;
  c.fillText(scale.name, x, y);
  for (let i = 0; i < 176; i++) {
    c.fillStyle = css(scale.table, Math.round((i / 175) * 254));
    c.fillRect(x + i, y + 5, 1.2, 8);
  }
  c.fillStyle = SOFT;
  ["left", "center", "right"].forEach((align, i) => {
    c.textAlign = /** @type {CanvasTextAlign} */ (align);
    c.fillText(scale.numbers[i], x + 88 * i, y + 25);
  });
  c.textAlign = "left";
  if (!scale.unknown) return;
  c.fillStyle = "#b9b5ab";
  c.fillRect(x + 190, y + 5, 9, 9);
  c.fillStyle = SOFT;
  c.fillText("unknown", x + 204, y + 13);
}

export const SaveButton = ({ onSave, what, ...rest }) => html`<button type="button" class="quiet save" aria-label=${`Save figure: ${what}`} onClick=${onSave} ...${rest}>save figure</button>`;
