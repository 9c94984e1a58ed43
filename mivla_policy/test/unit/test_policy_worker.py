"""The policy server without ROS: every kind of answer, and nobody harmed by a neighbour."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from server_rig import BLIND, JPEG, LONG_S, MS, PAIR, SPEC, Clock, Desk, HoldPolicy, request

from mivla_core.timing import NowNs, StampNs, monotonic_now
from mivla_policy.core.tally import Level
from mivla_policy.errors import InstructionError, PolicyError
from mivla_policy.serve.port import Inference, Query
from mivla_policy.serve.request import Freshness
from mivla_policy.serve.server import Answer, Code, PolicyWorker, Request, WorkerSettings

AT = 10**18


def stamps(head: int, state: int = 0) -> dict[str, StampNs]:
    return {'head': StampNs(AT + head * MS), 'joint_states': StampNs(AT + state * MS)}


def wait_until(met: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + LONG_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def answers_of(policy: HoldPolicy, *requests: Request) -> list[Answer]:
    out: list[Answer] = []
    PolicyWorker(policy, out.append).answer(requests)
    return out


def test_good_request() -> None:
    (answer,) = answers_of(HoldPolicy(), request())
    assert answer.code is Code.OK and answer.chunk_id == 1 and answer.batch_size == 1
    np.testing.assert_array_equal(answer.chunk, np.tile([1.0, 2.0], (4, 1)))
    assert answer.decode_s > 0 and answer.forward_s > 0 and answer.queue_s >= 0


def test_joint_order_of_the_request_is_mapped_to_the_policys() -> None:
    (answer,) = answers_of(HoldPolicy(), request(joint_names=('b', 'a')))
    np.testing.assert_array_equal(answer.chunk[0], [2.0, 1.0])


def test_newest_row_of_a_state_window_counts() -> None:
    (answer,) = answers_of(HoldPolicy(), request(state=np.array([9.0, 9.0, 1.0, 2.0])))
    np.testing.assert_array_equal(answer.chunk[0], [1.0, 2.0])


@pytest.mark.parametrize('changes, code, reason', [
    ({'profile_hash': 'beef'}, Code.WRONG_PROFILE, 'cafe.*beef'),
    ({'instruction': 'juggle'}, Code.UNKNOWN_INSTRUCTION, 'press the bell'),
    ({'instruction': ''}, Code.UNKNOWN_INSTRUCTION, 'word'),
    ({'images': {}}, Code.BAD_REQUEST, 'head'),
    ({'images': {'head': b'\xff\xd8 nonsense'}}, Code.BAD_REQUEST, 'head'),
    ({'images': {'head': JPEG[:len(JPEG) // 2]}}, Code.BAD_REQUEST, 'truncated'),
    ({'images': {'head': b''}}, Code.BAD_REQUEST, 'head'),
    ({'state': np.array([np.nan, 0.0])}, Code.BAD_REQUEST, 'a is not finite'),
    ({'state': np.zeros(3)}, Code.BAD_REQUEST, '3 numbers'),
    ({'state': np.zeros(0)}, Code.BAD_REQUEST, '0 numbers'),
    ({'joint_names': ()}, Code.BAD_REQUEST, 'none'),
    ({'joint_names': ('a', 'a')}, Code.BAD_REQUEST, 'needs a, b'),
    ({'state': np.zeros(2 * 1025)}, Code.BAD_REQUEST, '1024 rows'),
    ({'images': {'head': np.zeros((48, 64), np.uint8)}}, Code.BAD_REQUEST, 'head.*uint8'),
    ({'images': {'head': 'text'}}, Code.BAD_REQUEST, 'head'),
    ({'prefix': np.zeros(3)}, Code.BAD_REQUEST, 'prefix of 3 numbers'),
    ({'prefix': np.array([0.0, np.inf])}, Code.BAD_REQUEST, 'prefix.*finite'),
    ({'prefix': np.zeros(4), 'prefix_delay': 3}, Code.BAD_REQUEST, 'delay of 3 rows'),
    ({'prefix': np.zeros(4), 'prefix_dt': 0.1}, Code.BAD_REQUEST, '0.1 s apart.*5 s'),
    ({'stamps': stamps(-600)}, Code.BAD_REQUEST, 'head is 600 ms older.*at most 500'),
    ({'stamps': stamps(0, -501)}, Code.BAD_REQUEST, 'joint_states is 501 ms older'),
])
def test_bad_request_is_refused_with_a_reason_and_its_neighbour_is_answered(
        changes: dict, code: Code, reason: str) -> None:
    policy = HoldPolicy()
    bad, good = answers_of(policy, request(**changes), request('r2'))
    assert bad.code is code and bad.chunk is None and bad.chunk_id == 0
    assert re.search(reason, bad.reason), bad.reason
    assert '\n' not in bad.reason
    assert good.code is Code.OK and good.request.robot == 'r2'
    assert policy.batches == [1]


def test_pictures_that_are_too_far_apart_are_refused_and_the_limit_is_a_setting() -> None:
    pair = {'left': JPEG, 'right': JPEG}
    skewed = request(profile_hash='f00d', joint_names=PAIR.joint_names, state=np.zeros(3),
                     images=pair, stamps={'left': StampNs(AT), 'right': StampNs(AT + 101 * MS)})
    (answer,) = answers_of(HoldPolicy(SPEC, PAIR), skewed)
    assert answer.code is Code.BAD_REQUEST
    assert re.search('left is 101 ms older than .* right .at most 100', answer.reason)
    out: list[Answer] = []
    PolicyWorker(HoldPolicy(SPEC, PAIR), out.append, WorkerSettings(
        freshness=Freshness(skew_ns=200 * MS))).answer([skewed])
    assert out[0].code is Code.OK


def test_stamps_on_a_clock_of_their_own_are_fine() -> None:
    """Only differences count: a robot may believe that it is 1970."""
    (answer,) = answers_of(HoldPolicy(), request(
        stamp=StampNs(5), stamps={'head': StampNs(5), 'joint_states': StampNs(9)}))
    assert answer.code is Code.OK


def test_robots_of_two_profiles_share_a_forward_pass() -> None:
    policy = HoldPolicy(SPEC, PAIR)
    first, second = answers_of(policy, request(), request(
        'r2', profile_hash='f00d', joint_names=('z', 'x', 'y'), state=np.array([3.0, 1.0, 2.0]),
        images={'left': JPEG, 'right': JPEG}, instruction='anything'))
    assert policy.batches == [2] and first.spec is SPEC and second.spec is PAIR
    np.testing.assert_array_equal(second.chunk, np.tile([1.0, 2.0, 3.0], (4, 1)))


def test_two_robots_share_a_forward_pass() -> None:
    policy = HoldPolicy()
    first, second = answers_of(policy, request(), request('r2', state=np.array([3.0, 4.0])))
    assert policy.batches == [2] and first.batch_size == 2
    np.testing.assert_array_equal(second.chunk[0], [3.0, 4.0])
    assert {first.chunk_id, second.chunk_id} == {1, 2}


def test_a_request_that_breaks_the_batch_fails_alone() -> None:
    policy = HoldPolicy()
    policy.poison = 5.0
    results = answers_of(policy, request(state=np.array([5.0, 0.0])), request('r2'))
    assert [a.code for a in results] == [Code.POLICY_FAILED, Code.OK]
    assert results[0].reason == 'poisoned'


def test_an_instruction_that_the_policy_cannot_read_is_told_as_such() -> None:
    """A language model's policy finds out itself; a runner stops asking for what is hopeless."""
    class Reader(HoldPolicy):
        def infer(self, queries: Sequence[Query]) -> Inference:
            if any(query.observation.joints[0] == 5.0 for query in queries):
                raise InstructionError('not encoded; run: mivla instructions encode')
            return super().infer(queries)

    results = answers_of(Reader(), request(state=np.array([5.0, 0.0])), request('r2'))
    assert [a.code for a in results] == [Code.UNKNOWN_INSTRUCTION, Code.OK]
    assert 'mivla instructions encode' in results[0].reason


def test_an_answer_that_is_not_finite_is_caught_for_that_robot_only() -> None:
    policy = HoldPolicy()
    policy.spoil = 5.0
    results = answers_of(policy, request(state=np.array([5.0, 0.0])), request('r2'))
    assert [a.code for a in results] == [Code.POLICY_FAILED, Code.OK]
    assert 'not finite' in results[0].reason and policy.batches == [2]


def test_out_of_memory_halves_the_batch_for_good_and_goes_on() -> None:
    policy = HoldPolicy()
    policy.memory_for = 2
    with Desk(policy) as desk:
        worker = desk.worker
        worker.answer([request(f'r{i}') for i in range(8)])
        assert [a.code for a in desk.answers] == [Code.OK] * 8
        assert policy.batches == [8, 4, 2, 2, 2, 2]
        assert any('batch of 8: at most 4' in text for text in desk.told)
        health = worker.health()
        assert health.limit == 2 and health.level is Level.WARN and 'at most 2' in health.words
        policy.gate = threading.Event()
        policy.entered.clear()
        worker.submit(request('r0'))
        assert policy.entered.wait(LONG_S)
        for i in range(1, 6):
            worker.submit(request(f'r{i}'))
        policy.gate.set()
        desk.wait(8 + 6)
        assert max(policy.batches[6:]) == 2


def test_memory_that_is_too_small_for_one_is_a_reason_not_an_end() -> None:
    policy = HoldPolicy()
    policy.memory_for = 0
    (answer,) = answers_of(policy, request())
    assert answer.code is Code.POLICY_FAILED and '2.00 GiB' in answer.reason


@pytest.mark.parametrize('bad', [np.full((4, 2), np.nan), np.zeros((3, 2)), np.zeros((4, 3))])
def test_not_finite_or_misshapen_answers_never_leave(bad: np.ndarray) -> None:
    policy = HoldPolicy()
    policy.answer = bad
    (answer,) = answers_of(policy, request())
    assert answer.code is Code.POLICY_FAILED and answer.chunk is None and answer.reason


def test_newer_request_supersedes_the_waiting_one_of_the_same_robot() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    out: list[Answer] = []
    done = threading.Semaphore(0)

    def deliver(answer: Answer) -> None:
        out.append(answer)
        done.release()

    worker = PolicyWorker(policy, deliver)
    worker.start()
    worker.submit(request(request_id=1))
    assert policy.entered.wait(LONG_S)    # 1 is in work, 2 waits
    worker.submit(request(request_id=2))
    worker.submit(request('r2', request_id=7))
    worker.submit(request(request_id=3))
    assert done.acquire(timeout=LONG_S)
    assert (out[0].request.request_id, out[0].code) == (2, Code.SUPERSEDED)
    policy.gate.set()
    for _ in range(3):
        assert done.acquire(timeout=LONG_S)
    assert worker.stop()
    assert {(a.request.robot, a.request.request_id): a.code for a in out[1:]} == {
        ('r1', 1): Code.OK, ('r1', 3): Code.OK, ('r2', 7): Code.OK}


def test_the_most_urgent_goes_first() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    order: list[str] = []
    done = threading.Event()

    def deliver(answer: Answer) -> None:
        order.append(answer.request.robot)
        if len(order) == 4:
            done.set()

    clock = Clock()     # it stands: a busy machine cannot make the urgent one too late
    now = clock()
    worker = PolicyWorker(policy, deliver, WorkerSettings(max_batch=1), now=clock)
    worker.start()
    worker.submit(request('first', received=now))
    assert policy.entered.wait(LONG_S)
    for robot, slack in (('calm', 150 * MS), ('urgent', 50 * MS), ('late', -5 * MS)):
        worker.submit(request(robot, slack_ns=slack, received=now))
    # A free device takes what is decoded: all are to be, or the order is that of the decoder.
    wait_until(lambda: not worker._scheduler.to_decode())
    policy.gate.set()
    assert done.wait(LONG_S) and worker.stop()
    assert order == ['first', 'late', 'urgent', 'calm']


def test_codes_are_those_of_the_message() -> None:
    messages = pytest.importorskip('mivla_msgs.msg')
    for code in Code:
        assert getattr(messages.ActionChunk, code.name) == code.value


def test_warm_up_refuses_a_policy_that_cannot_answer() -> None:
    policy = HoldPolicy()
    assert PolicyWorker(policy, lambda _: None).warm_up() >= 0
    policy.answer = np.zeros((1, 1))
    with pytest.raises(PolicyError, match='shape'):
        PolicyWorker(policy, lambda _: None).warm_up()


def test_warm_up_runs_every_size_before_the_first_robot_does() -> None:
    policy = HoldPolicy(SPEC, PAIR)
    worker = PolicyWorker(policy, lambda _: None, WorkerSettings(max_batch=6))
    worker.warm_up()
    assert policy.batches == [1, 1, 2, 2, 4, 4, 6, 6] and worker.health().limit == 6


def test_warm_up_is_bounded_by_time_and_by_memory() -> None:
    policy, told = HoldPolicy(), []
    worker = PolicyWorker(policy, lambda _: None, WorkerSettings(warm_up_s=0.0), tell=told.append)
    worker.warm_up()
    assert worker.health().limit == 1 and 'cut off' in told[0]
    policy = HoldPolicy()
    policy.memory_for = 3
    worker = PolicyWorker(policy, lambda _: None, tell=told.append)
    worker.warm_up()
    assert worker.health().limit == 2 and 'memory' in told[1]


def test_memory_is_reported_where_the_policy_tells_it() -> None:
    policy = HoldPolicy()
    assert PolicyWorker(policy, lambda _: None).health().memory == 0
    policy.memory = 123_000_000    # type: ignore[attr-defined]
    assert PolicyWorker(policy, lambda _: None).health().memory == 123_000_000


def test_a_request_without_hope_is_told_so_on_arrival() -> None:
    with Desk(HoldPolicy()) as desk:
        for _ in range(5):
            desk.worker._scheduler.times.note(1, 80 * MS)
        desk.worker.submit(request(slack_ns=20 * MS))
        # In the thread that submits: there is nothing to wait for.
        (answer,) = desk.answers
        assert answer.code is Code.TOO_LATE and '80 ms' in answer.reason
        assert desk.policy.batches == []
        desk.worker.submit(request(slack_ns=0))     # dry: served
        assert desk.wait(2)[1].code is Code.OK


def test_waited_longer_than_a_chunk_lasts() -> None:
    with Desk(HoldPolicy()) as desk:
        desk.worker.submit(request(received=NowNs(monotonic_now() - 20_001 * MS)))
        (answer,) = desk.wait(1)
        assert answer.code is Code.TOO_LATE and 'a chunk lasts 20.00 s' in answer.reason


def test_a_deadline_that_passes_behind_a_long_pass_is_told_during_the_pass() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    with Desk(policy) as desk:
        desk.worker.submit(request('r1'))
        assert policy.entered.wait(LONG_S)
        desk.worker.submit(request('r2', slack_ns=60 * MS))
        (answer,) = desk.wait(1)     # the gate is closed: the pass goes on
        assert answer.request.robot == 'r2' and answer.code is Code.TOO_LATE


def test_a_deadline_of_a_request_that_came_before_the_pass_began_is_told_during_the_pass() -> None:
    policy = HoldPolicy(BLIND)
    policy.gate = threading.Event()
    unseeing = {'profile_hash': 'b11d', 'images': {}, 'instruction': ''}
    with Desk(policy, max_batch=1) as desk:
        with desk.worker.lock:     # both are ready before the device looks; it takes the dry one
            desk.worker.submit(request('r1', **unseeing))
            desk.worker.submit(request('r2', slack_ns=100 * MS, **unseeing))
        (answer,) = desk.wait(1)     # the gate is closed: the pass goes on
        assert answer.request.robot == 'r2' and answer.code is Code.TOO_LATE, answer
        assert policy.batches == [1]


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_thread_that_a_bug_ends_is_told_in_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    with Desk(HoldPolicy()) as desk:
        assert desk.worker.health().level is Level.OK

        def broken(now: int) -> None:
            raise RuntimeError('bug')

        monkeypatch.setattr(desk.worker._scheduler, 'take', broken)
        desk.worker.submit(request())
        wait_until(lambda: desk.worker.health().level is Level.ERROR)
        health = desk.worker.health()
        assert health.words.startswith('policy worker ended') and 'Restart' in health.words
    assert 'ended by' not in desk.worker.health().words      # stopped: nothing is to run


def test_a_server_is_not_started_twice() -> None:
    """Threads of the first start would take wake-ups from those of the second."""
    with Desk(HoldPolicy()) as desk, pytest.raises(PolicyError, match='already'):
        desk.worker.start()


def test_who_waits_when_the_server_stops_is_told_so() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    with Desk(policy) as desk:
        desk.worker.submit(request('r1'))
        assert policy.entered.wait(LONG_S)
        desk.worker.submit(request('r2'))
        assert not desk.worker.stop(0.05)      # the pass goes on
        (answer,) = desk.wait(1)
        assert answer.request.robot == 'r2' and answer.code is Code.POLICY_FAILED
        assert 'not active' in answer.reason
        with pytest.raises(PolicyError, match='not come back'):
            desk.worker.start()
        policy.gate.set()
        assert desk.wait(2)[1].code is Code.OK


def test_a_bad_newer_request_leaves_the_good_one_in_its_place() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    with Desk(policy) as desk:
        desk.worker.submit(request('other'))
        assert policy.entered.wait(LONG_S)
        desk.worker.submit(request(request_id=1))
        desk.worker.submit(request(request_id=2, profile_hash='beef'))
        assert desk.answers[0].code is Code.WRONG_PROFILE
        policy.gate.set()
        assert {a.request.request_id: a.code for a in desk.wait(3)[1:]} == {1: Code.OK}


def test_pictures_are_decoded_while_the_device_is_busy_and_only_the_newest() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    with Desk(policy) as desk:
        desk.worker.submit(request('other'))
        assert policy.entered.wait(LONG_S)
        desk.worker.submit(request('r1', images={'head': b'\xff\xd8 nonsense'}))
        desk.worker.submit(request('r2', request_id=1))
        # What is broken is told during the pass; that it was decoded follows.
        assert desk.wait(1)[0].code is Code.BAD_REQUEST
        desk.worker.submit(request('r2', request_id=2))
        wait_until(lambda: not desk.worker._scheduler.to_decode())
        policy.gate.set()
        answers = {(a.request.robot, a.request.request_id): a for a in desk.wait(4)}
        assert answers['r2', 1].code is Code.SUPERSEDED
        newest = answers['r2', 2]
        assert newest.code is Code.OK and newest.decode_s > 0 and newest.queue_s > 0


def test_a_forward_pass_that_hangs_is_reported_and_everybody_answered() -> None:
    policy = HoldPolicy()
    policy.gate = threading.Event()
    clock = Clock()
    with Desk(policy, clock, hang_s=10.0) as desk:
        worker = desk.worker
        worker.submit(request('r1', received=clock()))
        assert policy.entered.wait(LONG_S)
        worker.submit(request('r2', received=clock()))
        clock.advance(9.9)
        assert worker.health().level is Level.OK
        clock.advance(0.2)     # the watch looks once a second
        answers = desk.wait(2)
        assert {a.request.robot for a in answers} == {'r1', 'r2'}
        assert all(a.code is Code.POLICY_FAILED and 'not come back' in a.reason for a in answers)
        health = worker.health()
        assert health.level is Level.ERROR and 'restart' in health.words
        worker.submit(request('r3', received=clock()))
        assert desk.wait(3)[2].code is Code.POLICY_FAILED
        # It comes back: its answer belongs to nobody any more, and the server goes on.
        policy.gate.set()
        wait_until(lambda: worker.health().level is not Level.ERROR)
        worker.submit(request('r1', request_id=2, received=clock()))
        last = desk.wait(4)[3]
        assert (last.request.request_id, last.code) == (2, Code.OK) and len(desk.answers) == 4


def test_a_worker_that_was_stopped_says_so_and_can_start_again() -> None:
    desk = Desk(HoldPolicy())
    desk.worker.submit(request())
    assert desk.answers[0].code is Code.POLICY_FAILED and 'not active' in desk.answers[0].reason
    for number in (2, 3):
        with desk:
            desk.worker.submit(request())
            assert desk.wait(number)[-1].code is Code.OK


def test_an_answer_can_be_asked_for_by_somebody_else() -> None:
    mine: list[Answer] = []
    came = threading.Event()

    def take(answer: Answer) -> None:
        mine.append(answer)
        came.set()

    with Desk(HoldPolicy()) as desk:
        desk.worker.submit(request(), take)
        assert came.wait(LONG_S) and mine[0].code is Code.OK
        desk.worker.submit(request(profile_hash='beef'), take)
        assert mine[1].code is Code.WRONG_PROFILE and desk.answers == []


def test_the_tally_tells_the_robots_apart() -> None:
    with Desk(HoldPolicy()) as desk:
        desk.worker.submit(request('r1', age_s=0.012))
        desk.wait(1)
        desk.worker.submit(request('r2', profile_hash='beef'))
        health = desk.worker.health()
        assert health.level is Level.WARN and 'r2: 1 WRONG_PROFILE' in health.words
        assert desk.worker.health().level is Level.OK    # nothing new since
        robots = desk.worker.tally.robots
        assert robots['r1'].served == 1 and robots['r1'].age == 0.012
        (seconds,) = robots['r1'].percentiles(0.99)
        assert seconds['encode'] == 0.25 and seconds['denoise'] == 0.5
        assert 0.0 < seconds['decode'] < seconds['total']
        assert robots['r2'].refused == {'WRONG_PROFILE': 1}
        assert desk.worker.tally.batches[0] == 1


def test_many_robots_at_once_get_one_answer_each() -> None:
    with Desk(HoldPolicy(SPEC, replace(PAIR, horizon=4))) as desk:
        asked = []

        def ask(robot: str) -> None:
            for number in range(20):
                one = request(robot, number) if int(robot[1:]) % 2 else request(
                    robot, number, profile_hash='f00d', joint_names=PAIR.joint_names,
                    state=np.zeros(3), images={'left': JPEG, 'right': JPEG})
                asked.append((robot, number))
                desk.worker.submit(one)

        threads = [threading.Thread(target=ask, args=(f'r{i}',)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers = desk.wait(120)
        assert sorted((a.request.robot, a.request.request_id) for a in answers) == sorted(asked)
        assert {a.code for a in answers} <= {Code.OK, Code.SUPERSEDED}
        # The newest of every robot is never the superseded one.
        assert all(a.code is Code.OK for a in answers if a.request.request_id == 19)


def test_a_recipient_that_fails_loses_its_own_answer_only() -> None:
    def broken(answer: Answer) -> None:
        raise OSError('gone')

    with Desk(HoldPolicy()) as desk:
        desk.worker.submit(request('r1'), broken)
        desk.worker.submit(request('r1', profile_hash='beef'), broken)
        desk.worker.submit(request('r2'))
        assert desk.wait(1)[0].request.robot == 'r2'
        assert any('r1' in text and 'gone' in text for text in desk.told)


def test_a_request_that_is_not_even_one_is_refused() -> None:
    with Desk(HoldPolicy()) as desk:
        desk.worker.submit(request(state=None))
        assert desk.answers[0].code is Code.BAD_REQUEST and 'NoneType' in desk.answers[0].reason
