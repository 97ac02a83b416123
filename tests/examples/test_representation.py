"""The examples of representation learning run, small."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def test_codes_of_digits():
    import representation_codes

    found = representation_codes.main(steps=4)
    assert {k for _, k in found} == {2, 4, 8, 16, 32, 64}
    assert all(0.1 < accuracy < 1 for accuracy in found.values())


def test_a_detection_head():
    import detection_head

    found = detection_head.main(steps=4, unlabelled=64, labelled=(4,), tested=6)
    assert {name for name, _ in found} == {"raw pixels", "an untrained encoder", "the encoder"}
    assert all(0 <= precision <= 1 for precision in found.values())


def test_precision_is_1_for_true_boxes_and_falls_with_false_ones():
    import detection_head

    boxes, classes = [[(4, 4, 8), (20, 20, 10)], [(0, 0, 8)]], [[3, 3], [5]]
    true = [(0, 3, 0.9, boxes[0][0]), (0, 3, 0.8, boxes[0][1]), (1, 5, 0.7, boxes[1][0])]
    assert detection_head.average_precision(true, boxes, classes) == 1
    assert (
        detection_head.average_precision(true[:1] + true[2:], boxes, classes) == 0.75
    )  # half of the threes, all fives
    twice = [*true, (0, 3, 0.85, boxes[0][0])]  # found again before the second one
    assert detection_head.average_precision(twice, boxes, classes) == pytest.approx((1 + (0.5 + 1 / 3)) / 2)
    shifted = [(number, name, score, (x + 4, y, width)) for number, name, score, (x, y, width) in true]
    assert detection_head.average_precision(shifted, boxes, classes) < 0.3
    assert detection_head.overlap((0, 0, 8), (4, 0, 8)) == pytest.approx(1 / 3)
