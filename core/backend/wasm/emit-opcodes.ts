/**
 * @file The WebAssembly instructions that Hinode emits, by their names in the specification's text format: the number
 * after the prefix byte (0xfc saturating truncation and bulk memory, 0xfd SIMD), in runs of consecutive numbers.
 * Reference: https://webassembly.github.io/spec/core/appendix/index-instructions.html
 */

/** "a b c" → "a" | "b" | "c": names are checked at compile time although they are listed compactly. */
type Words<S extends string> = S extends `${infer Head} ${infer Tail}` ? Head | Words<Tail> : S;

function run<S extends string>(first: number, names: S): Record<Words<S>, number> {
  const codes = names.split(" ").map((name, i) => [name, first + i]);
  return Object.fromEntries(codes) as Record<Words<S>, number>;
}

/** One byte. */
export const plain = {
  ...run(0x00, "unreachable nop block loop if else"),
  ...run(0x0b, "end br br_if br_table return call"),
  ...run(0x1a, "drop select"),
  ...run(0x20, "local.get local.set local.tee"),
  ...run(0x28, "i32.load i64.load f32.load f64.load i32.load8_s i32.load8_u"),
  ...run(0x36, "i32.store i64.store f32.store f64.store i32.store8"),
  ...run(0x41, "i32.const i64.const f32.const f64.const"),
  ...run(0x45, "i32.eqz i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u"),
  ...run(0x4e, "i32.ge_s i32.ge_u"),
  ...run(0x50, "i64.eqz i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u"),
  ...run(0x59, "i64.ge_s i64.ge_u f32.eq f32.ne f32.lt f32.gt f32.le f32.ge"),
  ...run(0x61, "f64.eq f64.ne f64.lt f64.gt f64.le f64.ge i32.clz"),
  ...run(0x6a, "i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u i32.and i32.or"),
  ...run(0x73, "i32.xor i32.shl i32.shr_s i32.shr_u"),
  ...run(0x79, "i64.clz"),
  ...run(0x7c, "i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u i64.and i64.or"),
  ...run(0x85, "i64.xor i64.shl i64.shr_s i64.shr_u"),
  ...run(0x8b, "f32.abs f32.neg"),
  ...run(0x99, "f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt"),
  ...run(0xa0, "f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign"),
  ...run(0xa7, "i32.wrap_i64"),
  ...run(0xac, "i64.extend_i32_s i64.extend_i32_u"),
  ...run(0xb6, "f32.demote_f64"),
  ...run(0xb9, "f64.convert_i64_s f64.convert_i64_u f64.promote_f32"),
  ...run(0xbc, "i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64"),
} as const;

/** Prefix 0xfd. */
export const simd = {
  ...run(0x00, "v128.load"),
  ...run(0x07, "v128.load8_splat v128.load16_splat v128.load32_splat v128.load64_splat v128.store"),
  ...run(0x0c, "v128.const i8x16.shuffle i8x16.swizzle"),
  ...run(0x11, "i32x4.splat i64x2.splat f32x4.splat f64x2.splat"),
  ...run(0x1b, "i32x4.extract_lane i32x4.replace_lane i64x2.extract_lane i64x2.replace_lane"),
  ...run(0x1f, "f32x4.extract_lane f32x4.replace_lane f64x2.extract_lane f64x2.replace_lane"),
  ...run(0x37, "i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s"),
  ...run(0x3e, "i32x4.le_u i32x4.ge_s i32x4.ge_u f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le"),
  ...run(0x46, "f32x4.ge f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge"),
  ...run(0x4d, "v128.not v128.and v128.andnot v128.or v128.xor v128.bitselect v128.any_true"),
  ...run(0x54, "v128.load8_lane v128.load16_lane v128.load32_lane v128.load64_lane"),
  ...run(0x58, "v128.store8_lane v128.store16_lane v128.store32_lane v128.store64_lane"),
  ...run(0x5c, "v128.load32_zero v128.load64_zero f32x4.demote_f64x2_zero"),
  ...run(0x5f, "f64x2.promote_low_f32x4"),
  ...run(0x67, "f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest"),
  ...run(0x87, "i16x8.extend_low_i8x16_s"),
  ...run(0x89, "i16x8.extend_low_i8x16_u"),
  ...run(0xa0, "i32x4.abs i32x4.neg"),
  ...run(0xa3, "i32x4.all_true i32x4.bitmask"),
  ...run(0xa7, "i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u"),
  ...run(0xab, "i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add"),
  ...run(0xb1, "i32x4.sub"),
  ...run(0xb5, "i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u"),
  ...run(0xcb, "i64x2.shl i64x2.shr_s i64x2.shr_u i64x2.add"),
  ...run(0xd1, "i64x2.sub"),
  ...run(0x94, "f64x2.nearest"),
  ...run(0x74, "f64x2.ceil f64x2.floor"),
  ...run(0x7a, "f64x2.trunc"),
  ...run(0xe0, "f32x4.abs f32x4.neg"),
  ...run(0xe3, "f32x4.sqrt f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max"),
  ...run(0xea, "f32x4.pmin f32x4.pmax f64x2.abs f64x2.neg"),
  ...run(0xef, "f64x2.sqrt f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin"),
  ...run(0xf7, "f64x2.pmax i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s"),
  ...run(0xfb, "f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero"),
  ...run(0xfe, "f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u"),
  ...run(0x105, "f32x4.relaxed_madd f32x4.relaxed_nmadd f64x2.relaxed_madd f64x2.relaxed_nmadd"),
} as const;

export type Opcode = keyof typeof plain | keyof typeof simd;
