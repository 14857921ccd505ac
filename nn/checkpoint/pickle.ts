/**
 * @file A reader for Python's pickles that runs nothing: containers, numbers and strings are read; every function or class that
 * a pickle names is looked up in a table of the caller's, and an unknown one is an error. (A pickle is a program for a
 * stack machine, which in Python may call anything.)
 *
 * Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py, of protocols 2 to 4.
 */
import { fault, quoted } from "./json.ts";

/** Dictionaries are maps, tuples and lists arrays; integers are numbers where a number holds them exactly. */
export type PickleValue = unknown;

export interface PickleNames {
  /** Stands for a function or class, by "module.name"; undefined if it is not known. */
  global(name: string): ((args: readonly PickleValue[]) => PickleValue) | undefined;
  /** An object that is kept outside of the pickle. */
  persistent(id: PickleValue): PickleValue;
}

const MARK = Symbol("mark");

/** The value that a pickle describes. */
export function unpickle(bytes: Uint8Array, names: PickleNames, source: string): PickleValue {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const memo = new Map<number, PickleValue>();
  const stack: PickleValue[] = [];
  let at = 0;
  const fail = (expected: string, got: string) => fault(`${source}, byte ${at}`, expected, got);
  const take = (length: number): number => {
    if (!(length >= 0 && at + length <= bytes.length))
      throw fail(`${length} more bytes of the pickle`, "its end");
    at += length;
    return at - length;
  };
  const text = (length: number): string => {
    const from = take(length);
    return new TextDecoder().decode(bytes.subarray(from, from + length));
  };
  const line = (): string => {
    const end = bytes.indexOf(0x0a, at);
    const found = text(end < 0 ? Infinity : end - at);
    at++;
    return found;
  };
  const pop = (): PickleValue => {
    if (stack.length === 0 || stack.at(-1) === MARK) throw fail("a value on the stack", "none");
    return stack.pop();
  };
  const marked = (): PickleValue[] => {
    const from = stack.lastIndexOf(MARK) + 1;
    if (from === 0) throw fail("a mark on the stack", "none");
    const values = stack.splice(from);
    stack.pop();
    return values;
  };
  const last = <T>(test: (x: unknown) => x is T, kind: string): T => {
    const found = stack.at(-1);
    if (!test(found)) throw fail(kind, typeof found);
    return found;
  };
  const setItems = (items: PickleValue[]) => {
    const map = last((x) => x instanceof Map, "a dictionary");
    if (items.length % 2 !== 0) throw fail("pairs of keys and values", "an odd number");
    for (let i = 0; i < items.length; i += 2) map.set(items[i], items[i + 1]);
  };
  const append = (items: PickleValue[]) => {
    const list = last(Array.isArray, "a list");
    for (const item of items) list.push(item);
  };
  const global = (name: string) => {
    const found = names.global(name);
    if (!found)
      throw fail("a state dict of tensors, numbers, strings and containers", quoted(name));
    return found;
  };
  const get = (key: number): PickleValue => {
    if (!memo.has(key)) throw fail("a value that was kept", `number ${key}`);
    return memo.get(key);
  };
  const tuple = (count: number) => {
    const values = Array.from({ length: count }, pop).reverse();
    stack.push(values);
  };

  for (;;) {
    const opcode = bytes[take(1)];
    switch (opcode) {
      case 0x80: // PROTO
        take(1);
        break;
      case 0x95: // FRAME
        take(8);
        break;
      case 0x2e: // STOP
        return pop();
      case 0x28:
        stack.push(MARK);
        break;
      case 0x30: // POP
        pop();
        break;
      case 0x4e:
        stack.push(null);
        break;
      case 0x88:
        stack.push(true);
        break;
      case 0x89:
        stack.push(false);
        break;
      case 0x4a: // BININT
        stack.push(view.getInt32(take(4), true));
        break;
      case 0x4b: // BININT1
        stack.push(bytes[take(1)]);
        break;
      case 0x4d: // BININT2
        stack.push(view.getUint16(take(2), true));
        break;
      case 0x8a: // LONG1
        stack.push(integer(bytes, take(1), take));
        break;
      case 0x47: // BINFLOAT, big-endian
        stack.push(view.getFloat64(take(8), false));
        break;
      case 0x58: // BINUNICODE
        stack.push(text(view.getUint32(take(4), true)));
        break;
      case 0x8c: // SHORT_BINUNICODE
        stack.push(text(bytes[take(1)]));
        break;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        stack.push([]);
        break;
      case 0x7d: // EMPTY_DICT
        stack.push(new Map());
        break;
      case 0x61: // APPEND
        append([pop()]);
        break;
      case 0x65: // APPENDS
        append(marked());
        break;
      case 0x74: // TUPLE
        stack.push(marked());
        break;
      case 0x85:
      case 0x86:
      case 0x87: // TUPLE1 … TUPLE3
        tuple(opcode - 0x84);
        break;
      case 0x73: // SETITEM
        setItems([pop(), pop()].reverse());
        break;
      case 0x75: // SETITEMS
        setItems(marked());
        break;
      case 0x63: // GLOBAL
        stack.push(global(`${line()}.${line()}`));
        break;
      case 0x93: {
        // STACK_GLOBAL
        const [name, module] = [pop(), pop()];
        stack.push(global(`${String(module)}.${String(name)}`));
        break;
      }
      case 0x52: {
        // REDUCE
        const [args, call] = [pop(), pop()];
        if (typeof call !== "function" || !Array.isArray(args))
          throw fail("a function and its arguments", "other values");
        stack.push(call(args));
        break;
      }
      case 0x62: // BUILD: attributes of a dictionary, such as a state dict's _metadata
        pop();
        last((x) => x instanceof Map, "attributes of a dictionary");
        break;
      case 0x51: // BINPERSID
        stack.push(names.persistent(pop()));
        break;
      case 0x68: // BINGET
        stack.push(get(bytes[take(1)]));
        break;
      case 0x6a: // LONG_BINGET
        stack.push(get(view.getUint32(take(4), true)));
        break;
      case 0x71: // BINPUT
        memo.set(bytes[take(1)], stack.at(-1));
        break;
      case 0x72: // LONG_BINPUT
        memo.set(view.getUint32(take(4), true), stack.at(-1));
        break;
      case 0x94: // MEMOIZE
        memo.set(memo.size, stack.at(-1));
        break;
      default:
        throw fail("an opcode that a state dict needs", `0x${opcode.toString(16)}`);
    }
  }
}

/** LONG1: a byte of length, then two's complement, little-endian. */
function integer(bytes: Uint8Array, at: number, take: (n: number) => number): number | bigint {
  const from = take(bytes[at]);
  let value = 0n;
  for (let i = bytes[at] - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[from + i]);
  value = BigInt.asIntN(8 * bytes[at], value);
  return BigInt.asIntN(54, value) === value ? Number(value) : value;
}
