/**
 * @file A network that is a picture: position in, colour out. Its training (every step picks random pixels, on the device),
 * its painting at any size, and its move to another device in the middle of the training.
 *
 * The idea is from "Fourier Features Let Networks Learn High Frequency Functions" (https://arxiv.org/abs/2006.10739): from
 * the bare position a network this small learns a blur only; from waves of it, edges too.
 */
import {
  cat,
  compile,
  type DeviceName,
  explain,
  mseLoss,
  noGrad,
  ones,
  randint,
  randn,
  type Tensor,
  tensor,
} from "hinode";
import { Linear, Module, optim } from "hinode/nn";

// N positions, W waves, H hidden features
const WAVES = 64;
const HIDDEN = 64;
/** Cycles per picture height, their standard deviation. */
const DETAIL = 5;
/** Pixels per step. */
export const BATCH = 2048;

export class Painter extends Module {
  /** [2, W]: not a parameter, so it stays as it was drawn. */
  waves = randn([2, WAVES]).mul(2 * Math.PI * DETAIL);
  first = new Linear(2 * WAVES, HIDDEN);
  second = new Linear(HIDDEN, HIDDEN);
  colour = new Linear(HIDDEN, 3);

  /** Positions [N, 2] in units of the picture's height → colours [N, 3] in 0 … 1. */
  forward(at: Tensor): Tensor {
    const angles = at.matmul(this.waves); // [N, W]
    const x = this.first.forward(cat([angles.sin(), angles.cos()], 1)).relu(); // [N, H]
    return this.colour.forward(this.second.forward(x).relu()).sigmoid();
  }
}

/** The middle of each pixel, [width · height, 2]. */
function positions(width: number, height: number): Tensor {
  const at = new Float32Array(2 * width * height);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      at[i++] = (x + 0.5) / height;
      at[i++] = (y + 0.5) / height;
    }
  return tensor(at, { shape: [width * height, 2] });
}

/** What canvases hold, [width · height, 4] bytes, as colours [width · height, 3]. */
function colours({ data, width, height }: ImageData): Tensor {
  const rgba = tensor(new Uint8Array(data), { shape: [width * height, 4] });
  return rgba.narrow(1, 0, 3).float().div(255);
}

/** All of it lives on the device that is the default one when it is made. */
export class Training {
  readonly picture: ImageData;
  readonly painter: Painter;
  readonly adam: optim.Adam;
  readonly #step: () => Tensor;
  readonly #painting = new Map<number, () => Tensor>();

  constructor(picture: ImageData, painter = new Painter()) {
    this.picture = picture;
    this.painter = painter;
    this.adam = new optim.Adam(painter.parameters());
    const { width, height } = picture;
    const [everywhere, everything] = [positions(width, height), colours(picture)];
    this.#step = compile(() => {
      const chosen = randint(0, width * height, [BATCH]);
      const painted = painter.forward(everywhere.indexSelect(0, chosen));
      const loss = mseLoss(painted, everything.indexSelect(0, chosen));
      this.adam.zeroGrad();
      loss.backward();
      this.adam.step();
      return loss;
    });
  }

  /** Enqueues one step; the loss can be read later. */
  step(): Tensor {
    return this.#step();
  }

  /** What the network sees everywhere, at `scale` times the size of the picture that it learns from. */
  async paint(scale = 1): Promise<ImageData> {
    const [width, height] = [this.picture.width * scale, this.picture.height * scale];
    let painting = this.#painting.get(scale);
    if (!painting) {
      const everywhere = positions(width, height);
      painting = compile(() =>
        noGrad(() => {
          const rgb = this.painter.forward(everywhere);
          return cat([rgb, ones([width * height, 1])], 1)
            .mul(255)
            .round()
            .to("u8");
        }),
      );
      this.#painting.set(scale, painting);
    }
    const bytes = await painting().data();
    return new ImageData(new Uint8ClampedArray(bytes), width, height);
  }

  /** The same network with the same memory of its steps on another device, which is the default one by now. */
  async moved(device: DeviceName): Promise<Training> {
    const memory = Object.entries(this.adam.stateDict()).map(
      async ([name, t]) => [name, await t.to(device)] as const,
    );
    const state = Object.fromEntries(await Promise.all(memory));
    const training = new Training(this.picture, await this.painter.to(device));
    training.adam.loadStateDict(state);
    return training;
  }

  /** The kernels of one step and their floating-point operations. */
  cost(): { kernels: number; flops: number } {
    const { kernels, flops } = explain(this.#step as () => unknown);
    return { kernels: kernels.length, flops };
  }
}
