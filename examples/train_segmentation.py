"""Trains a small U-Net to find blood vessels in photographs of the eye.

An ordinary PaddlePaddle script: it lists a folder, opens PNG files and prints its losses. It does not know
where the folder comes from, and two runs on the same files print the same numbers to the last digit.

    python train_segmentation.py DATA [--epochs 10] [--workers 2] [--save OUT] [--picture PNG]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Paddle reads these when it is imported. With another number of threads it would add the same numbers up in
# another order, and the last digits of the losses would differ.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["FLAGS_cpu_deterministic"] = "1"  # noqa: SIM112 - its name

import numpy as np
import paddle
import paddle.nn.functional as F  # noqa: N812 - what everybody calls it
from paddle import nn
from paddle.io import DataLoader, Dataset, Subset
from PIL import Image


class Vessels(Dataset):
    """The images of DATA/images with the masks of the same name from DATA/masks."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.names = [name for name in os.listdir(root / "images") if name.endswith(".png")]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        name = self.names[index]
        with Image.open(self.root / "images" / name) as file:
            image = np.asarray(file.convert("RGB"), np.float32).transpose(2, 0, 1) / 255 - 0.5
        with Image.open(self.root / "masks" / name) as file:
            mask = (np.asarray(file.convert("L"))[None] > 127).astype(np.float32)
        return image, mask


def block(channels_in: int, channels_out: int, depth: int = 2) -> nn.Layer:
    """The brick that the network is built of: a few convolutions."""
    layers: list[nn.Layer] = []
    for channels in [channels_in] + [channels_out] * (depth - 1):
        layers += [
            nn.Conv2D(channels, channels_out, 3, padding=1, bias_attr=False),
            nn.BatchNorm2D(channels_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Layer):
    """A U-Net of three levels on blocks of 2x2 pixels, which a CPU gets through four times as fast."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.top = block(12, width, depth=1)
        self.middle = block(width, 2 * width)
        self.bottom = block(2 * width, 4 * width)
        self.up_middle = block(3 * width, 2 * width)
        self.up_top = block(width // 2 + width, width, depth=1)
        self.head = nn.Conv2D(width, 4, 1)

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        """Return the logit of "this pixel is a vessel"."""
        top = self.top(F.pixel_unshuffle(image, 2))
        middle = self.middle(F.max_pool2d(top, 2))
        bottom = self.bottom(F.max_pool2d(middle, 2))
        middle = self.up_middle(paddle.concat([F.pixel_shuffle(bottom, 2), middle], axis=1))
        top = self.up_top(paddle.concat([F.pixel_shuffle(middle, 2), top], axis=1))
        return F.pixel_shuffle(self.head(top), 2)


def dice(prediction: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
    """Return the overlap of two masks: 0 is none, 1 is perfect."""
    return (2 * (prediction * mask).sum() + 1) / (prediction.sum() + mask.sum() + 1)


def train(net: UNet, data: Dataset, args: argparse.Namespace) -> None:
    """Train, and print the mean loss of each epoch with every digit it has."""
    optimizer = paddle.optimizer.Adam(args.learning_rate, parameters=net.parameters())
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, num_workers=args.workers)
    net.train()
    for epoch in range(1, args.epochs + 1):
        losses = []
        for image, mask in loader:
            logit = net(image)
            loss = F.binary_cross_entropy_with_logits(logit, mask) + 1 - dice(F.sigmoid(logit), mask)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            losses.append(float(loss))
        print(f"epoch {epoch} loss {sum(losses) / len(losses)!r}", flush=True)


@paddle.no_grad()
def predict(net: UNet, data: Dataset, args: argparse.Namespace) -> list[np.ndarray]:
    """Print the Dice score on images not trained on, and return the predicted masks."""
    net.eval()
    masks, predictions = [], []
    for image, mask in DataLoader(data, batch_size=args.batch_size, num_workers=args.workers):
        masks.append(mask)
        predictions.append((net(image) > 0).astype("float32"))
    prediction = paddle.concat(predictions)
    print(f"dice {float(dice(prediction, paddle.concat(masks)))!r}", flush=True)
    return list(prediction[:, 0].numpy())


def as_picture(values: np.ndarray) -> Image.Image:
    """Turn a mask of zeros and ones into an image."""
    return Image.fromarray((values * 255).astype(np.uint8))


def side_by_side(image: np.ndarray, mask: np.ndarray, prediction: np.ndarray, zoom: int = 3) -> Image.Image:
    """Put an image, its true mask and the predicted one next to each other."""
    panels = [Image.fromarray(((image + 0.5) * 255).round().astype(np.uint8).transpose(1, 2, 0))]
    panels += [as_picture(mask[0]).convert("RGB"), as_picture(prediction).convert("RGB")]
    width, height = (zoom * length for length in panels[0].size)
    gap = 4 * zoom
    picture = Image.new("RGB", (3 * width + 2 * gap, height), "white")
    for place, panel in enumerate(panels):
        picture.paste(panel.resize((width, height), Image.Resampling.NEAREST), (place * (width + gap), 0))
    return picture


def main() -> None:
    """Train, judge, and save what was asked for."""
    parser = argparse.ArgumentParser(description="Train a small U-Net on images/*.png and masks/*.png.")
    parser.add_argument("data", type=Path, help="folder with images/ and masks/")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--workers", type=int, default=0, help="processes that load images (default: 0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the weights and the predicted masks")
    parser.add_argument("--picture", type=Path, help="PNG to write: image, mask and prediction side by side")
    args = parser.parse_args()

    paddle.seed(args.seed)
    np.random.seed(args.seed)  # the shuffling of paddle.io draws from it

    data = Vessels(args.data)
    held_out = max(1, len(data) // 5)
    test, training = Subset(data, range(held_out)), Subset(data, range(held_out, len(data)))
    net = UNet()
    train(net, training, args)
    predictions = predict(net, test, args)

    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
        paddle.save(net.state_dict(), str(args.save / "unet.pdparams"))
        for index, prediction in enumerate(predictions):
            as_picture(prediction).save(args.save / data.names[index])
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        side_by_side(*test[0], predictions[0]).save(args.picture)


if __name__ == "__main__":
    main()
