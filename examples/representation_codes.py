"""Codes of digits without labels, in scikit-learn: from one labelled example a class, few dimensions go a long way."""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from lsdr.representation.estimator import RepresentationEncoder


def main(steps=200):
    """Accuracy of a linear classifier by what it stands on and how many dimensions of it."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    train, test = order[:1400], order[1400:]
    images, labels = digits.images.astype(np.uint8) * 15, digits.target
    encoder = RepresentationEncoder(views="lighting:0.4,noise:0.05,rotation:15,scale:0.2", steps=steps)
    codes = encoder.fit(images[train]).transform(images)
    flat = images.reshape(len(images), -1) / 255
    principal = PCA().fit(flat[train]).transform(flat)
    found = {}
    for k in (2, 4, 8, 16, 32, 64):
        for name, features in (("ordered codes", codes), ("principal components", principal)):
            right = []
            for draw in range(5):
                some = np.random.default_rng(draw).permutation(train)
                one = [some[labels[some] == digit][0] for digit in range(10)]  # one labelled example a class
                classifier = LogisticRegression(max_iter=1000).fit(features[one, :k], labels[one])
                right.append(classifier.score(features[test, :k], labels[test]))
            found[name, k] = float(np.mean(right))
        print(f"{k:3d} dimensions: " + ", ".join(f"{name} {found[name, k]:.3f}" for name, at in found if at == k))
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
