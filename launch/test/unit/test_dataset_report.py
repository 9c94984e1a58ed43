"""The page about a data set: what it counts, what it says, what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_maker import PROFILE, make_episode

from mivla_bringup import cli
from mivla_bringup.dataset.findings import findings
from mivla_bringup.dataset.gather import Dataset, DatasetError, of_bags, of_episodes
from mivla_bringup.dataset.page import write_page
from mivla_bringup.demonstrations import DemonstrationError
from mivla_core.images import encode_jpeg
from mivla_core.profile import load_profile
from mivla_policy.core.episode import POLICY, TELEOP, Commanded, Episode, FrameTrack, Measured
from mivla_teleop.recording.metadata import change_facts

J = len(PROFILE.joints)
PICTURE = encode_jpeg(np.full((24, 32, 3), 90, np.uint8))


@pytest.fixture(scope='module')
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record three good episodes, a failed and a rejected one."""
    root = tmp_path_factory.mktemp('bags')
    for number in range(3):
        make_episode(root, seconds=1.0 + 0.2 * number)
    make_episode(root, seconds=1.0, outcome='failure', note='missed <it>')
    make_episode(root, seconds=1.0, verdict='rejected', lost=7)
    return root


def test_the_page_says_what_is_in_the_bags(bags: Path, tmp_path: Path) -> None:
    data = of_bags([bags])
    assert [item.grade for item in data.episodes] == ['good'] * 3 + ['plain', 'bad']
    assert data.profile is not None and data.profile.hash == PROFILE.hash
    assert len(data.fit) == 3 and data.joints == PROFILE.joint_names
    # Joint 1 swings by 0.2 rad: the whole of it, though the motion is thinned out.
    motion = data.fit[0].motion
    assert motion is not None
    assert motion.high[0] - PROFILE.home[0] == pytest.approx(0.2, abs=1e-3)
    text = write_page(data, tmp_path / 'deep' / 'page.html').read_text()
    assert text.count('<article') == 0 and text.count('data:image/jpeg;base64,') == 2 * 5
    for wanted in ('<b>5</b>', 'to be trained on', '“press the &lt;bell&gt; &amp; wait”',
                   'missed &lt;it&gt;', 'too &lt;short&gt;', '/piper/joint_states', 'joint6',
                   '7 messages are missing in 1 episodes', 'Ada'):
        assert wanted in text, wanted
    assert not re.search(r'<script|https?://|<bell>', text)


def test_the_command_writes_beside_the_bags(
        bags: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['dataset', 'report', str(bags), '--pictures', '0']) == 0
    *said, path = capsys.readouterr().out.splitlines()
    page = Path(path)
    assert said[0].startswith('5 episodes, ') and said[0].endswith('; 3 to be trained on')
    assert any('7 messages are missing' in line for line in said[1:])
    assert page.parent == bags and 'image/jpeg' not in page.read_text()
    assert cli.main(['dataset', 'report', str(bags / 'nowhere')]) == 1
    capsys.readouterr()
    assert cli.main(['dataset', 'report', str(bags), '--format', 'nothing', '--robot',
                     'piper']) == 1
    assert "'nothing' is not read" in capsys.readouterr().err
    assert cli.main(['dataset', 'report', str(Path(__file__).parent)]) == 2
    assert '--robot' in capsys.readouterr().err


def test_robots_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_episode(tmp_path, seconds=0.5)
    other = make_episode(tmp_path, seconds=0.5)
    theirs = load_profile('arx5_x5')
    change_facts(other, {'profile_hash': theirs.hash, 'profile_text': theirs.text})
    assert cli.main(['dataset', 'report', str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert other.name in said and 'another robot profile' in said
    # The field that differs, ours and theirs.
    assert re.search(r'\w+[\w\[\].]*: .+ -> .+', said), said
    assert not (tmp_path / 'dataset-report.html').exists()
    change_facts(other, {'profile_text': 'broken'})
    with pytest.raises(DatasetError, match=f'{theirs.hash}.*not {PROFILE.hash}'):
        of_bags([tmp_path])
    with pytest.raises(DemonstrationError, match='no episode'):
        of_bags([tmp_path / 'task'])


def toy(number: int, **changes: Any) -> Episode:
    """Return an episode of 1 s in which every joint moves through a tenth of its range."""
    stamps = 5_000_000 * np.arange(200, dtype=np.int64)
    spans = PROFILE.upper - PROFILE.lower
    start = PROFILE.lower + spans * (0.4 + 0.03 * number)
    path = start + spans * 0.1 * np.linspace(0.0, 1.0, 200)[:, None]
    frames = stamps[::8]
    values: dict[str, Any] = {
        'source': f'toy {number}', 'instruction': 'press',
        'cameras': {'head': FrameTrack(frames, (PICTURE,) * len(frames))},
        'states': Measured(stamps, path), 'commands': Commanded(stamps, path),
        'joint_names': PROFILE.joint_names, 'profile_hash': PROFILE.hash, **changes}
    return Episode(**values)


def dataset(**changes: Any) -> Dataset:
    """Return three toys with something changed in the last."""
    return of_episodes('toys', [toy(0), toy(1), toy(2, **changes)], PROFILE)


def test_nothing_stands_out_where_all_is_well(tmp_path: Path) -> None:
    data = dataset()
    assert findings(data) == []
    text = write_page(data, tmp_path / 'page.html').read_text()
    assert 'Nothing stands out' in text and 'camera head' in text
    # Steady streams, whose rates are computed from their stamps.
    rates = {row.topic: row.rate for row in data.episodes[0].streams}
    assert rates == pytest.approx({'camera head': 25.0, 'states': 200.0, 'commands': 200.0})


def beyond() -> Commanded:
    track = toy(2).commands
    values = track.values.copy()
    values[50, 2] = PROFILE.upper[2] + 0.1
    return Commanded(track.stamps_ns, values)


def short() -> dict[str, Any]:
    whole = toy(2)
    return {'states': Measured(whole.states.stamps_ns[:50], whole.states.values[:50]),
            'commands': Commanded(whole.commands.stamps_ns[:50], whole.commands.values[:50])}


@pytest.mark.parametrize(('changes', 'said'), [
    ({'commands': beyond()}, r'joint3 was commanded beyond.* in 1 episodes, by up to 0.100 rad'),
    ({'sources': np.repeat([POLICY, TELEOP], [150, 50])}, 'In 1 episodes a person.*25%'),
    ({'states': Measured.assume(toy(2).commands, 'drive targets only')}, 'drive targets only'),
    ({'instruction': 'pull'}, None),
    (short(), 'shorter than the usual 1.0 s: toy 2')])
def test_what_stands_out_is_said(changes: dict[str, Any], said: str | None) -> None:
    sentences = findings(dataset(**changes))
    if said is None:
        assert sentences == []
    else:
        assert len(sentences) == 1 and re.search(said, sentences[0]), sentences


def test_stillness_one_start_and_uneven_instructions_are_said() -> None:
    still = toy(0)
    values = still.states.values.copy()
    values[:, 3] = values[0, 3]
    path = Measured(still.states.stamps_ns, values)
    sentences = findings(of_episodes('same', [
        toy(0, source=f'same {k}', states=path, instruction='press' if k else 'pull')
        for k in range(5)], PROFILE))
    assert [text.partition(':')[0] for text in sentences] == [
        'joint4 never moved by more than 1% of its range.',
        "All episodes begin within 0.0% of the joints' ranges", 'Instructions are uneven']


def test_foreign_episodes_are_read_one_by_one_and_of_one_robot() -> None:
    def endless() -> Iterator[Episode]:
        yield toy(0)
        yield toy(1, profile_hash='0' * 16)
        raise AssertionError('reads on after the refusal')

    with pytest.raises(DatasetError, match='toy 1 is of another robot than toy 0'):
        of_episodes('mixed', endless(), PROFILE)
    with pytest.raises(DatasetError, match='no episode'):
        of_episodes('empty', [], PROFILE)
    with pytest.raises(DatasetError, match='piper_dual has'):
        of_episodes('others', [toy(0)], load_profile('piper_dual'))
    # Without a profile the ranges are what was commanded.
    unknown = of_episodes('unknown', [toy(0), toy(1)], None)
    assert 'limits of the joints are not known' in findings(unknown)[0]
    np.testing.assert_allclose(unknown.ranges[0], toy(0).commands.values.min(axis=0))
