// How far a hand goes on before it stands. Ending a line it slows down so that the root of its speed falls evenly
// (minimum jerk: Flash and Hogan, J. Neuroscience 5, 1985, Eq. 3 near its end).

const SHORT = 0.012; // a way in canvas units: who still makes a longer one in a frame does not stop within the next

export class Pace {
  #before = null; // {point, time, took, speed} of the latest event

  // The way that is still ahead, in canvas units, times in ms; infinite unless the hand slows down to stand soon.
  ahead(point, time) {
    const before = this.#before;
    const took = before ? time - before.time : 0;
    const way = before ? distance(point, before.point) : 0;
    const speed = took > 0 ? way / took : 0;
    this.#before = { point, time, took, speed };
    const root = before?.speed && took > 0 ? Math.sqrt(speed / before.speed) : 1;
    if (root >= 1 || way > SHORT) return Infinity;
    // It had its speeds in the middle of its ways: how long it takes to stand from there, and from here.
    const middle = (((took + before.took) / 2) * root) / (1 - root);
    const left = Math.max(0, middle - took / 2);
    return left && (speed * left ** 3) / (3 * middle ** 2);
  }
}

export const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
