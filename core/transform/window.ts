/**
 * @file The transpose of sliding windows: every element gets the sum of what the windows that hold it carry (col2im).
 *
 * Written with movement only, so that it is fused into the sum: rows of windows are shifted against each other by reading
 * a padded array at a row length that is `dilation` shorter (a shear). Windows that do not overlap lie one behind the other,
 * and there is nothing to sum.
 */
import * as b from "../graph/build.ts";
import type { Node } from "../graph/node.ts";
import type { AttrsOf } from "../graph/primitives.ts";
import type { Shape } from "../shape.ts";

/** The cotangent of x from that of its windows, g [..., count, ..., size]. */
export function unwindow(g: Node, attrs: AttrsOf["window"], shape: Shape): Node {
  const { axis, size, stride, dilation } = attrs;
  const last = g.shape.length - 1;
  const rest = g.shape.map((_, i) => i).filter((i) => i !== axis && i !== last);
  const outer = rest.map((i) => g.shape[i]);
  const count = g.shape[axis];
  const zeros = outer.map(() => 0);
  /** [rest…, length] as x: what lies beyond the axis belongs to no window's element. */
  const placed = (line: Node, length: number): Node => {
    const fits = Math.min(length, shape[axis]);
    const cut = b.slice(line, [...zeros, 0], [...outer, fits]);
    const whole = b.pad(cut, [...zeros, 0], [...zeros, shape[axis] - fits], 0);
    return b.permute(
      whole,
      shape.map((_, i) => (i === axis ? rest.length : rest.indexOf(i))),
    );
  };
  if (dilation === 1 && stride >= size) {
    const windows = b.permute(g, [...rest, axis, last]);
    const apart = b.pad(windows, [...zeros, 0, 0], [...zeros, 0, stride - size], 0);
    return placed(b.reshape(apart, [...outer, count * stride]), count * stride);
  }
  // [rest…, size, count]
  let rows = b.permute(g, [...rest, last, axis]);
  // Windows start `stride` apart: zeros between them.
  rows = b.reshape(rows, [...outer, size, count, 1]);
  rows = b.pad(rows, [...zeros, 0, 0, 0], [...zeros, 0, 0, stride - 1], 0);
  const length = count * stride;
  rows = b.reshape(rows, [...outer, size, length]);
  // Shear: row k moves right by k·dilation.
  const width = length + (size - 1) * dilation;
  rows = b.pad(rows, [...zeros, 0, 0], [...zeros, 0, size * dilation], 0);
  rows = b.reshape(rows, [...outer, size * (width + dilation)]);
  rows = b.slice(rows, [...zeros, 0], [...outer, size * width]);
  return placed(b.sum(b.reshape(rows, [...outer, size, width]), [rest.length]), width);
}
