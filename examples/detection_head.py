"""Detection on a frozen encoder that was trained without a label: digits of several sizes on noisy, unevenly lit pages.

A small head on dense features is compared with the same head on raw pixels (with the same field of view), and on the
features of an untrained encoder, each from a few labelled pages.
"""

import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from lsdr.representation.dense_features import dense_features
from lsdr.representation.estimator import RepresentationEncoder

SIDE, STRIDE, VIEW = 32, 2, 25  # pixels of a page; between places of the features; seen by each of them, about
digits = load_digits()
CUTOUTS = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)


def page(generator, source, side=SIDE, most=4):
    """A page with a few digits: its pixels, their boxes (x, y, width) and their classes."""
    canvas, boxes, classes = torch.zeros(side, side), [], []
    for number in generator.permutation(source)[: generator.integers(1, most + 1)]:
        width = int(generator.integers(8, 13))
        x, y = generator.integers(0, side - width + 1, 2)
        if any(max(abs(x - a), abs(y - b)) < max(width, w) for a, b, w in boxes):
            continue
        ink = functional.interpolate(CUTOUTS[number : number + 1], (width, width), mode="bilinear")[0, 0]
        canvas[y : y + width, x : x + width] = ink
        boxes.append((int(x), int(y), width))
        classes.append(int(digits.target[number]))
    light = (
        torch.linspace(*generator.uniform(0.4, 1, 2), side)
        * torch.linspace(*generator.uniform(0.6, 1, 2), side)[:, None]
    )
    noise = torch.tensor(generator.normal(0, 0.03, (side, side)), dtype=torch.float32)
    return (0.1 + 0.8 * canvas * light + noise).clamp(0, 1), boxes, classes


def pages(count, seed, source, **options):
    """Pages in one tensor (n, 1, H, W), boxes and classes of each."""
    generator = np.random.default_rng(seed)
    pixels, boxes, classes = zip(*[page(generator, source, **options) for _ in range(count)], strict=True)
    return torch.stack(pixels)[:, None], boxes, classes


def windows(images):
    """Raw pixels as features: at each place all that the encoder sees from there."""
    around = functional.unfold(images - 0.1, VIEW, padding=VIEW // 2, stride=STRIDE)
    return around.reshape(len(images), VIEW**2, SIDE // STRIDE, SIDE // STRIDE)


def pyramid(encoder, images):
    """The maps of all stages, from fine to coarse, at one resolution."""
    with torch.no_grad():
        maps = dense_features(encoder, images, "backbone.stages.*.0") | dense_features(encoder, images)
    places = (SIDE // STRIDE, SIDE // STRIDE)
    return torch.cat([functional.interpolate(each, places, mode="bilinear") for each in maps.values()], 1)


def targets(boxes, classes):
    """At each place the class whose centre is there (10: none), and the box about it: shift and log width."""
    places = SIDE // STRIDE
    kind = torch.full((len(boxes), places, places), 10)
    shape = torch.zeros(len(boxes), 3, places, places)
    for number, (found, names) in enumerate(zip(boxes, classes, strict=True)):
        for (x, y, width), name in zip(found, names, strict=True):
            u, v = (x + width / 2) / STRIDE, (y + width / 2) / STRIDE
            kind[number, int(v), int(u)] = name
            shape[number, :, int(v), int(u)] = torch.tensor([u % 1, v % 1, np.log(width / 10)])
    return kind, shape


def train_head(features, boxes, classes, steps=300):
    """Two layers at each place: eleven classes, and the box."""
    torch.manual_seed(0)
    mean, deviation = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True) + 1e-6
    head = nn.Sequential(nn.Conv2d(features.shape[1], 64, 1), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(64, 14, 1))
    kind, shape = targets(boxes, classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-2)
    weight = torch.tensor([1.0] * 10 + [0.1])  # most places hold nothing
    for _ in range(steps):
        output = head((features - mean) / deviation)
        box = (output[:, 11:] - shape).square().sum(1)[kind < 10].mean()
        optimizer.zero_grad()
        (functional.cross_entropy(output[:, :11], kind, weight) + box).backward()
        optimizer.step()
    return lambda new: head.eval()((new - mean) / deviation).detach()


def detections(output):
    """(page, class, score, box) of the places that score highest among their neighbours."""
    score = output[:, :11].softmax(1)[:, :10]
    best = score.amax(1, keepdim=True)
    peak = (best == functional.max_pool2d(best, 5, 1, 2)) & (score == best) & (score > 0.01)
    for number, name, v, u in peak.nonzero().tolist():
        shift_u, shift_v, log_width = output[number, 11:, v, u].tolist()
        width = 10 * np.exp(log_width)
        box = (STRIDE * (u + shift_u) - width / 2, STRIDE * (v + shift_v) - width / 2, width)
        yield number, name, float(score[number, name, v, u]), box


def overlap(a, b):
    """Intersection over union of two squares."""
    sides = [min(a[i] + a[2], b[i] + b[2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    return shared / (a[2] ** 2 + b[2] ** 2 - shared)


def average_precision(found, boxes, classes):
    """Mean over classes of the area under precision over recall, a box being right from an overlap of 0.5 on."""
    found, areas = sorted(found, key=lambda each: -each[2]), []
    for wanted in range(10):
        truth = {(n, k) for n, names in enumerate(classes) for k, name in enumerate(names) if name == wanted}
        missing, right = set(truth), []
        for number, name, _, box in found:
            if name == wanted:
                near = [(overlap(box, boxes[number][k]), k) for n, k in missing if n == number]
                hit = max(near, default=(0, 0))
                right.append(hit[0] >= 0.5)
                missing -= {(number, hit[1])} if right[-1] else set()
        if truth:
            precision = np.cumsum(right) / np.arange(1, len(right) + 1) if right else np.zeros(0)
            best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
            areas.append(float((best * np.array(right, dtype=float)).sum() / len(truth)))
    return float(np.mean(areas))


def main(steps=300, unlabelled=3000, labelled=(20, 80), tested=150):
    """Mean average precision by what the head stands on and how many pages had labels."""
    order = np.random.default_rng(0).permutation(len(CUTOUTS))
    seen, unseen = order[:1300], order[1300:]  # no digit of the test pages was ever seen before
    pictures = pages(unlabelled, 1, seen, side=14, most=1)[0].numpy()  # of one digit each, and nobody says which
    views = "lighting:0.4,noise:0.03,rotation:15,scale:0.2"
    encoder = RepresentationEncoder(steps=steps, views=views).fit(pictures).encoder_
    untrained = RepresentationEncoder(steps=1, views=views, learning_rate=1e-12).fit(pictures).encoder_
    stands_on = {
        "raw pixels": windows,
        "an untrained encoder": lambda images: pyramid(untrained, images),
        "the encoder": lambda images: pyramid(encoder, images),
    }
    test_pages, boxes, classes = pages(tested, 3, unseen)
    found = {}
    for count in labelled:
        train_pages, train_boxes, train_classes = pages(count, 4, seen)
        for name, features in stands_on.items():
            output = train_head(features(train_pages), train_boxes, train_classes)(features(test_pages))
            found[name, count] = average_precision(list(detections(output)), boxes, classes)
            print(f"{count:4d} labelled pages, a head on {name:20s} mAP@0.5 {found[name, count]:.3f}", flush=True)
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
