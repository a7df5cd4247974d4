// Keeps the service's drawing the same as the page's: sends what changed, takes in answers, and comes back by itself when
// the connection is lost, to the drawing as the service has kept it or, where it has not, with all of it.

import { Stream, extension, parcels, rasterAction, strokesAction } from "./stream.js";

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5000;

// What the service has of a drawing: strokes by number, null where one was erased; how many points of the latest one; how
// many of the latest steps drew a stroke each; the picture; the options.
const EMPTY = { strokes: [], points: 0, steps: 0, picture: null };

export class Link extends EventTarget {
  #stream = null;
  #isOpen = false; // the service takes changes
  #isOver = true; // the stream has ended for good, until something is wanted otherwise
  #isAsleep = false; // nobody drew for long, and the service ended the stream
  #gallery = "";
  #purpose = "";
  #wanted; // {strokes, picture, options}
  #has = null; // what the service has when it has read all messages; null where that is not known
  #sent = []; // [sequence, what it has after that message], from the latest answered message on
  #token = ""; // with which the drawing is resumed
  #sequence = 0;
  #answered = 0;
  #wait = FIRST_WAIT_MS;
  #timer = 0; // of what is tried again: the connection, or what was refused for now
  #isHeld = false; // something was refused for now, and nothing is sent until it may be

  constructor(state) {
    super();
    this.#wanted = { ...state, options: {} };
  }

  get isOpen() {
    return this.#isOpen;
  }

  // Whether the latest answer is the ranking of what is wanted: nothing of it was refused, either.
  get isCurrent() {
    return this.#isOpen && !this.#isHeld && this.#has !== null && this.#answered === this.#sequence;
  }

  // Begins a new stream, which the drawing is sent on again; `options` is the JSON form of SearchOptions.
  begin(gallery, options, purpose) {
    [this.#gallery, this.#purpose] = [gallery, purpose];
    this.#wanted = { ...this.#wanted, options };
    this.#stream?.drop();
    this.#token = "";
    this.#connect();
  }

  // Ranks the same drawing otherwise from now on.
  choose(options) {
    if (this.#isOver) this.begin(this.#gallery, options, this.#purpose);
    else this.#want({ options });
  }

  // Brings the service to these strokes and this picture. The last stroke may be longer the next time.
  sync({ strokes, picture }) {
    this.#want({ strokes, picture });
  }

  #want(changes) {
    this.#wanted = { ...this.#wanted, ...changes };
    if (this.#isOpen && !this.#isHeld) this.#catchUp();
    else if (this.#isAsleep) this.#connect();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#isOpen = this.#isOver = this.#isAsleep = this.#isHeld = false;
    const { options } = this.#wanted;
    const isResumed = Boolean(this.#token);
    const first = () => (isResumed ? { resume: { token: this.#token, answered: this.#answered } } : { begin: { gallery: this.#gallery, options, purpose: this.#purpose } });
    this.#stream = new Stream(first, {
      open: (sequence) => {
        if (isResumed) return; // until the answer says what the service has
        this.#sent = [[sequence, { ...EMPTY, options }]];
        this.#open(sequence);
      },
      result: (sequence, result) => {
        this.#wait = FIRST_WAIT_MS;
        this.#answered = Math.max(this.#answered, sequence);
        this.#token = result.session?.resume_token ?? this.#token;
        this.#sent = this.#sent.filter(([number]) => (this.#isOpen ? number >= sequence : number === sequence));
        if (!this.#isOpen) this.#open(sequence);
        this.#tell("result", result);
      },
      error: (sequence, message, retry_ms) => this.#refused(sequence, message, retry_ms),
      ended: (how) => this.#ended(how),
    }, this.#sequence);
  }

  // The service has what it had after the message of this number.
  #open(sequence) {
    this.#isOpen = true;
    this.#sequence = sequence;
    this.#has = this.#sent.at(-1)?.[1] ?? null;
    this.#catchUp();
  }

  #ended({ message, then }) {
    clearTimeout(this.#timer);
    this.#isOpen = false;
    this.#isOver = then === "stop" || then === "purpose";
    this.#isAsleep = then === "draw";
    if (then === "anew") {
      this.#token = "";
      return this.#connect();
    }
    this.#tell(this.#isAsleep ? "asleep" : "lost", { message, isFinal: this.#isOver, wantsPurpose: then === "purpose" });
    if (then !== "again") return;
    this.#timer = setTimeout(() => this.#connect(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  // A message that may be sent again has changed nothing, and what the service has is known if none came after it. Else
  // it is not, and all is sent.
  #refused(sequence, message, retry_ms) {
    const isRetried = retry_ms !== null;
    const isKnown = isRetried && sequence === this.#sequence;
    this.#has = (isKnown && this.#sent.findLast(([number]) => number < sequence)?.[1]) || null;
    this.#sent = this.#has ? [[sequence, this.#has]] : [];
    this.#answered = Math.max(this.#answered, sequence);
    if (isRetried) {
      this.#isHeld = true;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#release(), retry_ms);
    } else if (!this.#isOpen) this.#open(sequence); // the drawing is resumed, only its ranking failed
    this.#tell("refused", { message, isRetried });
  }

  #release() {
    this.#isHeld = false;
    if (this.#isOpen) this.#catchUp();
  }

  // The messages that lead from what the service has to what is wanted.
  #catchUp() {
    const { strokes, picture, options } = this.#wanted;
    if (!this.#has || (this.#has.picture && !picture)) this.#send({ clear: {} }, { ...EMPTY, options: this.#has?.options });
    if (options !== this.#has.options) this.#send({ options }, { ...this.#has, options });
    if (picture !== this.#has.picture) this.#send(rasterAction(picture), { ...this.#has, picture });
    this.#takeOff(new Set(strokes));
    this.#lengthen();
    const there = new Set(this.#has.strokes);
    for (const some of parcels(strokes.filter((stroke) => !there.has(stroke)))) {
      const points = some.at(-1).points.length;
      this.#send(strokesAction(some), { ...this.#has, strokes: [...this.#has.strokes, ...some], points, steps: this.#has.steps + some.length });
    }
  }

  // Takes strokes off that are not wanted: the latest by undo, so that their numbers are free again; others by number.
  #takeOff(wanted) {
    const { strokes, steps } = this.#has;
    const there = [...strokes.keys()].filter((number) => strokes[number]);
    const gone = there.filter((number) => !wanted.has(strokes[number]));
    if (!gone.length) return;
    if (gone.length <= steps && gone[0] === there.at(-gone.length)) {
      const left = strokes.slice(0, gone[0]);
      this.#send({ undo: { count: gone.length } }, { ...this.#has, strokes: left, points: left.at(-1)?.points.length ?? 0, steps: steps - gone.length });
    } else {
      const left = strokes.map((stroke) => (wanted.has(stroke) ? stroke : null));
      this.#send({ erase: { strokes: { numbers: gone } } }, { ...this.#has, strokes: left, steps: 0 });
    }
  }

  // Sends what the pen drew of the latest stroke meanwhile.
  #lengthen() {
    const { strokes, points, steps } = this.#has;
    const stroke = steps ? strokes.at(-1) : null;
    if (stroke && stroke.points.length > points) this.#send({ extend: extension(stroke, points) }, { ...this.#has, points: stroke.points.length });
  }

  #send(action, has) {
    this.#sequence = this.#stream.send(action);
    this.#sent.push([this.#sequence, has]);
    this.#has = has;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
