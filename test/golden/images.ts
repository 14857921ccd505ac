/**
 * @file The group `images`: resizing, image processors, patches and positions. What a case does is its `op`, how is its `args`,
 * which hold a processor's config as it is.
 */
import { type Tensor, tensor } from "hinode";
import {
  CLIPImageProcessor,
  convertImage,
  fitInside,
  type ImageMode,
  LlavaImageProcessor,
  LlavaNextImageProcessor,
  normalizedPatches,
  type Pixels,
  type PreprocessorConfig,
  type ProcessorOptions,
  patchify,
  type RawImage,
  type Resample,
  resizeImage,
  resizePositions,
  selectBestResolution,
} from "hinode/models";
import { type Case, caseGroup } from "./cases.ts";
import { NotCovered } from "./values.ts";

type Pair = [number, number];
type Run<A> = (args: A, input: Tensor) => Tensor | Tensor[] | Promise<Tensor | Tensor[]>;

/** [H, W] or [H, W, C] */
async function imageOf(t: Tensor): Promise<RawImage<Pixels>> {
  const [height, width, channels = 1] = t.shape;
  return { width, height, channels, data: (await t.data()) as Pixels };
}

const bytesOf = async (t: Tensor) => (await imageOf(t)) as RawImage;

/** One channel has no axis of its own, as in NumPy's view of Pillow's images. */
const tensorOf = ({ width, height, channels, data }: RawImage<Pixels>): Tensor =>
  tensor(data, {
    dtype: data instanceof Float32Array ? "f32" : "u8",
    shape: channels === 1 ? [height, width] : [height, width, channels],
  });

const operations = {
  "PIL.Image.resize": async (
    args: { size: Pair; resample: Resample; box?: [number, number, number, number]; reducing_gap?: number }, // biome-ignore format: one line
    input,
  ) => {
    if (args.reducing_gap) throw new NotCovered("Image.resize with reducing_gap");
    const [width, height] = args.size;
    return tensorOf(resizeImage(await imageOf(input), { width, height }, args));
  },
  "PIL.Image.convert": async ({ mode }: { mode: ImageMode }, input) =>
    tensorOf(convertImage(await bytesOf(input), mode)),
  resize_pos_embed: (args: { old_grid: Pair; new_grid: Pair; antialias: boolean }, input) =>
    resizePositions(input, args.old_grid, args.new_grid, args),
  select_best_resolution: async ({ grid_pinpoints }: { grid_pinpoints: Pair[] }, input) => {
    const sizes = Array.from({ length: input.shape[0] }, async (_, i) => {
      const [height, width] = await input.select(0, i).data();
      const best = selectBestResolution({ width, height }, grid_pinpoints);
      return [best, fitInside({ width, height }, best)];
    });
    const found = await Promise.all(sizes);
    return [0, 1].map((k) =>
      tensor(
        found.map((sides) => [sides[k].height, sides[k].width]),
        { dtype: "i32" },
      ),
    );
  },
  patchify: ({ patch_size }: { patch_size: number }, input) => patchify(input, patch_size),
  normalized_patch_targets: (_: object, input) => normalizedPatches(input),
} satisfies Record<string, Run<never>>;

const processors: Readonly<
  Record<string, (image: RawImage, config: PreprocessorConfig, options: ProcessorOptions) => Tensor>
> = {
  CLIPImageProcessor: (image, ...how) => new CLIPImageProcessor(...how).process(image),
  LlavaImageProcessor: (image, ...how) => new LlavaImageProcessor(...how).process(image),
  LlavaNextImageProcessor: (image, ...how) =>
    new LlavaNextImageProcessor(...how).process(image).pixelValues,
};

async function outputs({ op = "", args = {} }: Case, [input]: Tensor[]): Promise<Tensor[]> {
  const processor = op.match(/^(\w+)\((pil|torchvision)\)$/);
  if (processor && processors[processor[1]]) {
    const arithmetic = processor[2] === "pil" ? "pillow" : "torch";
    const batch = processors[processor[1]](await bytesOf(input), args, { arithmetic });
    return [batch.select(0, 0)];
  }
  const run = (operations as Record<string, Run<object>>)[op];
  if (!run) throw new NotCovered(op);
  return [await run(args, input)].flat();
}

export const imagesGroup = caseGroup(outputs);
