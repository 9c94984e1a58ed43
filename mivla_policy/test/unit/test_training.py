"""How a training is run: resumed, shared, stopped, ended early; whatever the way, same numbers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.core.packing import SlotMap
from mivla_policy.errors import CheckpointError, ConfigError, TrainingStopped
from mivla_policy.learn.augment import apply, augment, draw
from mivla_policy.learn.dataset import TrainingSet, build_training_set
from mivla_policy.learn.loop import Plan, schedule
from mivla_policy.learn.objective import SEEN, make_objective
from mivla_policy.learn.progress import Progress
from mivla_policy.learn.recipe import Augmentation, Recipe
from mivla_policy.learn.samples import Loader, Order, Samples, kept_cameras
from mivla_policy.learn.state import load_state
from mivla_policy.learn.train import TrainingResult, finetune, train, training_folder
from mivla_policy.model.checkpoint import load_network
from mivla_policy.model.config import MiVLAConfig, Preset, VisionConfig

Maker = Callable[..., Episode]
RECIPE = Recipe(batch_size=16, warm_up_steps=5, learning_rate=3e-3, ema_decay=0.9,
                holdout_episodes=2, holdout_every=5, camera_dropout=(0.3, 0.2),
                augmentation=Augmentation(
                    shift=(1, 2), jitter=(0.3, 0.4, 0.5, 0.03), noise=0.02, share=0.5, crop=0.1,
                    patches=2))


@pytest.fixture(scope='module')
def data(toy_episode: Maker, small_config: MiVLAConfig, packed: SlotMap) -> TrainingSet:
    """Return samples of eight toy demonstrations."""
    return build_training_set([toy_episode(k) for k in range(8)], small_config, packed)


def same(first: TrainingResult, second: TrainingResult) -> bool:
    """Return whether two trainings came out exactly equal."""
    a, b = first.network.state_dict(), second.network.state_dict()
    return first.losses == second.losses and first.holdout == second.holdout and all(
        torch.equal(a[name], b[name]) for name in a)


def stopping(folder: Path, step: int, workers: int = 0) -> Plan:
    """Return a plan that stops after a step."""
    seen: list[Progress] = []
    return Plan(folder=folder, progress=seen.append, workers=workers,
                stop=lambda: len(seen) >= step)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', ['mivla', 'act'])
def test_a_training_that_was_stopped_resumes_to_the_same_numbers(
        tmp_path: Path, data: TrainingSet, small_config: MiVLAConfig, kind: str,
        workers: int) -> None:
    config = replace(small_config, kind=kind)
    straight = train(data, config, RECIPE, seed=3, steps=20)
    with pytest.raises(TrainingStopped, match='step 10'):
        train(data, config, RECIPE, seed=3, steps=20, plan=stopping(tmp_path, 10, workers))
    # What was drawn ahead or elsewhere in between must not matter.
    torch.manual_seed(7)
    seen: list[Progress] = []
    resumed = train(data, config, RECIPE, seed=3, steps=20, progress=seen.append,
                    plan=Plan(folder=tmp_path, resume=True, workers=workers))
    assert [p.step for p in seen] == list(range(11, 21))
    assert same(straight, resumed)


def test_saves_on_the_way_resume_too_and_replace_each_other(
        tmp_path: Path, data: TrainingSet, small_config: MiVLAConfig) -> None:
    recipe = replace(RECIPE, save_every=4)
    straight = train(data, small_config, recipe, seed=1, steps=11, plan=Plan(folder=tmp_path))
    assert len(load_state(tmp_path).running.losses) == 8
    assert len(list(tmp_path.glob('state-*'))) == 1
    assert same(straight, train(data, small_config, recipe, seed=1, steps=11,
                                plan=Plan(folder=tmp_path, resume=True)))


@pytest.mark.parametrize('change', [
    {'seed': 2}, {'steps': 30}, {'recipe': replace(RECIPE, learning_rate=1e-3)}])
def test_another_training_is_not_resumed(tmp_path: Path, data: TrainingSet,
                                         small_config: MiVLAConfig,
                                         change: dict[str, object]) -> None:
    given = {'recipe': RECIPE, 'seed': 1, 'steps': 20}
    with pytest.raises(TrainingStopped):
        train(data, small_config, **given, plan=stopping(tmp_path, 2))
    with pytest.raises(CheckpointError, match=f'another {next(iter(change))}'):
        train(data, small_config, **(given | change), plan=Plan(folder=tmp_path, resume=True))


def test_a_damaged_state_is_refused(tmp_path: Path, data: TrainingSet,
                                    small_config: MiVLAConfig) -> None:
    plan = Plan(folder=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match='no training to resume'):
        train(data, small_config, RECIPE, 1, 20, plan=plan)
    with pytest.raises(TrainingStopped):
        train(data, small_config, RECIPE, 1, 20, plan=stopping(tmp_path, 2))
    file = tmp_path / 'state.json'
    good = file.read_text()
    file.write_text(json.dumps(json.loads(good) | {'tensors': '../x.safetensors'}))
    with pytest.raises(CheckpointError, match='not beside it'):
        train(data, small_config, RECIPE, 1, 20, plan=plan)
    file.write_text(good)
    tensors = next(tmp_path.glob('state-*.safetensors'))
    tensors.write_bytes(tensors.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match='damaged'):
        train(data, small_config, RECIPE, 1, 20, plan=plan)


def test_workers_do_not_change_the_numbers(data: TrainingSet, small_config: MiVLAConfig) -> None:
    assert same(train(data, small_config, RECIPE, seed=5, steps=8),
                train(data, small_config, RECIPE, seed=5, steps=8, plan=Plan(workers=3)))


SHARED = """
import sys, json, torch
torch.set_num_threads(1)
from pathlib import Path
from mivla_policy.learn import train as learn
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.recipe import Augmentation, Recipe
from mivla_policy.model.config import MiVLAConfig
sys.path.insert(0, sys.argv[1])
from shared_training import toy
data, config = toy()
recipe = Recipe(batch_size=8, warm_up_steps=2, holdout_episodes=1, holdout_every=2,
                augmentation=Augmentation(shift=(1, 1)))
result = learn.train(data, config, recipe, 0, 6)
if Devices().main:
    Path(sys.argv[2]).write_text(json.dumps([Devices().part[1], result.losses, result.holdout]))
"""


def test_two_processes_share_a_batch_and_come_out_like_one(tmp_path: Path) -> None:
    """By accelerate and gloo: what two GPUs do, on the processor."""
    script = tmp_path / 'shared.py'
    script.write_text(SHARED)
    here, found = str(Path(__file__).parent), []
    for processes in (1, 2):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        out = tmp_path / f'{processes}.json'
        command = [sys.executable, str(script), here, str(out)] if processes == 1 else [
            sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2',
            '--master-addr=127.0.0.1', f'--master-port={port}', str(script), here, str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(out.read_text()))
    (one, losses, holdout), (two, shared, shared_holdout) = found
    assert (one, two) == (1, 2)
    np.testing.assert_allclose(shared, losses, rtol=1e-4)
    np.testing.assert_allclose(shared_holdout, holdout, rtol=1e-4)


def test_an_early_stop_gives_the_weights_of_the_best_look(
        data: TrainingSet, small_config: MiVLAConfig) -> None:
    # A rate that is far too high after the warm-up: it gets better, then worse.
    recipe = replace(RECIPE, schedule='constant', warm_up_steps=60, learning_rate=0.5,
                     ema_decay=0.0, holdout_every=2, patience=3)
    result = train(data, small_config, recipe, seed=0, steps=200)
    losses = [loss for _, loss in result.holdout]
    best = int(np.argmin(losses))
    assert len(result.losses) < 200
    assert len(losses) == best + 1 + 3
    again = train(data, small_config, replace(recipe, patience=0), seed=0,
                  steps=result.holdout[best][0])
    for a, b in zip(result.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_frozen_encoders_stay_and_the_rest_learns(data: TrainingSet,
                                                  small_config: MiVLAConfig) -> None:
    recipe = replace(RECIPE, train_vision=False, ema_decay=0.0)
    first = train(data, small_config, recipe, seed=0, steps=1).network.state_dict()
    after = train(data, small_config, recipe, seed=0, steps=4).network.state_dict()
    for name, value in after.items():
        if name.startswith('image_encoders.'):
            assert torch.equal(value, first[name]), name
    assert not torch.equal(after['blocks.0.attn.wq.weight'], first['blocks.0.attn.wq.weight'])


def test_bfloat16_is_near_and_keeps_float32_weights(data: TrainingSet,
                                                    small_config: MiVLAConfig) -> None:
    full = train(data, small_config, RECIPE, seed=0, steps=6)
    half = train(data, small_config, replace(RECIPE, precision='bfloat16'), seed=0, steps=6)
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}
    np.testing.assert_allclose(half.losses, full.losses, rtol=0.05)
    assert half.losses != full.losses


def test_a_loss_that_is_not_finite_ends_with_advice(data: TrainingSet,
                                                    small_config: MiVLAConfig) -> None:
    broken = replace(data, states=np.where(np.arange(len(data))[:, None] == 0, np.nan,
                                           data.states))
    with pytest.raises((ConfigError), match='finite|diverged'):
        train(broken, small_config, replace(RECIPE, holdout_episodes=0), seed=0, steps=5)


def test_the_rate_warms_up_and_is_constant_or_falls() -> None:
    recipe = Recipe(warm_up_steps=10, final_rate=0.1)
    constant = replace(recipe, schedule='constant')
    assert schedule(0, 0.0, constant) == pytest.approx(0.1)
    assert schedule(50, 0.99, constant) == 1.0
    assert schedule(50, 0.0, recipe) == 1.0
    assert schedule(50, 1.0, recipe) == pytest.approx(0.1)


TOWERS = VisionConfig(kind='dinov2+siglip', height=32, width=32, feature_width=12)


class Patches(torch.nn.Module):
    """Towers that say the mean colour of each patch: frozen, as the real ones."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, C * 4, 12) from uint8 (B, C, 32, 32, 3)."""
        Patches.calls += 1
        patches = images[:, :, :28, :28].float().unflatten(2, (2, 14)).unflatten(4, (2, 14))
        mean = patches.mean(dim=(3, 5)) / 255.0                     # (B, C, 2, 2, 3)
        return mean.flatten(1, 3).repeat(1, 1, 4)


@pytest.mark.parametrize('varied', [False, True])
def test_frozen_towers_are_asked_once_where_pictures_do_not_vary(
        data: TrainingSet, toy_episode: Maker, small_config: MiVLAConfig, packed: SlotMap,
        varied: bool) -> None:
    config = replace(small_config, vision=TOWERS)
    seen = build_training_set([toy_episode(k) for k in range(8)], config, packed)
    augmentation = Augmentation() if varied else Augmentation.none()
    recipe = replace(RECIPE, augmentation=augmentation, holdout_episodes=0)
    with pytest.raises(ConfigError, match='towers'):
        train(seen, config, recipe, seed=0, steps=1)
    Patches.calls = 0
    result = train(seen, config, recipe, seed=0, steps=40, towers=Patches())
    assert Patches.calls == (40 if varied else -(-len(seen) // 8))
    assert np.mean(result.losses[-10:]) < np.mean(result.losses[:5])


def test_pictures_too_many_for_memory_are_mapped_from_a_file(
        tmp_path: Path, data: TrainingSet, toy_episode: Maker, small_config: MiVLAConfig,
        packed: SlotMap) -> None:
    mapped = build_training_set([toy_episode(k) for k in range(8)], small_config, packed,
                                cache=tmp_path, memory_bytes=1000)
    assert isinstance(mapped.images, np.memmap)
    assert not isinstance(data.images, np.memmap)
    np.testing.assert_array_equal(mapped.images, data.images)
    assert not list(tmp_path.iterdir()), 'the file has a name and would be left behind'
    assert train(mapped, small_config, RECIPE, seed=0, steps=2).losses == train(
        data, small_config, RECIPE, seed=0, steps=2).losses


def test_every_sample_is_seen_equally_often() -> None:
    order, generator = Order(np.arange(10)), torch.Generator().manual_seed(0)
    seen = torch.cat([order.next(4, generator) for _ in range(25)])
    assert torch.bincount(seen).tolist() == [10] * 10


def test_cameras_are_left_out_as_often_as_asked_and_never_all_of_them() -> None:
    generator, both = torch.Generator().manual_seed(0), torch.tensor([True, True])
    kept = kept_cameras((0.6, 0.0), both, 20_000, generator)
    assert abs(float(kept[:, 0].float().mean()) - 0.4) < 0.02
    assert bool(kept[:, 1].all())
    kept = kept_cameras((0.9, 0.9), both, 20_000, generator)
    assert bool(kept.any(dim=1).all())
    # A robot without the second camera keeps its only one.
    assert torch.equal(kept_cameras((0.9, 0.9), torch.tensor([True, False]), 50, generator),
                       torch.tensor([[True, False]]).expand(50, -1))


@pytest.mark.parametrize('kind', ['mivla', 'act', 'bc'])
def test_a_camera_that_was_left_out_says_nothing(data: TrainingSet, small_config: MiVLAConfig,
                                                 kind: str) -> None:
    config = replace(small_config, kind=kind)
    recipe = replace(RECIPE, batch_size=4, camera_dropout=(0.5, 0.0), holdout_episodes=0,
                     augmentation=Augmentation.none())
    # A new network's answer is the same whatever it sees.
    trained = train(data, config, recipe, seed=0, steps=10)
    objective = make_objective(trained.network, data, recipe)
    samples = Samples(data, config, recipe, trained.normalizer, objective, np.arange(len(data)))
    batch = samples.collect(samples.draw(torch.Generator().manual_seed(0)))
    turned = batch['pictures'].clone()
    turned[:, 0] = turned[:, 0].flip(1, 2)

    def loss(seen: bool, pictures: torch.Tensor) -> float:
        kept = torch.tensor([seen, True]).expand(4, -1)
        with torch.no_grad():
            return float(objective({**batch, 'pictures': pictures, SEEN: kept}))
    assert loss(True, turned) != loss(True, batch['pictures'])
    assert loss(False, turned) == loss(False, batch['pictures'])


@pytest.mark.parametrize('recipe', [Recipe(camera_dropout=(0.5,)), Recipe(
    augmentation=Augmentation(shift=(1, 1, 1)))])
def test_numbers_per_camera_fit_the_network(data: TrainingSet, small_config: MiVLAConfig,
                                            recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r'entries for 2 cameras'):
        train(data, small_config, recipe, seed=0, steps=1)


def test_a_loader_says_how_long_it_was_waited_for() -> None:
    class Slow:
        def draw(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
            return {'x': torch.rand(1, generator=generator)}

        def collect(self, drawn: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            sum(range(200_000))
            return drawn

        def state(self) -> dict[str, torch.Tensor]:
            return {}

        def restore(self, state: dict[str, torch.Tensor]) -> None:
            pass
    expected = torch.rand(5, generator=torch.Generator().manual_seed(0))
    for workers in (0, 2):
        with Loader(Slow(), torch.Generator().manual_seed(0), workers) as loader:
            got = torch.cat([loader.next()['x'] for _ in range(5)])
            assert torch.equal(got, expected)
            assert loader.waited_s > 0.0


def test_colour_jitter_is_what_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, 3, 8, 8, generator=generator) * 0.4 + 0.3
    off = Augmentation.none()
    assert not off.varies
    torch.testing.assert_close(augment(images, off, generator), images)
    grey = images.mean(dim=2, keepdim=True).expand_as(images)
    hue = augment(grey, replace(off, jitter=(0.0, 0.0, 0.9, 0.5)), generator)
    torch.testing.assert_close(hue, grey, atol=2e-3, rtol=0.0)      # grey has no colour to turn
    bright = augment(images, replace(off, jitter=(0.3, 0.0, 0.0, 0.0)), generator) / images
    factors = bright.mean(dim=(2, 3, 4))
    torch.testing.assert_close(bright, factors[..., None, None, None].expand_as(bright),
                               atol=1e-4, rtol=0.0)
    assert 0.7 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.3
    half = augment(images, replace(off, jitter=(0.3, 0.4, 0.5, 0.03), share=0.5), generator)
    touched = (half - images).abs().amax(dim=(1, 2, 3, 4)) > 1e-5
    assert 20 <= int(touched.sum()) <= 44


def test_a_full_turn_of_the_hue_comes_back_and_a_third_changes_channels() -> None:
    red = torch.tensor([0.8, 0.3, 0.3]).view(1, 1, 3, 1, 1).expand(1, 1, 3, 4, 4)
    numbers = draw(replace(Augmentation.none(), jitter=(0.0, 0.0, 0.0, 0.03)), 1, 1,
                   torch.Generator())
    turned = {}
    for turn in (0.0, 1.0, 1.0 / 3.0):
        numbers['hue'] = torch.full((1, 1, 1), turn)
        turned[turn] = apply(red.movedim(2, -1), numbers)[0, 0, :, 0, 0]
    torch.testing.assert_close(turned[1.0], turned[0.0], atol=1e-4, rtol=0.0)
    assert int(turned[0.0].argmax()) == 0
    assert int(turned[1.0 / 3.0].argmax()) != 0


def test_a_crop_enlarges_a_window() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.0, 1.0, 32).expand(16, 1, 3, 32, 32)
    cropped = augment(ramp, replace(Augmentation.none(), crop=0.5), generator)
    width = (cropped[..., -1] - cropped[..., 0]).mean(dim=(1, 2, 3))
    assert width.max() <= 1.0
    assert 0.45 < width.min() < 0.8


def test_patches_cover_as_much_as_they_may_and_nothing_else_changes() -> None:
    pictures = torch.linspace(0.2, 0.8, 32).expand(64, 1, 3, 32, 32)
    settings = replace(Augmentation.none(), patches=1, patch_size=0.5)
    covered = augment(pictures, settings, torch.Generator().manual_seed(0))
    other = (covered - pictures).abs().amax(dim=2)[:, 0] > 1e-4             # (64, 32, 32)
    share = other.float().mean(dim=(1, 2))
    assert 16 <= int((share == 0.0).sum()) <= 48                            # none as often as one
    assert 0.1 < float(share.max()) <= 0.25
    biggest = covered[int(share.argmax()), 0][:, other[int(share.argmax())]]
    assert torch.equal(biggest, biggest[:, :1].expand_as(biggest))          # of one colour


def test_finetune_keeps_its_state_until_it_is_done(
        tmp_path: Path, toy_episode: Maker, profile: RobotProfile,
        small_config: MiVLAConfig) -> None:
    model = small_config.to_json()
    del model['spaces'], model['cameras']
    preset = Preset('toy', model, {'batch_size': 16, 'warm_up_steps': 2, 'save_every': 0})
    episodes = [toy_episode(k) for k in range(4)]
    given = {'episodes': episodes, 'profile': profile, 'preset': preset, 'name': 'toy',
             'seed': 0, 'steps': 30, 'threads': 1}
    straight, out = tmp_path / 'straight', tmp_path / 'toy'
    finetune(out_dir=straight, **given)
    seen: list[Progress] = []
    with pytest.raises(TrainingStopped, match='step 12'):
        finetune(out_dir=out, **given, progress=seen.append,
                 plan=Plan(stop=lambda: len(seen) >= 12))
    folder = training_folder(out)
    assert {'state.json', 'events'} <= {path.name for path in folder.iterdir()}
    assert not out.exists()
    with pytest.raises(ConfigError, match='resume it, or'):
        finetune(out_dir=out, **given)
    finetune(out_dir=out, **given, plan=Plan(resume=True))
    assert not folder.exists()
    assert len(json.loads((out / 'training.json').read_text())['loss']) == 30
    assert (out / 'training.png').stat().st_size > 1000
    assert [path.name[:6] for path in (out / 'events').iterdir()] == ['events'] * 2
    first, second = load_network(straight)[0].state_dict(), load_network(out)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
