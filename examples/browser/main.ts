/**
 * @file The page: its controls, and the loop that trains and paints. Everything about the network is in painter.ts.
 *
 * Training runs on the page's own thread, in blocks of some 20 ms, so that clicks and painting come in between.
 */
import { type DeviceName, deviceInfo, init, manualSeed, setDefaultDevice } from "hinode";
import { BATCH, Training } from "./painter.ts";
import { HEIGHT, pictures, render, renderFile, WIDTH } from "./pictures.ts";
import { LossPlot, plain } from "./plot.ts";

/** How much finer than the picture a pause paints. */
const FINE = 3;
/** Milliseconds of steps between two looks at the page, and between two changes of it. */
const BLOCK = 20;
const FRAME = 100;
/** At most this share of the time is spent on painting. */
const PAINTING = 0.25;

const byId = <T extends Element = HTMLElement>(id: string): T =>
  document.getElementById(id) as unknown as T;
const canvas = byId<HTMLCanvasElement>("painting");
const runButton = byId<HTMLButtonElement>("run");
const resetButton = byId<HTMLButtonElement>("reset");
const compareButton = byId<HTMLButtonElement>("compare");
const rateSlider = byId<HTMLInputElement>("learning-rate");
const plot = new LossPlot(byId<SVGSVGElement>("plot"));
const say = (id: string, text: string): void => {
  byId(id).textContent = text;
};

let training: Training;
let draw = pictures[0].draw;
let steps = 0;
let lastLoss = Number.NaN;
let running = false;
let device: DeviceName = "wasm";
/** Painting and training share the device, one after the other: what a click asks for waits for its turn here. */
let turn: Promise<void> = Promise.resolve();

function inTurn(work: () => Promise<void>): Promise<void> {
  turn = turn.then(work).catch((error: Error) => {
    running = false;
    showRunning();
    console.error(error);
    say("device", firstLine(error));
  });
  return turn;
}

const firstLine = (error: Error): string => error.message.split("\n")[0];

// ---- painting

function show(image: ImageData): void {
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}

let painted = { at: 0, took: 0 };

async function paint(scale = 1): Promise<void> {
  const begin = performance.now();
  const image = await training.paint(scale);
  const at = performance.now();
  if (scale === 1) painted = { at, took: at - begin };
  show(image);
}

// ---- training

async function train(): Promise<void> {
  /** Steps per block: doubled or halved until a block takes as long as it should. */
  let block = 1;
  let since = { at: performance.now(), steps, device };
  let shown = 0;
  while (running) {
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true })); // biome-ignore format: one line
      since = { at: performance.now(), steps, device };
      continue;
    }
    await inTurn(async () => {
      const begin = performance.now();
      const losses = Array.from({ length: block }, () => training.step().item());
      for (const loss of await Promise.all(losses)) plot.add(++steps, Number(loss), device);
      lastLoss = Number(await losses.at(-1));
      const now = performance.now();
      if (now - begin < BLOCK / 2) block = Math.min(32, block * 2);
      else if (now - begin > BLOCK) block = Math.max(1, block >> 1);
      // The first block on a device compiles its kernels: no measure of its speed.
      if (since.device !== device) since = { at: now, steps, device };
      if (now - shown < FRAME) return;
      shown = now;
      plot.draw();
      showLoss();
      if (now - painted.at > painted.took / PAINTING) await paint();
      if (now - since.at < 500) return;
      showRate((1000 * (steps - since.steps)) / (now - since.at));
      since = { at: now, steps, device };
    });
  }
}

function showLoss(): void {
  say("steps", steps.toLocaleString("en"));
  say("loss", steps > 0 ? plain(lastLoss) : "–");
  // Peak signal-to-noise ratio: colours go from 0 to 1, so the peak is 1.
  say("likeness", steps > 0 ? `${(-10 * Math.log10(lastLoss)).toFixed(1)} dB` : "–");
}

function showRate(rate: number): void {
  const { kernels, flops } = training.cost();
  say("rate", rate < 10 ? rate.toFixed(1) : rate.toFixed(0));
  const pixels = BATCH.toLocaleString("en");
  const speed = plain((flops * rate) / 1e9);
  say("cost", `${kernels} kernels per step of ${pixels} pixels, ${speed}\u00a0GFLOP/s.`);
}

/** What computes. */
function where(): string {
  const { adapter } = deviceInfo();
  if (!adapter) return "WebAssembly SIMD.";
  const name = [adapter.description || adapter.device || adapter.architecture, adapter.vendor];
  return `${name.filter(Boolean).join(", ")}${adapter.software ? ", computed on the CPU" : ""}.`;
}

function showRunning(): void {
  runButton.textContent = running ? "Pause" : steps > 0 ? "Go on" : "Start";
  document.body.classList.toggle("running", running);
}

let loop: Promise<void> = Promise.resolve();

function start(): void {
  running = true;
  say("state", "");
  showRunning();
  // After a pause that was shorter than a block, the loop before may still go on: then this one ends at once.
  loop = loop.then(train);
}

/** Stops after the block that runs; then the network is painted finely, if that takes no more than a second. */
function pause(): void {
  running = false;
  showRunning();
  void inTurn(async () => {
    if (running) return;
    plot.draw();
    showLoss();
    if (painted.took * FINE ** 2 > 1000) return;
    await paint(FINE);
    say("state", "Painted three times as fine");
  });
}

/** Forgets everything, and begins anew with other random numbers. */
async function begin(): Promise<void> {
  manualSeed(Math.floor(Math.random() * 2 ** 32));
  training = new Training(render(draw));
  training.adam.setLearningRate(learningRate());
  steps = 0;
  plot.clear();
  showLoss();
  showRunning();
  await paint();
  say("state", running ? "" : "Untrained");
}

/** Moves the network, in the middle of its training if need be. */
async function moveTo(target: "wasm" | "webgpu"): Promise<void> {
  say("device", "Moving the network …");
  say("cost", "");
  say("rate", "–");
  try {
    if (target === "webgpu") await init({ device: target });
    else setDefaultDevice(target);
    training = await training.moved(target);
    device = target;
    say("device", where());
  } catch (error) {
    setDefaultDevice("wasm");
    byId<HTMLInputElement>("wasm").checked = true;
    say(
      "device",
      `${target === "webgpu" ? "No WebGPU" : "Begun anew"}: ${firstLine(error as Error)}`,
    );
    // What was on a GPU that is lost cannot be moved from it.
    if (device !== "wasm") {
      device = "wasm";
      await begin();
    }
  }
  await paint();
}

// ---- controls

const learningRate = (): number => 10 ** Number(rateSlider.value);

function setLearningRate(): void {
  say("pace", plain(learningRate()));
  void inTurn(async () => training.adam.setLearningRate(learningRate()));
}

function choose(picture: typeof draw): void {
  draw = picture;
  const original = byId<HTMLCanvasElement>("original");
  const image = render(draw, 2);
  [original.width, original.height] = [image.width, image.height];
  original.getContext("2d")!.putImageData(image, 0, 0);
  void inTurn(begin);
}

function offerPictures(): void {
  const own = byId("own").parentElement!;
  for (const [i, { name, draw: picture }] of pictures.entries()) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), {
      type: "radio",
      name: "picture",
    });
    radio.checked = i === 0;
    radio.addEventListener("change", () => choose(picture));
    const small = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    small.getContext("2d")!.putImageData(render(picture), 0, 0);
    small.setAttribute("aria-hidden", "true");
    label.append(
      radio,
      small,
      Object.assign(document.createElement("span"), { textContent: name }),
    );
    own.before(label);
  }
  byId<HTMLInputElement>("own").addEventListener("change", async ({ target }) => {
    const file = (target as HTMLInputElement).files?.[0];
    if (!file) return;
    try {
      choose(await renderFile(file));
      for (const r of document.querySelectorAll<HTMLInputElement>("[name=picture]"))
        r.checked = false;
    } catch {
      say("device", `${file.name} is no picture that this browser can read.`);
    }
  });
}

runButton.addEventListener("click", () => (running ? pause() : start()));
resetButton.addEventListener("click", () => void inTurn(begin));
rateSlider.addEventListener("input", setLearningRate);
compareButton.addEventListener("click", () => {
  const on = byId("frame").classList.toggle("comparing");
  compareButton.setAttribute("aria-pressed", String(on));
});
for (const radio of document.querySelectorAll<HTMLInputElement>("[name=device]"))
  radio.addEventListener("change", () => inTurn(() => moveTo(radio.id as "wasm" | "webgpu")));

offerPictures();
setDefaultDevice("wasm");
choose(draw);
await turn;
const count = training!.painter
  .parameters()
  .reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);
say("parameters", count.toLocaleString("en"));
say("device", where());
runButton.disabled = resetButton.disabled = false;
