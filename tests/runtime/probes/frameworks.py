"""PaddlePaddle: weights, saved programs, the inference engine.

`python -m runtime.probes.frameworks FOLDER` makes the files.
"""

from __future__ import annotations

import sys
from typing import Any

from runtime.probes.cases import digest, library

WIDTHS = {"small": 16, "large": 1600}  # of a square layer; the large one's weights are 10 MB


@library("paddle")
def paddle_load(root: str, size: str) -> Any:
    import paddle

    result = []
    for path in (f"{root}/{size}.pdparams", f"{root}/{size}.pdopt"):
        state = paddle.load(path, return_numpy=True)
        result.append(
            [(name, digest(value.tobytes())) for name, value in sorted(state.items()) if hasattr(value, "tobytes")]
        )
    return result


@library("paddle")
def paddle_jit(root: str, size: str) -> Any:
    import paddle

    layer = paddle.jit.load(f"{root}/{size}_program")
    layer.eval()
    return digest(layer(paddle.ones([2, WIDTHS[size]])).numpy().tobytes())


@library("paddle")
def paddle_inference(root: str, size: str) -> Any:
    import numpy as np
    from paddle import inference

    config = inference.Config(f"{root}/{size}_program.json", f"{root}/{size}_program.pdiparams")
    config.disable_gpu()
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    given = predictor.get_input_handle(predictor.get_input_names()[0])
    given.copy_from_cpu(np.ones((2, WIDTHS[size]), np.float32))
    predictor.run()
    return digest(predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu().tobytes())


def make(folder: str) -> None:
    import paddle

    paddle.seed(1)
    for size, width in WIDTHS.items():
        network = paddle.nn.Sequential(paddle.nn.Linear(width, width), paddle.nn.ReLU())
        optimizer = paddle.optimizer.Adam(parameters=network.parameters())
        network(paddle.ones([2, width])).sum().backward()
        optimizer.step()
        paddle.save(network.state_dict(), f"{folder}/{size}.pdparams")
        paddle.save(optimizer.state_dict(), f"{folder}/{size}.pdopt")
        paddle.jit.save(network, f"{folder}/{size}_program", [paddle.static.InputSpec([None, width], "float32")])


if __name__ == "__main__":
    make(sys.argv[1])
