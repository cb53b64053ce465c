"""From the published modules around the U-Net to the state dict of a ``Conditioner`` in the published form.

Published: ``label_mapping`` (identity embedder: positions and scale), ``emotion_adapter``, ``condition_adapter``.
"""

from torch import Tensor

from ccfexp.conditioning import ConditioningConfig

OFFICIAL_CONDITIONING = ConditioningConfig(
    vector=512, map_channels=512, grid=7, token_size=512, style_size=512, projected_queries=False, positions=False,
    residual=False, style_expression=False, projected_tokens=False,
)  # fmt: skip

_ATTENTIONS = {
    "condition_adapter.att_id": "identity_attention",
    "condition_adapter.att_em": "expression_attention",
    "condition_adapter.att_lm": "landmark_attention",
}
_LAYERS = {"kv": "key_value", "proj": "out"}


def to_conditioner(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors (by their names in the training module) under the names of ``Conditioner``.

    Raises:
        KeyError: one of the published names is missing.
    """
    position_NT = state["label_mapping.pos_emb.0"]  # row 0 belongs to the vector, the others to the map's positions
    tensors = {
        "style_identity.position": position_NT[0],
        "style_identity.scale": state["label_mapping.scaler.0"],
        "identity_position": position_NT[1:],
        "expression_scale": state["emotion_adapter.weight"].flatten(1),
        "expression_position": state["emotion_adapter.bias"][:, None],
    }
    for theirs, ours in _ATTENTIONS.items():
        for layer, name in _LAYERS.items():
            for kind in ("weight", "bias"):
                tensors[f"{ours}.{name}.{kind}"] = state[f"{theirs}.{layer}.{kind}"]
    return tensors
