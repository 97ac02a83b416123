import pytest
import torch
from torch import nn

from lsdr.layers.checkpoint.names import ema_pairs, plain_names, weight_norms


def _model():
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 1))


PLAIN = list(_model().state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_plain_names_of_wrapped_models_are_those_of_the_model():
    compiled = torch.compile(_model())
    averaged = torch.optim.swa_utils.AveragedModel(_model())
    parallel = nn.DataParallel(_model())
    inner = _model()
    inner[1] = nn.DataParallel(torch.compile(inner[1]))
    for wrapped in (compiled, averaged, parallel, inner, nn.DataParallel(torch.compile(_model()))):
        names = plain_names(wrapped.state_dict())
        assert list(names) == list(wrapped.state_dict())
        assert [name for name in names.values() if name != "n_averaged"] == PLAIN


def test_parametrizations():
    model = _model()
    nn.utils.parametrizations.spectral_norm(model[0])
    nn.utils.parametrizations.weight_norm(model[2])
    names = plain_names(model.state_dict())
    assert names["0.parametrizations.weight.original"] == "0.weight"
    assert names["2.parametrizations.weight.original1"] == "2.weight.original1"
    assert names["0.parametrizations.weight.0._u"] == "0.parametrizations.weight.0._u"
    assert weight_norms(model.state_dict()) == {
        "2.weight": ("2.parametrizations.weight.original0", "2.parametrizations.weight.original1")
    }


def test_weight_norms_of_both_ways():
    assert weight_norms(["module.a.weight_g", "module.a.weight_v", "module.a.bias"]) == {
        "a.weight": ("module.a.weight_g", "module.a.weight_v")
    }
    assert weight_norms(["a.weight_orig", "a.weight_u", "a.weight_v", "long_g"]) == {}


def test_what_means_something_is_kept_and_collisions_stay():
    names = ["model.diffusion_model.out.weight", "first_stage_model.out.weight", "unet.out.weight"]
    assert plain_names(names) == {name: name for name in names}
    # A module of this name with brothers and sisters is no wrapper.
    beside = ["module.a.weight", "head.weight"]
    assert plain_names(beside) == {name: name for name in beside}
    both = ["a._orig_mod.weight", "a.weight"]
    assert plain_names(both) == {name: name for name in both}
    assert plain_names(["_orig_mod", "module"]) == {"_orig_mod": "_orig_mod", "module": "module"}
    assert plain_names([]) == {}


def test_base_layers_of_peft():
    assert plain_names(["base_model.model.q.base_layer.weight"]) == {
        "base_model.model.q.base_layer.weight": "base_model.model.q.weight"
    }


@pytest.mark.parametrize(
    ("online", "average"),
    [
        ("model.0.weight", "ema.0.weight"),
        ("0.weight", "ema.0.weight"),
        ("online_model.0.weight", "ema_model.0.weight"),
        ("model.0.weight", "ema_model.0.weight"),
        ("params.0.weight", "params_ema.0.weight"),
        ("unet.0.weight", "unet_ema.0.weight"),
        ("state_dict.0.weight", "state_dict_ema.0.weight"),
        ("model.0.weight", "model_ema.0.weight"),
        ("model._orig_mod.0.weight", "ema.module.0.weight"),
        ("unet.0.weight", "unet.ema.0.weight"),
        ("model.diffusion_model.input_blocks.0.0.weight", "model_ema.diffusion_modelinput_blocks00weight"),
        ("state_dict.model.diffusion_model.out.2.bias", "state_dict.model_ema.diffusion_modelout2bias"),
    ],
)
def test_averages_are_found(online, average):
    assert ema_pairs([average, "other.bias", online]) == {online: average}


def test_names_without_pairs():
    assert ema_pairs(["ema.0.weight", "model.1.weight"]) == {}
    assert ema_pairs(["schema.weight", "weight"]) == {}
    assert ema_pairs(["ema", "model"]) == {}
    # "a.1.1" and "a.11" are one name without dots: whose average it is cannot be told.
    names = ["model.diffusion_model.a.1.1", "model.diffusion_model.a.11", "model_ema.diffusion_modela11"]
    assert ema_pairs(names) == {}


def test_averages_of_a_whole_model_in_its_order():
    names = [f"ema.{name}" for name in reversed(PLAIN)] + [f"model.{name}" for name in PLAIN]
    assert list(ema_pairs(names).items()) == [(f"model.{name}", f"ema.{name}") for name in PLAIN]


def test_a_tensor_without_a_name_has_no_average():
    assert ema_pairs(["", "a.weight", "b"]) == {}
