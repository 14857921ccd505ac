/**
 * @file Evaluates the fixtures' calls: PyTorch expressions as syntax trees (`expr`), on Hinode's tensors.
 *
 * This file knows Python's operators, indexing, lambdas and sequences; functions.ts knows which function of ours stands
 * for which of PyTorch's. A call that has no counterpart throws NotCovered with its name, so that nothing is left out
 * silently.
 */
import * as hinode from "hinode";
import { type DType, Tensor } from "hinode";
import { callFunction, functionValue } from "./functions.ts";

/** Something that the library does not have: the case is counted under this name. */
export class NotCovered extends Error {}

// biome-ignore lint/suspicious/noExplicitAny: a tree from JSON, taken apart by its keys
export type Expr = any;
// biome-ignore lint/suspicious/noExplicitAny: what a Python expression may be: tensors, numbers, lists, functions
export type Value = any;
/** Names of lambdas and sequences; `$` holds the inputs. */
export type Env = Readonly<Record<string, Value>>;

export const dtypes: Readonly<Record<string, DType>> = {
  "torch.float32": "f32",
  "torch.float64": "f32",
  "torch.int32": "i32",
  "torch.int64": "i32",
  "torch.uint8": "u8",
  "torch.int8": "i8",
  "torch.bool": "bool",
};

const numberOf = (x: number | string): number =>
  typeof x === "number" ? x : { inf: Infinity, "-inf": -Infinity, nan: Number.NaN }[x]!;

/** The rules by the key that only their node has. */
const rules: readonly [key: string, rule: (e: Expr, env: Env) => Value][] = [
  ["int", (e) => numberOf(e.int)],
  ["float", (e) => numberOf(e.float)],
  ["str", (e) => e.str],
  ["input", (e, env) => env.$[e.input]],
  ["inputs", (_, env) => env.$],
  ["name", (e, env) => lookUp(e.name, env)],
  ["fn", (e) => dtypes[e.fn] ?? functionValue(e.fn)],
  ["call", (e, env) => call(e, env)],
  ["op", (e, env) => binary(e.op, evaluate(e.left, env), evaluate(e.right, env))],
  ["unary", (e, env) => unary(e.unary, evaluate(e.of, env))],
  [
    "compare",
    (e, env) =>
      compare(
        e.compare,
        e.terms.map((t: Expr) => evaluate(t, env)),
      ),
  ],
  ["list", (e, env) => elements(e.list, env)],
  ["tuple", (e, env) => elements(e.tuple, env)],
  ["index", (e, env) => index(evaluate(e.index, env), evaluateIndex(e.at, env))],
  ["attr", (e, env) => property(evaluate(e.of, env), e.attr)],
  ["lambda", (e, env) => lambda(e, env)],
  [
    "for",
    (e, env) => [...evaluate(e.in, env)].map((v) => evaluate(e.yield, { ...env, [e.for]: v })),
  ],
  ["nthDerivatives", (e, env) => nthDerivatives(evaluate(e.f, env), e.nthDerivatives, env.$[0])],
];

export function evaluate(e: Expr, env: Env): Value {
  if (e === null || typeof e !== "object") return e;
  for (const [key, rule] of rules) if (key in e) return rule(e, env);
  throw new NotCovered(`syntax ${Object.keys(e)}`);
}

function lookUp(name: string, env: Env): Value {
  if (name in env) return env[name];
  const builtins: Record<string, Value> = {
    inf: Infinity,
    float: (x: string) => numberOf(x),
    len: (x: Tensor | Value[]) => (x instanceof Tensor ? x.shape[0] : x.length),
    range: (n: number) => Array.from({ length: n }, (_, i) => i),
    sum: (xs: Value[]) => xs.reduce((a, b) => binary("+", a, b)),
  };
  if (name in builtins) return builtins[name];
  throw new NotCovered(name);
}

const elements = (list: Expr[], env: Env): Value[] =>
  list.flatMap((x) => (x?.spread ? evaluate(x.spread, env) : [evaluate(x, env)]));

function call(e: Expr, env: Env): Value {
  const args = elements(e.args, env);
  const kwargs = Object.fromEntries(
    Object.entries(e.kwargs ?? {}).map(([name, value]) => [name, evaluate(value, env)]),
  );
  const f = e.call;
  if (f.fn) return callFunction(f.fn, args, kwargs);
  if (f.attr === "reduce") {
    // functools.reduce(f, range, start)
    const [step, list, start] = args;
    return list.reduce(step, start);
  }
  if (f.attr) {
    const self = evaluate(f.of, env);
    return callFunction(`torch.Tensor.${f.attr}`, [self, ...args], kwargs);
  }
  return evaluate(f, env)(...args);
}

const lambda =
  (e: Expr, env: Env) =>
  (...args: Value[]): Value =>
    evaluate(e.body, {
      ...env,
      ...Object.fromEntries(e.lambda.map((n: string, i: number) => [n, args[i]])),
    });

function binary(op: string, a: Value, b: Value): Value {
  if (!(a instanceof Tensor || b instanceof Tensor)) {
    if (typeof a !== "number" || typeof b !== "number")
      throw new NotCovered(`operator ${op} on lists`);
    const onNumbers: Record<string, number> = {
      "+": a + b,
      "-": a - b,
      "*": a * b,
      "/": a / b,
      "//": Math.floor(a / b),
      "**": a ** b,
    };
    return onNumbers[op];
  }
  const names: Record<string, string> = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "//": "floor_divide",
    "**": "pow",
    "@": "matmul",
    "%": "remainder",
    "&": "bitwise_and",
    "|": "bitwise_or",
    "^": "bitwise_xor",
  };
  if (!names[op]) throw new NotCovered(`operator ${op}`);
  return callFunction(`torch.${names[op]}`, [a, b], {});
}

function unary(op: string, x: Value): Value {
  if (typeof x === "number" && op === "-") return -x;
  return callFunction(op === "-" ? "torch.neg" : "torch.bitwise_not", [x], {});
}

function compare(ops: string[], [a, b]: Value[]): Value {
  const names: Record<string, string> = {
    ">": "gt",
    "<": "lt",
    ">=": "ge",
    "<=": "le",
    "==": "eq",
    "!=": "ne",
  };
  return callFunction(`torch.${names[ops[0]]}`, [a, b], {});
}

function property(x: Value, name: string): Value {
  if (name === "shape") return x.shape;
  if (name === "dtype") return x.dtype;
  if (name === "T" || name === "mT") return x[name];
  // A method that is not called at once: `torch.Tensor.sum` as a function.
  return (...args: Value[]) => callFunction(`torch.Tensor.${name}`, [x, ...args], {});
}

// ---- indexing: an integer, a tensor, null (new axis), "..." or {slice}

type Slice = { slice: [number | null, number | null, number | null] };
type Index = number | Tensor | null | "..." | Slice;

function evaluateIndex(e: Expr, env: Env): Index[] {
  if (e?.tuple) return e.tuple.flatMap((x: Expr) => evaluateIndex(x, env));
  if (e?.slice) return [{ slice: e.slice.map((x: Expr) => evaluate(x, env)) }];
  if (e?.ellipsis) return ["..."];
  return [evaluate(e, env)];
}

function index(x: Value, at: Index[]): Value {
  if (Array.isArray(x)) return x.at(at[0] as number);
  const ours = at.map((i) => {
    if (i === null || typeof i !== "object" || i instanceof Tensor) return i;
    const [start, stop, step] = i.slice;
    return { start, stop, step };
  });
  const masked = at.some((i) => i instanceof Tensor && i.dtype === "bool");
  return masked ? x.maskedIndex(...ours) : x.index(...ours);
}

// ---- derivatives

/** f and its first n element-wise derivatives: the gradient of a sum is element-wise. */
function nthDerivatives(f: (x: Tensor) => Tensor, n: number, x: Tensor): Tensor[] {
  const functions = [f];
  for (let k = 1; k <= n; k++) {
    const previous = functions[k - 1];
    functions.push(hinode.grad((z: Tensor) => previous(z).sum()) as (x: Tensor) => Tensor);
  }
  return functions.map((g) => g(x));
}

/** A double-backward sequence: `y = …; gx = grad(y, x[0], v); grad(gx, [names], u)`; all values in order. */
export function evaluateSequence(
  steps: Expr[],
  inputs: Readonly<Record<string, Tensor>>,
): Tensor[] {
  const differentiable = Object.keys(inputs).filter((n) => n !== "v" && n !== "u");
  /** torch.autograd.grad; its list of inputs holds their names. */
  const grad = (y: Tensor, wrt: Tensor | string[], v: Tensor): Tensor | Tensor[] => {
    const one = wrt instanceof Tensor;
    const targets = one ? [wrt] : wrt.map((name) => inputs[name]);
    const options = { gradOutputs: v, createGraph: true, allowUnused: true };
    const found = hinode
      .gradients(y, targets, options)
      .map((g, i) => g ?? hinode.zeros(targets[i].shape));
    return one ? found[0] : found;
  };
  const env: Record<string, Value> = {
    x: differentiable.map((n) => inputs[n]),
    v: inputs.v,
    u: inputs.u,
    grad: (y: Tensor, wrt: Tensor | string[], v: Tensor) => grad(y, wrt, v),
    $: [],
  };
  return steps.flatMap((step) => {
    const value = evaluate(step.assign ? step.value : step, env);
    if (step.assign) env[step.assign] = value;
    return [value].flat();
  });
}
