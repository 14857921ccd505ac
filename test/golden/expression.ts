/**
 * @file Evaluates the fixtures' calls: PyTorch expressions as syntax trees (`expr`), on Hinode's tensors.
 *
 * This file knows Python's operators, indexing, lambdas and sequences; call.ts finds what of ours stands
 * for a function of PyTorch's. A call that has no counterpart throws NotCovered with its name, so that nothing is left out
 * silently.
 */
import * as hinode from "hinode";
import { Tensor } from "hinode";
import { callFunction, functionValue } from "./call.ts";
import { NotCovered, settled, type Value } from "./values.ts";

// biome-ignore lint/suspicious/noExplicitAny: a tree from JSON, taken apart by its keys
export type Expr = any;
/** Names of lambdas and sequences; `$` holds the inputs. */
export type Env = Readonly<Record<string, Value>>;

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
  ["fn", (e) => functionValue(e.fn)],
  ["call", (e, env) => call(e, env)],
  [
    "op",
    (e, env) =>
      settled([evaluate(e.left, env), evaluate(e.right, env)], ([a, b]) =>
        binary(e.op, a, b, isFloat(e.left) || isFloat(e.right)),
      ),
  ],
  ["unary", (e, env) => settled([evaluate(e.of, env)], ([x]) => unary(e.unary, x))],
  [
    "compare",
    (e, env) =>
      settled(
        e.terms.map((t: Expr) => evaluate(t, env)),
        (terms) => compare(e.compare, terms, e.terms.some(isFloat)),
      ),
  ],
  ["list", (e, env) => elements(e.list, env)],
  ["tuple", (e, env) => elements(e.tuple, env)],
  [
    "index",
    (e, env) =>
      settled([evaluate(e.index, env), ...evaluateIndex(e.at, env)], ([x, ...at]) => index(x, at)),
  ],
  ["attr", (e, env) => settled([evaluate(e.of, env)], ([x]) => property(x, e.attr))],
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
    int: Math.trunc,
    abs: (x: Value) => (x instanceof Tensor ? x.abs() : Math.abs(x)),
    min: (...xs: Value[]) => Math.min(...xs.flat()),
    max: (...xs: Value[]) => Math.max(...xs.flat()),
    tuple: (xs: Value) => [...xs],
    list: (xs: Value) => [...xs],
    zip: (...lists: Value[][]) =>
      lists[0]
        .slice(0, Math.min(...lists.map((l) => l.length)))
        .map((_, i) => lists.map((l) => l[i])),
    enumerate: (xs: Value[]) => xs.map((x, i) => [i, x]),
    len: (x: Tensor | Value[]) => (x instanceof Tensor ? x.shape[0] : x.length),
    range: (...[a, b, step = 1]: number[]) => {
      const [start, stop] = b === undefined ? [0, a] : [a, b];
      return Array.from(
        { length: Math.max(0, Math.ceil((stop - start) / step)) },
        (_, i) => start + i * step,
      );
    },
    sum: (xs: Value[]) => xs.reduce((a, b) => binary("+", a, b)),
  };
  if (name in builtins) return builtins[name];
  throw new NotCovered(name);
}

const elements = (list: Expr[], env: Env): Value[] =>
  list.flatMap((x) => (x?.spread ? evaluate(x.spread, env) : [evaluate(x, env)]));

/** A Python float, or a list of them: JSON's numbers have no type. */
const isFloat = (e: Expr): boolean =>
  Boolean(e && typeof e === "object") &&
  ("float" in e || isFloat(e.unary && e.of) || [e.list, e.tuple].flat().some(isFloat));

function call(e: Expr, env: Env): Value {
  const keys = Object.keys(e.kwargs ?? {});
  const f = e.call;
  const self = f.attr && f.attr !== "reduce" ? [evaluate(f.of, env)] : [];
  const given = keys.map((key) => evaluate(e.kwargs[key], env));
  const float = e.args.some(isFloat) || Object.values(e.kwargs ?? {}).some(isFloat);
  return settled([...given, ...self, ...elements(e.args, env)], (values) => {
    const kwargs = Object.fromEntries(keys.map((key, i) => [key, values[i]]));
    const args = values.slice(keys.length);
    if (f.fn) return callFunction(f.fn, args, kwargs, float);
    if (f.attr === "reduce") {
      // functools.reduce(f, range, start)
      const [step, list, start] = args;
      return args.length > 2
        ? list.reduce(step, start)
        : list.reduce((a: Value, b: Value) => step(a, b));
    }
    if (f.attr) return callFunction(`torch.Tensor.${f.attr}`, args, kwargs, float);
    return evaluate(f, env)(...args);
  });
}

const lambda =
  (e: Expr, env: Env) =>
  (...args: Value[]): Value =>
    evaluate(e.body, {
      ...env,
      ...Object.fromEntries(e.lambda.map((n: string, i: number) => [n, args[i]])),
    });

function binary(op: string, a: Value, b: Value, float = false): Value {
  if (!(a instanceof Tensor || b instanceof Tensor)) {
    if (op === "+" && Array.isArray(a) && Array.isArray(b)) return [...a, ...b];
    if (op === "*" && Array.isArray(a)) return Array(b).fill(a).flat();
    if (typeof a !== "number" || typeof b !== "number")
      throw new NotCovered(`operator ${op} on lists`);
    const onNumbers: Record<string, number> = {
      "+": a + b,
      "-": a - b,
      "*": a * b,
      "/": a / b,
      "//": Math.floor(a / b),
      "**": a ** b,
      "%": a - b * Math.floor(a / b),
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
    "<<": "bitwise_left_shift",
    ">>": "bitwise_right_shift",
  };
  if (!names[op]) throw new NotCovered(`operator ${op}`);
  return callFunction(`torch.${names[op]}`, [a, b], {}, float);
}

function unary(op: string, x: Value): Value {
  if (typeof x === "number" && op === "-") return -x;
  if (op === "+") return x;
  if (op !== "-" && op !== "~") throw new NotCovered(`operator ${op}`);
  return callFunction(op === "-" ? "torch.neg" : "torch.bitwise_not", [x], {});
}

function compare(ops: string[], [a, b, ...more]: Value[], float: boolean): Value {
  if (more.length) throw new NotCovered("chained comparisons"); // Python's own refuse tensors
  const names: Record<string, string> = {
    ">": "gt",
    "<": "lt",
    ">=": "ge",
    "<=": "le",
    "==": "eq",
    "!=": "ne",
  };
  return callFunction(`torch.${names[ops[0]]}`, [a, b], {}, float);
}

/** Names that stand at the same place in PyTorch's named tuples. */
const fields = [
  ["values", "sign", "Q", "eigenvalues", "U", "min", "std", "var", "L", "LU", "solution", "P"],
  ["indices", "logabsdet", "R", "eigenvectors", "S", "max", "mean", "pivots", "residuals"],
  ["Vh", "V"],
];

function property(x: Value, name: string): Value {
  if (name === "shape") return x.shape;
  if (name === "dtype") return x.dtype;
  if (name === "ndim") return x.shape.length;
  if (name === "T" || name === "mT") return x[name];
  if (name === "real" || name === "imag") return callFunction(`torch.${name}`, [x], {});
  if (name === "H" || name === "mH") return x.mT;
  // Fields of named tuples, which are lists here.
  if (Array.isArray(x)) {
    const place = fields.findIndex((names) => names.includes(name));
    if (place < 0) throw new NotCovered(`the field ${name}`);
    return x[place];
  }
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
