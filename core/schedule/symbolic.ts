/**
 * @file Index expressions: integers over loop variables, kept in the normal form Σ coefficient·atom + constant, with
 * exact ranges, so that reshapes and views become affine addresses wherever that is possible.
 */

/** Atoms are interned by `key`. Division and modulo are floored, by positive constants. */
export type Atom =
  /** A loop variable, 0 ≤ v < extent. */
  | { readonly k: "var"; readonly key: string; readonly name: string; readonly extent: number }
  /** An i32 variable of the kernel that `position` has checked: 0 ≤ v < extent. */
  | { readonly k: "value"; readonly key: string; readonly name: string; readonly extent: number }
  | { readonly k: "div"; readonly key: string; readonly of: Index; readonly by: number }
  | { readonly k: "mod"; readonly key: string; readonly of: Index; readonly by: number }
  | { readonly k: "min"; readonly key: string; readonly a: Index; readonly b: Index };

export interface Index {
  readonly constant: number;
  /** Sorted by atom key, no zero coefficients, each atom once. */
  readonly terms: readonly { readonly atom: Atom; readonly coef: number }[];
  /** Bounds that follow from the atoms' ranges, both inclusive. */
  readonly min: number;
  readonly max: number;
  readonly key: string;
}

/** A conjunction: every entry must be ≥ 0. The empty condition is true. */
export type Cond = readonly Index[];
