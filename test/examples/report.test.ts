/** @file The HTML report: whole, well formed, safe against what captions may contain, bounded in size. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lossChart, smooth, thin } from "../../examples/support/chart.ts";
import { html, Markup } from "../../examples/support/markup.ts";
import { metricsTable } from "../../examples/support/metrics-table.ts";
import { linearTicks, logTicks, plain, quantity } from "../../examples/support/numbers.ts";
import { type Report, type ReportItem, writeReport } from "../../examples/support/report.ts";

let folder = "";
let png: Uint8Array;
let webp: Uint8Array;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "hinode-report-"));
  const raw = { width: 20, height: 10, channels: 3 } as const;
  const red = sharp({ create: { ...raw, background: "#c00" } });
  [png, webp] = [await red.clone().png().toBuffer(), await red.clone().webp().toBuffer()];
});
afterAll(() => rm(folder, { recursive: true }));

const item = (fields: Partial<ReportItem> = {}): ReportItem => ({
  png,
  predicted: "red apple",
  truth: "red apple",
  correct: true,
  source: "vendor",
  ...fields,
});

const report = (fields: Partial<Report> = {}): Report => ({
  title: "A title",
  summary: [
    { label: "exact match", value: "33 %", note: "95 % interval" },
    { label: "time", value: "1 s" },
  ],
  loss: [
    { step: 0, loss: 5 },
    { step: 1, loss: 2, label: "train" },
    { step: 0, loss: 5, label: "blank" },
    { step: 1, loss: 3, label: "blank" },
  ],
  sections: [
    {
      title: "Unseen vendor",
      note: "What is shown.",
      items: [
        item(),
        item({ predicted: "pear", correct: false }),
        item({ predicted: " ", correct: false }),
      ],
    },
  ],
  metrics: { seconds: 75, heldOut: { exactMatch: 0.337, exactMatchInterval: [0.284, 0.393] } },
  settings: { steps: 2200, device: "wasm" },
  attribution: [
    {
      name: "OpenMoji",
      author: "HfG",
      licence: "CC BY-SA 4.0",
      url: "https://openmoji.org",
      images: 291,
    },
  ],
  ...fields,
});

async function written(fields: Partial<Report> = {}): Promise<string> {
  const path = join(folder, `${crypto.randomUUID()}.html`);
  await writeReport(path, report(fields));
  return readFile(path, "utf8");
}

/** The names of elements in order; throws where tags do not nest, quotes or brackets are unbalanced. */
function elements(page: string): string[] {
  const empty = new Set(["meta", "link", "img", "input", "br"]);
  const open: string[] = [];
  const seen: string[] = [];
  const body = page.replace(/^<!doctype html>/, "").replace(/<style>[\s\S]*?<\/style>/, "");
  const pattern = /<(\/?)([a-zA-Z0-9]+)((?:\s+[\w:-]+(?:="[^"<]*")?)*)\s*(\/?)>|([<>])/g;
  for (const [text, closing, name, , self, stray] of body.matchAll(pattern)) {
    if (stray) throw new Error(`stray ${text}`);
    if (closing) {
      const last = open.pop();
      if (last !== name) throw new Error(`</${name}> closes <${last}>`);
      continue;
    }
    seen.push(name);
    if (!self && !empty.has(name)) open.push(name);
  }
  if (open.length > 0) throw new Error(`never closed: ${open}`);
  return seen;
}

const hostile = `<script>alert("1")</script> ' onerror='x' </style></svg>&lt; \u0000\u0007 \ud800 <!-- ]]>`;

describe("the page", () => {
  test("has all parts and asks for nothing from outside", async () => {
    const page = await written();
    const names = elements(page);
    for (const name of ["title", "h1", "figure", "svg", "img", "table", "dl", "nav", "footer"])
      expect(names).toContain(name);
    expect(names).not.toContain("script");
    for (const text of ["A title", "33 %", "95 % interval", "Unseen vendor", "What is shown."])
      expect(page).toContain(text);
    for (const text of [
      "pear",
      "<i>nothing</i>",
      "2200",
      "wasm",
      "CC BY-SA 4.0",
      "1\u202fmin 15\u202fs",
    ])
      expect(page).toContain(text);
    expect(page).toContain(`data:image/png;base64,${Buffer.from(png).toString("base64")}`);
    expect(page).toContain('width="20" height="10" alt="red apple, drawn by vendor"');
    expect(page).toContain("default-src 'none'");
    // Addresses occur as links that somebody may follow and as the SVG icon's name space, never as something to load.
    expect(page.match(/(src|href)="(?!data:|#|https:\/\/openmoji)[^"]*"/g)).toBe(null);
    expect(page).not.toMatch(/@import|url\((?!#)/);
    // Every id once; every link inside the page leads somewhere.
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map((m) => m[1]);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [, target] of page.matchAll(/href="#([^"]+)"/g)) expect(ids).toContain(target);
  });

  test("says right and wrong in words, and how many there are", async () => {
    const page = await written();
    expect(page.match(/<span class="spoken">right:<\/span>/g)).toHaveLength(1);
    expect(page.match(/<span class="spoken">wrong:<\/span>/g)).toHaveLength(2);
    expect(page).toMatch(/All <b>3<\/b>[\s\S]*Right <b>1<\/b>[\s\S]*Wrong <b>2<\/b>/);
    // The true caption is repeated only where it differs.
    expect(page.match(/class="truth"/g)).toHaveLength(2);
  });

  test("no text can leave its place", async () => {
    const cards = [item({ predicted: hostile, truth: hostile, source: hostile, correct: false })];
    const page = await written({
      title: hostile,
      summary: [{ label: hostile, value: hostile, note: hostile }],
      sections: [{ title: hostile, note: hostile, items: cards }],
      metrics: { [hostile]: hostile, a: { [hostile]: [hostile], b: null } },
      settings: { [hostile]: hostile },
      attribution: [
        { name: hostile, author: hostile, licence: hostile, url: "javascript:alert(1)", images: 1 },
        { name: "b", author: "", licence: "", url: `https://x.org/"><script>`, images: 1 },
      ],
    });
    const names = elements(page);
    expect(names).not.toContain("script");
    expect(page).not.toContain("javascript:");
    expect(page).toContain("https://x.org/&quot;&gt;&lt;script&gt;");
    expect([page.includes("\u0000"), page.includes("\u0007")]).toEqual([false, false]);
    const plainPage = await written({
      sections: [{ title: "t", note: "n", items: [item({ correct: false })] }],
      metrics: { x: "y", a: { c: [""], b: null } },
      settings: { a: "b" },
      attribution: report().attribution,
    });
    // The same elements as with harmless text, but for the second figure above and the second row of credits.
    const count = (list: string[], name: string) => list.filter((n) => n === name).length;
    for (const name of ["img", "svg", "section", "style", "b", "i"])
      expect(count(names, name), name).toBe(count(elements(plainPage), name));
  });

  test("an empty run is a page too", async () => {
    const page = await written({
      summary: [],
      loss: [],
      sections: [],
      metrics: {},
      settings: {},
      attribution: [],
    });
    elements(page);
    expect(page).toContain("No finite loss was recorded.");
    expect(page).toContain("No metrics were recorded.");
  });

  test("many images: the first are shown, the rest unfolds; the size is the images' and little more", async () => {
    const items = Array.from({ length: 300 }, (_, i) => item({ correct: i % 3 === 0 }));
    const loss = Array.from({ length: 50_000 }, (_, step) => ({ step, loss: 1 + Math.sin(step) }));
    const page = await written({ sections: [{ title: "t", note: "n", items }], loss });
    const names = elements(page);
    expect(names.filter((n) => n === "img")).toHaveLength(300);
    expect(page).toContain("Show the other 240");
    expect(page.length).toBeLessThan(300 * (4 * Math.ceil(png.length / 3) + 500) + 100_000);
  });

  test("WebP files and views into larger buffers are images, raw pixels are an error that says so", async () => {
    const around = new Uint8Array(webp.length + 8);
    around.set(webp, 3);
    const view = around.subarray(3, 3 + webp.length);
    const page = await written({
      sections: [{ title: "t", note: "n", items: [item({ png: view })] }],
    });
    expect(page).toContain(`data:image/webp;base64,${Buffer.from(webp).toString("base64")}`);
    expect(page).toContain('width="20" height="10"');
    const lossless = await sharp(png).webp({ lossless: true }).toBuffer();
    const alpha = await sharp(png).ensureAlpha(0.5).webp().toBuffer();
    for (const file of [lossless, alpha])
      expect(
        await written({ sections: [{ title: "t", note: "n", items: [item({ png: file })] }] }),
      ).toContain('width="20" height="10"');
    const raw = [item({ png: new Uint8Array(300) })];
    await expect(written({ sections: [{ title: "t", note: "n", items: raw }] })).rejects.toThrow(
      /PNG or WebP/,
    );
  });
});

describe("the file", () => {
  test("its folder is made, an older report is replaced, nothing else stays", async () => {
    const path = join(folder, "runs", "1", "report.html");
    await writeReport(path, report({ title: "first" }));
    await writeReport(path, report({ title: "second" }));
    expect(await readFile(path, "utf8")).toContain("<title>second</title>");
    expect(await readdir(join(folder, "runs", "1"))).toEqual(["report.html"]);
  });

  test("a failure leaves what was there", async () => {
    const home = join(folder, "failing");
    await mkdir(home);
    const path = join(home, "report.html");
    await writeFile(path, "old");
    const bad = {
      sections: [{ title: "t", note: "n", items: [item({ png: new Uint8Array(1) })] }],
    };
    await expect(writeReport(path, report(bad))).rejects.toThrow(TypeError);
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(home)).toEqual(["report.html"]);
  });
});

describe("markup", () => {
  test("values are escaped, markup and lists of it are not, nothing is left of false and null", () => {
    const list = ["<", html`<b>${"&"}</b>`, [1, false, null, undefined]];
    expect(html`<p title="${`"'`}">${list}</p>`.text).toBe(
      '<p title="&quot;&#39;">&lt;<b>&amp;</b>1</p>',
    );
    expect(html`${new Markup("<hr>")}`.text).toBe("<hr>");
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(html`${text}`.text).not.toMatch(/[<>"']|&(?!amp;|lt;|gt;|quot;|#39;)/);
      }),
    );
  });
});

describe("the loss curve", () => {
  test("thinning keeps both ends and every stretch's extremes, in order, within the limit", () => {
    const values = fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), {
      minLength: 1,
      maxLength: 400,
    });
    fc.assert(
      fc.property(values, fc.integer({ min: 4, max: 60 }), (ys, limit) => {
        const points = ys.map((y, x) => ({ x, y }));
        const kept = thin(points, limit);
        expect(kept.length).toBeLessThanOrEqual(limit);
        expect(kept.map((p) => p.x)).toEqual(kept.map((p) => p.x).toSorted((a, b) => a - b));
        expect([kept[0], kept.at(-1)]).toEqual([points[0], points.at(-1)]);
        expect(Math.max(...kept.map((p) => p.y))).toBe(Math.max(...ys));
        expect(Math.min(...kept.map((p) => p.y))).toBe(Math.min(...ys));
      }),
    );
    const spike = Array.from({ length: 100_000 }, (_, x) => ({ x, y: x === 77_777 ? 9 : 1 }));
    expect(thin(spike, 2000)).toContainEqual({ x: 77_777, y: 9 });
  });

  test("smoothing keeps a constant, lies between the extremes and does not lag behind a line", () => {
    const line = Array.from({ length: 400 }, (_, x) => ({ x, y: x }));
    expect(smooth(line)[200].y).toBeCloseTo(200, 9);
    expect(smooth(line.map(({ x }) => ({ x, y: 3 }))).every((p) => p.y === 3)).toBe(true);
    for (const { y } of smooth(line)) expect(y >= 0 && y <= 399).toBe(true);
    expect(smooth([])).toEqual([]);
  });

  const decaying = (floor: number) =>
    Array.from({ length: 500 }, (_, step) => ({ step, loss: floor + 6 * Math.exp(-step / 40) }));

  test("the axis is logarithmic where the loss falls far, linear where it does not or is not positive", () => {
    expect(lossChart(decaying(0.05)).text).toContain("logarithmic axis");
    expect(lossChart(decaying(2)).text).toContain("linear axis");
    expect(lossChart(decaying(-0.1)).text).toContain("linear axis");
  });

  test("everything drawn is inside the plot; what is not finite is counted and left out", () => {
    const odd = [
      { step: 1, loss: Number.NaN },
      { step: 2, loss: Infinity },
    ];
    for (const loss of [
      decaying(0.05),
      decaying(-0.1),
      [{ step: 3, loss: 2 }],
      [{ step: 0, loss: 0 }],
    ]) {
      const { text } = lossChart([...loss, ...odd]);
      elements(text);
      expect(text).toContain("2 values that are not finite are left out");
      expect(text).not.toMatch(/NaN|Infinity/);
      for (const [, x, y] of text.matchAll(/[ML](\S+) ([\d.]+)/g))
        expect([Number(x) >= 0, Number(x) <= 1000, Number(y) >= 0, Number(y) <= 1000]).toEqual(
          Array(4).fill(true),
        );
    }
  });

  test("the drawing is described in words; a second curve has its own name and stroke", () => {
    const both = [
      ...decaying(0.05),
      ...decaying(2).map((p) => ({ ...p, label: "blank" as const })),
    ];
    const { text } = lossChart(both);
    expect(text).toMatch(
      /aria-label="Loss by training step, with its images: from .* at step 0 to 0\.05/,
    );
    expect(text).toContain("with blank images: ends at <b>2</b>");
    expect(text.match(/class="line (train|blank)"/g)).toHaveLength(2);
    expect(lossChart(decaying(1)).text).not.toContain("blank");
  });
});

describe("numbers", () => {
  test("ticks are round, evenly spaced, inside, and about as many as asked for", () => {
    expect(linearTicks(0, 2199, 5)).toEqual([0, 500, 1000, 1500, 2000]);
    expect(linearTicks(0, 0.7, 5)).toEqual([0, 0.2, 0.4, 0.6]);
    expect(linearTicks(3, 3, 5)).toEqual([3]);
    expect(logTicks(0.09, 6, 8)).toEqual([0.1, 0.2, 0.5, 1, 2, 5]);
    expect(logTicks(1e-4, 10, 8)).toEqual([1e-4, 1e-3, 1e-2, 0.1, 1, 10]);
    expect(logTicks(1e-20, 1, 8).length).toBeLessThanOrEqual(8);
    const positive = fc.double({ min: 1e-6, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(positive, positive, fc.integer({ min: 3, max: 10 }), (low, width, count) => {
        const ticks = linearTicks(low, low + width, count);
        if (width > low * 1e-6) {
          expect(ticks.length).toBeGreaterThanOrEqual(1);
          expect(ticks.length).toBeLessThanOrEqual(count + 1);
        }
      }),
    );
  });

  test("values carry the unit that their name asks for", () => {
    const narrow = (text: string) => text.replace(/\u202f/g, " ");
    const cases: [string, number, string][] = [
      ["exactMatch", 0.33684, "33.7 %"],
      ["tokenAccuracy", 1, "100.0 %"],
      ["matches", 96, "96"],
      ["seconds", 12.345, "12.3 s"],
      ["seconds", 108.3, "1 min 48 s"],
      ["trainSeconds", 3600, "1 h"],
      ["peakBytes", 2 ** 21, "2 MiB"],
      ["imagesPerSecond", 325.44, "325.4 /s"],
      ["parameters", 583_296, "583 296"],
      ["loss", -0.000012, "−1.20e−5"],
      ["loss", Number.NaN, "NaN"],
    ];
    for (const [name, value, text] of cases) expect(narrow(quantity(name, value)), name).toBe(text);
    expect(plain(0)).toBe("0");
    expect(plain(2200)).toBe("2200");
  });
});

describe("the metrics", () => {
  const cells = (metrics: object) =>
    [...metricsTable(metrics).text.matchAll(/<tr[^>]*>(.*?)<\/tr>/gs)].map(([, row]) =>
      [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell]) =>
        cell.replace(/<svg.*?<\/svg>|<[^>]+>/gs, "").replace(/\u202f/g, " "),
      ),
    );

  test("groups become headings, single values keep their group's name, intervals join their value", () => {
    const rows = cells({
      seconds: 75,
      heldOut: {
        exactMatch: 0.337,
        exactMatchInterval: [0.284, 0.393],
        tokenAccuracy: { value: 0.5, interval: [0.4, 0.6] },
        baselines: { mostFrequent: { exactMatch: 0.004 }, blankImage: { exactMatch: 0 } },
      },
      unseenConcept: { tokenAccuracy: 0.2, interval95: [0.1, 0.3], range: [1, 2] },
      shapes: [1, 2, 3],
      resumed: false,
      missing: undefined,
    });
    expect(rows).toEqual([
      ["Metric", "Value", "Interval"],
      ["time", "1 min 15 s", ""],
      ["held out"],
      ["exact match", "33.7 %", "28.4 – 39.3 %"],
      ["token accuracy", "50.0 %", "40.0 – 60.0 %"],
      ["baselines"],
      ["most frequent · exact match", "0.4 %", ""],
      ["blank image · exact match", "0.0 %", ""],
      ["unseen concept"],
      ["token accuracy", "20.0 %", "10.0 – 30.0 %"],
      ["range", "", "1 – 2"],
      ["shapes", "1, 2, 3", ""],
      ["resumed", "no", ""],
    ]);
  });

  test("without intervals there is no column for them", () => {
    expect(cells({ loss: 1.5 })).toEqual([
      ["Metric", "Value"],
      ["loss", "1.5"],
    ]);
  });
});
