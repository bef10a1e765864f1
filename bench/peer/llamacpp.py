"""llama.cpp: a batch of equal rows; one step is ``llama_decode`` of a token for each, and argmax.

The model file is written when it is opened: the same shape with drawn weights, float32 or Q4_0
(blocks of 32 with one scale, as MatMulNBits has them), the output matrix like the rest.
"""

import ctypes
import tempfile
import time
from contextlib import ExitStack
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Answer = dict[str, Any]


class Contestant:
    """Opened once; each batch begins with empty memory."""

    def __init__(self, stack: ExitStack) -> None:
        self._lib: Any = import_module("llama_cpp")
        self.versions = {"llama-cpp-python": version("llama-cpp-python")}
        self._stack = stack
        self._context: Any = None
        self._batch: Any = None
        self._vocab = self._past = 0
        self._next: list[int] = []

    def ask(self, request: Answer) -> Answer:
        """Answer ``open``, ``begin`` and ``steps`` as bench/decoding.py does."""
        if request["do"] == "open":
            return self._open(request["shape"], request["threads"], request["rows_max"],
                              request["tokens_max"])  # fmt: skip
        if request["do"] == "begin":
            return self._begin(request["ids"])
        return {"times_ns": [self._step() for _ in range(request["steps"])]}

    def _open(self, shape: Answer, threads: int, rows: int, tokens: int) -> Answer:
        lib = self._lib
        path = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "model.gguf"
        write(path, shape)
        self._silence = lib.llama_log_callback(lambda *_: None)  # Kept: the library has no copy.
        lib.llama_log_set(self._silence, ctypes.c_void_p())
        lib.llama_backend_init()
        model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_seq_max = rows * tokens, rows * tokens, rows
        settings.n_threads = settings.n_threads_batch = threads
        self._context = lib.llama_init_from_model(model, settings)
        if not self._context:
            raise SystemExit("llama.cpp refuses the model")
        self._batch = lib.llama_batch_init(rows * tokens, 0, 1)
        self._vocab = shape["vocab"]
        return {}

    def _begin(self, ids: list[list[int]]) -> Answer:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._past = 0
        self._decode(ids)
        return {}

    def _step(self) -> int:
        begun = time.perf_counter_ns()
        self._decode([[token] for token in self._next])
        return time.perf_counter_ns() - begun

    def _decode(self, ids: list[list[int]]) -> None:
        """Feed each row its ids; the rows' next tokens are those with the largest logits."""
        batch, count, ends = self._batch, 0, []
        for row, tokens in enumerate(ids):
            for place, token in enumerate(tokens):
                batch.token[count] = token
                batch.pos[count] = self._past + place
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = row
                batch.logits[count] = place == len(tokens) - 1
                count += 1
            ends.append(count - 1)
        batch.n_tokens = count
        if self._lib.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed")
        self._past += len(ids[0])
        self._next = [self._largest(end) for end in ends]

    def _largest(self, place: int) -> int:
        found = self._lib.llama_get_logits_ith(self._context, place)
        address = ctypes.cast(found, ctypes.c_void_p).value or 0
        logits: Any = (ctypes.c_float * self._vocab).from_address(address)
        return int(np.argmax(np.frombuffer(logits, np.float32)))


def write(path: Path, shape: Answer) -> None:
    """A model file of the shape, without a tokenizer."""
    gguf: Any = import_module("gguf")
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_context_length(shape["context_tokens"])
    out.add_embedding_length(shape["hidden"])
    out.add_block_count(shape["layers"])
    out.add_feed_forward_length(shape["intermediate"])
    out.add_head_count(shape["heads"])
    out.add_head_count_kv(shape["kv_heads"])
    out.add_rope_dimension_count(shape["head_dim"])
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(shape["vocab"])
    out.add_tokenizer_model("no_vocab")
    kinds = gguf.GGMLQuantizationType
    kind = kinds.Q4_0 if shape.get("weight_bits") == 4 else kinds.F32
    drawn = np.random.Generator(np.random.PCG64(1))
    for name, size in weights(shape):
        data = np.ones(size, np.float32)
        if len(size) == 2:
            data = drawn.standard_normal(size, dtype=np.float32) * np.float32(size[1] ** -0.5)
            data = gguf.quants.quantize(data, kind)
        out.add_tensor(name, data, raw_dtype=kind if len(size) == 2 else kinds.F32)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def weights(shape: Answer) -> list[tuple[str, tuple[int, ...]]]:
    """Names and sizes, (out, in); the output matrix is the embedding."""
    hidden, inner = shape["hidden"], shape["intermediate"]
    q_width, kv_width = (shape[heads] * shape["head_dim"] for heads in ("heads", "kv_heads"))
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (shape["vocab"], hidden)),
        ("output_norm.weight", (hidden,)),
    ]
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "attn_q": (q_width, hidden),
        "attn_k": (kv_width, hidden),
        "attn_v": (kv_width, hidden),
        "attn_output": (hidden, q_width),
        "ffn_norm": (hidden,),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    for number in range(shape["layers"]):
        found += [(f"blk.{number}.{name}.weight", size) for name, size in layer.items()]
    return found


def begin(stack: ExitStack) -> tuple[dict[str, str], Any]:
    """Versions, and what answers requests."""
    contestant = Contestant(stack)
    return contestant.versions, contestant.ask
