"""Attribution to words, and the measures by themselves where there is little or nothing to measure."""

import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from lsdr.moments import Moments
from lsdr.representation.data.fields import TextFields
from lsdr.representation.encoder import Encoder
from lsdr.representation.measures.alpha_req import alpha_req
from lsdr.representation.measures.attribution import responds, saliency
from lsdr.representation.measures.catalogue import MEASURES, described
from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.representation.measures.knn_probe import knn_probe
from lsdr.representation.measures.labels import draw_labels
from lsdr.representation.measures.layers import layer_spectra
from lsdr.representation.measures.lidar import lidar
from lsdr.representation.measures.linear_probe import linear_probe
from lsdr.representation.measures.rank_me import rank_me
from lsdr.representation.measures.references import principal_components, raw_inputs
from lsdr.representation.measures.retrieval import mean_average_precision, view_retrieval
from lsdr.representation.measures.spectrum import spectral_measures, view_measures
from lsdr.representation.measures.sweep import predictability
from lsdr.representation.measures.two_views import icc_by_dimension, icc_of_codes, view_components
from lsdr.representation.ordered_codes import OrderedCodes
from lsdr.spectrum import Spectrum

WORDS = ["[PAD]", "[UNK]", "[MASK]", "the", "cat", "dog", "runs"]


@pytest.fixture(scope="module")
def fields():
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextFields(len(WORDS), 4, tokenizer.to_str())


class Bag(nn.Module):
    """The mean of the embeddings of the tokens that are not padding."""

    width, blocks = 2, ("embedding",)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 2)
        with torch.no_grad():
            self.embedding.weight[:] = torch.tensor([[9.0, 9], [0, 0], [0, 0], [0.1, 0], [1, 0], [-2, 0], [0, 1]])

    def own_tokens(self, inputs):
        return inputs["tokens"] != 0

    def forward(self, inputs):
        weights = self.own_tokens(inputs).float()[..., None]
        return (self.embedding(inputs["tokens"]) * weights).sum(1) / weights.sum(1)


TOKENS = torch.tensor([[3, 4, 6, 0], [3, 5, 6, 0], [4, 4, 0, 0], [5, 5, 6, 6], [3, 4, 0, 0], [5, 0, 0, 0]])


def test_words_are_given_their_share_of_a_score(fields):
    encoder = Encoder(Bag(), nn.Identity(), fields)
    inputs = {"tokens": TOKENS}
    codes = encoder.features(inputs)
    axes = torch.tensor([[1.0, 0], [0, 1.0]], dtype=torch.float64)
    ordered = OrderedCodes(torch.zeros(2, dtype=torch.float64), axes, torch.tensor([0.9, 0.8], dtype=torch.float64))
    shares = saliency(encoder, ordered, inputs, [0])[0]
    # A linear encoder: the shares of the tokens add up to the score.
    torch.testing.assert_close(shares.sum(1), codes[:, 0].detach())
    assert not shares[TOKENS == 0].any()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    found = responds(encoder, lambda given: encoder.features(given), ordered, inputs, fields, 2)
    assert [word for word, _ in found[0][:2]] == ["dog", "cat"]
    assert found[0][0][1] < 0 < found[0][1][1]
    assert found[1][0][0] == "runs"
    assert "[PAD]" not in dict(found[0])
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    torch.testing.assert_close(saliency(encoder, ordered, inputs, [0])[0], shares)


def test_layers_of_a_text_leave_padding_out(fields):
    encoder = Encoder(Bag(), nn.Identity(), fields)
    (layer, whole) = layer_spectra(encoder, {"tokens": TOKENS}, {"tokens": TOKENS.flip(0)}, batch=4)
    assert (layer["name"], whole["name"]) == ("backbone.embedding", "backbone")
    assert layer["values"] == pytest.approx(whole["values"], rel=1e-5)


def test_raw_texts_are_tf_idf(fields):
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = torch.stack([TOKENS.eq(token).sum(1) for token in range(1, len(WORDS))], 1)
    expected = TfidfTransformer().fit_transform(counts.numpy()).toarray()
    raw = raw_inputs({"tokens": TOKENS}, fields)({"tokens": TOKENS})
    order = (counts > 0).sum(0).argsort(descending=True, stable=True)
    found = raw[:, [place for place in range(raw.shape[1]) if raw[:, place].any()]]
    torch.testing.assert_close(found, torch.from_numpy(expected).float()[:, order[: found.shape[1]]])


def test_principal_components_know_what_does_not_vary():
    rows = torch.zeros(10, 3)
    assert principal_components(lambda inputs: inputs["image"], rows, 2) is None
    rows[:, 1] = torch.arange(10.0)
    codes = principal_components(lambda inputs: inputs["image"], rows, 2)({"image": rows})
    assert codes.shape == (10, 1)
    assert codes[:, 0].abs().tolist() == pytest.approx([abs(place - 4.5) for place in range(10)])


def test_what_says_nothing_is_nan():
    constant, broken = torch.ones(5, 3) * 0.1, torch.tensor([[math.nan], [1.0], [2.0]])
    assert math.isnan(rank_me(torch.zeros(5, 3)))
    assert math.isnan(rank_me(broken))
    assert math.isnan(rank_me(torch.zeros(0, 3)))
    assert rank_me(constant) == pytest.approx(1, abs=1e-4)
    assert math.isnan(icc_of_codes(constant, constant))
    assert math.isnan(icc_of_codes(constant[:1], constant[:1]))
    assert math.isnan(lidar(Moments.of(constant, constant)))
    assert icc_by_dimension(torch.tensor([[1.0, 5], [2, 5]]), torch.tensor([[1.0, 5], [2, 5]])).isnan().tolist() == [
        False,
        True,
    ]
    assert math.isnan(view_retrieval(broken, broken))
    assert math.isnan(predictability({"none": constant[:3], "more": constant[:3]}))
    assert math.isnan(predictability({"none": broken.repeat(3, 1), "more": broken.repeat(3, 1)}))
    assert spectral_measures(broken)["finite"] == pytest.approx(2 / 3)
    found = spectral_measures(constant)
    assert (found["variation"], found["dead_dimensions"], found["values"]) == (pytest.approx(0, abs=1e-12), 1, [])
    few = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert math.isfinite(view_measures(few, few + 0.1)["invariance"])
    assert math.isnan(view_measures(few, few + 0.1)["lidar"])
    assert math.isnan(alpha_req(Spectrum.of([1.0, 1e-20, 0.0], kind="eigenvalues")).exponent)
    assert math.isnan(mean_average_precision(few, torch.full((4,), 7), few, torch.zeros(4, dtype=torch.int64)))


def test_a_constant_with_a_large_mean_is_a_constant():
    codes = torch.full((50, 4), 1234.567) + torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert math.isnan(icc_of_codes(codes, codes))
    assert spectral_measures(codes)["values"] == []


def test_a_shift_of_all_codes_is_no_invariance():
    codes = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    assert icc_of_codes(codes, codes) == pytest.approx(1)
    assert icc_of_codes(codes, codes + 10) < 0


def test_what_cannot_be_measured_says_so():
    codes, labels = torch.eye(4), torch.arange(4)
    with pytest.raises(ValueError, match="two of them at least, got 1"):
        view_components(Moments.of(codes[:1], codes[:1]))
    with pytest.raises(ValueError, match="two views at least, got views=1"):
        lidar(Moments.of(codes, codes), views=1)
    with pytest.raises(ValueError, match="a label for each, got 0 and 0"):
        linear_probe(codes[:0], labels[:0])
    with pytest.raises(ValueError, match="finite codes"):
        linear_probe(codes / 0, labels)
    with pytest.raises(ValueError, match="counted from 1"):
        alpha_req(Spectrum.of([2.0, 1.0]), first=0)
    with pytest.raises(ValueError, match=r"measure\.shares must be above 0 and at most 1"):
        RepresentationMeasureConfig(shares=(0.1, 1.5))
    with pytest.raises(ValueError, match=r"measure\.draws must be at least 1, got 0"):
        RepresentationMeasureConfig(draws=0)


def test_probes_of_one_class_and_of_codes_that_are_not_numbers():
    probe = linear_probe(torch.eye(3), torch.full((3,), 5))
    assert probe(torch.tensor([[9.0, 9, 9], [math.nan, 0, 0]])).tolist() == [5, -1]
    assert knn_probe(torch.eye(3), torch.tensor([1, 1, 2]), torch.eye(3), k=20).shape == (3,)


def test_few_labels_are_of_every_class():
    labels = torch.tensor([0] * 200 + [1] * 50 + [7])
    drawn = labels[draw_labels(labels, 0.1, torch.Generator().manual_seed(0))]
    assert drawn.bincount().tolist() == [20, 5, 0, 0, 0, 0, 0, 1]
    first, second = (draw_labels(labels, 0.01, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert len(first) == len(second) == 4
    assert first.tolist() != second.tolist()


def test_hidden_transformations_are_told_from_plain_ones():
    codes = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    assert predictability({"none": codes, "shift": codes + 20}) == 1
    assert abs(predictability({"none": codes, "same": codes.flip(0)})) < 0.35


def test_variants_are_described():
    assert (
        described("corruption.shot_noise@pca").label == "Accuracy on corrupted images: shot noise, principal components"
    )
    assert described("knn.10@raw").better is None
    assert described("linear_probe") == MEASURES["linear_probe"]
    assert described("linear_probe@nothing") is None
    assert all(each.description.endswith(".") for each in MEASURES.values())
