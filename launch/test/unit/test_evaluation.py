"""What an evaluation keeps, resumes, compares and shows."""

import json
import math
import signal
from dataclasses import replace

import av
import numpy as np
import pytest

from mivla_bringup import evaluate
from mivla_bringup.bench.result import wilson
from mivla_bringup.errors import UsageError
from mivla_bringup.evaluate import robot_of
from mivla_bringup.evaluation.episodes import (
    EvaluationError,
    Request,
    controls_of,
    jobs_of,
    run_job,
)
from mivla_bringup.evaluation.films import Film, mp4
from mivla_bringup.evaluation.journal import Job, Journal, JournalError, Row
from mivla_bringup.evaluation.page import write_page
from mivla_bringup.evaluation.paired import binomial_two_sided, compare, newcombe, pairs_needed
from mivla_bringup.evaluation.policies import PolicyRef, policy_ref
from mivla_bringup.evaluation.summary import cells_of, comparisons_of, result_of
from mivla_drivers.sim.tasks import LEVELS, TASKS

FIRST, SECOND = (PolicyRef(name, 'hold', {}, digest) for name, digest in (('A', 'a'), ('B', 'b')))


def request(levels=('easy',), episodes=4, controls=0, policies=(FIRST,)):
    return Request(policies, 'piper', 'click_bell', levels, episodes, controls, 1.0)


def row(job, success, score=None, **more):
    return Row(job, success, 0.5 if success else 1.0, float(success) if score is None else score,
               'pressed' if success else 'reached', verdicts={'passed': 100}, wall_s=0.2,
               cpu_s=0.1, revision='r1', **more)


def test_what_is_published_does_not_say_where_a_checkpoint_lay(tmp_path):
    ref = replace(FIRST, parameters={'checkpoint': str(tmp_path / 'bell'), 'seed': 3})
    asked = request(episodes=1, policies=(ref,))
    with Journal(tmp_path / 'episodes.jsonl') as journal:
        journal.add(row(jobs_of(asked, 'hash', {'a': ()})[0], True))
        (published,) = result_of(asked, journal).raw['policies']
    assert published['parameters'] == {'checkpoint': 'bell', 'seed': 3}
    assert published['digest'] == ref.digest


def test_other_scenes_can_be_asked_for_but_none_that_was_trained_on():
    asked = Request((FIRST,), 'piper', 'click_bell', ('easy',), 3, 0, 1.0, 290_000)
    assert [job.seed for job in jobs_of(asked, 'hash', {'a': ()})] == [290_000, 290_001, 290_002]
    for first in (199_999, 299_998):
        with pytest.raises(EvaluationError, match=f'seeds {first} to .* 200000 to 299999'):
            replace(asked, first=first)


def test_a_journal_goes_on_where_it_was_left_even_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / 'deeper' / 'episodes.jsonl'
    jobs = jobs_of(request(), 'hash', {'a': ()})
    with Journal(path) as journal:
        for job in jobs[:2]:
            journal.add(row(job, True))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])    # the power went while the third was written
    with Journal(path) as journal:
        assert set(journal.rows) == set(jobs[:2])
        journal.add(row(jobs[2], False, folder='bags/episode_000002'))
    again = Journal(path)
    assert [again.rows[job].success for job in jobs[:3]] == [True, True, False]
    assert again.rows[jobs[2]].folder == 'bags/episode_000002'
    assert jobs[3] not in again.rows


def test_rows_of_other_weights_levels_limits_and_robots_are_others():
    job = jobs_of(request(), 'hash', {'a': ()})[0]
    for change in ({'policy': 'b'}, {'level': 'hard'}, {'limit_s': 2.0}, {'robot': 'other'},
                   {'kind': 'blind'}, {'protocol': job.protocol + 1}):
        assert replace(job, **change) != job


@pytest.mark.parametrize('line', ['[]', '{"job": 3}', 'nonsense', '{"unheard": 1}'])
def test_a_file_that_is_no_journal_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / 'episodes.jsonl'
    path.write_text(line + '\n')
    with pytest.raises(JournalError, match='line 1'):
        Journal(path)


def test_jobs_go_seed_by_seed_so_that_what_is_cut_short_compares_like_with_like():
    both = request(('easy', 'hard'), 3, 1, (FIRST, SECOND))
    jobs = jobs_of(both, 'hash', {'a': ('blind', 'replay'), 'b': ()})
    assert len(jobs) == len(set(jobs)) == 3 * 2 * 2 + 2 * 2
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert {job.kind for job in jobs if job.policy == 'b'} == {'policy'}
    assert {job.seed for job in jobs if job.kind == 'blind'} == {both.seeds[0]}


def test_a_digest_knows_weights_and_parameters_but_not_where_the_folder_stands(tmp_path):
    def made(name, weights):
        folder = tmp_path / name
        folder.mkdir()
        (folder / 'config.json').write_text('{}')
        (folder / 'model.safetensors').write_bytes(weights)
        (folder / 'evaluation.json').write_text(name)
        return policy_ref(str(folder), [])

    one, same, other = made('one', b'1'), made('same', b'1'), made('other', b'2')
    assert one.digest == same.digest != other.digest
    assert one.name == 'one' and one.plug_in == 'mivla'
    (tmp_path / 'other' / 'config.json').write_text('{"model": {"kind": "act"}}')
    assert policy_ref(str(tmp_path / 'other')).plug_in == 'act'
    (tmp_path / 'other' / 'config.json').write_text('{"model": {"kind": "oracle"}}')
    with pytest.raises(UsageError, match='oracle'):
        policy_ref(str(tmp_path / 'other'))
    folder = str(tmp_path / 'one')
    assert policy_ref(folder, ['steps=3']).digest != one.digest
    assert policy_ref('hold', ['horizon=8']).parameters == {'horizon': 8}
    for text in (str(tmp_path), 'no_such_policy'):
        with pytest.raises(UsageError, match='neither a checkpoint'):
            policy_ref(text)


def test_mcnemars_exact_p_is_that_of_a_fair_coin():
    assert binomial_two_sided(0, 0) == 1.0
    assert binomial_two_sided(6, 0) == pytest.approx(2 / 64)
    assert binomial_two_sided(1, 7) == pytest.approx(2 * 9 / 256)
    assert binomial_two_sided(5, 5) == 1.0


def test_a_comparison_counts_scenes_not_policies():
    first = [(True, 1.0)] * 8 + [(False, 0.5)] * 2
    second = [(False, 0.0)] * 8 + [(False, 0.5), (True, 1.0)]
    found = compare(first, second)
    assert (found.both, found.first, found.second, found.neither) == (0, 8, 1, 1)
    assert found.difference == pytest.approx(0.7)
    assert found.p == pytest.approx(2 * (1 + 9) / 512)
    assert found.interval[0] < 0.7 < found.interval[1] <= 1.0
    assert found.score_difference == pytest.approx(0.75)
    assert found.ahead == 1 and found.words('A', 'B').startswith('A is ahead of B by 70.0')
    assert compare(second, first).ahead == -1
    assert compare(second, first).words('A', 'B').startswith('B is ahead of A by 70.0')
    assert compare(first, first).words('A', 'B').startswith('Nobody is ahead')
    with pytest.raises(ValueError, match='cannot be paired'):
        compare(first, second[:3])


def test_a_small_difference_says_how_many_more_scenes_it_needs():
    first = [(True, 1.0)] * 3 + [(False, 0.0)] * 7
    second = [(False, 0.0)] * 2 + [(True, 1.0)] + [(False, 0.0)] * 7
    found = compare(first, second)
    assert found.ahead == 0 and found.needed is not None and found.needed > 10
    assert f'{found.needed - 10} more scenes' in found.words('A', 'B')


@pytest.mark.parametrize(('first', 'second'), [(0.3, 0.1), (0.25, 0.15), (0.4, 0.0),
                                                (0.5, 0.1), (0.6, 0.3)])
def test_the_scenes_needed_find_the_difference_four_times_in_five(first, second):
    count = pairs_needed(first, second)
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(count, [first, second, 1.0 - first - second], size=1500)
    found = np.mean([binomial_two_sided(a, b) < 0.05 for a, b, _ in drawn])
    # Beyond the exactly computed ones, the exact test is a little stricter than the formula's.
    assert (0.77 if count <= 200 else 0.74) < found < 0.87, count


def test_the_interval_covers_the_difference_that_there_is():
    rng = np.random.default_rng(2)
    inside = 0
    for draw in range(60):
        kinds = rng.choice(4, size=80, p=[0.4, 0.25, 0.15, 0.2])
        pairs = [([True, True, False, False][k], [True, False, True, False][k]) for k in kinds]
        found = compare([(a, float(a)) for a, _ in pairs], [(b, float(b)) for _, b in pairs],
                        draw)
        inside += found.interval[0] <= 0.10 <= found.interval[1]
    assert inside >= 52


def test_newcombes_interval_is_that_of_his_paper_and_never_without_width():
    # His example of 50 pairs: 36 both, 12 and 2 one alone, none neither.
    low, high = newcombe(36, 12, 2, 0)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=2e-3)
    assert newcombe(0, 24, 0, 0)[0] < 0.85 and newcombe(0, 24, 0, 0)[1] == pytest.approx(1.0)
    assert newcombe(3, 4, 5, 6) == pytest.approx(tuple(-x for x in newcombe(3, 5, 4, 6)[::-1]))


def made_journal(tmp_path, both):
    journal = Journal(tmp_path / 'episodes.jsonl')
    for number, job in enumerate(jobs_of(both, 'hash', {'a': ('blind',), 'b': ()})):
        journal.add(row(job, (number % 3 > 0) if job.policy == 'a' else number % 4 == 0,
                        score=0.25 * (number % 4)))
    return journal


def test_the_numbers_of_two_policies_on_two_levels(tmp_path):
    both = request(('easy', 'hard'), 6, 2, (FIRST, SECOND))
    with made_journal(tmp_path, both) as journal:
        result, cells = result_of(both, journal), cells_of(both, journal)
    assert {name for name in result.metrics if name.startswith('success')} == {
        'success_rate_easy', 'success_rate_hard', 'success_blind_easy', 'success_blind_hard'}
    assert {name for name in result.metrics if name.startswith('other')} == {
        'other_success_rate_easy', 'other_success_rate_hard'}
    easy = next(cell for cell in cells if cell.kind == 'policy' and cell.level == 'easy')
    assert result.metrics['success_rate_easy'].value == easy.wins / 6
    assert easy.interval == wilson(easy.wins, 6)
    assert set(comparisons_of(both, cells)) == {'easy', 'hard', 'all'}
    assert result.metrics['evaluate_speed'].value == pytest.approx(
        sum(r.seconds for c in cells if c.kind == 'policy' for r in c.rows) / 2.4)
    json.dumps(result.summary(None))


def test_one_policy_on_one_level_keeps_the_names_that_it_had(tmp_path):
    one = request(controls=2)
    with made_journal(tmp_path, one) as journal:
        names = set(result_of(one, journal).metrics)
    assert {'success_rate', 'success_blind', 'episodes', 'evaluate_speed'} <= names


def test_the_page_holds_everything_and_links_nowhere(tmp_path):
    both = request(('easy', 'hard'), 6, 2, (replace(FIRST, name='<b>A</b>'), SECOND))
    film = tmp_path / 'film.mp4'
    film.write_bytes(mp4([np.full((48, 64, 3), 40 * k, np.uint8) for k in range(4)], 10))
    with made_journal(tmp_path, both) as journal:
        cells = cells_of(both, journal)
        failed = next(r for c in cells for r in c.rows if not r.success)
        text = write_page(both, cells, comparisons_of(both, cells), [Film(failed, film, False)],
                          result_of(both, journal), 'mivla evaluate --x',
                          tmp_path / 'report.html').read_text()
    for word in ('data:video/mp4;base64,', 'not the same episode again', 'blind control',
                 'Compared on the same scenes', 'McNemar', 'Guard', f'{failed.job.seed}'):
        assert word in text, word
    assert '<script' not in text and 'http' not in text and '<b>A</b>' not in text


def test_a_film_can_be_read_back(tmp_path):
    path = tmp_path / 'film.mp4'
    path.write_bytes(mp4([np.full((120, 160, 3), 20 * k, np.uint8) for k in range(8)], 10))
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
        rate = container.streams.video[0].average_rate
    assert len(frames) == 8 and frames[0].shape == (120, 160, 3) and rate == 10
    assert frames[7].mean() > frames[1].mean() + 50


def test_an_episode_is_the_same_whatever_was_run_before_and_whether_it_is_filmed():
    hold = policy_ref('hold', ['horizon=16'])
    asked = request(('easy', 'hard'), 2, 0, (hold,))
    jobs = [replace(job, limit_s=0.4) for job in jobs_of(asked, 'hash', {hold.digest: ()})]
    made, seen = {}, []

    def film(rig):
        return lambda: seen.append(rig.look('head'))

    try:
        first = [run_job(job, asked, 'r', made) for job in jobs]
        again = [run_job(job, asked, 'r', made, film=film) for job in reversed(jobs)]
        assert controls_of(made[hold.digest, 'policy'], hold)[0] == ()
    finally:
        made['rig'].close()
    strip = [replace(each, wall_s=0.0, cpu_s=0.0) for each in (*first, *again)]
    assert strip[:4] == strip[:3:-1]
    assert len(seen) >= 4 * 12 and seen[0].shape == (240, 320, 3)
    assert not first[0].success and first[0].seconds == pytest.approx(0.4, abs=0.01)
    assert math.isfinite(first[0].score)


@pytest.mark.parametrize('task', sorted(name for name in TASKS if name != 'click_bell'))
def test_every_task_is_measured_with_its_robot_on_every_level(task):
    hold, made = policy_ref('hold', ['horizon=16']), {}
    asked = Request((hold,), robot_of(task), task, LEVELS, 1, 0, 0.05)
    try:
        rows = [run_job(job, asked, 'r', made)
                for job in jobs_of(asked, 'hash', {hold.digest: ()})]
    finally:
        made['rig'].close()
    assert [row.job.level for row in rows] == list(LEVELS)
    assert not any(row.success or row.stopped for row in rows)


def test_what_a_camera_is_worth_is_a_cell_of_its_own(tmp_path):
    hold = policy_ref('hold', ['horizon=16'])
    asked = replace(request(('easy',), 3, 2, (hold,)), without=('wrist',))
    jobs = jobs_of(asked, 'hash', {hold.digest: ('blind', 'without_wrist')})
    assert [job.kind for job in jobs] == [
        'policy', 'blind', 'without_wrist', 'policy', 'blind', 'without_wrist', 'policy']
    with Journal(tmp_path / 'episodes.jsonl') as journal:
        for job in jobs:
            journal.add(row(job, job.kind == 'policy'))
        found = result_of(asked, journal)
        assert found.metrics['success_without_wrist'].value == 0.0
        assert not found.metrics['success_without_wrist'].aim
        assert found.metrics['success_rate'].value == 1.0 and found.metrics['success_blind'].aim
        page = write_page(asked, cells_of(asked, journal), {}, [], found, '',
                          tmp_path / 'page.html').read_text()
        assert 'without the camera wrist' in page


def test_a_job_is_one_line_of_json():
    assert Job(**json.loads(json.dumps(vars(Job('a', 'policy', 'h', 't', 'easy', 3, 1.0))))) == \
        Job('a', 'policy', 'h', 't', 'easy', 3, 1.0)


def test_an_evaluation_goes_on_with_what_is_new_and_films_what_failed(tmp_path, monkeypatch,
                                                                      capsys):
    monkeypatch.setattr(evaluate, 'results_folder', lambda: tmp_path / 'results')
    monkeypatch.setattr(signal, 'signal', lambda *words: None)    # the test keeps its own
    words = ['--policy', 'hold', '--level', 'easy', '--limit', '0.2', '--realtime', '0',
             '--films', '1', '--workers', '1', '--out', str(tmp_path / 'out'), '--json']
    assert evaluate.main([*words, '--episodes', '1']) == 0
    journal = tmp_path / 'out' / 'episodes.jsonl'
    before = journal.read_bytes()
    assert evaluate.main([*words, '--episodes', '2']) == 0
    assert journal.read_bytes().startswith(before) and len(journal.read_text().splitlines()) == 2
    output = capsys.readouterr()
    assert '1 of 2 episodes are in' in output.err + output.out
    summary = json.loads(output.out.splitlines()[-1])
    assert summary['metrics']['success_rate']['value'] == 0.0 and summary['samples'] == 2
    text = (tmp_path / 'out' / 'report.html').read_text()
    assert text.count('<video') == 1 and 'not the same episode again' not in text
    assert len(list((tmp_path / 'results').iterdir())) == 2
