// A table is a canvas, and what it shows is known from what is drawn on it alone. Every text is kept with the pixels
// that it takes, from left to right, and the pixels that its cell leaves it.
(() => {
  const contexts = new WeakMap();
  let drawn = [];
  let pass = 0; // texts drawn at one go have one number
  let drawing = false;

  const known = (context) => {
    if (!contexts.has(context)) contexts.set(context, { path: [], clip: null, saved: [] });
    return contexts.get(context);
  };
  const before = (method, note) => {
    const original = CanvasRenderingContext2D.prototype[method];
    CanvasRenderingContext2D.prototype[method] = function (...values) {
      note(known(this), this, ...values);
      return original.apply(this, values);
    };
  };
  const pixel = (context, x) => {
    const { a, e } = context.getTransform();
    return a * x + e;
  };

  before("save", (state) => state.saved.push(state.clip));
  before("restore", (state) => (state.clip = state.saved.pop() ?? null));
  before("beginPath", (state) => (state.path = []));
  before("rect", (state, context, x, _, width) => state.path.push(pixel(context, x), pixel(context, x + width)));
  before("clip", (state) => {
    const { path } = state;
    state.clip = path.length ? [Math.min(...path), Math.max(...path)] : null;
  });
  before("fillText", (state, context, text, x) => {
    if (!drawing) {
      drawing = true;
      pass += 1;
      queueMicrotask(() => (drawing = false));
    }
    const width = context.measureText(text).width;
    const start = x - ({ right: width, end: width, center: width / 2 }[context.textAlign] ?? 0);
    const [from, to] = state.clip ?? [-Infinity, Infinity];
    const [left, right] = [pixel(context, start), pixel(context, start + width)];
    drawn.push({ pass, text: text.trimEnd(), left, right, from, to });
  });

  // Resolves when nothing has been drawn for some frames.
  const still = async () => {
    for (let frames = 0, count = drawn.length; frames < 6; frames += 1) {
      await new Promise(requestAnimationFrame);
      if (drawn.length !== count) [frames, count] = [0, drawn.length];
    }
  };
  const cut = ({ left, right, from, to }) => left < from - 0.5 || right > to + 0.5;

  window.hasDrawn = (text) => drawn.some((one) => one.text === text);

  // How many texts the tables hold, and those that their cells cut off, wherever one scrolls. `text` is one of now.
  window.cutTexts = async (text) => {
    await still();
    const last = Math.max(...drawn.filter((one) => one.text === text).map((one) => one.pass));
    const all = drawn.filter((one) => one.pass >= last);
    for (const grid of document.querySelectorAll(".dvn-scroller")) {
      const [right, down] = [grid.scrollWidth - grid.clientWidth, grid.scrollHeight - grid.clientHeight];
      for (let x = 0; x < right + grid.clientWidth / 2; x += grid.clientWidth / 2) {
        for (let y = 0; y < down + grid.clientHeight / 1.2; y += grid.clientHeight / 1.2) {
          drawn = [];
          grid.scrollTo(x, y);
          await still();
          all.push(...drawn.filter((one) => !grid.scrollLeft || one.from > 1)); // the first column may be half in sight
        }
      }
      grid.scrollTo(0, 0);
    }
    await still();
    drawn = [];
    return { all: [...new Set(all.map((one) => one.text))], cut: [...new Set(all.filter(cut).map((one) => one.text))] };
  };
})();
