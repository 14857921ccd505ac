/** @file Words that no variable may have as its name: WGSL's keywords and reserved words, and functions that code calls. */

const words = `
alias break case const const_assert continue continuing default diagnostic discard else enable false fn for if let loop
override requires return struct switch true var while

NULL Self abstract active alignas alignof as asm asm_fragment async attribute auto await become binding_array cast catch
class co_await co_return co_yield coherent column_major common compile compile_fragment concept const_cast consteval
constexpr constinit crate debugger decltype delete demote demote_to_helper do dynamic_cast enum explicit export extends
extern external fallthrough filter final finally friend from fxgroup get goto groupshared highp impl implements import
inline instanceof interface layout lowp macro macro_rules match mediump meta mod module move mut mutable namespace new nil
noexcept noinline nointerpolation non_coherent noncoherent noperspective null nullptr of operator package packoffset
partition pass patch pixelfragment precise precision premerge priv protected pub public readonly ref regardless register
reinterpret_cast require resource restrict self set shared sizeof smooth snorm static static_assert static_cast std
subroutine super target template this thread_local throw trait try type typedef typeid typename typeof union unless unorm
unsafe unsized use using varying virtual volatile wgsl where with writeonly yield

bool f16 f32 i32 u32 vec2 vec3 vec4 vec2f vec3f vec4f vec2i vec3i vec4i vec2u vec3u vec4u vec2h vec3h vec4h array atomic
abs all any atomicAnd atomicLoad atomicMax atomicOr bitcast ceil clamp cos countLeadingZeros dot exp exp2 extractBits floor
fma inf inverseSqrt ldexp log log2 max min main nan pow round select sign sin sqrt tan tanh threefry trunc unpack2x16float
pack2x16float workgroupBarrier workgroupUniformLoad workgroup local_index workgroup_id subgroup_id workgroups unknown_zero hinode_guard`;

export const reserved: ReadonlySet<string> = new Set(words.trim().split(/\s+/));
