// The drawing's stream to the service: sends what changed, takes in answers, and comes back by itself when it is lost.
// Messages are the JSON form of DrawRequest and DrawResponse (search.proto).

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 5000;
const POINTS_A_MESSAGE = 100000; // 4 MiB hold 300,000 points

export class Stream {
  #socket;
  #sequence = 0;

  // handlers: open(), result(sequence, result), error(sequence, message), ended({message, is_final, is_idle})
  // begin(): the JSON form of DrawBegin, asked for when the connection stands
  constructor(begin, handlers) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.#socket = new WebSocket(`${scheme}://${location.host}/api/draw`);
    let hasEnded = false;
    const end = (how) => {
      if (!hasEnded) handlers.ended(how);
      hasEnded = true;
    };
    this.#socket.onopen = () => {
      this.send({ begin: begin() });
      handlers.open?.();
    };
    this.#socket.onmessage = ({ data }) => {
      const reply = JSON.parse(data);
      if (reply.ended) end(reply.ended);
      else if (reply.error) handlers.error(reply.sequence, reply.error.message);
      else handlers.result(reply.sequence, complete(reply.result));
    };
    this.#socket.onclose = () => end({ message: "The sketchpad's command has stopped.", is_final: false, is_idle: false });
    this.drop = () => {
      hasEnded = true;
      // A browser complains of a socket that is closed before it is open.
      if (this.isConnecting) this.#socket.onopen = () => this.#socket.close();
      else this.#socket.close();
    };
  }

  get isConnecting() {
    return this.#socket.readyState === WebSocket.CONNECTING;
  }

  send(action) {
    this.#sequence += 1;
    this.#socket.send(JSON.stringify({ sequence: this.#sequence, ...action }));
    return this.#sequence;
  }

  sendStrokes(strokes) {
    let [sequence, chunk, points] = [0, [], 0];
    strokes.forEach((stroke, i) => {
      chunk.push(strokeMessage(stroke));
      points += stroke.points.length;
      if (points >= POINTS_A_MESSAGE || i === strokes.length - 1) {
        sequence = this.send({ strokes: { strokes: chunk } });
        [chunk, points] = [[], 0];
      }
    });
    return sequence;
  }
}

export class Link extends EventTarget {
  #stream = null;
  #isOpen = false;
  #isAsleep = false; // nobody drew for long, and the service ended the stream
  #sent = null; // the state that the service has, as far as it was sent on this stream
  #wanted;
  #begin;
  #wait = FIRST_WAIT_MS;
  #timer = 0;

  constructor(state) {
    super();
    this.#wanted = state;
  }

  // Begins a new stream (the JSON form of DrawBegin); the drawing is sent again.
  begin(begin) {
    this.#begin = begin;
    this.#stream?.drop();
    this.#connect();
  }

  // Ranks the same drawing otherwise from now on (the JSON form of SearchOptions).
  choose(options) {
    this.#begin = { ...this.#begin, options };
    if (this.#isOpen) this.#stream.send({ options });
    else if (!this.#stream.isConnecting) this.begin(this.#begin);
  }

  // Brings the service to this state; the sequence number of the last message, 0 when there was none to send.
  sync(state) {
    this.#wanted = state;
    if (this.#isAsleep) this.#connect();
    return this.#isOpen ? this.#catchUp() : 0;
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#isOpen = this.#isAsleep = false;
    this.#stream = new Stream(() => this.#begin, {
      open: () => {
        this.#isOpen = true;
        this.#sent = { strokes: [], picture: null };
        this.#catchUp();
      },
      result: (sequence, result) => {
        this.#wait = FIRST_WAIT_MS;
        this.#tell("result", { sequence, result });
      },
      error: (sequence, message) => {
        this.#sent = null; // refused: what the service has is no longer known
        this.#tell("refused", { sequence, message });
      },
      ended: ({ message, is_final, is_idle }) => {
        this.#isOpen = false;
        this.#isAsleep = is_idle;
        this.#tell(is_idle ? "asleep" : "lost", { message, isFinal: is_final });
        if (is_final || is_idle) return;
        this.#timer = setTimeout(() => this.#connect(), this.#wait);
        this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
      },
    });
  }

  #catchUp() {
    const [stream, wanted] = [this.#stream, this.#wanted];
    let [sent, sequence] = [this.#sent, 0];
    this.#sent = wanted;
    if (!sent || (sent.picture && !wanted.picture)) {
      sequence = stream.send({ clear: {} });
      sent = { strokes: [], picture: null };
    }
    if (wanted.picture !== sent.picture) sequence = stream.send({ raster: { image: wanted.picture.base64 } });
    let same = 0;
    while (same < sent.strokes.length && sent.strokes[same] === wanted.strokes[same]) same += 1;
    if (same < sent.strokes.length) sequence = stream.send({ undo: { count: sent.strokes.length - same } });
    return stream.sendStrokes(wanted.strokes.slice(same)) || sequence;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// What is left out of a message has its default.
function complete(result) {
  const timings = { raster_ms: 0, encode_ms: 0, search_ms: 0, ...result.timings };
  if (!result.ranking) return { strokes: 0, no_ink: false, ...result, timings };
  const hits = (result.ranking.hits ?? []).map((hit) => ({ distance: 0, ...hit }));
  const ranking = { gallery_photos: 0, exact: false, inked_regions: [], ...result.ranking, hits };
  return { strokes: 0, no_ink: false, ...result, timings, ranking };
}

export function strokeMessage({ points, width, pressure }) {
  return { x: points.map(([x]) => x), y: points.map(([, y]) => y), width, ...(pressure && { pressure }) };
}
