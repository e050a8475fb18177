"""Products by oneDNN are those of torch, and stand aside wherever they cannot serve."""

import pytest
import torch
from torch.nn import functional as F

from chatbot.modeling import products_rnn_seq2seq as products
from chatbot.modeling.products_rnn_seq2seq import Linear, linear

by_onednn = pytest.mark.skipif(products._ONEDNN is None, reason="this torch lacks oneDNN")
LARGE = Linear(1024, 1024).requires_grad_(False)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes that oneDNN was asked to multiply."""
    seen, real = [], products._ONEDNN

    def record(inputs: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(inputs.shape)
        return real(inputs, *rest)

    monkeypatch.setattr(products, "_ONEDNN", real and record)
    return seen


@by_onednn
@pytest.mark.parametrize("shape", [(1024,), (1, 1024), (7, 1024), (2, 3, 1024), (0, 1024)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_products_are_those_of_torch(
    shape: tuple[int, ...], bias: bool, calls: list[torch.Size]
) -> None:
    inputs, added = torch.randn(shape), LARGE.bias if bias else None
    torch.testing.assert_close(
        linear(inputs, LARGE.weight, added), F.linear(inputs, LARGE.weight, added)
    )
    assert calls == ([inputs.shape] if inputs.numel() else [])


@torch.no_grad()
def test_small_products_stay_with_torch(calls: list[torch.Size]) -> None:
    linear(torch.randn(3, 64), torch.randn(64, 64))
    assert calls == []


def test_what_is_learned_has_gradients(calls: list[torch.Size]) -> None:
    layer, inputs = Linear(1024, 1024), torch.randn(2, 1024)
    layer(inputs).sum().backward()
    torch.testing.assert_close(layer.weight.grad[0], inputs.sum(0))
    assert calls == []


@torch.no_grad()
def test_other_precisions_stay_with_torch(calls: list[torch.Size]) -> None:
    inputs = torch.randn(2, 1024)
    with torch.autocast("cpu", torch.bfloat16):
        assert LARGE(inputs).dtype == torch.bfloat16
    assert linear(inputs.double(), LARGE.weight.double()).dtype == torch.float64
    with torch.backends.mkldnn.flags(enabled=False):
        LARGE(inputs)
    assert calls == []


@torch.no_grad()
def test_exporters_see_what_they_know(calls: list[torch.Size]) -> None:
    graph = torch.export.export(LARGE, (torch.randn(2, 1024),)).graph
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert names == ["aten.linear.default"]
    assert calls == []
