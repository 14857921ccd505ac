/**
 * @file A small WebAssembly assembler: bytes of function bodies (`Code`) and of whole modules (`assemble`). It knows the
 * binary format and nothing else; what to emit is decided in emit*.ts.
 *
 * Modules here have one shape: one imported memory ("m" "m"), functions, exports by name; no tables, globals or data.
 * Format: https://webassembly.github.io/spec/core/binary/index.html
 */
import { KernelError } from "../../errors.ts";
import { type Opcode, plain, simd } from "./emit-opcodes.ts";

/** What parameters and results may be; for vectors see emit-call.ts. */
export type Scalar = "i32" | "i64" | "f32" | "f64";
export type Type = Scalar | "v128";

const typeBytes: Readonly<Record<Type, number>> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

/** 16 GiB: V8 refuses modules that declare more. */
const maxPages64 = 262144;

const opcodes = new Map<string, number>([
  ...Object.entries(plain),
  ...Object.entries(simd).map(([name, code]): [string, number] => [name, 0x10000 + code]),
]);

const scratch = new DataView(new ArrayBuffer(8));

/** A growing run of bytes; bodies of loops are assembled apart and appended once their preheaders are known. */
export class Code {
  private bytes = new Uint8Array(256);
  length = 0;

  private reserve(n: number): void {
    if (this.length + n <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.bytes.length, this.length + n));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  byte(b: number): void {
    this.reserve(1);
    this.bytes[this.length++] = b;
  }

  append(other: Code | Uint8Array): void {
    const bytes = other instanceof Code ? other.view() : other;
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  view(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  /** LEB128, unsigned, up to 2⁵³. */
  u(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.byte((rest % 128) + 128);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  /** LEB128, signed. */
  s(value: number | bigint): void {
    if (typeof value === "number" && value === (value | 0)) {
      let low = value;
      for (; low < -64 || low > 63; low >>= 7) this.byte((low & 127) + 128);
      this.byte(low & 127);
      return;
    }
    let rest = BigInt(value);
    for (;;) {
      const low = Number(rest & 127n);
      rest >>= 7n;
      const done = rest === (low & 64 ? -1n : 0n);
      this.byte(done ? low : low + 128);
      if (done) return;
    }
  }

  op(name: Opcode): void {
    const code = opcodes.get(name)!;
    // Prefixed instructions are stored as 0x10000 + their number.
    if (code < 0x10000) this.byte(code);
    else {
      this.byte(0xfd);
      this.u(code - 0x10000);
    }
  }

  /** An instruction with one index or lane. */
  opU(name: Opcode, immediate: number): void {
    this.op(name);
    this.u(immediate);
  }

  /** A load or store. The alignment is only a hint: all engines of interest ignore it. */
  memory(name: Opcode, offset: number, lane?: number): void {
    this.op(name);
    this.u(0);
    this.u(offset);
    if (lane !== undefined) this.byte(lane);
  }

  i32(value: number): void {
    this.op("i32.const");
    this.s(value | 0);
  }

  i64(value: number | bigint): void {
    this.op("i64.const");
    this.s(BigInt.asIntN(64, BigInt(value)));
  }

  f32(value: number): void {
    this.op("f32.const");
    scratch.setFloat32(0, value, true);
    for (let i = 0; i < 4; i++) this.byte(scratch.getUint8(i));
  }

  f64(value: number): void {
    this.op("f64.const");
    scratch.setFloat64(0, value, true);
    for (let i = 0; i < 8; i++) this.byte(scratch.getUint8(i));
  }

  v128(bytes: Uint8Array): void {
    this.op("v128.const");
    this.append(bytes);
  }

  shuffle(lanes: readonly number[]): void {
    this.op("i8x16.shuffle");
    for (const lane of lanes) this.byte(lane);
  }

  get(local: number): void {
    this.opU("local.get", local);
  }

  set(local: number): void {
    this.opU("local.set", local);
  }

  tee(local: number): void {
    this.opU("local.tee", local);
  }

  /** `block`, `loop` or `if`, with a result or without. */
  open(name: "block" | "loop" | "if", result?: Type): void {
    this.op(name);
    this.byte(result ? typeBytes[result] : 0x40);
  }

  end(): void {
    this.op("end");
  }
}

export interface FunctionSource {
  readonly params: readonly Scalar[];
  readonly results: readonly Scalar[];
  readonly locals: readonly Type[];
  /** Without the final `end`. */
  readonly body: Code;
  readonly exported?: string;
}

export interface MemoryImport {
  readonly address: 32 | 64;
  readonly shared: boolean;
}

const name = (code: Code, text: string): void => {
  const bytes = new TextEncoder().encode(text);
  code.u(bytes.length);
  code.append(bytes);
};

function section(module: Code, id: number, content: Code): void {
  module.byte(id);
  module.u(content.length);
  module.append(content);
}

function list<T>(items: readonly T[], each: (code: Code, item: T) => void): Code {
  const code = new Code();
  code.u(items.length);
  for (const item of items) each(code, item);
  return code;
}

const types = (code: Code, ts: readonly Type[]): void => {
  code.u(ts.length);
  for (const t of ts) code.byte(typeBytes[t]);
};

/** Runs of equal types, as the format declares locals. */
function runs(locals: readonly Type[]): { type: Type; count: number }[] {
  const out: { type: Type; count: number }[] = [];
  for (const type of locals) {
    const last = out.at(-1);
    if (last?.type === type) last.count++;
    else out.push({ type, count: 1 });
  }
  return out;
}

export function assemble(functions: readonly FunctionSource[], memory: MemoryImport): Uint8Array {
  const signatures = new Map<string, { params: readonly Type[]; results: readonly Type[] }>();
  const keyOf = (f: FunctionSource) => `${f.params}:${f.results}`;
  for (const f of functions) signatures.set(keyOf(f), f);
  const keys = [...signatures.keys()];

  const module = new Code();
  module.append(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0));
  const signature = (c: Code, key: string) => {
    c.byte(0x60);
    types(c, signatures.get(key)!.params);
    types(c, signatures.get(key)!.results);
  };
  section(module, 1, list(keys, signature));
  const memoryImport = (c: Code, m: MemoryImport) => {
    name(c, "m");
    name(c, "m");
    c.byte(2);
    c.byte((m.shared ? 3 : 0) | (m.address === 64 ? 4 : 0));
    c.u(0);
    // An import of a shared memory must give a maximum at least as large as the memory's own.
    if (m.shared) c.u(m.address === 64 ? maxPages64 : 65536);
  };
  section(module, 2, list([memory], memoryImport));
  section(
    module,
    3,
    list(functions, (c, f) => c.u(keys.indexOf(keyOf(f)))),
  );
  const exported = functions.map((f, i) => ({ text: f.exported, i })).filter((e) => e.text);
  const exportEntry = (c: Code, e: { text?: string; i: number }) => {
    name(c, e.text!);
    c.byte(0);
    c.u(e.i);
  };
  section(module, 7, list(exported, exportEntry));
  const body = (c: Code, f: FunctionSource) => {
    const declared = list(runs(f.locals), (l, { type, count }) => {
      l.u(count);
      l.byte(typeBytes[type]);
    });
    c.u(declared.length + f.body.length + 1);
    c.append(declared);
    c.append(f.body);
    c.end();
  };
  section(module, 10, list(functions, body));
  return module.view().slice();
}

/** Compiles at once; an invalid module is a fault of the emitter and says so. */
export function compileModule(bytes: Uint8Array): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes as Uint8Array<ArrayBuffer>);
  } catch (error) {
    throw new KernelError(`wasm emitter: invalid module: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
