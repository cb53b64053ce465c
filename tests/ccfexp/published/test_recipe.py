"""The number recipe itself, against the first values that the parity data state."""

import torch

from tests.ccfexp.published.recipe import facts, fill, uniform


def test_streams_give_the_stated_numbers() -> None:
    check = facts("recipe_meta")["recipe_check"]
    torch.testing.assert_close(uniform(7, (6,), 0, 1), torch.tensor(check["hash_u_stream7_first6"]))
    torch.testing.assert_close(uniform(900001, (6,)), torch.tensor(check["rnd_900001_first6"]))


def test_state_dicts_are_filled_as_stated() -> None:
    check, shapes = facts("recipe_meta")["recipe_check"], facts("keys_modules")
    for module, base, name, key in (
        ("ir50_backbone", 10000, "body.0.res_layer.1.weight", "ir50_body0_res_layer_1_weight_first4"),
        ("unet_full", 40000, "out.2.weight", "unet_out_2_weight_first4"),
        ("mobilefacenet", 20000, "conv1.conv.weight", "mobilefacenet_conv1_conv_weight_first4"),
    ):
        order = sorted(shapes[module])
        one = fill({name: shapes[module][name]}, base + order.index(name))
        torch.testing.assert_close(one[name].flatten()[:4], torch.tensor(check[key]))
