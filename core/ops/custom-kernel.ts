/**
 * @file Kernels that a program writes itself, as operations like any other: a composition of tensor operations says what such a
 * kernel computes and runs wherever the kernel does not, and the kernel takes its place on the devices that it names.
 * Recording is transform/region.ts's, running is kernel/custom.ts's, and the language of bodies is kernel/builder.ts.
 */
import { isReserved } from "../backend/webgpu/wgsl-custom.ts";
import { defaultDevice } from "../device.ts";
import { type DType, dtypes } from "../dtype.ts";
import { ArgumentError, DTypeError, describe, ShapeError } from "../errors.ts";
import { type OwnGradient, ownRegion } from "../functional.ts";
import type { DeviceName } from "../graph/node.ts";
import { KernelBuilder, type TensorSpec } from "../kernel/builder.ts";
import { checkKernel } from "../kernel/check.ts";
import { bufferOf, CustomKernel, type Forms, type Shader, shaderKernel } from "../kernel/custom.ts";
import type { Kernel } from "../kernel/ir.ts";
import { formatShape, numel, sameShape } from "../shape.ts";
import { Tensor } from "../tensor.ts";

export type { KernelBuilder, TensorSpec } from "../kernel/builder.ts";

/** The body of a compute shader. */
export interface WgslBody {
  /**
   * The statements of `main`. For an input or output x there are the array `x`, its number of elements `x_size` (`arrayLength`
   * may be larger) and, unless it is 0-d, `x_shape`. `index` numbers the invocations of the dispatch, `workgroup` the
   * workgroups, `local_index` the invocations of a workgroup and `local_id` its position there: all u32.
   */
  body: string;
  /** Functions, constants and `var<workgroup>`. */
  declarations?: string;
  /** Invocations of a workgroup (default 64). */
  workgroupSize?: number | readonly [x: number, y?: number, z?: number];
  /** Default: as many as give every element of the first output an invocation. */
  workgroups?: number;
}

/** What the shapes of a call are. */
export interface KernelShapes {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

type KernelDevice = "wasm" | "webgpu";
type Results = Tensor | readonly Tensor[];

export interface CustomKernelOptions<R extends Results> {
  /** For reports and messages. */
  name: string;
  /** The names of the inputs, in the order of the arguments. */
  inputs: readonly string[];
  /** The shape and dtype of each output, by its name. Throws a ShapeError or DTypeError for inputs that it does not take. */
  outputs: (...inputs: TensorSpec[]) => Readonly<Record<string, TensorSpec>>;
  /** What the kernel computes, in tensor operations: one tensor, or an array as long as `outputs`. */
  reference: (...inputs: Tensor[]) => R;
  /** The kernel in the kernel language, for wasm and webgpu. */
  kernel?: (k: KernelBuilder) => void;
  /** The kernel for webgpu as WGSL; takes precedence there. Its inputs and outputs are f32, i32 or u32. */
  wgsl?: WgslBody | ((shapes: KernelShapes) => WgslBody);
  /** Where the kernel runs (default: wherever it can); elsewhere `reference` does. */
  devices?: readonly KernelDevice[];
  /** As of customGradient; by default the derivative of `reference`. */
  gradient?: OwnGradient<Tensor[], R>;
  /** `outputs` and `wgsl` take further leading axes, the same of all inputs: then vmap of all inputs runs the WGSL too. */
  leadingAxes?: boolean;
}

/** A kernel as an operation. */
export interface CustomKernelFunction<R extends Results> {
  (...inputs: Tensor[]): R;
  readonly reference: (...inputs: Tensor[]) => R;
  /** What it makes of inputs like these. */
  outputs(...inputs: TensorSpec[]): readonly TensorSpec[];
  /** The kernels for inputs like these, by device; checked. */
  kernels(...inputs: TensorSpec[]): { readonly [D in DeviceName]?: Kernel };
}

/** A program has few shapes; one that has more makes its oldest kernels anew. */
const maxShapes = 256;

/**
 * A kernel of the program's own as an operation: inside `compile`, under `grad` (its `gradient`, else the derivative of its
 * reference), `jvp` (of the reference) and `vmap`. A body in the kernel language runs batched under vmap; of WGSL the
 * reference does, unless `leadingAxes` says that it can. Empty tensors go to the reference. Define it once, not in
 * a function that is called often: what is compiled belongs to the definition.
 *
 * Errors: the kernel language is checked when the operation is called with new shapes (KernelError: indices outside their
 * tensors, stores that iterations share, dtypes); WGSL when it is compiled (KernelError with the whole source).
 */
export function customKernel<R extends Results>(
  options: CustomKernelOptions<R>,
): CustomKernelFunction<R> {
  const definition = new Definition(options);
  const call = (...inputs: Tensor[]): R => {
    definition.checkInputs(inputs);
    const { specs, kernel } = definition.prepare(inputs);
    const checked = (...args: Tensor[]): R => {
      const made = options.reference(...args);
      definition.checkResults(made, specs);
      return made;
    };
    const { name, gradient } = options;
    return ownRegion(name, name, checked, inputs, gradient, kernel ?? undefined);
  };
  Object.defineProperty(call, "name", { value: options.name });
  return Object.assign(call, {
    reference: options.reference,
    outputs: (...inputs: TensorSpec[]) => Object.values(definition.outputs(inputs)),
    kernels: (...inputs: TensorSpec[]) =>
      Object.fromEntries(
        Object.entries(definition.forms(inputs)).map(([device, form]) => [device, form.kernel]),
      ),
  });
}

const text = ({ dtype, shape }: TensorSpec): string => `${dtype}${formatShape(shape)}`;
const natural = (n: unknown): n is number => Number.isInteger(n) && (n as number) >= 0;

class Definition<R extends Results> {
  readonly #options: CustomKernelOptions<R>;
  readonly #known = new Map<string, { specs: TensorSpec[]; kernel: CustomKernel | null }>();

  constructor(options: CustomKernelOptions<R>) {
    this.#options = options;
    const { inputs, kernel, wgsl, devices = [] } = options;
    if (!kernel && !wgsl) this.#fail("a `kernel` or a `wgsl` body", "neither");
    this.#checkNames(inputs);
    for (const device of devices)
      if (!(device === "webgpu" || (device === "wasm" && kernel)))
        this.#fail("devices that its bodies run on", `'${device}'`);
  }

  #fail(expected: string, got: string, hint?: string): never {
    throw new ArgumentError(describe(this.#options.name, expected, got, hint));
  }

  /** Names become WGSL's. */
  #checkNames(names: readonly string[]): void {
    // With every tensor come its constants.
    const taken = new Set(names.flatMap((name) => [`${name}_size`, `${name}_shape`]));
    const known = (name: string) => isReserved(name) || taken.has(name);
    for (const [i, name] of names.entries())
      if (!/^[a-zA-Z]\w*$/.test(name) || known(name) || names.indexOf(name) < i)
        this.#fail("distinct names of letters and digits that mean nothing in WGSL", `'${name}'`);
  }

  checkInputs(inputs: readonly Tensor[]): void {
    const wanted = this.#options.inputs;
    const fits = inputs.length === wanted.length && inputs.every((x) => x instanceof Tensor);
    if (!fits) this.#fail(`tensors (${wanted.join(", ")})`, `${inputs.length} arguments`);
  }

  checkResults(made: Results, specs: readonly TensorSpec[]): void {
    const got = made instanceof Tensor ? [made] : made;
    const fits =
      got.length === specs.length &&
      got.every((t, i) => t.dtype === specs[i].dtype && sameShape(t.shape, specs[i].shape));
    if (!fits)
      throw new ShapeError(
        describe(
          this.#options.name,
          `a reference that gives ${specs.map(text).join(", ")}, as \`outputs\` says`,
          got.map(text).join(", ") || "nothing",
        ),
      );
  }

  outputs(inputs: readonly TensorSpec[]): Readonly<Record<string, TensorSpec>> {
    const made = this.#options.outputs(...inputs);
    const found = Object.entries(made);
    if (found.length === 0) this.#fail("at least one output", "none");
    this.#checkNames([...this.#options.inputs, ...Object.keys(made)]);
    for (const [name, { shape, dtype }] of found)
      if (!(dtype in dtypes) || !Array.isArray(shape) || !shape.every(natural))
        this.#fail(`a shape and a dtype of ${name}`, `${dtype}[${shape}]`);
    return Object.fromEntries(found.map(([k, { shape, dtype }]) => [k, { shape, dtype }]));
  }

  /** The outputs for such inputs, and the kernel; null where there is nothing to compute. */
  prepare(args: readonly Tensor[]) {
    const home = args.find((t) => t.node.device)?.device ?? defaultDevice().name;
    const key = `${home} ${args.map(text).join()}`;
    const inputs = args.map(({ shape, dtype }) => ({ shape, dtype }));
    let found = this.#known.get(key);
    if (!found) {
      const specs = Object.values(this.outputs(inputs));
      const empty = [...inputs, ...specs].some(({ shape }) => numel(shape) === 0);
      const batch = (size: number): Forms | null =>
        this.#options.leadingAxes
          ? this.forms(inputs.map(({ shape, dtype }) => ({ shape: [size, ...shape], dtype })))
          : null;
      const kernel = empty
        ? null
        : new CustomKernel(this.forms(inputs), inputs.length, home, batch);
      found = { specs, kernel };
      this.#known.set(key, found);
      if (this.#known.size > maxShapes) this.#known.delete(this.#known.keys().next().value!);
    }
    return found;
  }

  forms(inputs: readonly TensorSpec[]): Forms {
    const { kernel, wgsl, devices = kernel ? ["wasm", "webgpu"] : ["webgpu"] } = this.#options;
    const outputs = this.outputs(inputs);
    const forms: { [D in DeviceName]?: Forms[D] } = {};
    for (const device of devices)
      forms[device] =
        device === "webgpu" && wgsl
          ? this.#shaderForm(inputs, outputs)
          : { kernel: this.#written(device, inputs, Object.values(outputs)) };
    return forms;
  }

  #buffers = (inputs: readonly TensorSpec[], outputs: readonly TensorSpec[]) => [
    ...inputs.map((x) => bufferOf(x, "read")),
    ...outputs.map((y) => bufferOf(y, "write")),
  ];

  /** A body in the kernel language, checked. */
  #written(
    device: KernelDevice,
    inputs: readonly TensorSpec[],
    outputs: readonly TensorSpec[],
  ): Kernel {
    const { name, kernel: write } = this.#options;
    const builder = new KernelBuilder(name, device, inputs, outputs);
    write!(builder);
    const kernel = builder.finish(this.#buffers(inputs, outputs));
    checkKernel(kernel, device);
    return kernel;
  }

  #shaderForm(inputs: readonly TensorSpec[], outputs: Readonly<Record<string, TensorSpec>>) {
    const { name, wgsl, inputs: names } = this.#options;
    const specs = [...inputs, ...Object.values(outputs)];
    const allowed: readonly DType[] = ["f32", "i32", "u32"];
    for (const spec of specs)
      if (!allowed.includes(spec.dtype))
        throw new DTypeError(
          describe(
            `${name} as WGSL`,
            "tensors of f32, i32 or u32",
            text(spec),
            "cast it, or write the body in the kernel language",
          ),
        );
    const results = Object.values(outputs);
    const made = typeof wgsl === "function" ? wgsl({ inputs, outputs: results }) : wgsl!;
    const { body, declarations = "", workgroupSize = 64 } = made;
    const [x, y = 1, z = 1] = typeof workgroupSize === "number" ? [workgroupSize] : workgroupSize;
    const { workgroups = Math.ceil(numel(results[0].shape) / (x * y * z)) } = made;
    for (const n of [x, y, z, workgroups])
      if (!natural(n) || n === 0)
        this.#fail("at least one workgroup of at least one invocation", `${n}`);
    const shader: Shader = {
      names: [...names, ...Object.keys(outputs)],
      shapes: specs.map((s) => s.shape),
      declarations,
      body,
      workgroupSize: [x, y, z],
      workgroups,
    };
    return { kernel: shaderKernel(name, this.#buffers(inputs, results), shader), shader };
  }
}
