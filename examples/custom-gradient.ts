/**
 * @file A gradient of one's own. Rounding has the derivative 0, so weights behind it would never learn; a straight-through
 * estimator (Bengio et al. 2013, arXiv 1308.3432) rounds forwards and passes gradients as if it had not. Here a line is fitted
 * with weights that are multiples of 1/8.
 *
 * npx node --conditions=source examples/custom-gradient.ts
 */
import { compile, customGradient, type Tensor, tensor, valueAndGrad } from "hinode";

const steps = 8;

const quantise = customGradient(
  (w: Tensor) => w.mul(steps).round().div(steps),
  (cotangent) => [cotangent],
);

// y = 1.3 x - 0.4
const x = tensor([-2, -1, 0, 1, 2]);
const y = x.mul(1.3).sub(0.4);
const loss = (w: Tensor): Tensor => {
  const q = quantise(w);
  return x
    .mul(q.slice(0, 0, 1))
    .add(q.slice(0, 1, 2))
    .sub(y)
    .pow(2)
    .mean();
};

const step = compile((w: Tensor): [Tensor, Tensor] => {
  const [value, gradient] = valueAndGrad(loss)(w);
  return [value, w.sub(gradient.mul(0.02))];
});

let w = tensor([0, 0]);
for (let i = 0; i <= 60; i++) {
  const [value, next] = step(w);
  if (i % 20 === 0) console.log(`step ${i}: loss ${((await value.item()) as number).toFixed(4)}`);
  w = next;
}
console.log(`weights: ${await quantise(w).tolist()} (of 1.3, -0.4, in eighths)`);
