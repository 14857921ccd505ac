"""PyTorch on the processor or on CUDA, as worker.ts has it: interprets the recorded programs of ../suite/record.ts, a line of JSON per request."""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = "cuda" if sys.argv[3] == "webgpu" else "cpu"
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}


def values(name, spec):
    """The numbers of ../suite/inputs.ts."""
    h = 0x811C9DC5
    for byte in name.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    size = math.prod(spec["shape"])
    # 32 bits of unsigned arithmetic in 64 signed ones, whose products wrap.
    mask = 0xFFFFFFFF
    x = (h + torch.arange(size, dtype=torch.int64) * 0x9E3779B1) & mask
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & mask
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & mask
    uniform = ((x ^ (x >> 16)) >> 8).double() / 2**24
    if spec["dtype"] == "i32":
        found = (uniform * spec["scale"]).floor().long()
    else:
        found = ((2 * uniform - 1) * spec["scale"] + spec.get("shift", 0)).float()
    return found.reshape(spec["shape"]).to(DEVICE)


def attention(q, k, v, causal):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        length = q.shape[-2]
        scores = scores.masked_fill(torch.ones(length, length, device=q.device).tril() == 0, -math.inf)
    return F.softmax(scores, -1) @ v


OPS = {
    "matmul": lambda a, b, transposed=False: a @ (b.transpose(-1, -2) if transposed else b),
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "affine": lambda x, scale, shift: x * scale + shift if shift else x * scale,
    "gelu": F.gelu,
    "silu": F.silu,
    "softmax": lambda x: F.softmax(x, -1),
    "layerNorm": lambda x, weight, bias: F.layer_norm(x, weight.shape, weight, bias),
    "rmsNorm": lambda x, weight: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.permute(axes),
    "slice": lambda x, axis, start, length: x.narrow(axis, start, length),
    "concat": lambda a, b, axis: torch.cat([a, b], axis),
    "mean": lambda x, axis: x.mean(axis),
    "embedding": lambda table, ids: F.embedding(ids, table),
    "attention": attention,
    "conv2d": lambda x, weight, stride, padding: F.conv2d(x, weight, stride=stride, padding=padding),
    "crossEntropy": F.cross_entropy,
    "sort": lambda x: torch.sort(x, -1).values,
    "topk": lambda x, k: torch.topk(x, k).values,
}


class Program:
    def __init__(self, request):
        self.kind, self.wrt = request["kind"], request["wrt"]
        recording = request["recording"]
        self.nodes, self.results = recording["nodes"], recording["outputs"]
        self.inputs = {name: values(name, spec) for name, spec in recording["inputs"].items()}
        if self.kind in ("gradient", "training", "update"):
            for name in self.wrt:
                self.inputs[name].requires_grad_(True)
        if self.kind in ("training", "update"):
            self.optimizer = torch.optim.AdamW([self.inputs[name] for name in self.wrt], **ADAMW)
        if self.kind == "update":
            for name in self.wrt:
                self.inputs[name].grad = self.inputs[f"grad.{name}"]

    def forward(self, **others):
        x = {**self.inputs, **others}
        for i, node in enumerate(self.nodes):
            x[f"%{i}"] = OPS[node["op"]](*(x[name] for name in node["of"]), *node["with"])
        return [x[name] for name in self.results]

    def decode(self):
        length = self.inputs["at"].shape[0]
        token, cache, tokens = self.inputs["id"], self.inputs["cache"], []
        eye = torch.eye(length, device=DEVICE)
        for t in range(length):
            mask = torch.where(torch.arange(length, device=DEVICE) <= t, 0.0, -1e9)
            at = eye[t].reshape(length, 1)
            scores, cache = self.forward(id=token, cache=cache, at=at, rest=1 - at, mask=mask)
            token = scores.argmax(-1)
            tokens.append(token)
        # Read at the end: the processor need not wait for each.
        return torch.stack(tokens).reshape(-1).tolist()

    def run(self):
        if self.kind == "forward":
            with torch.no_grad():
                return self.forward()
        if self.kind == "decode":
            with torch.no_grad():
                return [torch.tensor(self.decode(), dtype=torch.float32)]
        if self.kind == "gradient":
            (out,) = self.forward()
            found = torch.autograd.grad(out, [self.inputs[name] for name in self.wrt], self.inputs["g"])
            return [out, *found]
        if self.kind == "update":
            self.optimizer.step()
            return []
        (loss,) = self.forward()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return [loss]

    def outputs(self):
        if self.kind == "training":
            return [[self.run()[0].item() for _ in range(3)]]
        found = self.run()
        if self.kind == "update":
            found = [self.inputs[name] for name in self.wrt]
        return [sampled(x) for x in found]


def sampled(x, count=2048):
    flat = x.detach().reshape(-1)
    stride = max(1, math.ceil(flat.numel() / count)) | 1
    return flat[::stride].tolist()


def times(program, runs):
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        program.run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        found.append((time.perf_counter() - start) * 1000)
    return found


def warm_up(program, warm):
    begin, i = time.perf_counter(), 0
    while True:
        (ms,) = times(program, 1)
        if ms > 1000 or (i > 0 and (time.perf_counter() - begin) * 1000 >= warm):
            return ms
        i += 1


def say(message):
    print("@bench " + json.dumps(message), flush=True)


def main():
    if DEVICE == "cuda" and not torch.cuda.is_available():
        say({"error": "no CUDA", "unsupported": True})
        return
    # As exact as the others: TF32 keeps ten bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(int(sys.argv[2]))
    torch.set_num_interop_threads(1)
    say({"name": "PyTorch", "version": torch.__version__})
    program = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "prepare":
                program = Program(request["program"])
                begin = time.perf_counter()
                outputs = program.outputs()
                first = (time.perf_counter() - begin) * 1000
                say({"outputs": outputs, "ms": first if first > 2500 else warm_up(program, request["warm"])})
            elif request["op"] == "measure":
                if request["runs"] > 1:
                    times(program, 1)
                say({"times": times(program, request["runs"])})
            else:
                program = None
                say({})
        except Exception as error:  # said in the table
            say({"error": str(error).split("\n")[0][:160]})


main()
