import hashlib
import json

import pytest

from lsdr.genie.index import Index
from lsdr.genie.passage import Passage
from lsdr.genie.standing import measured, standing, standing_of_passages

RESULT = {
    "summary": {
        "comparisons": [
            {
                "method": "spectral_norm",
                "against": "baseline",
                "measure": "heldout_loss",
                "effect": -0.0214,
                "low": -0.03,
                "high": 0.011,
                "baseline": 0.57199,
                "relative": -0.0823,
                "pairs": 57,
            }
        ]
    }
}
FOUND = {"found": {"plain none 4": [{"accuracy": 0.95}, {"accuracy": 0.97}], "plain none rates": [[True, False]]}}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "digits.json").write_text(json.dumps(RESULT), encoding="utf-8")
    (folder / "residual-test.json").write_text(json.dumps(FOUND), encoding="utf-8")
    (folder / "list.json").write_text("[1, 2]", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("On digits, spectral_norm changes heldout_loss by -0.021.", -0.0214),
        ("On digits, spectral_norm changes heldout_loss by −0.0214.", -0.0214),
        ("On digits spectral norm lowers heldout loss by 0.021.", -0.0214),
        ("The baseline has a heldout loss of 0.572 on digits", 0.57199),
        ("In residual test, plain none 4 has an accuracy of 0.96", 0.96),
    ],
)
def test_a_claim_whose_number_was_measured(results, claim, value):
    (found,) = measured(claim, results=results)
    assert found.value == pytest.approx(value)
    assert found.sha256 == hashlib.sha256((results / f"{found.experiment}.json").read_bytes()).hexdigest()
    assert found.claimed in claim


@pytest.mark.parametrize(
    "claim",
    [
        "On digits, spectral_norm changes heldout_loss by 0.021.",
        "On digits, spectral_norm changes heldout_loss by -0.022.",
        "On digits, spectral_norm changes heldout_loss by -0.02141.",
        "On cifar10, spectral_norm changes heldout_loss by -0.021.",
        "On digits, weight_decay changes heldout_loss by -0.021.",
        "On digits, spectral_norm changes sensitivity by -0.021.",
        "On digits, spectral_norm changes heldout_loss.",
        "On digits, spectral_norm changes heldout_loss in 57 pairs.",
        "On digits, spectral_norm 2.0.21 heldout_loss v0.021",
        "",
    ],
)
def test_another_number_sign_experiment_method_or_measure_is_not_measured(results, claim):
    assert measured(claim, results=results) == ()


def test_no_results(tmp_path):
    assert measured("On digits, spectral_norm changes heldout_loss by -0.021.", results=tmp_path / "none") == ()


def test_a_claim_is_cited_or_unsupported(tmp_path, results):
    path = tmp_path / "a.md"
    path.write_text("The sampler Euler takes 20 steps to draw an image.\n", encoding="utf-8")
    with Index.open(tmp_path / "i.sqlite") as index:
        index.add([path])
        cited = standing("The Euler sampler takes 20 steps.", index, results=results)
        assert cited.kind == "cited"
        assert "20 steps" in cited.passages[0].quote
        assert standing("The Euler sampler takes 30 steps.", index, results=results).kind == "unsupported"
        assert standing("The Heun sampler takes 20 steps.", index, results=results).kind == "unsupported"
        assert standing("", index, results=results).kind == "unsupported"
        both = standing("On digits, spectral_norm changes heldout_loss by -0.021.", index, results=results)
        assert both.kind == "measured"
        assert json.dumps(both.to_json())


def test_the_results_that_come_with_the_project_resolve():
    from lsdr.genie.own import own_documents

    path = own_documents() / "evidence" / "results" / "digits.json"
    row = next(
        row
        for row in json.loads(path.read_text(encoding="utf-8"))["summary"]["comparisons"]
        if isinstance(row["effect"], float) and abs(row["effect"]) > 0.01
    )
    quote = f"On digits, {row['method']} changes {row['measure']} by {row['effect']:.4f}."
    found = measured(quote)
    assert found[0].experiment == "digits"
    assert row["method"] in found[0].key
    assert found[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    passage = Passage("lsdr/evidence/a.md", None, 1, 0, len(quote), quote, 1.0)
    other = Passage("b.md", None, 1, 0, 5, "Words", 1.0)
    said = standing_of_passages([passage, other])
    assert (said["kind"], [claim["kind"] for claim in said["claims"]]) == ("measured", ["measured", "cited"])
    assert standing_of_passages([])["kind"] == "unsupported"
