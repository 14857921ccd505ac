/**
 * @file The report of a training run: one HTML file that can be mailed, archived and printed. It asks for nothing from
 * anywhere: images are data URIs, the style sheet is inside, there are no scripts (the filters are radio buttons
 * that the style sheet reads), and its own security policy forbids the rest.
 *
 * Decides: the page's parts and their order. Leaves to others: escaping (markup.ts), the curve (chart.ts), the metrics
 * (metrics-table.ts), looks (report.css).
 */
import { readFile } from "node:fs/promises";
import { type LossPoint, lossChart } from "./chart.ts";
import { writeAtomic } from "./files.ts";
import { html, Markup } from "./markup.ts";
import { metricsTable } from "./metrics-table.ts";
import { plain } from "./numbers.ts";

export interface ReportItem {
  /** An encoded PNG or WebP file. */
  readonly png: Uint8Array;
  readonly predicted: string;
  readonly truth: string;
  readonly correct: boolean;
  /** Who drew it. */
  readonly source: string;
}

export interface Report {
  readonly title: string;
  /** The figures at the top; the first is the one that matters. */
  readonly summary: readonly {
    readonly label: string;
    readonly value: string;
    readonly note?: string;
  }[];
  readonly loss: readonly LossPoint[];
  readonly sections: readonly {
    readonly title: string;
    readonly note: string;
    readonly items: readonly ReportItem[];
  }[];
  /** Nested objects of numbers; see metrics-table.ts for intervals. */
  readonly metrics: object;
  readonly settings: Readonly<Record<string, string | number>>;
  readonly attribution: readonly {
    readonly name: string;
    readonly author: string;
    readonly licence: string;
    readonly url: string;
    readonly images: number;
  }[];
}

/** Writes the page; the path holds what it held before or the whole page, at every moment. */
export async function writeReport(path: string, report: Report): Promise<void> {
  const css = await readFile(new URL("report.css", import.meta.url), "utf8");
  await writeAtomic(path, page(report, css));
}

/** Images of a section that are shown at once; the rest is one click away. */
const SHOWN = 60;

function page(report: Report, css: string): string {
  const { title, summary, sections, settings, attribution } = report;
  const chapters = [
    { id: "loss", title: "Loss", body: lossChart(report.loss) },
    ...sections.map((section, i) => ({
      id: `images-${i + 1}`,
      title: section.title,
      body: gallery(section, `images-${i + 1}`),
    })),
    { id: "metrics", title: "Metrics", body: metricsTable(report.metrics) },
    { id: "settings", title: "Settings", body: settingsList(settings) },
    { id: "attribution", title: "Image credits", body: credits(attribution) },
  ];
  return html`${new Markup("<!doctype html>")}
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${title}</title>
<link rel="icon" href="data:image/svg+xml,${encodeURIComponent(ICON)}">
<style>${new Markup(css)}</style>
</head>
<body>
${SYMBOLS}
<header>
${SUNRISE}
<div class="wide"><p class="brand">Hinode</p><h1>${title}</h1></div>
</header>
<main class="wide">
<dl class="summary">${summary.map(
    ({ label, value, note }) =>
      html`<div><dt>${label}</dt><dd>${value}</dd>${note && html`<dd class="note">${note}</dd>`}</div>\n`,
  )}</dl>
<nav aria-label="Parts of this page">${chapters.map(
    (c) => html`<a href="#${c.id}">${c.title}</a>\n`,
  )}</nav>
${chapters.map(
  ({ id, title, body }) =>
    html`<section id="${id}" aria-labelledby="${id}-title">\n<h2 id="${id}-title">${title}</h2>\n${body}\n</section>\n`,
)}
</main>
<footer class="wide"><p>Made by Hinode, a deep-learning framework in pure TypeScript.</p></footer>
</body>
</html>
`.text;
}

function gallery({ note, items }: Report["sections"][number], id: string): Markup {
  const right = items.filter((item) => item.correct).length;
  const cards = (list: readonly ReportItem[]) => html`<ul class="cards">${list.map(card)}</ul>`;
  const choice = (shows: string, label: string, count: number) =>
    html`<label><input type="radio" name="${id}-filter" class="only-${shows}"${
      shows === "all" && CHECKED
    }><span>${label} <b>${plain(count)}</b></span></label>\n`;
  const rest = items.length - SHOWN;
  return html`<p class="note">${note}</p>
<fieldset class="filter"><legend class="spoken">Show</legend>
${choice("all", "All", items.length)}${choice("right", "Right", right)}${choice("wrong", "Wrong", items.length - right)}</fieldset>
${cards(items.slice(0, SHOWN))}${
  rest > 0 &&
  html`\n<details><summary>Show the other ${plain(rest)}</summary>\n${cards(items.slice(SHOWN))}</details>`
}`;
}

function card({ png, predicted, truth, correct, source }: ReportItem): Markup {
  const { type, width, height } = imageHeader(png);
  // Small pictures are what the model saw: enlarge them with their pixels visible.
  const pixelated = width <= 64 && new Markup(' class="pixels"');
  const verdict = correct ? "right" : "wrong";
  const data = Buffer.from(png.buffer, png.byteOffset, png.byteLength).toString("base64");
  return html`<li class="${verdict}">
<img src="data:${type};base64,${data}" width="${width}" height="${height}" alt="${truth}, drawn by ${source}" decoding="async"${pixelated}>
<p class="said"><svg class="mark" width="16" height="16" aria-hidden="true"><use href="#${verdict}"/></svg>
<span class="spoken">${verdict}:</span> ${predicted.trim() === "" ? html`<i>nothing</i>` : predicted}</p>
${!correct && html`<p class="truth"><i>true:</i> ${truth}</p>\n`}<p class="source">${source}</p>
</li>
`;
}

/** What the first bytes of a PNG or WebP file say: its type and size. */
function imageHeader(file: Uint8Array): { type: string; width: number; height: number } {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  const at = (offset: number) => bytes.toString("latin1", offset, offset + 4);
  if (bytes.length >= 30 && at(0) === "\x89PNG" && at(12) === "IHDR")
    return { type: "image/png", width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  if (bytes.length >= 30 && at(0) === "RIFF" && at(8) === "WEBP") {
    const type = "image/webp";
    if (at(12) === "VP8X")
      return { type, width: 1 + bytes.readUIntLE(24, 3), height: 1 + bytes.readUIntLE(27, 3) };
    if (at(12) === "VP8L") {
      const bits = bytes.readUInt32LE(21);
      return { type, width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
    }
    if (at(12) === "VP8 ")
      return {
        type,
        width: bytes.readUInt16LE(26) & 0x3fff,
        height: bytes.readUInt16LE(28) & 0x3fff,
      };
  }
  throw new TypeError(
    `report: expected an image as an encoded PNG or WebP file, got ${bytes.length} bytes that start with ` +
      `[${bytes.subarray(0, 8).join(", ")}]; raw pixels have to be encoded first`,
  );
}

function settingsList(settings: Report["settings"]): Markup {
  return html`<dl class="settings">${Object.entries(settings).map(
    ([name, value]) =>
      html`<div><dt>${name}</dt><dd>${typeof value === "number" ? plain(value) : value}</dd></div>\n`,
  )}</dl>`;
}

function credits(attribution: Report["attribution"]): Markup {
  // Nothing but a web address becomes a link.
  const linked = (name: string, url: string) =>
    /^https?:\/\//i.test(url) ? html`<a href="${url}" rel="noreferrer">${name}</a>` : name;
  return html`<div class="scroll"><table>
<thead><tr><th scope="col">Pictures</th><th scope="col">Author</th><th scope="col">Licence</th><th scope="col" class="number">Images</th></tr></thead>
<tbody>${attribution.map(
    ({ name, author, licence, url, images }) =>
      html`<tr><th scope="row">${linked(name, url)}</th><td>${author}</td><td>${licence}</td><td class="number">${plain(images)}</td></tr>\n`,
  )}</tbody></table></div>`;
}

// ---- drawings

const CHECKED = new Markup(" checked");

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 20a12 12 0 0 1 24 0z" fill="#e4572e"/><path d="M2 24h28M8 28h16" stroke="#f2a65a" stroke-width="2" stroke-linecap="round"/></svg>`;

/** Drawn once, used on every card. */
const SYMBOLS = html`<svg class="spoken" aria-hidden="true">
<symbol id="right" viewBox="0 0 16 16"><circle cx="8" cy="8" r="8" fill="currentColor"/><path class="knockout" d="M4.5 8.3l2.4 2.4 4.6-5"/></symbol>
<symbol id="wrong" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7.2" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M5.3 5.3l5.4 5.4m0-5.4l-5.4 5.4" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/></symbol>
</svg>`;

/** The sun half above the sea; its glimmer narrows towards the viewer. Sky and sea are in the style sheet. */
const SUNRISE = html`<svg class="sunrise" viewBox="0 0 200 140" aria-hidden="true">
<defs>
<linearGradient id="sun" x2="0" y2="1"><stop class="sun-high"/><stop class="sun-low" offset=".55"/></linearGradient>
<radialGradient id="glow"><stop class="glow" stop-opacity=".6"/><stop class="glow" stop-opacity="0" offset="1"/></radialGradient>
<clipPath id="above"><path d="M-500 -500H700V100H-500z"/></clipPath>
</defs>
<g clip-path="url(#above)"><circle cx="100" cy="100" r="390" fill="url(#glow)"/><circle cx="100" cy="100" r="96" fill="url(#sun)"/></g>
<path class="glimmer" d="M12 107H188M36 117H164M60 127H140M80 137H120"/>
</svg>`;
