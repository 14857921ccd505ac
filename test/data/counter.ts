/** An iterable dataset for a worker thread, with its own collation. */
export const numbers = {
  *iterate({ epoch, skip }: { epoch: number; skip: number }) {
    for (let i = skip; i < 7; i++) yield { value: 10 * epoch + i };
  },
};

export default numbers;

export const collate = (samples: { value: number }[]) => ({
  data: Int32Array.from(samples, (s) => s.value),
  shape: [samples.length, 1],
});
