/** A dataset for worker threads: no import of the library, as quick to start as can be. */
const base = new Float32Array(64).map((_, i) => i);

export function squares(length: number, failAt = -1) {
  return {
    length,
    async get(index: number, context?: { random: () => number; epoch: number }) {
      if (index === failAt) throw new RangeError(`no sample ${index}`);
      // Later ones sooner: the order must not be that of completion.
      await new Promise((resolve) => setTimeout(resolve, 4 - (index % 5)));
      return {
        x: base.subarray(index, index + 2),
        square: index * index,
        noise: context?.random() ?? -1,
        name: `sample ${index}`,
      };
    },
  };
}

export default (data: { length: number; failAt?: number }) => squares(data.length, data.failAt);
