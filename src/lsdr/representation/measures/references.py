"""What an encoder has to beat: raw inputs, as many principal components of them, and the encoder before training."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lsdr.representation.data.fields import Fields, ImageFields, TextFields
from lsdr.representation.inputs import Inputs
from lsdr.representation.measures.material import Encode

_WORDS = 1024
_ROUNDING = 1e-5  # of the largest singular value


def raw_inputs(train: Inputs, fields: Fields) -> Encode:
    """Inputs as they are, as rows of numbers.

    Images: their pixels. Tables: the standardised numbers, each category's level as 0 and 1, and what is missing.
    Texts: frequencies of the 1024 commonest tokens of the training examples, by the rarity of each (tf-idf, smoothed
    as scikit-learn's), of length 1.

    Args:
        train: Training examples, from which the frequencies of tokens are known.
        fields: What the inputs are.
    """
    if isinstance(fields, ImageFields):
        return lambda inputs: inputs["image"].flatten(1).cpu()
    if not isinstance(fields, TextFields):
        levels = fields.cardinalities
        return lambda inputs: _table(inputs, levels)
    counts = _counts(train["tokens"], fields)
    documents = (counts > 0).sum(0)
    common = documents.argsort(descending=True, stable=True)[:_WORDS]
    rarity = ((1 + len(counts)) / (1 + documents[common])).log() + 1
    return lambda inputs: F.normalize(_counts(inputs["tokens"], fields)[:, common] * rarity)


def principal_components(raw: Encode, train: Float[Tensor, "n d"], width: int) -> Encode | None:
    """The largest principal components of the raw inputs of the training examples.

    Args:
        raw: Gives raw inputs as rows.
        train: Those of the training examples.
        width: How many components at most.

    Returns:
        None if they do not vary.
    """
    from sklearn.decomposition import PCA

    number = min(width, len(train) - 1, train.shape[1])
    if number < 1 or not bool((train.amax(0) > train.amin(0)).any()):
        return None
    fitted = PCA(number, random_state=0).fit(train.numpy())
    known = fitted.singular_values_ > _ROUNDING * fitted.singular_values_[0]
    axes, mean = torch.from_numpy(fitted.components_[known]).float(), torch.from_numpy(fitted.mean_).float()
    return lambda inputs: (raw(inputs) - mean) @ axes.T


def _counts(tokens: Tensor, fields: TextFields) -> Tensor:
    known = (tokens != fields.padding).float().cpu()
    found = torch.zeros(len(tokens), fields.vocabulary)
    return found.scatter_add_(1, tokens.cpu(), known)


def _table(inputs: Inputs, levels: tuple[int, ...]) -> Tensor:
    codes = inputs["categorical"].cpu()
    sparse = [F.one_hot(codes[:, column], number).float() for column, number in enumerate(levels)]
    return torch.cat([inputs["numeric"].float().cpu(), *sparse, inputs["missing"].float().cpu()], 1)
