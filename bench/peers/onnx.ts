/**
 * @file Writes a recorded program as an ONNX model, the protocol buffer by hand: only the fields that a runtime asks for. Weights
 * become initialisers, other inputs are fed. Field numbers: onnx.proto3; operators: opset 20.
 */
import { type Input, valuesOf } from "../suite/inputs.ts";
import type { Ops } from "../suite/ops.ts";
import type { Recorded, Recording } from "../suite/record.ts";

type Bytes = number[] | Uint8Array;

function varint(value: number): number[] {
  const out: number[] = [];
  // Negative integers are 64 bits of two's complement.
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    out.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return out;
}

/** Parts of a message, joined once at the end: weights are megabytes. */
class Message {
  readonly parts: Uint8Array[] = [];

  int(field: number, value: number): this {
    this.parts.push(Uint8Array.from([...varint(field << 3), ...varint(value)]));
    return this;
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(new Float32Array([value]).buffer);
    this.parts.push(Uint8Array.from([...varint((field << 3) | 5), ...bytes]));
    return this;
  }

  bytes(field: number, value: Bytes | string | Message): this {
    const data =
      typeof value === "string"
        ? new TextEncoder().encode(value)
        : value instanceof Message
          ? value.finish()
          : Uint8Array.from(value);
    this.parts.push(Uint8Array.from([...varint((field << 3) | 2), ...varint(data.length)]), data);
    return this;
  }

  finish(): Uint8Array {
    const out = new Uint8Array(this.parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of this.parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
}

const types = { f32: 1, i32: 6, i64: 7 };

function tensor(
  name: string,
  shape: readonly number[],
  dtype: keyof typeof types,
  data: ArrayBufferView,
): Message {
  const message = new Message();
  for (const size of shape) message.int(1, size);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return message.int(2, types[dtype]).bytes(8, name).bytes(9, bytes);
}

function valueInfo(name: string, { shape, dtype }: Pick<Input, "shape" | "dtype">): Message {
  const sizes = new Message();
  for (const size of shape) sizes.bytes(1, new Message().int(1, size));
  const type = new Message().int(1, types[dtype]).bytes(2, sizes);
  return new Message().bytes(1, name).bytes(2, new Message().bytes(1, type));
}

type Attribute = number | readonly number[] | { readonly float: number };

function attribute(name: string, value: Attribute): Message {
  const message = new Message().bytes(1, name);
  if (typeof value === "number") return message.int(3, value).int(20, 2);
  if ("float" in value) return message.float(2, value.float).int(20, 1);
  for (const v of value) message.int(8, v);
  return message.int(20, 7);
}

export function onnxModel({ inputs, nodes, outputs, shapes }: Recording): Uint8Array {
  const graph = new Message();
  let fresh = 0;
  const emit = (
    type: string,
    of: readonly string[],
    attributes: Record<string, Attribute> = {},
    to = `t${fresh++}`,
  ): string => {
    const message = new Message();
    for (const name of of) message.bytes(1, name);
    message.bytes(2, to).bytes(4, type);
    for (const [name, value] of Object.entries(attributes))
      message.bytes(5, attribute(name, value));
    graph.bytes(1, message);
    return to;
  };
  const integers = (values: readonly number[]): string => {
    const name = `c${fresh++}`;
    graph.bytes(5, tensor(name, [values.length], "i64", BigInt64Array.from(values, BigInt)));
    return name;
  };
  const number = (value: number): string => {
    const name = `c${fresh++}`;
    graph.bytes(5, tensor(name, [], "f32", new Float32Array([value])));
    return name;
  };
  const swapLast = (x: string): string => {
    const axes = shapes[x].map((_, i) => i);
    const rank = axes.length;
    return emit("Transpose", [x], { perm: [...axes.slice(0, -2), rank - 1, rank - 2] });
  };
  const refused = (op: string): never => {
    throw new Error(`${op}: forward only`);
  };
  const translate: Record<keyof Ops<unknown>, (node: Recorded, to: string) => void> = {
    matmul: ({ of: [a, b], with: [transposed] }, to) =>
      emit("MatMul", [a, transposed ? swapLast(b) : b], {}, to),
    add: ({ of }, to) => emit("Add", of, {}, to),
    mul: ({ of }, to) => emit("Mul", of, {}, to),
    affine: ({ of: [x], with: [scale, shift] }, to) => {
      if (shift === 0) return emit("Mul", [x, number(scale as number)], {}, to);
      return emit(
        "Add",
        [emit("Mul", [x, number(scale as number)]), number(shift as number)],
        {},
        to,
      );
    },
    gelu: ({ of }, to) => emit("Gelu", of, {}, to),
    silu: ({ of: [x] }, to) => emit("Mul", [x, emit("Sigmoid", [x])], {}, to),
    softmax: ({ of }, to) => emit("Softmax", of, { axis: -1 }, to),
    layerNorm: ({ of }, to) =>
      emit("LayerNormalization", of, { axis: -1, epsilon: { float: 1e-5 } }, to),
    rmsNorm: ({ of: [x, weight] }, to) => {
      const mean = emit("ReduceMean", [emit("Mul", [x, x]), integers([-1])], { keepdims: 1 });
      const root = emit("Sqrt", [emit("Add", [mean, number(1e-5)])]);
      return emit("Mul", [emit("Div", [x, root]), weight], {}, to);
    },
    reshape: ({ of: [x], with: [shape] }, to) =>
      emit("Reshape", [x, integers(shape as number[])], {}, to),
    transpose: ({ of, with: [perm] }, to) => emit("Transpose", of, { perm: perm as number[] }, to),
    slice: ({ of: [x], with: [axis, start, length] }, to) => {
      const [from, size] = [start as number, length as number];
      return emit(
        "Slice",
        [x, integers([from]), integers([from + size]), integers([axis as number])],
        {},
        to,
      );
    },
    concat: ({ of, with: [axis] }, to) => emit("Concat", of, { axis: axis as number }, to),
    mean: ({ of: [x], with: [axis] }, to) =>
      emit("ReduceMean", [x, integers([axis as number])], { keepdims: 0 }, to),
    embedding: ({ of }, to) => emit("Gather", of, { axis: 0 }, to),
    attention: ({ of: [q, k, v], with: [causal] }, to) => {
      const [T, width] = shapes[q].slice(-2);
      const product = emit("MatMul", [q, swapLast(k)]);
      let scores = emit("Mul", [product, number(1 / Math.sqrt(width))]);
      if (causal) {
        const mask = Float32Array.from({ length: T * T }, (_, i) =>
          i % T <= Math.floor(i / T) ? 0 : -1e9,
        );
        const name = `c${fresh++}`;
        graph.bytes(5, tensor(name, [T, T], "f32", mask));
        scores = emit("Add", [scores, name]);
      }
      return emit("MatMul", [emit("Softmax", [scores], { axis: -1 }), v], {}, to);
    },
    conv2d: ({ of, with: [stride, padding] }, to) => {
      const [s, p] = [stride as number, padding as number];
      return emit("Conv", of, { strides: [s, s], pads: [p, p, p, p] }, to);
    },
    crossEntropy: () => refused("crossEntropy"),
    sort: ({ of: [x] }, to) => topk(x, shapes[x].at(-1)!, 0, to),
    topk: ({ of: [x], with: [k] }, to) => topk(x, k as number, 1, to),
  };
  const topk = (x: string, k: number, largest: number, to: string): void => {
    const message = new Message()
      .bytes(1, x)
      .bytes(1, integers([k]))
      .bytes(2, to)
      .bytes(2, `${to}.indices`);
    message
      .bytes(4, "TopK")
      .bytes(5, attribute("axis", -1))
      .bytes(5, attribute("largest", largest));
    graph.bytes(1, message);
  };

  nodes.forEach((node, i) => {
    translate[node.op](node, `%${i}`);
  });
  graph.bytes(2, "bench");
  for (const [name, input] of Object.entries(inputs)) {
    if (input.weight) graph.bytes(5, tensor(name, input.shape, input.dtype, valuesOf(name, input)));
    else graph.bytes(11, valueInfo(name, input));
  }
  for (const name of outputs) {
    // Its type; shapes of results are the runtime's to find.
    const type = new Message().bytes(1, new Message().int(1, types.f32));
    graph.bytes(12, new Message().bytes(1, name).bytes(2, type));
  }
  const opset = new Message().bytes(1, "").int(2, 20);
  return new Message().int(1, 9).bytes(7, graph).bytes(8, opset).finish();
}
