/**
 * @file Calls what stands for a PyTorch function: finds its row in functions.ts or its entry in special.ts, and binds
 * Python's positional and keyword arguments to our parameters.
 */
import { Tensor } from "hinode";
import { firstNames, type Row, rows } from "./functions.ts";
import { constants, type Special, special } from "./special.ts";
import { exported, type Kwargs, NotCovered, type Value } from "./values.ts";

/** PyTorch's name as the tables have it: methods fall back on functions, and torch.f and functional.f on each other. */
function namesOf(name: string): string[] {
  const plain = name.replace("torch.Tensor.", "torch.");
  const base = plain.slice(plain.lastIndexOf(".") + 1);
  const functional = `torch.nn.functional.${base}`;
  const names = [name, plain];
  if (plain === functional) names.push(`torch.${base}`);
  else if (plain === `torch.${base}`) names.push(functional);
  return names.map((n) => firstNames.get(n) ?? n);
}

/** Calls what stands for PyTorch's `name`; throws NotCovered when nothing does. `float`: a Python float is among the arguments. */
export function callFunction(name: string, args: Value[], kwargs: Kwargs, float = false): Value {
  const found = resolve(name);
  if (!found) throw new NotCovered(name.replace(/^torch\.(Tensor\.|nn\.functional\.)?/, ""));
  const given = float && promoting.has(found.name) ? args.map(toFloat) : args;
  if (typeof found.target === "function") return found.target(given, known(kwargs), float);
  const result = exported(found.target.ours)(...ourArguments(found.target, given, known(kwargs)));
  // Our records are Python's named tuples.
  const fields: unknown[] = result?.constructor === Object ? Object.values(result) : [];
  return fields.length && fields.every((v) => v instanceof Tensor) ? fields : result;
}

/** What stands for a name of PyTorch's, whether or not the library exports it. */
export function resolve(
  name: string,
): { readonly name: string; readonly target: Row | Special } | undefined {
  for (const n of namesOf(name)) {
    const target = special[n] ?? rows.get(n);
    if (target) return { name: n, target };
  }
  return undefined;
}

/** Functions in which a Python float makes a float of an integer tensor; our numbers do not know that they were 2.0. */
const promoting = new Set(
  [
    "add sub rsub mul div pow remainder fmod floor_divide clamp clamp_min clamp_max maximum minimum where",
    "eq ne lt le gt ge lerp xlogy atan2 hypot copysign logaddexp logaddexp2 isclose",
  ].flatMap((list) => list.split(" ").map((n) => `torch.${n}`)),
);
const toFloat = (x: Value): Value =>
  x instanceof Tensor && (x.dtype === "i32" || x.dtype === "u8" || x.dtype === "i8")
    ? x.float()
    : x;

/** Keywords that change no value: placement, storage, and the legacy names of defaults. */
const neutral = new Set("out device layout requires_grad memory_format pin_memory".split(" "));
/** Parameters without a counterpart that only choose how to compute. */
export const harmless = new Set(
  "sorted assume_unique compute_mode _stacklevel out_int32 stable inplace sparse_grad driver".split(
    " ",
  ),
);
const known = (kwargs: Kwargs): Kwargs =>
  Object.fromEntries(
    Object.entries(kwargs)
      .filter(([key]) => !neutral.has(key))
      .map(([key, value]) => [numpys[key] ?? key, value]),
  );

/** NumPy's keywords, which PyTorch takes too. */
const numpys: Readonly<Record<string, string>> = { axis: "dim", keepdims: "keepdim" };

/** The several names of the first tensors. */
const synonyms: Readonly<Record<string, readonly string[]>> = {
  self: ["input", "tensor"],
  x: ["input"],
  a: ["input"],
  A: ["input"],
  input: ["self", "tensor", "x", "A", "a", "elements", "logits"],
  tensor: ["input"],
  other: ["mat2", "vec", "vec2", "tensor"],
  unbiased: ["correction"],
};

function ourArguments(row: Row, args: Value[], kwargs: Kwargs): Value[] {
  const named = bind(row, args, kwargs);
  const used = new Set(
    row.args.flatMap((a) => ("name" in a ? [a.name, a.as] : a.map(([, n]) => n))),
  );
  for (const [parameter, value] of Object.entries(named))
    if (value && !used.has(parameter) && !harmless.has(parameter))
      throw new NotCovered(`${row.ours}(${parameter})`);
  const ours = row.args.map((arg) => {
    if ("name" in arg) {
      const value = named[arg.name] ?? undefined;
      return arg.as && named[arg.as] ? value.to(named[arg.as]) : value;
    }
    const given = arg.flatMap(([key, name]) =>
      named[name] === undefined || named[name] === null ? [] : [[key, named[name]]],
    );
    return given.length ? Object.fromEntries(given) : undefined;
  });
  while (ours.length && ours.at(-1) === undefined) ours.pop();
  return ours;
}

/** Python's binding: positions in the row's order, keywords by name. */
function bind(row: Row, args: Value[], kwargs: Kwargs): Kwargs {
  // PyTorch's default where ours differs.
  const named: Record<string, Value> = row.parameters.includes("ignore_index")
    ? { ignore_index: -100 }
    : {};
  for (const [key, value] of Object.entries(kwargs)) {
    const parameter = [key, ...(synonyms[key] ?? [])].find((k) => row.parameters.includes(k));
    if (parameter) named[parameter] = key === "unbiased" ? Number(value) : value;
    else if (value !== null) throw new NotCovered(`${row.ours}(${key})`);
  }
  const rest = row.rest ? row.parameters.indexOf(row.rest) : row.parameters.length;
  row.parameters.slice(0, rest).forEach((parameter, i) => {
    if (i < args.length) named[parameter] = args[i];
  });
  const left = args.slice(rest);
  if (left.length && !row.rest)
    throw new NotCovered(`${row.ours} with ${args.length} positional arguments`);
  // `reshape(2, 3)` and `reshape((2, 3))` mean the same.
  if (left.length) named[row.rest!] = left.length === 1 && Array.isArray(left[0]) ? left[0] : left;
  else if (row.rest) named[row.rest] ??= [];
  return named;
}

/** A PyTorch function as a value, for `vmap(torch.dot)`; or one of its constants. */
export const functionValue = (name: string): Value =>
  name in constants ? constants[name] : (...args: Value[]): Value => callFunction(name, args, {});
