"""The one perceptron that densities, decoders and MLP fields are made of."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmorph.fields.kernels.layers import layers_blocked, layers_torch
from fieldmorph.fields.runtime import network_dtype


class Perceptron(nn.Module):
    """ReLU layers of one width; runs in bf16 where the device does, returns float32 (or its input's float64).

    Args:
        n_in, n_out: widths of input and output.
        width: width of the hidden layers.
        depth: number of hidden layers.
        bias: whether layers have one; tiny-cuda-nn's have none.
        skip: index of the layer that sees the input again, in addition to its own (NeRF's fifth), or None.
    """

    def __init__(
        self, n_in: int, n_out: int, *, width: int, depth: int, bias: bool = True, skip: int | None = None
    ):
        super().__init__()
        self.skip = skip
        widths = [n_in] + [width] * depth
        layers = [
            nn.utils.skip_init(nn.Linear, w + (n_in if i == skip else 0), out, bias=bias)
            for i, (w, out) in enumerate(zip(widths, [*widths[1:], n_out], strict=True))
        ]
        self.layers = nn.ModuleList(layers)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw He-uniform weights and zero biases."""
        *hidden, last = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer in hidden:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.kaiming_uniform_(last.weight, nonlinearity="linear", generator=generator)
        for layer in (*hidden, last):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, inputs: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        """Return the values of the last layer, without an activation.

        tinycudann (where it works) serves float32 on CUDA, in half precision, where its fused kernels fit the layers
        and there are no biases and no skip; every other case takes torch's layers.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        if _on_cuda(rows) and self.skip is None and self.layers[0].bias is None:
            # Not before: the library is tested against layers like ours when it is first needed.
            from fieldmorph.fields.kernels.accelerators import perceptron_cuda

            values = perceptron_cuda(rows, [layer.weight for layer in self.layers], self._layered)
        else:
            values = self._layered(rows)
        return values.reshape(*inputs.shape[:-1], values.shape[-1])

    def _layered(self, rows: Tensor) -> Tensor:
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        weights, biases = [a.weight for a in linear], [a.bias for a in linear if a.bias is not None]
        layers = layers_blocked if rows.device.type == "cpu" else layers_torch
        return layers(rows, weights, biases, self.skip, network_dtype(rows))


def _on_cuda(rows: Tensor) -> bool:
    return rows.is_cuda and rows.dtype == torch.float32
