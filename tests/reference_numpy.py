"""The model written once more, in numpy, from the papers.

One item at a time and one token at a time, so that it knows no padding, no batch and no cache. Only
the names of the weights come from the package. Widths: H of the decoder, M of an encoder output.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
State = tuple[Array, Array]  # hidden and cell; a GRU leaves the cell alone


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


@dataclass
class Weights:
    """The weights whose names begin with a prefix."""

    all: dict[str, Array]
    prefix: str = ""

    def __getitem__(self, name: str) -> Array:
        return self.all[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.all

    def at(self, part: str) -> "Weights":
        return Weights(self.all, f"{self.prefix}{part}.")


def lstm_step(x: Array, state: State, w: Weights, suffix: str) -> State:
    """Hochreiter & Schmidhuber 1997 with a forget gate; gates in torch's order i, f, g, o."""
    h, c = state
    gates = w["weight_ih" + suffix] @ x + w["bias_ih" + suffix]
    gates = gates + w["weight_hh" + suffix] @ h + w["bias_hh" + suffix]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(x: Array, state: State, w: Weights, suffix: str) -> State:
    """Cho et al. 2014 as torch documents it; gates in the order r, z, n."""
    h, c = state
    xr, xz, xn = np.split(w["weight_ih" + suffix] @ x + w["bias_ih" + suffix], 3)
    hr, hz, hn = np.split(w["weight_hh" + suffix] @ h + w["bias_hh" + suffix], 3)
    z = sigmoid(xz + hz)
    n = np.tanh(xn + sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h, c


def cell_step(config: Any, x: Array, state: State, w: Weights, suffix: str = "_l0") -> State:
    step = lstm_step if config.cell_type == "lstm" else gru_step
    return step(x, state, w.at("rnn"), suffix)


def finish_layer(config: Any, depth: int, x: Array, output: Array, stack: Weights) -> Array:
    """Ba et al. 2016 over the output; the layer's own input is added to it (He et al. 2016)."""
    if config.layer_norm:
        norm = stack.at(f"norms.{depth}")
        spread = np.sqrt(output.var() + 1e-5)
        output = (output - output.mean()) / spread * norm["weight"] + norm["bias"]
    return output + x if config.residual and depth > 0 else output


def encode(config: Any, w: Weights, source: list[int]) -> tuple[list[Array], list[State]]:
    """Outputs of the last layer, one for each token, and each layer's last state, (M,) each."""
    sequence = [w["embed_tokens.weight"][token] for token in source]
    finals = []
    for depth in range(config.encoder_layers):
        layer = w.at(f"stack.layers.{depth}")
        zeros = np.zeros(config.encoder_hidden_size)
        state, forward = (zeros, zeros), []
        for x in sequence:
            state = cell_step(config, x, state, layer)
            forward.append(state[0])
        outputs, final = forward, state
        if config.bidirectional:
            state, backward = (zeros, zeros), []
            for x in reversed(sequence):
                state = cell_step(config, x, state, layer, "_l0_reverse")
                backward.insert(0, state[0])
            outputs = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
            final = (np.concatenate([final[0], state[0]]), np.concatenate([final[1], state[1]]))
        finals.append(final)
        sequence = [
            finish_layer(config, depth, x, output, w.at("stack"))
            for x, output in zip(sequence, outputs, strict=True)
        ]
    return sequence, finals


def bridge(config: Any, w: Weights, finals: list[State]) -> list[State]:
    """The decoder's first states."""
    if config.bridge == "copy":
        return finals
    layers, width = config.decoder_layers, config.hidden_size
    if config.bridge == "zero":
        return [(np.zeros(width), np.zeros(width))] * layers
    hidden = np.concatenate([final[0] for final in finals])
    hidden = np.tanh(w["hidden.weight"] @ hidden + w["hidden.bias"]).reshape(layers, width)
    cell = np.zeros((layers, width))
    if config.cell_type == "lstm":
        cell = np.concatenate([final[1] for final in finals])
        cell = np.tanh(w["cell.weight"] @ cell + w["cell.bias"]).reshape(layers, width)
    return list(zip(hidden, cell, strict=True))


def score(config: Any, w: Weights, h: Array, s: Array) -> float:
    """Luong et al. 2015, section 3.1; Bahdanau et al. 2015, section A.1.2."""
    if config.attention == "dot":
        return float(h @ s)
    if config.attention == "general":
        return float(h @ w["memory.weight"] @ s)
    both = np.concatenate([w["query.weight"], w["memory.weight"]], axis=1)
    return float(w["energy.weight"][0] @ np.tanh(both @ np.concatenate([h, s])))


def attend(config: Any, w: Weights, h: Array, memory: list[Array], t: int) -> tuple[Array, Array]:
    """Context vector and weights over the source."""
    S, D = len(memory), config.attention_window_size
    seen, favour = list(range(S)), np.ones(S)
    if config.attention_window == "recent":
        seen = seen[-D:]
    elif config.attention_window == "local-m":
        p = min(t, S - 1)
        seen = [s for s in seen if p - D <= s <= p + D]
    elif config.attention_window == "local-p":
        window = w.at("window")
        inner = np.tanh(window["position.weight"] @ h)
        p = S * sigmoid(window["centre.weight"][0] @ inner)
        seen = [s for s in seen if p - D <= s <= p + D]
        favour = np.exp(-((np.arange(S) - p) ** 2) / (2 * (D / 2) ** 2))
    weights = np.zeros(S)
    weights[seen] = softmax(np.array([score(config, w.at("score"), h, memory[s]) for s in seen]))
    weights = weights * favour / (weights * favour).sum()
    return sum(a * s for a, s in zip(weights, memory, strict=True)), weights


def decode(
    config: Any, w: Weights, embeddings: Array, target: list[int], memory: list[Array],
    states: list[State],
) -> tuple[list[Array], list[Array], list[float]]:  # fmt: skip
    """Vectors for the output layer, attention and copy gate, one for each target token."""
    outputs, looks, gates, fed = [], [], [], np.zeros(config.hidden_size)
    for t, token in enumerate(target):
        y = x = embeddings[token]
        if config.attention == "additive":  # c_t from s_{t-1}, then s_t = f(s_{t-1}, y_{t-1}, c_t)
            context, look = attend(config, w.at("attention"), states[-1][0], memory, t)
            x = np.concatenate([y, context])
        elif config.input_feeding:
            x = np.concatenate([y, fed])
        after = []
        for depth in range(config.decoder_layers):
            state = cell_step(config, x, states[depth], w.at(f"stack.layers.{depth}"))
            after.append(state)
            x = finish_layer(config, depth, x, state[0], w.at("stack"))
        states = after
        if config.attention == "none":
            outputs.append(x)
            continue
        if config.attention == "additive":
            known = np.concatenate([x, context, y])
        else:  # h~_t = tanh(W_c [c_t; h_t])
            context, look = attend(config, w.at("attention"), x, memory, t)
            known = np.concatenate([context, x])
        fed = np.tanh(w["combine.weight"] @ known)
        outputs.append(fed)
        looks.append(look)
        if config.copy:
            known = np.concatenate([x, context, y])
            gates.append(sigmoid(w["copy_gate.weight"][0] @ known + w["copy_gate.bias"][0]))
    return outputs, looks, gates


def mixed(logits: Array, look: Array, gate: float, source: list[int]) -> Array:
    """log p(w), p(w) = g softmax(w) + (1 - g) the attention on w (See et al. 2017, eq. 9)."""
    p = gate * softmax(logits)
    for token, weight in zip(source, look, strict=True):
        p[token] += (1 - gate) * weight
    return np.log(p)


def reference(
    config: Any, weights: dict[str, Array], source: list[int], target: list[int]
) -> tuple[Array, Array]:
    """Logits (T, vocabulary) and attention (T, S) of one item; with copying, log-probabilities."""
    everything = Weights(weights)
    encoder, decoder = everything.at("model.encoder"), everything.at("model.decoder")
    memory, finals = encode(config, encoder, source)
    states = bridge(config, decoder.at("bridge"), finals)
    embeddings = (encoder if config.share_embeddings else decoder)["embed_tokens.weight"]
    outputs, looks, gates = decode(config, decoder, embeddings, target, memory, states)
    head = embeddings if config.tie_word_embeddings else everything["lm_head.weight"]
    logits = [head @ output + everything["lm_head.bias"] for output in outputs]
    if config.copy:
        steps = zip(logits, looks, gates, strict=True)
        logits = [mixed(step, look, gate, source) for step, look, gate in steps]
    return np.array(logits), np.array(looks)
