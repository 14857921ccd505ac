/** @file What the functions in wgsl-math*.ts are written with: the types of a width, and each other. */
import type { Register } from "./wgsl-expr.ts";

/** Functions of a shader. The table in wgsl-math.ts has each of them. */
export type HelperName =
  | "inf"
  | "nan"
  | "isNan"
  | "max"
  | "min"
  | "copySign"
  | "exp"
  | "expNormal"
  | "log"
  | "tanh"
  | "erf"
  | "sin"
  | "cos"
  | "reduceAngle"
  | "quadrant"
  | "pow"
  | "log2Pair"
  | "highPart"
  | "addPair"
  | "mulPair"
  | "rem"
  | "toInt"
  | "toUnsigned"
  | "isTrue"
  | "wins"
  | "winsInt"
  | "winsUnsigned"
  | "divide"
  | "divideUnsigned"
  | "floorDiv"
  | "floorMod"
  | "rotateLeft"
  | "threefry"
  | "mulHigh"
  | "signByte"
  | "loadBytes"
  | "loadSigned"
  | "loadBools"
  | "storeBytes"
  | "storeSigned"
  | "storeBools"
  | "roundHalf"
  | "roundBrain"
  | "loadHalf"
  | "storeHalf"
  | "loadHalves"
  | "storeHalves"
  | "loadBrains"
  | "storeBrains";

/** What a maker writes with. */
export interface Writer {
  readonly id: string;
  readonly width: number;
  readonly F: string;
  readonly I: string;
  readonly U: string;
  readonly B: string;
  /** Another function, of the same width unless said. */
  readonly use: (name: HelperName, width?: number) => string;
  readonly f16: boolean;
}

export interface Helper {
  /** The register type that it is named after; null: it exists in one width only. */
  readonly of: Register | null;
  readonly make: (w: Writer) => string;
}

export type Helpers = { readonly [N in HelperName]?: Helper };

/** Horner: coefficients from the highest power down. */
export function poly(w: Writer, x: string, coefficients: readonly number[]): string {
  const [first, ...rest] = coefficients;
  return rest.reduce((sum, c) => `fma(${sum}, ${x}, ${w.F}(${c}))`, `${w.F}(${first})`);
}

/** For functions with branches: each lane on its own. */
export const byLane =
  (name: HelperName, args: readonly string[], one: (w: Writer) => string) =>
  (w: Writer): string => {
    if (w.width === 1) return one(w);
    const f = w.use(name, 1);
    const lane = (c: string): string => `    ${f}(${args.map((a) => `${a}.${c}`).join(", ")}),\n`;
    const lanes = [..."xyzw".slice(0, w.width)].map(lane).join("");
    const params = args.map((a) => `${a}: ${w.F}`).join(", ");
    return `fn ${w.id}(${params}) -> ${w.F} {\n  return ${w.F}(\n${lanes}  );\n}\n`;
  };
