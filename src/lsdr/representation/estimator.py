"""Representation learning as a scikit-learn transformer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from lsdr import runs
from lsdr.regularizers.objectives.names import OBJECTIVE_NAMES
from lsdr.representation.build import build_encoder
from lsdr.representation.codes import encode
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.data.fields import Modality, TableFields
from lsdr.representation.data.objects import rows_in_memory
from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import prepare
from lsdr.representation.encoder import Encoder
from lsdr.representation.estimator_training import train_encoder
from lsdr.representation.load_run import load_run
from lsdr.representation.ordered_codes import OrderedCodes, two_view_moments
from lsdr.representation.saved import describe, modality_of, rebuild
from lsdr.representation.views.open import open_views
from lsdr.training.config import TrainingConfig
from lsdr.training.order import stream_seed

# Pairs of views of this many rows give the directions to a few percent.
_ORDERED_FROM = 8192
_CHOICES = {"objective": (*OBJECTIVE_NAMES, "sim_clr"), "robust": ("none", "trimmed", "huber")}


class RepresentationEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes that keep what stays the same when rows are disturbed: of tables, images or texts, without labels.

    `fit` trains a small network so that two views of a row, each disturbed at random by the transformations that must
    not matter, have the same code, while codes of different rows differ. Then codes are turned so that the first k
    dimensions are the best k (see `lsdr.representation.ordered_codes`): `transform(X, n_components=k)`.

    What X may be: an array (n, p) of numbers, NaN where missing, or a data frame with categories and missing values;
    images (n, C, H, W) or (n, H, W); a list, array or series of n texts.

    On small tables do not expect more than from the raw features: measure it, as with any other step of a pipeline.

    Args:
        n_components: Dimensions of the codes that `transform` gives; None: all that vary. May be set after `fit`.
        views: Transformations with strengths, "lighting:0.4,rotation:30", or a list of such and of functions;
            "default": the modality's own.
        objective: "vicreg", "barlow_twins", "log_participation_ratio", "spectral_contrastive", "sigreg" or "sim_clr".
        weight: Of the objective.
        robust: "trimmed" or "huber" statistics, which outliers among the rows cannot move; or "none".
        model: The backbone, by the name of a preset; "auto": the modality's small one.
        code: Dimensions of the backbone's codes; None: the preset's.
        projector: Width of the projector that training needs; 0: none; None: twice the codes'.
        steps: Optimiser steps.
        batch_size: Rows a step; all of them where there are fewer.
        learning_rate: Of AdamW.
        length: Tokens of a text that are read.
        vocabulary: Tokens that a tokenizer trained on the texts may have.
        random_state: Of initial weights, order and views; with a number, fits repeat exactly on a CPU.
        verbose: Whether to show progress.

    Attributes:
        encoder_: The trained `lsdr.representation.encoder.Encoder`, a torch module.
        ordered_: The `OrderedCodes`.
        correlations_: (r,) what two views share of each dimension, descending.
        modality_: What X was: "image", "text" or "table".
        problems_: What was left out of X, and why: constant columns, damaged images, empty texts.
        history_: Records of training: loss, the objective's terms, and so on, a dict a record.
        n_features_in_, feature_names_in_: As everywhere; of tables.

    Example:
        >>> from sklearn.datasets import load_wine
        >>> X, _ = load_wine(return_X_y=True)
        >>> encoder = RepresentationEncoder(n_components=4, model="mlp-tiny", steps=2)
        >>> encoder.fit_transform(X).shape
        (178, 4)
        >>> encoder.transform(X, n_components=2).shape
        (178, 2)
    """

    # scikit-learn's contract: anything can be set here, and `fit` refuses what has no meaning.
    def __init__(
        self,
        n_components: Any = None,
        *,
        views: Any = "default",
        objective: Any = "vicreg",
        weight: Any = 1.0,
        robust: Any = "none",
        model: Any = "auto",
        code: Any = None,
        projector: Any = None,
        steps: Any = 400,
        batch_size: Any = 256,
        learning_rate: Any = 1e-3,
        length: Any = 64,
        vocabulary: Any = 4096,
        random_state: Any = 0,
        verbose: Any = False,
    ) -> None:
        self.n_components = n_components
        self.views = views
        self.objective = objective
        self.weight = weight
        self.robust = robust
        self.model = model
        self.code = code
        self.projector = projector
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.length = length
        self.vocabulary = vocabulary
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "RepresentationEncoder":
        """Train an encoder on rows, and put its dimensions in order.

        Args:
            X: The rows.
            y: Not used.

        Raises:
            ValueError: If there are fewer than two rows, nothing varies, or a parameter has no meaning.
            RuntimeError: If training diverged.
        """
        X, modality = _recognised(X)
        self.modality_: Modality = modality
        X = self._checked(X, modality, reset=True)
        if modality == "table" and X.shape[1] == 1 and self.views == "default":
            raise ValueError("X has n_features = 1: redrawing it would leave nothing of a row; name other views")
        data = open_data(X, label="", holdout=0, length=int(self.length), vocabulary=int(self.vocabulary))
        rows: Any = data.train
        if len(rows) < 2:
            raise ValueError(f"X has n_samples={len(rows)} with content, but codes are compared: give two at least")
        self.problems_ = data.problems()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        for parameter, choices in _CHOICES.items():
            if getattr(self, parameter) not in choices:
                raise ValueError(f"{parameter} must be one of {', '.join(choices)}, got {getattr(self, parameter)!r}")
        config = self._config(seed, len(rows))
        view = open_views(self.views, data)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(stream_seed(seed, "initial weights"))
            encoder = build_encoder(config, data.fields, dropout=view.dropout)
            self.history_ = train_encoder(encoder, config, data, view, show_progress=bool(self.verbose))
        device = next(encoder.parameters()).device
        moments = two_view_moments(
            encoder,
            data.train,
            data.fields,
            view,
            count=_ORDERED_FROM,
            robust=config.robust,
            seed=seed,
            device=device,
        )
        self.encoder_, self.ordered_ = encoder, OrderedCodes.of(moments)
        self._width(self.n_components)
        return self

    def transform(self, X: Any, n_components: int | None = None) -> NDArray[np.float32]:
        """Codes of rows, the best dimensions first, each scaled by what it tells (see `OrderedCodes.scales`).

        Args:
            X: Rows like those that `fit` has seen. Categories that it has not seen count as missing.
            n_components: How many dimensions; None: the estimator's `n_components`. Where `set_output` asks for a
                data frame, set the estimator's instead, since its columns are named by that.

        Returns:
            (n, k).

        Raises:
            ValueError: If X does not fit the rows of `fit`, or there are no such dimensions.
        """
        check_is_fitted(self)
        k = self._width(self.n_components if n_components is None else n_components)
        if k != self._n_features_out and self._gives_frames():
            raise ValueError(f"the columns of data frames are named by the parameter: set_params(n_components={k})")
        X, modality = _recognised(X)
        if modality != self.modality_:
            raise ValueError(f"the encoder has learned from {self.modality_} data, and X is {modality} data")
        X = self._checked(X, modality, reset=False)
        fields = self.encoder_.fields
        inputs = prepare(rows_in_memory(X, fields), fields)
        return self.ordered_(encode(self.encoder_, inputs), k).numpy()

    @property
    def correlations_(self) -> NDArray[np.float64]:
        """What two views share of each dimension, descending."""
        return self.ordered_.correlations.numpy()

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator: encoder.json and model.safetensors; nothing is pickled.

        Raises:
            ValueError: If `views` holds a function: name it, "package.module:function".
        """
        check_is_fitted(self)
        parameters = self.get_params()
        try:
            json.dumps(parameters)
        except TypeError as error:
            raise ValueError(
                f"a parameter cannot be written to a file ({error}): name functions in views as "
                f"'package.module:function', and give random_state as a number"
            ) from error
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = getattr(self, "feature_names_in_", None)
        columns = {"count": getattr(self, "n_features_in_", 0), "names": None if names is None else list(names)}
        facts = {"estimator": parameters, "encoder": describe(self.encoder_), "columns": columns}
        weights = {f"encoder.{name}": each.cpu().contiguous() for name, each in self.encoder_.state_dict().items()}
        with runs.atomic(folder / "model.safetensors") as temporary:
            save_file(weights | {f"ordered.{name}": each for name, each in self.ordered_.tensors().items()}, temporary)
        runs.write_json(folder / "encoder.json", facts)

    @classmethod
    def load(cls, folder: str | Path) -> "RepresentationEncoder":
        """A fitted estimator from the folder that `save` wrote, or from that of a run of `lsdr train representation`.

        Raises:
            ValueError: If there is none, or the run has not ended.
        """
        folder = Path(folder)
        facts = runs.read_json(folder / "encoder.json") if (folder / "encoder.json").is_file() else {}
        if "estimator" not in facts:
            return cls._from_run(folder)
        found = cls(**facts["estimator"])
        tensors = load_file(folder / "model.safetensors")
        parts = {
            part: {name.removeprefix(part): each for name, each in tensors.items() if name.startswith(part)}
            for part in ("encoder.", "ordered.")
        }
        with torch.random.fork_rng([]):  # initial weights are drawn before they are replaced
            encoder = rebuild(facts["encoder"])
        encoder.load_state_dict(parts["encoder."])
        ordered = OrderedCodes.from_tensors(parts["ordered."])
        return found._fitted(encoder.requires_grad_(False).eval(), ordered, **facts["columns"])

    @classmethod
    def _from_run(cls, folder: Path) -> "RepresentationEncoder":
        trained = load_run(folder)
        config, fields = trained.config, trained.fields
        if trained.ordered is None:
            raise ValueError(f"{folder} has no order of codes: its training has not ended, or its codes do not vary")
        same = ("views", "objective", "weight", "robust", "model", "code", "projector", "length", "vocabulary")
        training = {"steps": config.training.steps, "batch_size": config.training.batch_size}
        found = cls(
            **{name: getattr(config, name) for name in same},
            **training,
            learning_rate=config.training.lr,
            random_state=config.training.seed,
        )
        names = [*fields.numeric, *fields.categorical] if isinstance(fields, TableFields) else None
        return found._fitted(trained.encoder, trained.ordered, len(names or []), names)

    def _fitted(
        self, encoder: Encoder, ordered: OrderedCodes, count: int, names: list[str] | None
    ) -> "RepresentationEncoder":
        """Take over what was trained elsewhere."""
        self.encoder_, self.ordered_ = encoder, ordered
        self.history_ = []
        self.problems_ = []
        self.modality_ = cast(Modality, modality_of(encoder.fields))
        if self.modality_ == "table":
            self.n_features_in_ = count
            if names is not None:
                self.feature_names_in_ = np.array(names, dtype=object)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self._width(self.n_components)

    def _width(self, wanted: Any) -> int:
        width = len(self.ordered_.correlations)
        if wanted is None:
            return width
        if not isinstance(wanted, int | np.integer) or not 1 <= wanted <= width:
            raise ValueError(
                f"n_components must be a whole number from 1 to {width}, the dimensions in which the codes vary, or "
                f"None for all of them; got {wanted!r}"
            )
        return int(wanted)

    def _gives_frames(self) -> bool:
        """Whether scikit-learn will name the columns of what `transform` gives."""
        own: Mapping[str, str] = getattr(self, "_sklearn_output_config", {})
        return bool(own.get("transform", get_config()["transform_output"]) != "default")

    def _checked(self, X: Any, modality: Modality, *, reset: bool) -> Any:
        """Rows as the data readers take them; those of a table with names and number of columns as they must be."""
        if modality != "table":
            return X
        mixed = hasattr(X, "columns") or X.dtype.kind in "OUS"
        if not mixed:
            least = 2 if reset else 1
            X = validate_data(
                self, X, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=least, reset=reset
            )
        else:
            validate_data(self, X, skip_check_array=True, reset=reset)
            if not hasattr(X, "columns"):
                X = pd.DataFrame(X, columns=[f"x{place}" for place in range(X.shape[1])]).infer_objects()
        return X

    def _config(self, seed: int, rows: int) -> RepresentationConfig:
        steps = int(self.steps)
        training = TrainingConfig(
            steps=steps,
            batch_size=min(int(self.batch_size), rows),
            lr=float(self.learning_rate),
            lr_schedule="cosine",
            warmup=min(20, steps // 10),
            weight_decay=1e-4,
            seed=seed,
            log_every=max(1, steps // 50),
            evaluate_every=steps,
            sample_every=0,
            monitor_every=0,
            checkpoint_every=steps,
            trackers=(),
        )
        return RepresentationConfig(
            data="X",
            length=int(self.length),
            vocabulary=int(self.vocabulary),
            model=self.model,
            code=self.code,
            projector=self.projector,
            objective=self.objective,
            weight=float(self.weight),
            robust=self.robust,
            training=training,
        )


def _recognised(X: Any) -> tuple[Any, Modality]:
    """Rows in memory and what they are: texts in one dimension, a table in two, images in three or four.

    Raises:
        TypeError: If X is sparse.
    """
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required: use X.toarray(), or give texts instead of "
            "counted words."
        )
    if hasattr(X, "columns"):
        return X, "table"
    if isinstance(X, list | tuple) and any(isinstance(each, str) for each in X):
        return list(X), "text"
    X = np.asarray(X)
    if X.ndim == 1 and X.dtype.kind in "OUS" and any(isinstance(each, str) for each in X):
        return list(X), "text"
    return X, "image" if X.ndim > 2 else "table"
