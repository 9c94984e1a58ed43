"""
Pretrained picture towers on disk: their two layouts, made one.

A tower is a directory with one weights file. Names of tensors tell the layout:

* ``transformers``: ``config.json`` beside ``model.safetensors`` or ``pytorch_model.bin``. SigLIP
  may come with its text half, which is left alone.
* ``timm``: state dict of timm's VisionTransformer, also inside an OpenCLIP file
  (``open_clip_pytorch_model.bin``, keys ``visual.trunk.*``). Queries, keys and values are one
  matrix ``attn.qkv``; the position of the class token is already added to the token, so
  ``pos_embed`` covers patches only (as in timm 1.0.31).

Only what the second-to-last block needs is kept: the last block, the final norm and the pooling
heads are known and dropped. Any other tensor is an error, as is one that is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mivla_core.small_file import read_json
from mivla_policy.errors import CheckpointError
from mivla_policy.model.tensor_file import read_tensors

__all__ = ['KINDS', 'TowerFile', 'find_towers', 'read_tower', 'resample']

KINDS = ('dinov2', 'siglip')
WEIGHTS = ('model.safetensors', 'pytorch_model.bin', 'open_clip_model.safetensors',
           'open_clip_pytorch_model.bin')
CONFIG = 'config.json'
MAX_CONFIG_BYTES = 1 << 20
MAX_FOLDERS = 64
TIMM_HEADS = 16          # both ViT-L/14 and SO400M/14; the state dict does not say it
# Where a tower may sit in its file; the text half and what joins the halves lie beside it.
PREFIXES = ('visual.trunk.', 'vision_model.', 'dinov2_with_registers.', '')
BESIDE = ('text', 'logit_', 'visual.head')

# What is known and not needed.
DROPPED = re.compile(r'(norm|layernorm|post_layernorm|head|attn_pool|fc_norm|classifier)\.'
                     r'|(embeddings\.)?mask_token$|embeddings\.position_ids$')
BLOCK = re.compile(r'(?:blocks|encoder\.layers?)\.(\d+)\.(.+)')
# Our name of a part -> its names in the layouts, for each kind: timm, transformers on disk.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    'dinov2': {
        'norm1': ('norm1',), 'norm2': ('norm2',),
        'attention.qkv': ('attn.qkv',),
        'attention.q_proj': ('attention.attention.query', 'attention.q_proj'),
        'attention.k_proj': ('attention.attention.key', 'attention.k_proj'),
        'attention.v_proj': ('attention.attention.value', 'attention.v_proj'),
        'attention.o_proj': ('attn.proj', 'attention.output.dense', 'attention.o_proj'),
        'layer_scale1.lambda1': ('ls1.gamma', 'layer_scale1.lambda1'),
        'layer_scale2.lambda1': ('ls2.gamma', 'layer_scale2.lambda1'),
        'mlp.fc1': ('mlp.fc1',), 'mlp.fc2': ('mlp.fc2',)},
    'siglip': {
        'layer_norm1': ('norm1', 'layer_norm1'), 'layer_norm2': ('norm2', 'layer_norm2'),
        'self_attn.qkv': ('attn.qkv',),
        'self_attn.q_proj': ('self_attn.q_proj',), 'self_attn.k_proj': ('self_attn.k_proj',),
        'self_attn.v_proj': ('self_attn.v_proj',),
        'self_attn.out_proj': ('attn.proj', 'self_attn.out_proj'),
        'mlp.fc1': ('mlp.fc1',), 'mlp.fc2': ('mlp.fc2',)},
}
STEMS = {
    'dinov2': {'cls_token': 'embeddings.cls_token', 'reg_token': 'embeddings.register_tokens',
               'patch_embed.proj': 'embeddings.patch_embeddings.projection',
               'pos_embed': 'embeddings.position_embeddings'},
    'siglip': {'patch_embed.proj': 'embeddings.patch_embedding',
               'pos_embed': 'embeddings.position_embedding.weight'},
}
BLOCKS = {'dinov2': 'encoder.layer', 'siglip': 'encoder.layers'}


@dataclass(frozen=True)
class TowerFile:
    """
    One tower, cut after the second-to-last block.

    :param kind: 'dinov2' or 'siglip'.
    :param settings: of transformers' configuration class: ``hidden_size``,
        ``num_attention_heads``, ``num_hidden_layers`` (without the dropped one) and others.
    :param state: tensors by the names of transformers' module; position embeddings as stored.
    """

    kind: str
    settings: Mapping[str, Any]
    state: dict[str, Tensor]


def find_towers(folder: str | os.PathLike[str]) -> dict[str, TowerFile]:
    """
    Find DINOv2 and SigLIP in the subdirectories of ``folder``, whatever these are called.

    :return: kind -> tower, both.
    :raises CheckpointError: one of them is absent, there twice, or cannot be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointError(
            f'{root}: no such directory; it should hold one directory with DINOv2 and one with '
            'SigLIP (docs/how-to/vision-and-language.md says where to get them)')
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    if len(folders) > MAX_FOLDERS:
        raise CheckpointError(f'{root}: {len(folders)} directories; give the one that holds '
                              'DINOv2 and SigLIP alone')
    found: dict[str, TowerFile] = {}
    where: dict[str, Path] = {}
    for path in folders:
        if _weights(path) is None:
            continue
        tower = read_tower(path)
        if tower.kind in found:
            raise CheckpointError(f'{root}: both {where[tower.kind].name} and {path.name} are '
                                  f'{tower.kind}; keep one')
        found[tower.kind], where[tower.kind] = tower, path
    for kind in KINDS:
        if kind not in found:
            raise CheckpointError(
                f'{root}: no directory with {kind} in it (looked for {", ".join(WEIGHTS)} one '
                'level down); docs/how-to/vision-and-language.md says where to get it')
    return found


def read_tower(folder: str | os.PathLike[str]) -> TowerFile:
    """
    Read one tower from its directory.

    :raises CheckpointError: no weights, damaged, another network, tensors unknown or missing.
    """
    root = Path(folder)
    path = _weights(root)
    if path is None:
        raise CheckpointError(f'{root}: none of {", ".join(WEIGHTS)} in it')
    tensors = _tower_part(read_tensors(path), path)
    config = _read_config(root / CONFIG)
    if 'patch_embed.proj.weight' in tensors:
        kind = 'dinov2' if 'reg_token' in tensors else 'siglip'
        settings = _timm_settings(kind, tensors, config, root)
    elif 'embeddings.register_tokens' in tensors:
        kind, settings = 'dinov2', _plain_settings(config, 'dinov2_with_registers', root)
    elif 'embeddings.patch_embedding.weight' in tensors:
        kind, settings = 'siglip', _plain_settings(config, 'siglip_vision_model', root)
    else:
        raise CheckpointError(
            f'{path}: neither DINOv2 with registers nor SigLIP, in the names of transformers or '
            f'timm; its first tensors are {", ".join(sorted(tensors)[:4])}')
    state, depth = _rename(kind, tensors, path)
    told = settings.setdefault('num_hidden_layers', depth)
    if told != depth:
        raise CheckpointError(f'{path}: {depth} blocks, but {CONFIG} says {told}')
    return TowerFile(kind, settings | {'num_hidden_layers': depth - 1}, state)


def resample(positions: Tensor, side: int) -> Tensor:
    """
    Return position embeddings (N, D) of a square grid at another side: (side * side, D).

    Bicubic with antialiasing, in float32: what timm does to both towers and transformers to
    DINOv2. (transformers resamples SigLIP's without antialiasing.)
    """
    old = round(len(positions) ** 0.5)
    if old == side:
        return positions
    grid = positions.float().T.reshape(1, -1, old, old)
    scaled = functional.interpolate(grid, (side, side), mode='bicubic', antialias=True)
    return scaled.flatten(2)[0].T.contiguous().to(positions.dtype)


def _weights(folder: Path) -> Path | None:
    """Return the weights file of a directory."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def _tower_part(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the picture tower, without their common prefix."""
    prefix = next(p for p in PREFIXES if any(name.startswith(p) for name in tensors))
    for name in tensors:
        if not name.startswith((prefix, *BESIDE)):
            raise CheckpointError(f'{path}: tensor {name} is neither in {prefix!r} nor known')
    return {name[len(prefix):]: value for name, value in tensors.items()
            if name.startswith(prefix)}


def _read_config(path: Path) -> dict[str, Any] | None:
    """Return the object in ``config.json``; None where there is no such file."""
    if not path.is_file():
        return None
    data = read_json(path, MAX_CONFIG_BYTES, CheckpointError, 'the configuration of a tower')
    if not isinstance(data, dict):
        raise CheckpointError(f'{path}: expected an object')
    return data


def _plain_settings(config: dict[str, Any] | None, kind: str, root: Path) -> dict[str, Any]:
    """Return the settings in a ``config.json`` of transformers for a tower of ``kind``."""
    if config is None:
        raise CheckpointError(f'{root}: {CONFIG} is missing; it lies beside the weights where '
                              'they were downloaded, and says how many heads there are')
    data = config.get('vision_config', config)
    if not isinstance(data, dict) or data.get('model_type', kind) != kind:
        raise CheckpointError(f'{root / CONFIG}: expected the settings of {kind}')
    names = ('num_attention_heads', 'hidden_act', 'layer_norm_eps', 'num_hidden_layers',
             'mlp_ratio', 'intermediate_size', 'hidden_size', 'patch_size', 'num_register_tokens')
    settings = {name: data[name] for name in names if name in data}
    for name, value in settings.items():
        number = isinstance(value, (int, float)) and 0 < value <= 65536
        if not (isinstance(value, str) if name == 'hidden_act' else number):
            raise CheckpointError(f'{root / CONFIG}: {name} is {value!r}')
    if data.get('use_swiglu_ffn'):
        raise CheckpointError(f'{root / CONFIG}: use_swiglu_ffn: that is DINOv2 giant; take large')
    return settings


def _timm_settings(kind: str, tensors: Mapping[str, Tensor], config: dict[str, Any] | None,
                   root: Path) -> dict[str, Any]:
    """Return the settings of a tower in timm's layout, read off its shapes."""
    arguments = (config or {}).get('model_args', {})
    heads = arguments.get('num_heads', TIMM_HEADS) if isinstance(arguments, dict) else TIMM_HEADS
    first = tensors.get('blocks.0.mlp.fc1.weight')
    if first is None or first.ndim != 2:
        raise CheckpointError(f'{root}: tensor blocks.0.mlp.fc1.weight is missing or misshapen')
    inner, width = first.shape
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise CheckpointError(f'{root}: {heads!r} heads do not divide a width of {width}; where '
                              f'that is wrong, {CONFIG} says it: {{"model_args": '
                              '{"num_heads": ...}}')
    # Exact GELU: what timm's vit_so400m_patch14_siglip_384 has, and H-RDT was trained with.
    # transformers' copy of the same weights uses the approximation by tanh.
    settings = {'hidden_size': width, 'num_attention_heads': heads, 'hidden_act': 'gelu',
                'layer_norm_eps': 1e-6}
    if kind == 'siglip':
        return settings | {'intermediate_size': inner}
    return settings | {'mlp_ratio': inner // width,
                       'num_register_tokens': tensors['reg_token'].shape[-2]}


def _rename(kind: str, tensors: Mapping[str, Tensor],
            path: Path) -> tuple[dict[str, Tensor], int]:
    """Return the tensors by our names without the dropped ones, and the number of blocks."""
    ours = {theirs: name for name, names in PARTS[kind].items() for theirs in names}
    depth = 1 + max((int(match[1]) for match in map(BLOCK.match, tensors) if match), default=0)
    if not 2 <= depth <= 128:
        raise CheckpointError(f'{path}: {depth} blocks; expected 2 to 128')
    state: dict[str, Tensor] = {}
    for name, value in tensors.items():
        block = BLOCK.match(name)
        if block is None:
            if not DROPPED.match(name):
                state |= _stem(kind, name, value)
            continue
        part, ending = _split_ending(block[2])
        if part not in ours:
            raise CheckpointError(f'{path}: tensor {name} is not part of {kind}')
        if int(block[1]) == depth - 1:
            continue
        target = f'{BLOCKS[kind]}.{block[1]}.{ours[part]}'
        if ours[part].endswith('.qkv'):
            if len(value) % 3:
                raise CheckpointError(f'{path}: tensor {name} has {len(value)} rows; expected '
                                      'queries, keys and values')
            for letter, third in zip('qkv', value.chunk(3), strict=True):
                state[f'{target[:-3]}{letter}_proj{ending}'] = third
        else:
            state[target + ending] = value
    return state, depth


def _stem(kind: str, name: str, value: Tensor) -> dict[str, Tensor]:
    """Return a tensor from outside the blocks by our name; an unknown one keeps its own."""
    part, ending = _split_ending(name)
    target = STEMS[kind].get(part)
    if target is None:
        return {name: value}
    if part == 'pos_embed' and kind == 'dinov2':
        # The position of the class token is in the class token already.
        value = torch.cat((torch.zeros_like(value[:, :1]), value), dim=1)
    elif part == 'pos_embed':
        value = value[0]
    return {target + ending: value}


def _split_ending(name: str) -> tuple[str, str]:
    """Return a name without and its '.weight' or '.bias'."""
    for ending in ('.weight', '.bias'):
        if name.endswith(ending):
            return name[:-len(ending)], ending
    return name, ''
