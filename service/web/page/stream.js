// One stream of a drawing: messages to the service and its answers, in the JSON form of DrawRequest and DrawResponse
// (search.proto).

const POINTS_A_MESSAGE = 50000; // 60 bytes each at most, as JSON; the bridge takes 6 MiB

export class Stream {
  #socket;
  #sequence;
  #hasEnded = false;

  // first(): the first action, asked for when the connection stands
  // handlers: open(sequence of the first message), result(sequence, result), error(sequence, message, ms after which it
  // may be sent again or null), ended({message, then}), see bridge.py
  // sequence: the messages' numbers are above it
  constructor(first, handlers, sequence = 0) {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.#socket = new WebSocket(`${scheme}://${location.host}/api/draw`);
    this.#sequence = sequence;
    const end = (how) => {
      if (!this.#hasEnded) handlers.ended(how);
      this.#hasEnded = true;
    };
    this.#socket.onopen = () => handlers.open(this.send(first()));
    this.#socket.onmessage = ({ data }) => {
      if (this.#hasEnded) return;
      const reply = JSON.parse(data);
      if (reply.ended) end(reply.ended);
      else if (reply.error) handlers.error(reply.sequence, reply.error.message, retryDelay(reply.error));
      else handlers.result(reply.sequence, complete(reply.result));
    };
    this.#socket.onclose = () => end({ message: "The sketchpad's command has stopped.", then: "again" });
  }

  get isConnecting() {
    return this.#socket.readyState === WebSocket.CONNECTING;
  }

  // Sends an action; the number of its message.
  send(action) {
    this.#sequence += 1;
    this.#socket.send(JSON.stringify({ sequence: this.#sequence, ...action }));
    return this.#sequence;
  }

  // Nobody looks any more: the drawing is finished, so that the service need not keep it.
  drop() {
    this.#hasEnded = true;
    // A browser complains of a socket that is closed before it is open.
    if (this.isConnecting) this.#socket.onopen = () => this.#socket.close();
    else if (this.#socket.readyState === WebSocket.OPEN) this.send({ finish: {} });
  }
}

// Strokes in runs that fit into a message each.
export function* parcels(strokes) {
  let [run, points] = [[], 0];
  for (const stroke of strokes) {
    run.push(stroke);
    points += stroke.points.length;
    if (points < POINTS_A_MESSAGE) continue;
    yield run;
    [run, points] = [[], 0];
  }
  if (run.length) yield run;
}

export const strokesAction = (strokes) => ({ strokes: { strokes: strokes.map((stroke) => ({ ...extension(stroke), width: stroke.width })) } });
export const rasterAction = (picture) => ({ raster: { image: picture.base64 } });

// The points of a stroke from one on: those of a Stroke, and of a DrawExtend.
export function extension({ points, pressure }, from = 0) {
  const tail = points.slice(from);
  return { x: tail.map(([x]) => x), y: tail.map(([, y]) => y), ...(pressure && { pressure: pressure.slice(from) }) };
}

// The milliseconds of an error's RetryInfo; null without one.
function retryDelay({ details = [] }) {
  const retry = details.find((detail) => detail["@type"].endsWith("/google.rpc.RetryInfo"));
  return retry ? 1000 * parseFloat(retry.retry_delay) : null;
}

// What is left out of a message has its default.
function complete(result) {
  const timings = { raster_ms: 0, encode_ms: 0, search_ms: 0, ...result.timings };
  if (!result.ranking) return { strokes: 0, no_ink: false, ...result, timings };
  const hits = (result.ranking.hits ?? []).map((hit) => ({ distance: 0, ...hit }));
  const ranking = { gallery_photos: 0, exact: false, inked_regions: [], ...result.ranking, hits };
  return { strokes: 0, no_ink: false, ...result, timings, ranking };
}
