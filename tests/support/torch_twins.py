"""Networks in plain torch.nn whose modules are named as torchvision's are, or as the layers' places say."""

import torch
from torch import nn


class Block(nn.Module):
    """torchvision's BasicBlock and Bottleneck: convolutions of these (filters, size, stride), and a shortcut."""

    def __init__(self, channels, convolutions):
        super().__init__()
        stride, inputs = 1, channels
        self.count = len(convolutions)
        for number, (filters, size, step) in enumerate(convolutions, 1):
            setattr(self, f"conv{number}", nn.Conv2d(inputs, filters, size, step, size // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(filters))
            stride, inputs = stride * step, filters
        self.downsample = None
        if stride > 1 or inputs != channels:
            self.downsample = nn.Sequential(nn.Conv2d(channels, inputs, 1, stride, bias=False), nn.BatchNorm2d(inputs))

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = y.relu() if number < self.count else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """torchvision's resnet18 and resnet50."""

    def __init__(self, blocks, bottleneck, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(blocks):
            width, made = 64 << stage, []
            for number in range(count):
                stride = 2 if stage and not number else 1
                filters = 4 * width if bottleneck else width
                basic = [(width, 3, stride), (width, 3, 1)]
                deep = [(width, 1, 1), (width, 3, stride), (filters, 1, 1)]
                made.append(Block(channels, deep if bottleneck else basic))
                channels = filters
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    """torchvision's vgg11_bn and vgg16_bn, for images of which one pixel is left."""

    def __init__(self, stages, hidden, classes):
        super().__init__()
        features, channels = [], 3
        for filters, count in stages:
            for _ in range(count):
                features += [nn.Conv2d(channels, filters, 3, 1, 1), nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
            features.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Linear(512, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class Sum(nn.Module):
    """body(x) + shortcut(x), as ``layers.Residual``."""

    def __init__(self, body, shortcut=None):
        super().__init__()
        self.body = body
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x):
        return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class GlobalMean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class FlatLinear(nn.Linear):
    """Takes images, as ``layers.Affine`` does."""

    def forward(self, x):
        return super().forward(x.flatten(1))


def conv_norm(channels, filters, size, stride=1, bias=False):
    return [nn.Conv2d(channels, filters, size, stride, size // 2, bias=bias), nn.BatchNorm2d(filters)]


def small_resnet(blocks, classes):
    layers, channels = [*conv_norm(3, 16, 3, bias=True), nn.ReLU()], 16
    for filters, step in ((16, 1), (32, 2), (64, 2)):
        for number in range(blocks):
            stride = 1 if number else step
            body = nn.Sequential(
                *conv_norm(channels, filters, 3, stride, True), nn.ReLU(), *conv_norm(filters, filters, 3, 1, True)
            )
            other = stride > 1 or channels != filters
            shortcut = nn.Sequential(*conv_norm(channels, filters, 1, stride, True)) if other else None
            layers += [Sum(body, shortcut), nn.ReLU()]
            channels = filters
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(64, classes))


def wide_resnet(depth, width, classes):
    def conv3(channels, filters, stride=1):
        return nn.Conv2d(channels, filters, 3, stride, 1, bias=False)

    layers, channels = [conv3(3, 16)], 16
    for filters, step in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for number in range((depth - 4) // 6):
            before = [nn.BatchNorm2d(channels), nn.ReLU()]
            body = [conv3(channels, filters, 1 if number else step), nn.BatchNorm2d(filters), nn.ReLU()]
            body.append(conv3(filters, filters))
            if number:
                layers.append(Sum(nn.Sequential(*before, *body)))
            else:
                layers += [*before, Sum(nn.Sequential(*body), nn.Conv2d(channels, filters, 1, step, bias=False))]
            channels = filters
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), GlobalMean(), nn.Linear(channels, classes))


def lenet(classes):
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        FlatLinear(576, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(),
        nn.Linear(84, classes),
    )  # fmt: skip


class Bottleneck(nn.Module):
    """torchvision's InvertedResidual."""

    def __init__(self, channels, filters, expansion, stride):
        super().__init__()
        wide = channels * expansion
        expand = [nn.Sequential(*conv_norm(channels, wide, 1), nn.ReLU6())] if expansion > 1 else []
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.conv = nn.Sequential(
            *expand, nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.ReLU6()), *conv_norm(wide, filters, 1)
        )
        self.adds = stride == 1 and channels == filters

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNet(nn.Module):
    """torchvision's mobilenet_v2."""

    def __init__(self, classes):
        super().__init__()
        features, channels = [nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU6())], 32
        for filters, count, step, expansion in (
            (16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6)
        ):  # fmt: skip
            for number in range(count):
                features.append(Bottleneck(channels, filters, expansion, 1 if number else step))
                channels = filters
        features.append(nn.Sequential(*conv_norm(channels, 1280, 1), nn.ReLU6()))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class PixelNorm(nn.LayerNorm):
    """Normalizes the channels of each pixel."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def mixer(depth, channels, over_patches, over_channels, patches, classes):
    """MLP-Mixer of 4x4 patches."""

    def mlp(inputs, hidden):
        return [nn.Conv2d(inputs, hidden, 1), nn.GELU(approximate="tanh"), nn.Conv2d(hidden, inputs, 1)]

    layers = [nn.Conv2d(3, channels, 4, 4), Apply(lambda x: x.flatten(2).unsqueeze(3))]
    for _ in range(depth):
        swaps = [Apply(lambda x: x.transpose(1, 2)) for _ in range(2)]
        layers.append(Sum(nn.Sequential(PixelNorm(channels), swaps[0], *mlp(patches, over_patches), swaps[1])))
        layers.append(Sum(nn.Sequential(PixelNorm(channels), *mlp(channels, over_channels))))
    return nn.Sequential(*layers, PixelNorm(channels), GlobalMean(), nn.Linear(channels, classes))


class Beside(nn.Module):
    """x beside body(x), as ``layers.Skip``."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


def unet(channels, classes, filters, depth):
    def pair(channels, filters):
        return [*conv_norm(channels, filters, 3), nn.ReLU(), *conv_norm(filters, filters, 3), nn.ReLU()]

    def below(filters, depth):
        if not depth:
            return []
        up = nn.ConvTranspose2d(2 * filters, filters, 2, 2)
        body = nn.Sequential(nn.MaxPool2d(2), *pair(filters, 2 * filters), *below(2 * filters, depth - 1), up)
        return [Beside(body), *pair(2 * filters, filters)]

    return nn.Sequential(*pair(channels, filters), *below(filters, depth), nn.Conv2d(filters, classes, 1))


def of_images():
    """The twin of ``torch_examples.of_images``."""
    residual = Sum(nn.Sequential(*conv_norm(6, 6, 3), nn.ReLU(), *conv_norm(6, 6, 3)))
    return nn.Sequential(*conv_norm(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), residual, nn.ReLU(), FlatLinear(96, 5))


def renewed(twin):
    """Draw weights and statistics of normalizations, and biases of attention: not those of new modules."""
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.MultiheadAttention):
                module.in_proj_bias.normal_(0, 0.1)
                module.out_proj.bias.normal_(0, 0.1)
    return twin


def scores(twin, x):
    """What a twin makes of an array in evaluation."""
    with torch.no_grad():
        return twin.eval()(torch.from_numpy(x)).numpy()


def take_steps(twin, batches, rate):
    """Take a step of SGD with momentum 0.9 on each batch; scores of steps (N, T, classes) have labels (N, T)."""
    optimizer = torch.optim.SGD(twin.train().parameters(), rate, momentum=0.9)
    for x, t in batches:
        y, labels = twin(torch.from_numpy(x)), torch.from_numpy(t)
        if labels.ndim == 2:
            y, labels = y.flatten(0, 1), labels.flatten()
        optimizer.zero_grad()
        nn.functional.cross_entropy(y, labels).backward()
        optimizer.step()


TWINS = {
    "LeNet5": lambda: lenet(7),
    "VGG11": lambda: VGG(((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)), 512, 7),
    "VGG16": lambda: VGG(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 512, 7),
    "MobileNetV2": lambda: MobileNet(7),
    "ResNet18": lambda: ResNet((2, 2, 2, 2), False, 7),
    "ResNet20": lambda: small_resnet(3, 7),
    "ResNet32": lambda: small_resnet(5, 7),
    "ResNet56": lambda: small_resnet(9, 7),
    "ResNet50": lambda: ResNet((3, 4, 6, 3), True, 7),
    "WideResNet16-4": lambda: wide_resnet(16, 4, 7),
}
"""Functions that make the twin of a network of the zoo, for images 3x32x32 of seven classes."""
