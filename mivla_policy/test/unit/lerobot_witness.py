"""
Run by LeRobot's own interpreter: what the real LeRobotDataset reads of a folder.

    python lerobot_witness.py FOLDER OUT.npz

Not a test module: the suite's environment has no LeRobot.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

torch.set_num_threads(1)
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
data = LeRobotDataset('local/witness', root=folder, delta_timestamps={
    'action': [0.0, 1.0 / json.loads((folder / 'meta' / 'info.json').read_text())['fps']]})
items = [data[index] for index in range(len(data))]
cameras = data.meta.camera_keys
np.savez(
    out, fps=data.fps, episodes=data.num_episodes, rows=len(data),
    states=np.stack([item['observation.state'].numpy() for item in items]),
    actions=np.stack([item['action'].numpy() for item in items]),
    timestamps=np.array([float(item['timestamp']) for item in items]),
    episode=np.array([int(item['episode_index']) for item in items]),
    tasks=np.array([item['task'] for item in items]),
    intervention=np.stack([item['intervention'].numpy() for item in items]).reshape(-1),
    stats=np.array(json.dumps({key: {name: np.asarray(value).tolist()
                                     for name, value in one.items()}
                               for key, one in data.meta.stats.items()})),
    **{key: np.stack([item[key].numpy() for item in items]) for key in cameras})
