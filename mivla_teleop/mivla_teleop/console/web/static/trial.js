// A trial at the robot: what comes next, and the operator's answers.

import {by, data, enable, make, show, text} from './dom.js';

const GOOD = {s: 'good', g: 'primary', e: 'primary', r: 'primary', y: 'primary'};

export class Trial {
  // ask(fields) sends an answer; its promise gives {ok, message}
  constructor(ask) {
    this.ask = ask;
    this.now = null;           // the newest slip; null where no trials go on
    this.drawn = '';           // the question whose buttons are there
    this.sent = 0;             // the question that is being answered
    by('trial-form').addEventListener('submit', event => {
      event.preventDefault();
      this.answer(by('trial-line').value);
    });
    window.addEventListener('keydown', event => {
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey
          || event.target instanceof HTMLInputElement
          || document.querySelector('dialog[open]')) return;
      if (this.takes(event.key)) this.answer(event.key);
    });
  }

  get open() {
    return this.now !== null && this.now.kind !== '' && this.now.answered < this.now.number;
  }

  takes(key) {
    return this.open && this.now.kind !== 'ask' && this.now.choices.some(([own]) => own === key);
  }

  async answer(words) {
    const number = this.now.number;
    if (!this.open || this.sent === number) return;
    this.sent = number;
    this.lock();
    const answer = await this.ask({number, answer: words});
    // Refused or lost: it stays to be answered. Taken: the next slip says so.
    if (!answer.ok && this.sent === number) this.sent = 0;
    this.lock();
  }

  lock() {
    const free = this.open && this.sent !== this.now.number;
    for (const button of by('trial-panel').querySelectorAll('button')) enable(button, free);
  }

  draw(slip) {
    this.now = slip;
    show(by('trial-panel'), slip !== null);
    show(by('episode-panel'), slip === null);
    data(by('robot'), 'trial', String(slip !== null));
    if (slip === null) { this.drawn = ''; return; }
    text(by('trial-title'), slip.trial ? `Trial ${slip.trial}` : 'Trials');
    text(by('trial-policy'), slip.policy ? `policy ${slip.policy}`
      : slip.hidden ? 'policy not told' : '');
    const most = Math.max(1, slip.most);
    if (by('trial-progress').max !== most) by('trial-progress').max = most;
    if (by('trial-progress').value !== slip.done) by('trial-progress').value = slip.done;
    show(by('trial-progress').parentElement, slip.most > 0);
    text(by('trial-count'), slip.most ? `${slip.done} / ${slip.most}` : '');
    text(by('trial-text'), slip.most ? `${slip.most - slip.done} left at most: ${slip.text}` : '');
    text(by('trial-scene'), slip.scene);
    show(by('trial-scene'), Boolean(slip.scene));
    text(by('trial-question'), this.open ? slip.question
      : slip.answered && slip.by === 'terminal' ? 'Answered at the terminal; wait.' : 'Wait.');
    data(by('trial-question'), 'open', String(this.open));
    show(by('trial-choices'), this.open);
    show(by('trial-form'), this.open && slip.kind === 'ask');
    this.build(slip);
    this.lock();
  }

  build(slip) {
    const key = `${slip.number} ${slip.said.join('\n')}`;
    if (key === this.drawn) return;
    const fresh = key.split(' ')[0] !== this.drawn.split(' ')[0];
    this.drawn = key;
    by('trial-said').replaceChildren(...slip.said.map(words => make('li', {}, words)));
    if (!fresh) return;
    by('trial-line').value = '';
    const offers = slip.kind === 'ask' ? slip.offers : slip.choices;
    by('trial-choices').classList.toggle('many', offers.length > 6);
    by('trial-choices').replaceChildren(...offers.map(([value, words]) => {
      const label = slip.kind === 'ask' ? [words ? `${words} (${value})` : value]
        : [words, make('kbd', {'aria-hidden': 'true'}, value)];
      const kind = slip.kind === 'ask' ? 'small' : GOOD[value] ?? '';
      const button = make('button', {class: `button ${kind}`, type: 'button',
                                     data: {answer: value}}, ...label);
      if (slip.kind !== 'ask') button.setAttribute('aria-keyshortcuts', value);
      button.addEventListener('click', () => this.answer(value));
      return button;
    }));
  }
}
