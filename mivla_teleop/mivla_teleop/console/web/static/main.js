// The page: one robot at a time, what it says, and what the operator asks of it.

import {by, choose, data, enable, make, open, press, show, text} from './dom.js';
import {Jog} from './jog.js';
import {Keys} from './keys.js';
import {Link} from './link.js';
import {Plot} from './plot.js';
import * as sound from './sound.js';
import {buildJoints, drawEpisodes, drawGauges, drawJoints, drawPolicy, drawRecorder, drawState,
        drawStreams, drawTeleop, gaugesOf} from './show.js';
import {Trial} from './trial.js';

const OLD = 1500;            // ms without news after which the page says so
const HOLD_PERIOD = 100;     // ms between two words of a held enable
const SCORES = [0, 0.25, 0.5, 0.75, 1];

const page = {robots: [], chosen: 0, joint: 0, states: {}, desks: {}, episodes: {}, heard: 0,
              age: 0, pages: 1, holding: false, cameras: new Map(), jogs: false};
const plot = new Plot(by('plot'));
const keys = new Keys(action => ACTIONS[action](),
                      action => { if (action === 'policy') release(); });
const link = new Link({state: onLink, text: onText, picture: onPicture});
const jog = new Jog(fields => link.stream(name(), 'jog', fields), () => stop(),
                    () => ACTIONS.step());

const trial = new Trial(fields => ask('trial', fields));

function robot() { return page.robots[page.chosen]; }
function name() { return robot()?.name ?? ''; }
function state() { return page.states[name()]; }

// News ----------------------------------------------------------------------------------------

function onLink(kind) {
  data(by('link'), 'state', kind);
  text(by('link-text'), kind === 'live' ? 'live' : 'no connection');
  if (kind === 'off') { jog.allow(false); release(); }
}

function onText(key, content) {
  const [kind, who] = key.split('/');
  if (kind === 'hello') hello(content);
  else if (kind === 'state') news(content);
  else if (kind === 'desk') { page.desks[who] = content; }
  else if (kind === 'chunk') { if (who === name()) plot.chunk = content; }
  else if (kind === 'episodes') { page.episodes[who] = content; if (who === name()) shelf(); }
  else if (kind === 'answer' && !content.ok) tell(content.message, 'bad');
}

function hello(content) {
  page.robots = content.robots;
  page.chosen = Math.min(page.chosen, page.robots.length - 1);
  page.jogs = content.jog;
  link.cameras = content.robots.map(r => r.cameras.map(camera => `${r.name}/${camera.role}`));
  keys.load(content.keys);
  page.teleop = content.teleop;
  by('tabs').replaceChildren(...page.robots.map((r, i) => {
    const tab = make('button', {type: 'button', role: 'tab', id: `tab-${i}`,
                                'aria-controls': 'robot'},
                     make('span', {class: 'dot', 'aria-hidden': 'true'}), r.name);
    tab.addEventListener('click', () => choose_robot(i));
    tab.addEventListener('keydown', event => {
      const step = {ArrowRight: 1, ArrowLeft: -1}[event.code];
      if (!step) return;
      const next = (i + step + page.robots.length) % page.robots.length;
      choose_robot(next);
      by(`tab-${next}`).focus();
    });
    return tab;
  }));
  choose_robot(page.chosen);
}

function choose_robot(index) {
  page.chosen = index;
  page.joint = 0;
  release();
  jog.clear();
  jog.buttons.clear();
  jog.arms = robot().arms;
  [...by('tabs').children].forEach((tab, i) => {
    tab.setAttribute('aria-selected', String(i === index));
    tab.tabIndex = i === index ? 0 : -1;
  });
  by('robot').setAttribute('aria-labelledby', `tab-${index}`);
  by('robot').removeAttribute('aria-label');
  by('hold-enable').disabled = robot().held;     // the profile asks for it
  if (robot().held) by('hold-enable').checked = true;
  plot.clear();
  plot.joint = 0;
  buildJoints(robot(), page.jogs ? jog : null, j => { page.joint = plot.joint = j; });
  buildPad();
  buildCameras();
  see();
  shelf();
  if (state()) draw();
}

function buildCameras() {
  page.cameras = new Map();
  by('cameras').replaceChildren(...robot().cameras.map((camera, i) => {
    const canvas = make('canvas', {width: camera.width, height: camera.height, role: 'img',
                                   'aria-label': `Live picture of the ${camera.role} camera`});
    const figures = make('span', {class: 'figures'}, 'no picture');
    page.cameras.set(i, {canvas, figures, stamp: 0});
    return make('figure', {class: 'camera', data: {late: 'true'}}, canvas,
                make('figcaption', {}, make('span', {class: 'role'}, camera.role), figures));
  }));
  show(by('cameras'), robot().cameras.length > 0);
}

async function onPicture(who, camera, stamp, blob) {
  const place = page.cameras.get(camera);
  if (who !== page.chosen || !place) return;
  const bitmap = await createImageBitmap(blob);
  if (place.canvas.width !== bitmap.width || place.canvas.height !== bitmap.height) {
    place.canvas.width = bitmap.width;
    place.canvas.height = bitmap.height;
  }
  place.canvas.getContext('2d').drawImage(bitmap, 0, 0);
  bitmap.close();
  place.stamp = stamp;
}

function news(content) {
  const before = page.states;
  page.heard = performance.now();
  page.age = lag(Date.now() - content.time);
  page.pages = content.pages;
  page.time = content.time / 1000;
  page.states = content.robots;
  if (!state()) return;
  page.robots.forEach((r, i) => data(by(`tab-${i}`).firstElementChild, 'state',
    content.robots[r.name]?.driver?.silent === false ? content.robots[r.name].driver.state
                                                     : 'fault'));
  hear(before[name()], state());
  plot.add(page.time, state().measured, state().applied);
  draw();
}

// How much later than usual the news come [ms]; the clocks of two machines need not agree.
const delays = [];
function lag(delay) {
  delays.push(delay);
  if (delays.length > 300) delays.shift();
  return delay - Math.min(...delays);
}

function draw() {
  const now = state();
  drawState(now);
  const heard = topic => now.streams.some(stream => stream.name === topic && stream.heard);
  if (page.teleop === 'none' && !heard('command/teleop')) enable(by('mode-teleop'), false);
  if (!now.policy) enable(by('mode-policy'), false);
  drawPolicy(now.policy);
  drawTeleop(now.teleop);
  trial.draw(now.trial ?? null);
  drawRecorder(now.recorder, page.desks[name()], page.episodes[name()],
               now.driver?.mode === 'policy');
  drawJoints(robot(), now, page.joint);
  drawStreams(now.streams);
  drawGauges(gaugesOf(now, page));
  const able = now.driver?.mode === 'teleop' && ['holding', 'moving'].includes(now.driver.state);
  jog.allow(page.jogs && able && link.open);
  drawPostures(now.driver);
  if (document.activeElement !== by('instruction') && !by('instruction').dataset.edited)
    if (by('instruction').value !== now.instruction) by('instruction').value = now.instruction;
  robot().cameras.forEach((camera, i) => {
    const place = page.cameras.get(i), stream = now.streams.find(s => s.name === camera.role);
    const late = !stream?.heard || stream.late;
    data(place.canvas.parentElement, 'late', String(late));
    text(place.figures, !stream?.heard ? 'no picture'
      : late ? `frozen for ${stream.age.toFixed(1)} s`
      : `${stream.rate.toFixed(0)} Hz · ${(1000 * stream.age).toFixed(0)} ms`);
  });
  if (!by('plot').hidden) plot.draw(robot().joints[page.joint], page.time);
  text(by('gamepad'), `${jog.pad ? `Gamepad: ${jog.pad}.` : 'No gamepad. With one:'} Hold LB to `
    + `move, LB and RB to turn; A starts and saves, B stops${
      jog.armName ? `, X takes the other arm (now ${jog.armName})` : ''}.`);
}

function drawPostures(driver) {
  const box = by('postures'), names = driver?.postures ?? [];
  show(box, names.length > 0);
  if (box.childElementCount !== names.length) {
    box.replaceChildren(...names.map(posture => {
      const button = make('button', {class: 'button', type: 'button', 'aria-pressed': 'false'},
                          posture.replaceAll('_', ' '));
      button.addEventListener('click', () => ask('posture', {posture}));
      return button;
    }));
  }
  names.forEach((posture, i) => {
    press(box.children[i], driver.posture === posture);
    enable(box.children[i], ['holding', 'moving'].includes(driver.state));
  });
}

// What changed since the last news, for eyes that are elsewhere.
function hear(before, now) {
  if (!before) return;
  if (before.driver?.state !== now.driver?.state && now.driver) {
    const words = `${name()}: ${now.driver.detail || now.driver.state}`;
    if (['stopped', 'fault'].includes(now.driver.state)) {
      text(by('urgent'), words);
      sound.play('stop');
    } else tell(words);
  }
  if (before.recorder?.state !== now.recorder?.state && now.recorder?.state === 'recording')
    sound.play('start');
  const lost = s => s.streams.reduce((sum, stream) => sum + stream.lost, 0);
  if (now.recorder?.state === 'recording' && (now.recorder.lost > (before.recorder?.lost ?? 0)
      || lost(now) > lost(before))) sound.play('loss');
}

function shelf() {
  const found = page.episodes[name()];
  if (found) drawEpisodes(name(), found);
  else by('recent').replaceChildren();
}

// Asking --------------------------------------------------------------------------------------

function tell(words, kind = '') {
  // Of a folder its last two names are enough.
  text(by('notice'), words.replace(/\/\S*\/([^/\s]+\/[^/\s]+)/g, '$1'));
  data(by('notice'), 'kind', kind);
}

async function ask(what, fields = {}) {
  const answer = await link.ask(name(), what, fields);
  tell(answer.message || (answer.ok ? 'done' : 'refused'), answer.ok ? 'good' : 'bad');
  return answer;
}

async function stop() {
  jog.clear();
  release();
  by('stop').classList.add('pressed');
  text(by('urgent'), 'STOP asked for');
  const answer = await link.stop('*', 'STOP on the page');
  by('stop').classList.remove('pressed');
  text(by('urgent'), answer.ok ? `Stopped. ${answer.message}` : answer.message);
  tell(answer.message, answer.ok ? 'good' : 'bad');
}

// What needs a known start pose asks first where the robot is elsewhere.
async function fromHome(what, act) {
  const pose = state()?.pose;
  if (!pose || pose.at === 'home') { await act(); return; }
  const answer = await choose(`Not at home`, `${pose.joint} is ${pose.off} ${pose.unit} away from `
    + `home. ${what} usually begins there.`,
    [['', 'Cancel'], ['here', 'Begin here'], ['home', 'Go home first', 'primary']]);
  if (answer === 'home') await ask('pose', {pose: 'home'});
  if (answer === 'here') await act();
}

async function disable() {
  const pose = state()?.pose;
  if (pose?.at === 'rest') { await ask('disable', {force: false}); return; }
  const answer = await choose('The arm will fall',
    'It is not in its rest pose. Without torque it drops at once, onto whatever is below. Hold it, '
    + 'or go to rest first.',
    [['', 'Cancel'], ['rest', 'Go to rest', 'primary'],
     ['fall', 'Let it fall', 'danger']], true);
  if (answer === 'rest') await ask('pose', {pose: 'rest'});
  if (answer === 'fall') await ask('disable', {force: true});
}

async function finish(outcome, note = by('note').value) {
  if (state()?.recorder?.state !== 'recording') return;
  const answer = await ask('finish', {outcome, note});
  if (answer.ok) { by('note').value = ''; sound.play(outcome); }
}

// An episode that is brought back was called a discard: ask what it is.
async function undo() {
  if (!(await ask('undo')).ok) return;
  const outcome = await choose('Brought back', 'What was this episode?',
    [['', 'Leave it discarded'], ['failure', 'Failure'], ['success', 'Success', 'good']]);
  if (outcome) await ask('finish', {outcome, note: by('note').value});
}

async function start() {
  if (state()?.recorder?.state === 'recording') return;
  const moving = state()?.driver?.mode !== 'idle';
  if (moving) await ask('start'); else await fromHome('An episode', () => ask('start'));
}

function mode(wanted) {
  if (wanted !== 'policy') return ask('mode', {mode: wanted});
  if (by('hold-enable').checked) return hold();
  return fromHome('The policy', () => ask('mode', {mode: 'policy'}));
}

// Held enable: the server takes the robot from the policy when it hears nothing for 0.4 s.
let beating = 0;
function hold() {
  if (!by('hold-enable').checked || page.holding) return;
  page.holding = true;
  const beat = () => link.stream(name(), 'hold', {on: true});
  beat();
  beating = setInterval(beat, HOLD_PERIOD);
}

function release() {
  if (!page.holding) return;
  page.holding = false;
  clearInterval(beating);
  link.stream(name(), 'hold', {on: false});
}

// While trials go on, whoever carries them out starts and ends the episodes.
function recording(act, key = '') {
  return () => {
    if (trial.now === null) return act();
    return trial.takes(key) ? trial.answer(key) : undefined;
  };
}

const ACTIONS = {
  stop, start: recording(start),
  step: recording(() => state()?.recorder?.state === 'recording' ? finish('success') : start()),
  success: recording(() => finish('success'), 's'),
  failure: recording(() => finish('failure'), 'f'),
  discard: recording(() => finish('discard')), undo: recording(undo), home: () => ask('pose', {pose: 'home'}),
  idle: () => mode('idle'), teleop: () => mode('teleop'), policy: () => mode('policy'),
};

function see() {
  if (!robot()) return;
  const cameras = document.hidden ? [] : robot().cameras.map(camera => camera.role);
  link.stream(name(), 'see', {cameras});
}

function buildPad() {
  const box = by('jog');
  const views = page.jogs && robot().arms.length > 0;
  show(by('views'), views);
  if (!views) view('plot');
  if (!page.jogs) { box.replaceChildren(); return; }
  const button = (label, words, axis, way, arm) => {
    const twist = [0, 0, 0, 0, 0, 0];
    twist[axis] = way;
    return jog.button(label, words, {arm, twist});
  };
  const pads = robot().arms.flatMap(arm => {
    const own = robot().arms.length > 1 ? arm : '';
    const mid = words => make('span', {class: 'mid'}, words);
    return [make('div', {class: 'pad', role: 'group', 'aria-label': `Move the tool ${own}`},
      mid(own), button('fwd', 'forwards, x+', 0, 1, arm), button('up', 'up, z+', 2, 1, arm),
      button('left', 'left, y+', 1, 1, arm), mid('move'), button('right', 'right, y-', 1, -1, arm),
      mid(''), button('back', 'backwards, x-', 0, -1, arm), button('down', 'down, z-', 2, -1, arm)),
    make('div', {class: 'pad', role: 'group', 'aria-label': `Turn the tool ${own}`},
      button('roll −', 'roll, x-', 3, -1, arm), button('pitch −', 'pitch, y-', 4, -1, arm),
      button('roll +', 'roll, x+', 3, 1, arm),
      button('yaw +', 'yaw, z+', 5, 1, arm), mid('turn'), button('yaw −', 'yaw, z-', 5, -1, arm),
      mid(''), button('pitch +', 'pitch, y+', 4, 1, arm), mid(''))];
  });
  if (robot().drives) {
    const drive = (label, words, base) => jog.button(label, words, {base});
    const mid = words => make('span', {class: 'mid'}, words);
    pads.unshift(make('div', {class: 'pad', role: 'group', 'aria-label': 'Walk'},
      drive('turn ⟲', 'turn left', [0, 0, 1]), drive('fwd', 'walk forwards', [1, 0, 0]),
      drive('turn ⟳', 'turn right', [0, 0, -1]), drive('left', 'walk left', [0, 1, 0]),
      mid('walk'), drive('right', 'walk right', [0, -1, 0]), mid(''),
      drive('back', 'walk backwards', [-1, 0, 0]), mid('')));
  }
  box.replaceChildren(...pads);
}

function view(which) {
  show(by('plot'), which === 'plot');
  show(by('jog'), which === 'jog');
  show(document.querySelector('.legend'), which === 'plot');
  press(by('view-plot'), which === 'plot');
  press(by('view-jog'), which === 'jog');
}

// The page's own furniture ----------------------------------------------------------------------

const click = (id, act) => by(id).addEventListener('click', act);
// Pressed, not clicked: a stop does not wait for the finger to come up.
by('stop').addEventListener('pointerdown', event => { if (event.button === 0) stop(); });
by('stop').addEventListener('click', event => { if (event.detail === 0) stop(); });
click('enable', () => ask('enable'));
click('disable', disable);
click('reset', () => ask('reset'));
click('home', ACTIONS.home);
click('rest', () => ask('pose', {pose: 'rest'}));
for (const wanted of ['idle', 'teleop']) click(`mode-${wanted}`, () => mode(wanted));
click('mode-policy', () => { if (!by('hold-enable').checked) mode('policy'); });
by('mode-policy').addEventListener('keydown', event => {
  if (event.code === 'Enter' && by('hold-enable').checked) { event.preventDefault(); hold(); }
});
by('mode-policy').addEventListener('keyup', release);
// Space stops, so what a keyboard ticks with it elsewhere is ticked with Enter here.
by('hold-enable').addEventListener('keydown', event => {
  if (event.code === 'Enter') by('hold-enable').click();
});
by('mode-policy').addEventListener('pointerdown', event => {
  if (!by('hold-enable').checked) return;
  event.target.setPointerCapture(event.pointerId);
  hold();
});
for (const kind of ['pointerup', 'pointercancel', 'lostpointercapture', 'blur'])
  by('mode-policy').addEventListener(kind, release);
window.addEventListener('blur', release);
window.addEventListener('pagehide', release);
click('start', ACTIONS.start);
click('success', ACTIONS.success);
click('failure', ACTIONS.failure);
click('discard', ACTIONS.discard);
click('undo', ACTIONS.undo);
click('engage', () => ask('engage'));
click('pause', () => ask('pause'));
click('discard-last', () => ask('discard_last'));
click('view-plot', () => view('plot'));
click('view-jog', () => view('jog'));
click('open-keys', () => open(by('keys')));
click('sound', () => press(by('sound'), sound.toggle()));
click('open-session', () => {
  const desk = page.desks[name()] ?? {task: '', operator: '', target: 30};
  by('task').value = desk.task;
  by('operator').value = desk.operator;
  by('target').value = desk.target;
  open(by('session'));
});
by('session').addEventListener('close', () => {
  if (by('session').returnValue !== 'ok') return;
  ask('desk', {task: by('task').value, operator: by('operator').value,
               target: Number(by('target').value)});
});
by('instruction').addEventListener('input', () => { by('instruction').dataset.edited = 'yes'; });
by('instruction-form').addEventListener('submit', async event => {
  event.preventDefault();
  const answer = await ask('instruction', {text: by('instruction').value});
  if (answer.ok) delete by('instruction').dataset.edited;
});
by('scores').append(make('span', {class: 'quiet'}, 'Score'), ...SCORES.map(score => {
  const button = make('button', {class: 'button small', type: 'button',
                                 'aria-label': `Save with score ${score}`}, String(score));
  button.addEventListener('click', () => finish(score === 1 ? 'success' : 'failure',
    [`score=${score}`, by('note').value].filter(Boolean).join('; ')));
  return button;
}));
document.addEventListener('visibilitychange', see);

setInterval(() => {
  const silence = performance.now() - page.heard;
  const old = page.heard > 0 && silence > OLD;
  show(by('stale'), old);
  if (old) {
    text(by('stale'), `No news for ${(silence / 1000).toFixed(0)} s: what you see is old.`);
    data(by('link'), 'state', link.open ? 'slow' : 'off');
  } else if (link.open) data(by('link'), 'state', 'live');
}, 250);
