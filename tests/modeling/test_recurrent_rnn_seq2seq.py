"""Recurrent layers and stacks: padding, residual sums, the dropout of recurrent weights."""

import pytest
import torch
from modeling_helpers import randomise, tiny_config

from chatbot.modeling.recurrent_rnn_seq2seq import (
    RnnSeq2SeqRecurrentLayer,
    RnnSeq2SeqRecurrentStack,
)

CELLS = ["lstm", "gru"]


def layer_of(directions: int = 1, **changes: object) -> RnnSeq2SeqRecurrentLayer:
    layer = RnnSeq2SeqRecurrentLayer(tiny_config(**changes), 4, 8, directions)
    randomise(layer)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_padding_holds_the_state_however_long(
    cell: str, directions: int, dtype: torch.dtype
) -> None:
    layer = layer_of(directions, cell_type=cell).to(dtype)
    inputs = torch.randn(1, 3, 4, dtype=dtype)
    outputs, *state = layer(inputs, *layer.zero_state(inputs))
    padded = torch.cat([inputs, torch.randn(1, 400, 4, dtype=dtype) * 5], dim=1)
    padding = torch.arange(403)[None] >= 3
    held, *held_state = layer(padded, *layer.zero_state(inputs), padding)
    # adding zeros in another order costs a last digit at a step, but nothing that grows
    close = {"rtol": 0, "atol": 3 * torch.finfo(dtype).eps}
    torch.testing.assert_close(held[:, :3], outputs, **close)
    torch.testing.assert_close(held_state, state, **close)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_final_states_of_two_directions_stand_side_by_side(cell: str) -> None:
    layer = layer_of(2, cell_type=cell)
    inputs = torch.randn(2, 5, 4)
    outputs, hidden, _ = layer(inputs, *layer.zero_state(inputs))
    assert outputs.shape == (2, 5, 16)
    assert hidden.shape == (2, 2, 8)
    # forward ends on the last token, backward on the first
    torch.testing.assert_close(hidden[:, 0], outputs[:, -1, :8])
    torch.testing.assert_close(hidden[:, 1], outputs[:, 0, 8:])


@pytest.mark.parametrize("cell", CELLS)
def test_one_draw_of_dropped_recurrent_weights_serves_every_step(cell: str) -> None:
    layer = layer_of(cell_type=cell, recurrent_dropout=0.5).train()
    inputs = torch.randn(3, 6, 4)
    torch.manual_seed(1)
    whole, *_ = layer(inputs, *layer.zero_state(inputs))
    torch.manual_seed(1)
    weights, state, steps = layer.weights(), layer.zero_state(inputs), []
    for step in inputs.unbind(1):
        output, state = layer.step(step, state, weights)
        steps.append(output)
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, rtol=0, atol=1e-6)
    full, dropped = layer.rnn.weight_hh_l0, weights[1]
    gone = dropped == 0
    assert 0.3 < gone.float().mean() < 0.7
    torch.testing.assert_close(dropped[~gone], full[~gone] * 2)
    for place, name in enumerate(("weight_ih_l0", "bias_ih_l0", "bias_hh_l0")):
        assert torch.equal(weights[(0, 2, 3)[place]], getattr(layer.rnn, name))


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_weights_are_whole_in_evaluation(cell: str) -> None:
    layer = layer_of(cell_type=cell, recurrent_dropout=0.5).eval()
    assert torch.equal(layer.weights()[1], layer.rnn.weight_hh_l0)


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_residual_adds_the_layers_own_input_at_the_same_step(cell: str) -> None:
    stack = RnnSeq2SeqRecurrentStack(tiny_config(cell_type=cell, residual=True), 4, 8, depth=2)
    randomise(stack)
    for parameter in stack.layers[1].parameters():
        parameter.zero_()  # a layer of zeros gives zeros, so that only its input is left
    inputs = torch.randn(2, 5, 4)
    outputs, after = stack(inputs, stack.zero_state(inputs))
    assert outputs[0].abs().sum() > 1
    assert torch.equal(outputs[1], outputs[0])
    assert not torch.equal(outputs[1][:, 1:], outputs[0][:, :-1])
    # the sum is what the next layer reads, not what the cell remembers
    assert (after[1][0] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_layer_norm_levels_each_output(cell: str) -> None:
    stack = RnnSeq2SeqRecurrentStack(tiny_config(cell_type=cell, layer_norm=True), 4, 8, depth=2)
    inputs = torch.randn(2, 5, 4)
    outputs, _ = stack(inputs, stack.zero_state(inputs))
    for output in outputs:
        torch.testing.assert_close(output.mean(-1), torch.zeros(2, 5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_steps_of_a_stack_equal_its_sequence(cell: str, norm: bool) -> None:
    config = tiny_config(cell_type=cell, residual=True, layer_norm=norm)
    stack = RnnSeq2SeqRecurrentStack(config, 4, 8, depth=3)
    randomise(stack)
    inputs = torch.randn(2, 5, 4)
    whole, after = stack(inputs, stack.zero_state(inputs))
    states, weights, steps = stack.zero_state(inputs), stack.weights(), []
    for step in inputs.unbind(1):
        outputs, states = stack.step(step, states, weights)
        steps.append(outputs[-1])
    torch.testing.assert_close(torch.stack(steps, dim=1), whole[-1], rtol=0, atol=1e-6)
    torch.testing.assert_close(states, after, rtol=0, atol=1e-6)
