/**
 * @file Printing tensors: shape, dtype, device, and the values if they are there (a tensor that is
 * not computed yet says so: printing never computes). The layout is PyTorch's, with "..." in the
 * middle of long axes above 1000 elements.
 */
import { cells } from "./cells.ts";
import { deviceNamed, handleOf } from "./device.ts";
import { type DType, isFloat, type TypedArray } from "./dtype.ts";
import { formatShape, numel, type Shape, stridesOf } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/** Elements from which on only the edges are shown, elements per edge, and columns per line. */
const threshold = 1000;
const edge = 3;
const lineWidth = 88;

/**
 * `Tensor([…], shape [2, 3], f32, wasm)`. Values that are not computed yet are not computed for
 * this.
 */
export function describeTensor(x: Tensor): string {
  const handle = handleOf(cells.peek(x));
  const storage = handle?.failure === undefined ? handle?.allocation?.storage : undefined;
  if (!handle || !storage) return layoutTensor(x, null);
  const { backend } = deviceNamed(handle.device);
  if (backend.asynchronous) return layoutTensor(x, "values on the GPU, see print(x)");
  return layoutTensor(x, backend.download(storage, x.dtype, numel(x.shape)) as TypedArray);
}

/** Waits for the values and prints the tensor on the console. */
export async function print(x: Tensor): Promise<void> {
  const data = await x.data();
  console.log(layoutTensor(x, data));
}

function layoutTensor(x: Tensor, data: TypedArray | string | null): string {
  const name = x.name === undefined ? "" : `${x.name}: `;
  const facts = [`shape ${formatShape(x.shape)}`, x.dtype, x.device];
  if (x.requiresGrad) facts.push("requiresGrad");
  const head = `${name}Tensor(`;
  const values =
    typeof data === "object" && data
      ? formatValues(data, x.shape, x.dtype, head.length)
      : (data ?? "not computed yet");
  return `${head}${values}, ${facts.join(", ")})`;
}

/** Nested brackets around the values; `indent` columns stand before the first. */
export function formatValues(data: TypedArray, shape: Shape, dtype: DType, indent = 0): string {
  const summarised = numel(shape) > threshold;
  const strides = stridesOf(shape);
  const shown = (axis: number): (number | null)[] => {
    const n = shape[axis];
    const all = [...Array(Math.min(n, 2 * edge + 1)).keys()];
    if (!summarised || n <= 2 * edge) return n <= 2 * edge ? all.slice(0, n) : [...Array(n).keys()];
    return all.map((i) => (i < edge ? i : i === edge ? null : n - (2 * edge + 1) + i));
  };
  const visible: number[] = [];
  const visit = (axis: number, at: number): void => {
    if (axis === shape.length) visible.push(data[at]);
    else for (const i of shown(axis)) if (i !== null) visit(axis + 1, at + i * strides[axis]);
  };
  visit(0, 0);
  const write = numberFormat(visible, dtype);
  const width = Math.max(0, ...visible.map((v) => write(v).length));

  const layout = (axis: number, at: number, column: number): string => {
    if (axis === shape.length) return write(data[at]).padStart(width);
    const inner = axis === shape.length - 1;
    const items = shown(axis).map((i) =>
      i === null ? "..." : layout(axis + 1, at + i * strides[axis], column + 1),
    );
    const pad = " ".repeat(column + 1);
    if (!inner) return `[${items.join(`,${"\n".repeat(shape.length - axis - 1)}${pad}`)}]`;
    const perLine = Math.max(1, Math.floor((lineWidth - column) / (width + 2)));
    const lines: string[] = [];
    for (let i = 0; i < items.length; i += perLine)
      lines.push(items.slice(i, i + perLine).join(", "));
    return `[${lines.join(`,\n${pad}`)}]`;
  };
  return layout(0, 0, indent);
}

/**
 * One format for all values: integers as such, else four decimals, or powers of ten where those
 * would hide digits.
 */
function numberFormat(values: readonly number[], dtype: DType): (v: number) => string {
  if (dtype === "bool") return (v) => (v === 0 ? "false" : "true");
  if (!isFloat(dtype)) return String;
  const special = (v: number): string | null =>
    Number.isNaN(v) ? "nan" : v === Infinity ? "inf" : v === -Infinity ? "-inf" : null;
  const sizes = values.map(Math.abs).filter((v) => v > 0 && v < Infinity);
  const [low, high] = [Math.min(...sizes), Math.max(...sizes)];
  const scientific = sizes.length > 0 && (high >= 1e8 || low < 1e-4 || high / low > 1e5);
  const sign = (v: number, text: string) => (Object.is(v, -0) ? `-${text}` : text);
  if (sizes.every(Number.isInteger) && !scientific)
    return (v) => special(v) ?? sign(v, `${v.toFixed(0)}.`);
  if (scientific) return (v) => special(v) ?? sign(v, v.toExponential(4));
  return (v) => special(v) ?? sign(v, v.toFixed(4));
}
