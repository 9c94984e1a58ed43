// Draws what a snapshot says: state, joints, streams, gauges, episodes. No requests in here.

import {by, data, enable, make, press, show, text} from './dom.js';

const SOURCES = {none: 'nobody commands', operator: 'the driver moves', teleop: 'teleop commands',
                 policy: 'the policy commands'};
const OUTCOMES = {success: 'success', failure: 'failure', unknown: 'no outcome',
                  discard: 'discarded'};
const MANY = 10;          // joints for which there is no room in one column
const NEAR = 0.04;        // share of a joint's range that counts as near its limit

export function number(value, digits) { return value == null ? '–' : value.toFixed(digits); }

export function drawState(state) {
  const driver = state.driver, silent = !driver || driver.silent;
  const word = silent ? 'no driver' : driver.state;
  text(by('state'), word.toUpperCase() + (driver?.braking && !silent ? ' · braking' : '')
       + (driver?.ramping && !silent ? ' · joining' : ''));
  data(by('state'), 'state', silent ? 'unknown' : driver.state);
  const source = silent ? 'none' : state.source;
  text(by('commands'), silent ? '' : SOURCES[source]);
  data(by('commands'), 'source', source);
  text(by('detail'), silent ? '' : driver.detail);
  const faults = silent ? [] : driver.faults;
  if (by('faults').childElementCount !== faults.length
      || faults.some((fault, i) => by('faults').children[i].textContent !== fault))
    by('faults').replaceChildren(...faults.map(fault => make('li', {}, fault)));
  const pose = state.pose;
  text(by('pose'), !pose ? 'Pose unknown: nothing is measured.'
    : pose.at === 'home' ? 'At home.' : pose.at === 'rest' ? 'At rest: torque may go off.'
    : `Away from home: ${pose.joint} by ${pose.off} ${pose.unit}.`);
  const at = silent ? '' : driver.state, able = at === 'holding' || at === 'moving';
  enable(by('enable'), at === 'disabled');
  enable(by('disable'), !silent && at !== 'disabled');
  enable(by('home'), able);
  enable(by('rest'), able);
  enable(by('reset'), at === 'stopped' || at === 'fault');
  for (const mode of ['idle', 'teleop', 'policy']) {
    press(by(`mode-${mode}`), !silent && driver.mode === mode);
    enable(by(`mode-${mode}`), able || (mode === 'idle' && !silent));
  }
  by('reset').classList.toggle('primary', at === 'stopped' || at === 'fault');
  by('enable').classList.toggle('primary', at === 'disabled');
}

export function drawPolicy(policy) {
  text(by('policy-line'), !policy ? '' : policy.hidden ? [`Policy ${policy.state}, not told which`,
       policy.detail].filter(Boolean).join(' · ') : [`Policy ${policy.state}`, policy.policy,
       `${policy.chunks} chunks`, policy.starved ? `starved ${policy.starved}` : '',
       policy.detail].filter(Boolean).join(' · '));
  const warning = by('policy-warning');
  show(warning, Boolean(policy?.warning));
  text(warning, policy?.warning ? `Warning: ${policy.warning}.` : '');
}

// What teleoperation is doing, and what each gesture means now.
export function drawTeleop(teleop) {
  text(by('teleop-line'), teleop ? `${teleop.method.replace('_', ' ')}: ${teleop.phase}${
    teleop.detail ? `, ${teleop.detail}` : ''}` : '');
  show(by('clutch'), teleop?.method === 'vision_pro');
  enable(by('engage'), teleop?.phase === 'holding' || teleop?.phase === 'following');
  enable(by('pause'), teleop?.phase === 'following');
  const box = by('gestures'), gestures = teleop?.gestures ?? [];
  show(box, gestures.length > 0);
  if (gestures.join('\n') !== box.dataset.shown) {
    data(box, 'shown', gestures.join('\n'));
    box.replaceChildren(...gestures.map(words => make('li', {}, words)));
  }
  gestures.forEach((words, i) => data(box.children[i], 'made',
    String(Boolean(teleop.gesture) && words.startsWith(teleop.gesture))));
}

export function drawRecorder(recorder, desk, episodes, score) {
  const recording = recorder?.state === 'recording';
  show(by('idle-buttons'), !recording);
  show(by('recording-buttons'), recording);
  show(by('scores'), recording && score);
  enable(by('start'), recorder?.state === 'idle' || recorder?.state === 'fault');
  if (recording) {
    text(by('timer'), `${recorder.duration.toFixed(1)} s`);
    text(by('recording-size'), `${(recorder.bytes / 1e6).toFixed(1)} MB`
         + (recorder.lost ? ` · ${recorder.lost} lost` : ''));
  }
  const kept = episodes?.kept ?? 0, target = desk?.target ?? 30;
  text(by('count'), `${kept} / ${target}`);
  if (by('progress').max !== target) by('progress').max = target;
  if (by('progress').value !== kept) by('progress').value = Math.min(kept, target);
  text(by('session-line'), desk ? [desk.task, desk.operator].filter(Boolean).join(' · ') : '');
  text(by('episode-line'), !recorder ? 'No recorder is running.' : recorder.detail);
  data(by('episode-line'), 'kind', recorder?.state === 'fault'
       || /rejected/.test(recorder?.detail ?? '') ? 'bad' : '');
  show(by('discard-last'), !recording && (recorder?.episodes ?? 0) > 0
       && !/discard/.test(recorder.detail));
  show(by('undo'), !recording && Boolean(episodes?.discarded));
}

export function buildJoints(robot, jog, choose) {
  const box = by('joints');
  box.classList.toggle('jogging', Boolean(jog));
  by('robot').classList.toggle('many', robot.joints.length > MANY);
  box.style.setProperty('--rows', String(Math.ceil(robot.joints.length / 2)));
  const share = (joint, value) => `${100 * (value - joint.lower) / (joint.upper - joint.lower)}%`;
  box.replaceChildren(...robot.joints.map((joint, j) => {
    const marks = ['home', 'applied', 'measured'].map(name => make('i', {class: name}));
    marks[0].style.left = share(joint, joint.home);
    const name = make('button', {class: 'name', type: 'button', 'aria-pressed': String(j === 0),
                                 title: `${joint.name}: show its motion`}, joint.name);
    name.addEventListener('click', () => choose(j));
    const bar = make('div', {class: 'bar', role: 'meter', 'aria-label': `${joint.name} position`,
                             'aria-valuemin': String(joint.lower),
                             'aria-valuemax': String(joint.upper)}, ...marks);
    const row = make('div', {class: 'joint'}, name);
    if (jog) row.append(jog.button('−', `${joint.name} backwards`,
                                   {joints: {[joint.name]: -1}}));
    row.append(bar);
    if (jog) row.append(jog.button('+', `${joint.name} forwards`, {joints: {[joint.name]: 1}}));
    row.append(make('span', {class: 'value'}, '–'));
    return row;
  }));
}

export function drawJoints(robot, state, chosen) {
  robot.joints.forEach((joint, j) => {
    const row = by('joints').children[j];
    const measured = state.measured?.[j], applied = state.applied?.[j];
    const place = value => 100 * Math.max(0, Math.min(1, (value - joint.lower)
                                                      / (joint.upper - joint.lower)));
    const bar = row.querySelector('.bar');
    const [, blue, white] = bar.children;
    blue.style.visibility = applied == null ? 'hidden' : 'visible';
    white.style.visibility = measured == null ? 'hidden' : 'visible';
    if (applied != null) blue.style.left = `${place(applied)}%`;
    if (measured != null) {
      white.style.left = `${place(measured)}%`;
      bar.setAttribute('aria-valuenow', measured.toFixed(3));
      const room = Math.min(measured - joint.lower, joint.upper - measured);
      // A gripper's work is at its ends; an arm joint's is not.
      data(row, 'near', String(joint.role !== 'gripper'
                               && room < NEAR * (joint.upper - joint.lower)));
    }
    text(row.querySelector('.value'), joint.unit === 'm'
      ? `${measured == null ? '–' : (1000 * measured).toFixed(1)} mm`
      : `${number(measured, 3)} rad`);
    press(row.querySelector('.name'), j === chosen);
  });
}

export function drawStreams(streams) {
  const body = by('streams');
  while (body.childElementCount < streams.length)
    body.append(make('tr', {}, ...[0, 1, 2, 3].map(() => make('td'))));
  while (body.childElementCount > streams.length) body.lastElementChild.remove();
  streams.forEach((stream, i) => {
    const row = body.children[i], [name, rate, age, lost] = row.children;
    const idle = !stream.heard || (stream.nominal === 0 && stream.late);
    data(row, 'idle', String(idle));
    data(row, 'late', String(!idle && stream.late));
    text(name, stream.name);
    name.title = stream.name;
    text(rate, idle ? '–' : `${stream.rate.toFixed(0)}${
      stream.nominal ? `/${stream.nominal.toFixed(0)}` : ''} Hz`);
    text(age, idle || stream.age === null ? '–' : `${(1000 * stream.age).toFixed(0)} ms`);
    text(lost, String(stream.lost));
    data(lost, 'lost', String(stream.recent > 0));
  });
}

// [name, value's words, share of the bar, level]
export function gaugesOf(state, page) {
  const loop = state.guard?.loop, policy = state.policy, recorder = state.recorder;
  const list = [];
  if (recorder) {
    const free = recorder.free / 1e9;
    list.push(['Disk free', `${free < 10 ? free.toFixed(1) : free.toFixed(0)} GB`,
               Math.min(1, free / 100), free < 2 ? 'bad' : free < 10 ? 'warn' : 'good']);
  }
  if (loop?.p99 != null) {
    const late = 1000 * (loop.p99 - 1 / loop.hz);
    list.push(['Control jitter', `${Math.max(0, late).toFixed(2)} ms`, late * loop.hz / 500,
               loop.missed > 0.001 * loop.ticks ? 'warn' : late > 2 ? 'warn' : 'good']);
  }
  if (state.action_age != null && state.source === 'policy')
    list.push(['Picture to action', `${(1000 * state.action_age).toFixed(0)} ms`,
               state.action_age, state.action_age > 0.5 ? 'warn' : 'good']);
  if (policy?.chunk_seconds != null)
    list.push(['Policy answers in', `${(1000 * policy.chunk_seconds).toFixed(0)} ms`,
               policy.chunk_seconds, policy.chunk_seconds > 0.5 ? 'warn' : 'good']);
  if (policy?.novelty != null)
    list.push(['Unlike its demonstrations', `× ${number(policy.novelty, 2)} of the threshold`,
               policy.novelty / 2, policy.warning ? 'warn' : 'good']);
  if (state.scene)
    list.push(['Simulated time', `× ${number(state.scene.factor, 2)}`, state.scene.factor,
               state.scene.factor < 0.95 ? 'warn' : 'good']);
  list.push([page.pages === 1 ? 'This page lags' : `This of ${page.pages} pages`,
             `${page.age.toFixed(0)} ms`, page.age / 500,
             page.age > 250 ? 'warn' : 'good']);
  return list;
}

export function drawGauges(list) {
  const box = by('gauges');
  while (box.childElementCount < 3 * list.length)
    box.append(make('dt'), make('dd', {class: 'meter', 'aria-hidden': 'true'}, make('i')),
               make('dd'));
  while (box.childElementCount > 3 * list.length) box.lastElementChild.remove();
  list.forEach(([name, words, share, level], i) => {
    text(box.children[3 * i], name);
    const meter = box.children[3 * i + 1];
    meter.firstElementChild.style.width = `${100 * Math.max(0.02, Math.min(1, share))}%`;
    data(meter, 'level', level);
    text(box.children[3 * i + 2], words);
  });
}

export function drawEpisodes(robot, episodes) {
  show(by('recent-none'), !episodes.recent.length);
  by('recent').replaceChildren(...episodes.recent.map(episode => {
    const count = episode.episode.replace('episode_', '').replace(/^0+/, '');
    const mood = episode.verdict === 'rejected' ? 'rejected' : OUTCOMES[episode.outcome];
    const why = episode.reasons.join('; ');
    return make('li', {data: {good: String(episode.good)}, title: why || episode.note},
      make('img', {src: `/thumbnail/${robot}/${episode.task}/${episode.episode}`,
                   alt: `First picture of episode ${count}`}),
      make('p', {}, make('span', {}, `#${count}`), make('span', {class: 'quiet'},
                                                        `${episode.duration.toFixed(1)} s`)),
      make('p', {}, make('span', {class: 'mood'}, mood),
           make('span', {class: 'quiet'}, episode.lost ? `${episode.lost} lost` : '')));
  }));
}
