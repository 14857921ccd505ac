/**
 * @file Modules that hold others: Sequential, ModuleList, ModuleDict, ParameterList, with PyTorch's names in the state dict
 * ("net.0.weight"). An array, a map or a plain object in a field does as well; these are for habit, and for lists that
 * are passed around.
 */
import { ArgumentError, describe } from "../core/errors.ts";
import type { Tensor } from "../core/index.ts";
import { Module, replaceWithin } from "./module.ts";
import { isParameter, parameter } from "./parameter.ts";

/** A module from one tensor to one tensor. */
export type Layer = Module & { forward(x: Tensor): Tensor };

/** Items in a row, named by their position. */
abstract class List<T> extends Module implements Iterable<T> {
  readonly #items: T[];

  constructor(items: Iterable<T>) {
    super();
    this.#items = [...items];
  }

  get length(): number {
    return this.#items.length;
  }

  /** Counts from the end if negative. */
  at(index: number): T {
    const item = this.#items.at(index);
    if (item !== undefined) return item;
    const range = `an index within ${this.length} items`;
    throw new ArgumentError(describe(`${this.constructor.name}.at`, range, `${index}`));
  }

  append(item: T): this {
    this.#items.push(item);
    return this;
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#items[Symbol.iterator]();
  }

  protected override members(): Iterable<readonly [string, unknown]> {
    return this.#items.map((item, i) => [`${i}`, item] as const);
  }

  protected override replaceIn(old: Module, next: Module): boolean {
    return replaceWithin(this.#items, this.#items.entries(), old, next);
  }
}

/** One module, or function, after the other. */
export class Sequential extends List<Layer | ((x: Tensor) => Tensor)> {
  constructor(...layers: (Layer | ((x: Tensor) => Tensor))[]) {
    super(layers);
  }

  forward(x: Tensor): Tensor {
    for (const layer of this) x = typeof layer === "function" ? layer(x) : layer.forward(x);
    return x;
  }
}

/** Modules in a row. */
export class ModuleList<M extends Module = Module> extends List<M> {
  constructor(modules: Iterable<M> = []) {
    super(modules);
  }
}

/** Parameters in a row: what is none yet becomes one. */
export class ParameterList extends List<Tensor> {
  constructor(values: Iterable<Tensor> = []) {
    super(Array.from(values, asParameter));
  }

  override append(value: Tensor): this {
    return super.append(asParameter(value));
  }
}

const asParameter = (t: Tensor): Tensor => (isParameter(t) ? t : parameter(t));

/** Modules by name. */
export class ModuleDict<M extends Module = Module> extends Module {
  readonly #items: Map<string, M>;

  constructor(modules: Readonly<Record<string, M>> = {}) {
    super();
    this.#items = new Map(Object.entries(modules));
  }

  get size(): number {
    return this.#items.size;
  }

  /** @throws ArgumentError that lists the names there are. */
  get(name: string): M {
    const found = this.#items.get(name);
    if (found) return found;
    throw new ArgumentError(
      describe("ModuleDict.get", `one of ${[...this.#items.keys()].join(", ") || "none"}`, name),
    );
  }

  has(name: string): boolean {
    return this.#items.has(name);
  }

  set(name: string, module: M): this {
    this.#items.set(name, module);
    return this;
  }

  delete(name: string): boolean {
    return this.#items.delete(name);
  }

  keys(): Iterable<string> {
    return this.#items.keys();
  }

  values(): Iterable<M> {
    return this.#items.values();
  }

  [Symbol.iterator](): Iterator<[string, M]> {
    return this.#items[Symbol.iterator]();
  }

  protected override members(): Iterable<readonly [string, unknown]> {
    return this.#items;
  }

  protected override replaceIn(old: Module, next: Module): boolean {
    return replaceWithin(this.#items, this.#items, old, next);
  }
}
