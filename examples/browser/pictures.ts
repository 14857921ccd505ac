/**
 * @file The pictures to learn, drawn here so that the page loads none: soft gradients and sharp edges, a regular pattern, and
 * fine sparks. All are drawn in a space of 3 × 2 units and at any size.
 */
export const WIDTH = 192;
export const HEIGHT = 128;

type Draw = (c: CanvasRenderingContext2D) => void;

/** A picture as pixels; what `draw` leaves free stays black. */
export function render(draw: Draw, scale = 1): ImageData {
  const canvas = new OffscreenCanvas(WIDTH * scale, HEIGHT * scale);
  const c = canvas.getContext("2d", { willReadFrequently: true })!;
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.scale(canvas.width / 3, canvas.height / 2);
  draw(c as unknown as CanvasRenderingContext2D);
  return c.getImageData(0, 0, canvas.width, canvas.height);
}

/** A picture of the visitor's, cut to 3 : 2 around its middle. */
export async function renderFile(file: File): Promise<Draw> {
  const image = await createImageBitmap(file);
  const scale = Math.max(3 / image.width, 2 / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  return (c) => {
    c.imageSmoothingQuality = "high";
    c.drawImage(image, (3 - width) / 2, (2 - height) / 2, width, height);
  };
}

const circle = (c: CanvasRenderingContext2D, x: number, y: number, r: number): void => {
  c.beginPath();
  c.arc(x, y, r, 0, 2 * Math.PI);
  c.fill();
};

function gradient(c: CanvasRenderingContext2D, top: number, bottom: number, colours: string[]) {
  const fill = c.createLinearGradient(0, top, 0, bottom);
  for (const [i, colour] of colours.entries()) fill.addColorStop(i / (colours.length - 1), colour);
  c.fillStyle = fill;
}

/** A rounded bar, thinner than it is long: a cloud of a woodblock print. */
function bar(c: CanvasRenderingContext2D, x: number, y: number, width: number, height: number) {
  c.beginPath();
  c.roundRect(x, y, width, height, height / 2);
  c.fill();
}

/** The same on every visit, so that losses can be compared. */
function* noise(seed: number): Generator<number, never> {
  for (let s = seed; ; ) {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    yield s / 2 ** 32;
  }
}

function sunrise(c: CanvasRenderingContext2D): void {
  const horizon = 1.42;
  gradient(c, 0, horizon, ["#26204f", "#6a3a6e", "#d8606a", "#f9a065", "#ffd9a0"]);
  c.fillRect(0, 0, 3, horizon);

  const glow = c.createRadialGradient(1.95, 0.98, 0.2, 1.95, 0.98, 1.2);
  glow.addColorStop(0, "#ffe0a8cc");
  glow.addColorStop(1, "#ffe0a800");
  c.fillStyle = glow;
  c.fillRect(0, 0, 3, horizon);
  gradient(c, 0.5, 1.45, ["#ff5a36", "#e8342b"]);
  circle(c, 1.95, 0.98, 0.46);

  c.fillStyle = "#ffe9cf";
  bar(c, 1.62, 0.84, 0.9, 0.05);
  bar(c, 1.3, 0.95, 0.62, 0.045);
  bar(c, 2.1, 1.06, 0.7, 0.04);
  c.fillStyle = "#f7b7a3";
  bar(c, 0.12, 0.34, 0.62, 0.05);
  bar(c, 0.42, 0.44, 0.72, 0.04);
  bar(c, 2.3, 0.26, 0.5, 0.045);

  // The mountain with its snow
  c.beginPath();
  c.moveTo(-0.25, horizon);
  c.bezierCurveTo(0.35, 1.25, 0.6, 0.72, 0.82, 0.52);
  c.lineTo(1.02, 0.52);
  c.bezierCurveTo(1.24, 0.72, 1.5, 1.25, 2.1, horizon);
  gradient(c, 0.5, horizon, ["#4a3a78", "#2f2a5e", "#3a2c5a"]);
  c.fill();
  c.beginPath();
  c.moveTo(0.64, 0.74);
  c.quadraticCurveTo(0.75, 0.6, 0.82, 0.52);
  c.lineTo(1.02, 0.52);
  c.quadraticCurveTo(1.09, 0.6, 1.2, 0.74);
  for (const [x, y] of [[1.12, 0.7], [1.06, 0.82], [0.99, 0.71], [0.92, 0.86], [0.85, 0.72], [0.77, 0.83], [0.72, 0.71]]) c.lineTo(x, y); // biome-ignore format: one point after the other
  c.closePath();
  c.fillStyle = "#fff4ea";
  c.fill();

  gradient(c, horizon, 2, ["#f6a77c", "#a4506f", "#2f2458"]);
  c.fillRect(0, horizon, 3, 2 - horizon);
  c.fillStyle = "#ff8a5c";
  for (let i = 0; i < 7; i++) {
    const half = 0.46 - 0.05 * i;
    bar(c, 1.95 - half + (i % 2 ? 0.09 : -0.06), horizon + 0.05 + 0.075 * i, 2 * half, 0.03);
  }

  // A torii in the water
  c.fillStyle = "#c4261d";
  c.beginPath();
  c.moveTo(0.28, 1.04);
  c.quadraticCurveTo(0.62, 1.12, 0.96, 1.04);
  c.lineTo(0.94, 1.12);
  c.quadraticCurveTo(0.62, 1.18, 0.3, 1.12);
  c.fill();
  c.fillRect(0.36, 1.24, 0.52, 0.045);
  for (const x of [0.42, 0.75]) {
    c.beginPath();
    c.moveTo(x + 0.005, 1.12);
    c.lineTo(x + 0.065, 1.12);
    c.lineTo(x + 0.075, 1.7);
    c.lineTo(x - 0.005, 1.7);
    c.fill();
  }
  c.fillStyle = "#1d1638";
  for (const x of [0.4, 0.73]) bar(c, x, 1.67, 0.11, 0.05);

  c.strokeStyle = "#2a2050";
  c.lineWidth = 0.018;
  c.lineCap = "round";
  for (const [x, y, s] of [
    [1.28, 0.3, 0.09],
    [1.5, 0.2, 0.07],
    [1.46, 0.4, 0.055],
  ]) {
    // biome-ignore format: bird by bird
    c.beginPath();
    c.moveTo(x - s, y - s / 3);
    c.quadraticCurveTo(x - s / 2, y - s / 1.6, x, y);
    c.quadraticCurveTo(x + s / 2, y - s / 1.6, x + s, y - s / 3);
    c.stroke();
  }
}

/** Seigaiha, "waves of the blue sea": overlapping circles, row upon row. */
function waves(c: CanvasRenderingContext2D): void {
  c.fillStyle = "#f3ead7";
  c.fillRect(0, 0, 3, 2);
  const r = 0.375;
  const rings = ["#173f6b", "#f3ead7", "#2b6ca3", "#f3ead7", "#5aa3c7", "#f3ead7", "#d9482f"];
  for (let row = 0; row < 14; row++)
    for (let column = -1; column < 6; column++) {
      const x = 2 * r * column + (row % 2 ? r : 0);
      const y = row * (r / 2) - 0.02;
      for (const [i, colour] of rings.entries()) {
        c.fillStyle = colour;
        circle(c, x, y + r / 2, r * (1 - i / rings.length) * (i === 0 ? 0.995 : 1));
      }
    }
}

function fireworks(c: CanvasRenderingContext2D): void {
  gradient(c, 0, 2, ["#080b24", "#141a4a", "#3a2a66"]);
  c.fillRect(0, 0, 3, 2);
  const random = noise(7);
  const next = () => random.next().value;
  c.fillStyle = "#cdd6ff";
  for (let i = 0; i < 60; i++) circle(c, 3 * next(), 1.4 * next(), 0.004 + 0.008 * next());

  c.lineCap = "round";
  const shells: [x: number, y: number, r: number, inner: string, outer: string][] = [
    [0.85, 0.72, 0.62, "#fff3c4", "#ff9a3d"],
    [2.15, 0.55, 0.5, "#ffe3f1", "#ff4d8d"],
    [1.55, 1.12, 0.36, "#e4fff2", "#3fd6b0"],
    [2.7, 1.15, 0.28, "#fff", "#8f9bff"],
  ];
  for (const [x, y, r, inner, outer] of shells) {
    const glow = c.createRadialGradient(x, y, 0, x, y, r * 1.3);
    glow.addColorStop(0, `${outer}66`);
    glow.addColorStop(1, `${outer}00`);
    c.fillStyle = glow;
    circle(c, x, y, r * 1.3);
    const rays = Math.round(20 + 20 * r);
    for (let i = 0; i < rays; i++) {
      const angle = (2 * Math.PI * (i + 0.3 * next())) / rays;
      const [dx, dy] = [Math.cos(angle), Math.sin(angle)];
      const length = r * (0.82 + 0.18 * next());
      const ray = c.createLinearGradient(x, y, x + length * dx, y + length * dy);
      ray.addColorStop(0, inner);
      ray.addColorStop(1, outer);
      c.strokeStyle = ray;
      c.lineWidth = 0.018;
      c.beginPath();
      c.moveTo(x + 0.22 * r * dx, y + 0.22 * r * dy);
      c.quadraticCurveTo(x + 0.7 * length * dx, y + 0.7 * length * dy, x + length * dx, y + length * dy + 0.05 * r); // biome-ignore format: one call
      c.stroke();
      c.fillStyle = inner;
      circle(c, x + length * dx, y + length * dy + 0.05 * r, 0.018);
    }
  }

  // A town by the water, its windows and their reflections
  c.fillStyle = "#0a0a1c";
  for (let x = 0; x < 3; ) {
    const width = 0.1 + 0.14 * next();
    const top = 1.45 + 0.2 * next();
    c.fillStyle = "#0a0a1c";
    c.fillRect(x, top, width + 0.01, 1.78 - top);
    c.fillStyle = "#ffcf7a";
    for (let wy = top + 0.05; wy < 1.72; wy += 0.075)
      for (let wx = x + 0.03; wx < x + width - 0.03; wx += 0.055)
        if (next() < 0.45) c.fillRect(wx, wy, 0.026, 0.036);
    x += width;
  }
  gradient(c, 1.78, 2, ["#2a2258", "#12123a"]);
  c.fillRect(0, 1.78, 3, 0.22);
  for (const [x, , r, , outer] of shells) {
    c.fillStyle = `${outer}88`;
    for (let i = 0; i < 4; i++) bar(c, x - r / (2 + i), 1.81 + 0.048 * i, (2 * r) / (2 + i), 0.018);
  }
}

export const pictures: readonly { readonly name: string; readonly draw: Draw }[] = [
  { name: "Sunrise", draw: sunrise },
  { name: "Waves", draw: waves },
  { name: "Fireworks", draw: fireworks },
];
